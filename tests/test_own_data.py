"""A collection of one's own: a table beside the files goes the whole way, without a line of Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from cardium import config, datasets
from cardium.config import Settings
from cardium.datasets import Found, Rejected, get_collection
from cardium.datasets.of_table import read_table, scan
from cardium.errors import CardiumError

PROJECT = Path(__file__).resolve().parents[1]
# A network of a few weights, and no more of it than a way needs.
_STUDY = {"models": {"cnn_baseline": {"train": {"epochs": 1}}}}
_SETTINGS = {"render": {"image": {"height": 32, "width": 32}}, "train": {"batch": 16}}


@pytest.fixture(autouse=True)
def _own_collections_are_forgotten() -> Any:
    yield
    datasets.set_own({})


def make(root: Path, stated: dict[str, Any] | None = None, name: str = "mine", **overrides: Any) -> Settings:
    """A project whose one dataset is `name`."""
    raw = yaml.safe_load((PROJECT / "params.yaml").read_text())
    raw["datasets"], raw["studies"]["demo"] = [name], {name: _STUDY}
    raw["collections"] = {name: stated} if stated is not None else {}
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    (root / "dvc.yaml").write_text("stages: {}\n")
    return config.load(root, overrides)


def write_table(root: Path, text: str, *files: str) -> Path:
    folder = root / "data" / "mine"
    for path in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "records.csv").write_text(text)
    return folder


def test_a_table_goes_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cardium.data.manifest import read_manifest
    from cardium.evaluation.evaluation import Evaluation
    from cardium.serving import predict_files
    from cardium.stages import evaluate, ingest, prepare, split, train, validate
    from cardium.workspace import Workspace

    folder, rng, lines = tmp_path / "data" / "mine", np.random.default_rng(0), ["path,label,patient,series,scanner"]
    (folder / "pictures").mkdir(parents=True)
    for patient in range(12):
        for frame in range(3):
            label, path = "dark" if patient % 2 else "light", f"pictures/{patient}-{frame}.png"
            low = 20 if label == "dark" else 150
            Image.fromarray(rng.integers(low, low + 80, (40, 48, 3), dtype=np.uint8)).save(folder / path)
            lines.append(f"{path},{label},p{patient},cine,A")
    (folder / "records.csv").write_text("\n".join(lines) + "\n")
    (folder / "notes.pdf").write_bytes(b"not in the table")
    few = {"split.folds": 4, "evaluate.test_folds": "0"}
    settings = make(tmp_path, {"classes": ["light", "dark"], "settings": _SETTINGS}, **few)
    ingest.run(settings, "mine")
    assert "rejected 1: not in the table" in capsys.readouterr().out
    split.run(settings, "mine")
    validate.run(settings, "mine")
    for item in settings.plan.renderings:
        prepare.run(settings, item)
    for item in settings.plan.runs:
        train.run(settings, item)
    evaluate.run(settings, "mine")
    places = Workspace(tmp_path)
    manifest = read_manifest(places.manifest("mine"))
    assert manifest["group"].nunique() == 12
    assert set(manifest["series"]) == {"cine"}
    scores = Evaluation.read(places.evaluation("mine"), "mine")
    assert scores.classes == ["light", "dark"]
    assert scores.runs["mine-cnn_baseline"].groups == 3
    [row] = predict_files(settings, [folder / "pictures" / "0-0.png"], "models/mine/honest/cnn_baseline")
    assert set(row["probabilities"]) == {"light", "dark"}
    splits = pd.read_csv(places.split("mine") / "honest.csv")
    assert set(splits["group"]) == {f"p{patient}" for patient in range(12)}


def test_a_table_alone_is_a_dataset_of_its_labels(tmp_path: Path) -> None:
    write_table(tmp_path, "path,label\na/1.png,grade 10\na/2.png,grade 2\n", "a/1.png", "a/2.png")
    settings = make(tmp_path)
    collection = get_collection("mine")
    assert collection.classes == ("grade 2", "grade 10")
    assert (collection.names_patients, collection.recommended) == (False, "mobilenetv2")
    assert list(settings.plan.runs) == ["mine-cnn_baseline"]
    # Another project knows nothing of it.
    config.load(PROJECT)
    with pytest.raises(CardiumError, match="Unknown dataset `mine`"):
        get_collection("mine")


def test_what_a_scan_finds_and_leaves_out(tmp_path: Path) -> None:
    text = '\ufeffPath, Label ,patient\n"a/1, b.png",A,p1\na/gone.png,B,p2\n.hidden.png,B,\na/3.png,B,p2\n\n'
    folder = write_table(tmp_path, text, "a/1, b.png", "a/3.png", ".hidden.png", "a/4.png")
    (folder / "a/out.png").symlink_to("/etc/hostname")
    found = list(scan(folder, "mine", ("A", "B")))
    assert found[0] == Found("a/1, b.png", "A", "p1", "", 1)
    assert [entry.path for entry in found if isinstance(entry, Found)] == ["a/1, b.png", "a/3.png"]
    rejected = {entry.path: (entry.label, entry.reason) for entry in found if isinstance(entry, Rejected)}
    assert rejected == {
        "a/gone.png": ("B", "in the table, and no file"),
        ".hidden.png": ("B", "hidden file"),
        "a/4.png": ("", "not in the table"),
        "a/out.png": ("", "link out of the data folder"),
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,class\nx.png,A\n", "has no column `label`"),
        ("path,label,path\nx.png,A,y\n", "has two columns `path`"),
        ("path,label\n", "has no rows"),
        ("path,label\nx.png,A,p\n", "line 2: 3 values for 2 columns"),
        ("path,label\nx.png,\n", "line 2: `label` is empty"),
        ("path,label\n/etc/x.png,A\n", "is no path below the table's folder"),
        ("path,label\na/../../x.png,A\n", "is no path below the table's folder"),
        ("path,label\nx.png,A\ny.png,A\n", "has one class, A"),
        ("path,label\nx.png,A\nx.png,B\n", "line 3: x.png stands there twice"),
        ("path,label\nx.png,\udcff\n", "cannot be read as CSV in UTF-8"),
    ],
)
def test_a_table_with_a_mistake_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    (folder / "records.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CardiumError, match=says) as caught:
        list(scan(folder, "mine", ()))
    assert "\n" not in str(caught.value)
    assert "data/mine/records.csv" in str(caught.value)


def test_a_class_that_the_settings_do_not_have_is_named(tmp_path: Path) -> None:
    folder = write_table(tmp_path, "path,label\nx.png,Sick\ny.png,Normal\nz.png,sikc\n")
    with pytest.raises(CardiumError, match=r"line 4: unknown class `sikc`. Did you mean `sick`\?") as caught:
        list(scan(folder, "mine", ("Normal", "Sick", "sick")))
    assert "collections.mine.classes" in str(caught.value)
    with pytest.raises(CardiumError, match=r"There is no data/gone/records\.csv"):
        read_table(tmp_path / "data" / "gone" / "records.csv")


@pytest.mark.parametrize(
    ("name", "stated", "says"),
    [
        ("mine", None, r"Unknown dataset of params.yaml: `mine`.*data/mine/records\.csv"),
        ("cmri", {}, "collections.cmri: cardium has something of that name"),
        ("train", {}, "collections.train: cardium has something of that name"),
        ("My-Data", {}, "a dataset cannot be called `My-Data`"),
        ("mine", {"classes": ["A"]}, "one class is none"),
        ("mine", {"content": "movie"}, "`movie` is not one of image, sheet, volume"),
        ("mine", {"clases": ["A", "B"]}, "unknown key `collections.mine.clases`. Did you mean `classes`"),
        ("mine", {"settings": {"trian": {}}}, "unknown key `trian`. Did you mean `train`"),
    ],
)
def test_a_statement_with_a_mistake_is_one_line(tmp_path: Path, name: str, stated: Any, says: str) -> None:
    with pytest.raises(CardiumError, match=says) as caught:
        make(tmp_path, stated, name)
    assert "\n" not in str(caught.value)


def test_a_stated_collection_needs_no_data_to_be_planned(tmp_path: Path) -> None:
    settings = make(tmp_path, {"classes": ["A", "B"], "content": "sheet", "settings": {"train": {"epochs": 7}}})
    assert settings.datasets["mine"].train.epochs == 7
    assert settings.datasets["mine"].render["traces"] == settings.datasets["ecg4"].render["traces"]
    assert config.plan_table(settings)["collections"] == {"mine": {"classes": ["A", "B"], "content": "sheet"}}
    from cardium.stages import ingest

    with pytest.raises(CardiumError, match=r"data/mine is missing: lay its files out there as docs/own_data\.md"):
        ingest.run(settings, "mine")
