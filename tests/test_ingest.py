"""data/ -> manifest: copies, groups, what is rejected and why, and when the run stops."""

import csv
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import networkx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cardium import config
from cardium.data import manifest as manifests
from cardium.errors import CardiumError
from cardium.parallel import in_chunks
from cardium.stages import ingest
from cardium.workspace import Workspace

PROJECT = Path(__file__).resolve().parents[1]
REAL = PROJECT.parent / "shared" / "real"
RNG = np.random.default_rng(1)


def settings_in(root: Path, **ingest_changes) -> config.Settings:
    settings = config.load(PROJECT)
    return dataclasses.replace(settings, root=root, ingest=dataclasses.replace(settings.ingest, **ingest_changes))


def save(path: Path, seed: int | None = None, size: tuple[int, int] = (24, 20), mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = RNG if seed is None else np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode).save(path)


@pytest.fixture
def root(tmp_path):
    for label in ("Normal", "Sick"):
        for patient in (1, 2):
            for frame in range(1, 6):
                save(tmp_path / "data/cmri" / label / f"Directory_{patient}" / "SR_1" / f"IM0000{frame}.png")
    return tmp_path


def results(root: Path) -> tuple[pd.DataFrame, dict, list[dict]]:
    folder = Workspace(root).manifest("cmri")
    with (folder / "rejected.csv").open(newline="", encoding="utf-8") as handle:
        rejected = list(csv.DictReader(handle))
    return manifests.read_manifest(folder), manifests.read_fingerprint(folder), rejected


def test_a_row_per_image_with_what_is_true_of_it(root, capsys):
    save(root / "data/cmri/Normal/Directory_1/SR_2/IM00001.png", size=(31, 17), mode="RGB")
    ingest.run(settings_in(root), "cmri")
    manifest, fingerprint, rejected = results(root)
    assert {name: str(dtype) for name, dtype in manifest.dtypes.items()} == manifests.SCHEMA
    assert manifest["path"].tolist() == sorted(manifest["path"])
    assert manifest["record"].tolist() == list(range(21))
    for row in manifest.itertuples():
        data = (root / "data/cmri" / row.path).read_bytes()
        grey = np.asarray(Image.open(root / "data/cmri" / row.path).convert("L"), float)
        assert (row.sha256, row.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
        assert (row.height, row.width) == grey.shape
        assert (row.mean, row.std) == pytest.approx((grey.mean(), grey.std()))
        assert (row.format, row.copy_of, row.group) == ("PNG", -1, row.patient)
    odd = manifest[manifest["width"] == 31].iloc[0]
    assert (odd["patient"], odd["series"], odd["frame"], odd["mode"]) == ("Normal/Directory_1", "SR_2", 1, "RGB")
    assert rejected == []
    assert fingerprint["classes"] == ["Normal", "Sick"]
    assert fingerprint["counts"]["Normal"] == {"records": 11, "groups": 2, "distinct": 11}
    assert fingerprint["sizes"] == {"24x20": 20, "31x17": 1}
    assert fingerprint["modes"] == {"L": 20, "RGB": 1}
    assert fingerprint["manifest_sha256"] == manifests.manifest_sha256(manifest)
    assert capsys.readouterr().out.splitlines()[-1] == "wrote processed/cmri/manifest"


def test_twice_gives_the_same_bytes(root):
    ingest.run(settings_in(root), "cmri")
    folder = Workspace(root).manifest("cmri")
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    ingest.run(settings_in(root), "cmri")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == first
    assert [file.name for file in folder.parent.iterdir()] == ["manifest"]


def test_copies_join_their_patients_and_unknown_patients_stand_alone(root):
    data = root / "data/cmri"
    original = (data / "Normal/Directory_2/SR_1/IM00001.png").read_bytes()
    (data / "Normal/Directory_1/SR_1/IM00009.png").write_bytes(original)  # sorts before what it is a copy of
    (data / "Normal/loose.png").write_bytes(original)
    save(data / "Sick/unknown.png")
    with pytest.raises(CardiumError, match=r"1 of 12 files of class Normal name no patient .*loose\.png.*<patient>/<file>"):
        ingest.run(settings_in(root), "cmri")
    ingest.run(settings_in(root, max_bad=0.2), "cmri")
    manifest, fingerprint, _ = results(root)
    by_path = manifest.set_index("path")
    first = by_path.loc["Normal/Directory_1/SR_1/IM00009.png"]
    assert first["copy_of"] == -1
    assert by_path.loc["Normal/Directory_2/SR_1/IM00001.png", "copy_of"] == first["record"]
    assert by_path.loc["Normal/loose.png", "copy_of"] == first["record"]
    assert set(manifest.loc[manifest["label"] == "Normal", "group"]) == {"Normal/Directory_1"}
    assert by_path.loc["Normal/loose.png", "patient"] == ""
    unknown = by_path.loc["Sick/unknown.png"]
    assert unknown["group"] == f"sha256:{unknown['sha256'][:16]}"
    # A group is found again by its content, wherever the file is put.
    (data / "Sick/unknown.png").rename(data / "Sick/elsewhere.png")
    ingest.run(settings_in(root, max_bad=0.2), "cmri")
    assert set(results(root)[0]["group"]) == set(manifest["group"])
    assert (fingerprint["copies"], fingerprint["unknown_patient"]) == (2, 2)
    assert fingerprint["counts"]["Normal"] == {"records": 12, "groups": 1, "distinct": 10}
    assert fingerprint["counts"]["Sick"]["groups"] == 3


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 8)), max_size=30))
def test_groups_are_the_connected_components(rows):
    """Against networkx: records joined by patient or by bytes."""
    patients = [f"patient{p}" if p else "" for p, _ in rows]
    hashes = [f"hash{h}" for _, h in rows]
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(rows)))
    for i in range(len(rows)):
        for j in range(i):
            if hashes[i] == hashes[j] or (patients[i] and patients[i] == patients[j]):
                graph.add_edge(i, j)
    result = manifests.groups(patients, hashes)
    for component in networkx.connected_components(graph):
        known = sorted(patients[i] for i in component if patients[i])
        expected = known[0] if known else f"sha256:{hashes[min(component)]}"
        assert {result[i] for i in component} == {expected}
    assert len(set(result)) == networkx.number_connected_components(graph)


def test_bad_files_are_listed_and_the_run_goes_on(root):
    data = root / "data/cmri"
    whole = (data / "Normal/Directory_1/SR_1/IM00001.png").read_bytes()
    folder = data / "Normal/Directory_1/SR_1"
    (folder / "IM00006.png").write_bytes(whole[:200])
    (folder / "IM00007.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    (folder / "IM00008.png").write_bytes(whole + b"\0" * 5000)
    save(folder / "IM00009.png", size=(60, 60))
    (data / "Normal/.DS_Store").write_bytes(b"x")
    (data / "README.md").write_text("x")
    (data / "=HYPERLINK(1).txt").write_text("x")
    ingest.run(settings_in(root, max_bad=0.5, max_pixels=3000, max_bytes=5000), "cmri")
    manifest, fingerprint, rejected = results(root)
    assert len(manifest) == 20
    assert {row["path"].rsplit("/", 1)[-1]: (row["label"], row["reason"].partition(":")[0]) for row in rejected} == {
        "IM00006.png": ("Normal", "truncated PNG file"),
        "IM00007.png": ("Normal", "empty file"),
        "notes.txt": ("Normal", "not a JPEG, PNG or DICOM file"),
        "IM00008.png": ("Normal", "too many bytes"),
        "IM00009.png": ("Normal", "too many pixels"),
        ".DS_Store": ("", "hidden file"),
        "README.md": ("", "outside of a class folder"),
        "'=HYPERLINK(1).txt": ("", "outside of a class folder"),
    }
    assert fingerprint["rejected"]["total"] == 8
    assert fingerprint["rejected"]["by_class"] == {"Normal": 5, "Sick": 0}
    assert fingerprint["rejected"]["by_reason"]["too many pixels"] == 1


def test_too_much_lost_of_one_class_stops_the_run_and_leaves_the_list(root):
    for frame in (1, 2):
        (root / f"data/cmri/Sick/Directory_1/SR_1/IM0000{frame}.png").write_bytes(b"")
    with pytest.raises(CardiumError, match=r"2 of 10 files of class Sick .*2 x empty file.*max_bad 0\.05") as caught:
        ingest.run(settings_in(root), "cmri")
    assert "\n" not in str(caught.value)
    assert not Workspace(root).manifest("cmri").exists()
    listed = (root / ".cardium/ingest/cmri/rejected.csv").read_text().splitlines()
    assert listed[0] == "path,label,reason"
    assert len(listed) == 3
    ingest.run(settings_in(root, max_bad=0.2), "cmri")


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("link", r"5 of 10 files of class Sick .*5 x link out of the data folder"),
        ("gone", r"data/cmri/Sick/Directory_2: broken link: nobody can tell how much of class Sick"),
        ("unreadable", r"data/cmri/Sick/Directory_2: folder cannot be read: Permission denied: nobody can tell"),
    ],
)
def test_a_patients_folder_that_is_lost_counts_with_its_files(root, monkeypatch, lost, said):
    folder = root / "data/cmri/Sick/Directory_2"
    if lost == "unreadable":
        scandir = os.scandir

        def refused(path):
            if Path(path) == folder:
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refused)
    else:
        folder.rename(root / "elsewhere")
        folder.symlink_to(root / ("elsewhere" if lost == "link" else "nowhere"))
    with pytest.raises(CardiumError, match=said) as caught:
        ingest.run(settings_in(root, max_bad=0.4), "cmri")
    assert "\n" not in str(caught.value)
    assert "Sick/Directory_2" in (root / ".cardium/ingest/cmri/rejected.csv").read_text()


def test_nothing_to_read(tmp_path):
    with pytest.raises(CardiumError, match=r"data/cmri is missing: run `cardium demo-data` .*`cardium download cmri`"):
        ingest.run(settings_in(tmp_path), "cmri")
    (tmp_path / "data/cmri").mkdir(parents=True)
    with pytest.raises(CardiumError, match=r"data/cmri is empty"):
        ingest.run(settings_in(tmp_path), "cmri")
    (tmp_path / "data/cmri/IM1.jpg").write_bytes(b"x")
    with pytest.raises(CardiumError, match=r"no image in Normal/ and Sick/ \(of 1 files, the first: IM1\.jpg: outside"):
        ingest.run(settings_in(tmp_path), "cmri")
    for name in ("Norml", "Sik"):
        (tmp_path / "data/cmri" / name).mkdir()
        (tmp_path / "data/cmri" / name / "IM1.jpg").write_bytes(b"x")
    with pytest.raises(CardiumError, match=r"no image in Normal/ and Sick/ .*; folders there: `Norml`, `Sik`: see https"):
        ingest.run(settings_in(tmp_path), "cmri")


def test_one_content_under_two_classes_is_marked_and_told(root, capsys):
    data = root / "data/cmri"
    content = (data / "Normal/Directory_1/SR_1/IM00001.png").read_bytes()
    for path in ("Sick/Directory_2/SR_1/IM00077.png", "Normal/Directory_2/SR_1/IM00078.png"):
        (data / path).write_bytes(content)
    ingest.run(settings_in(root), "cmri")
    manifest, fingerprint, _ = results(root)
    paths = ["Normal/Directory_1/SR_1/IM00001.png", "Normal/Directory_2/SR_1/IM00078.png", "Sick/Directory_2/SR_1/IM00077.png"]
    assert manifest.loc[manifest["conflict"], "path"].tolist() == paths
    assert fingerprint["conflicts"] == [
        {
            "sha256": hashlib.sha256(content).hexdigest(),
            "records": [{"path": path, "label": path.split("/")[0]} for path in paths],
        }
    ]
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("conflict")]
    assert line.endswith(f"test: Normal: {paths[0]} and 1 more; Sick: {paths[2]}")
    # Copies within a class are no conflict.
    (data / "Sick/Directory_2/SR_1/IM00077.png").unlink()
    ingest.run(settings_in(root), "cmri")
    assert results(root)[1]["conflicts"] == []


def test_reading_what_is_not_there_or_damaged(tmp_path):
    folder = Workspace(tmp_path).manifest("cmri")
    with pytest.raises(CardiumError, match="run `cardium ingest --dataset cmri`"):
        manifests.read_manifest(folder)
    with pytest.raises(CardiumError, match="run `cardium ingest --dataset cmri`"):
        manifests.read_fingerprint(folder)
    folder.mkdir(parents=True)
    (folder / "manifest.parquet").write_bytes(b"junk")
    (folder / "fingerprint.json").write_text("{")
    with pytest.raises(CardiumError, match="damaged"):
        manifests.read_manifest(folder)
    with pytest.raises(CardiumError, match="damaged"):
        manifests.read_fingerprint(folder)


def test_the_fingerprint_hash_hangs_on_what_splits_hang_on(root):
    ingest.run(settings_in(root), "cmri")
    manifest, _, _ = results(root)
    same = manifests.manifest_sha256(manifest.assign(mean=0.0))
    assert same == manifests.manifest_sha256(manifest)
    for column in ("path", "label", "group", "sha256"):
        changed = manifest.copy()
        changed.loc[3, column] = "other"
        assert manifests.manifest_sha256(changed) != same


def test_both_cores_give_what_one_gives(root):
    for frame in range(6, 120):
        for label in ("Normal", "Sick"):
            for patient in (1, 2):
                save(root / "data/cmri" / label / f"Directory_{patient}" / "SR_1" / f"IM{frame:05}.png")
    script = (
        "import sys, pathlib\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from test_ingest import settings_in\n"
        "from cardium.stages import ingest\n"
        "if __name__ == '__main__':\n"
        "    ingest.run(settings_in(pathlib.Path(sys.argv[1])), 'cmri')\n"
    )
    (root / "main.py").write_text(script)
    subprocess.run([sys.executable, root / "main.py", root, PROJECT / "tests"], check=True, env=_environment())
    parallel, fingerprint, _ = results(root)
    import cardium.parallel

    before, cardium.parallel.FEW = cardium.parallel.FEW, 10**9
    try:
        ingest.run(settings_in(root), "cmri")
    finally:
        cardium.parallel.FEW = before
    pd.testing.assert_frame_equal(results(root)[0], parallel)
    assert json.dumps(results(root)[1]) == json.dumps(fingerprint)


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(PROJECT / "src")}


def test_few_items_stay_in_this_process_and_in_order():
    assert list(in_chunks(sum, [1, 2, 3, 4, 5], 2)) == [([1, 2], 3), ([3, 4], 7), ([5], 5)]
    assert list(in_chunks(sum, [], 2)) == []


def test_real_cardiac_mri_in_the_published_layout(tmp_path):
    if not (REAL / "lay_out.py").is_file():
        pytest.skip(f"no {REAL}: the shared real images are not here")
    (tmp_path / "data").mkdir()
    subprocess.run([sys.executable, REAL / "lay_out.py", "cmr", tmp_path / "data/cmri"], check=True, capture_output=True)
    for sample in sorted((REAL / "cad_cmri_samples").glob("*.jpg")):
        label = sample.name.split("_")[0].title()
        (tmp_path / "data/cmri" / label / f"Directory_900_{sample.name}").write_bytes(sample.read_bytes())
    ingest.run(settings_in(tmp_path), "cmri")
    manifest, fingerprint, rejected = results(tmp_path)
    assert rejected == []
    assert len(manifest) == 656
    assert fingerprint["counts"]["Normal"]["groups"] == 7 + 1
    assert fingerprint["counts"]["Sick"]["groups"] == 29 + 1
    assert set(manifest["mode"]) == {"L"}
    assert fingerprint["formats"] == {"PNG": 646, "JPEG": 10}
