"""manifest -> pixels.npy: the decoder's and renderer's own pixels, row by row, whole or not at all."""

import csv
import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardium import config
from cardium.data import render_records
from cardium.data.manifest import read_fingerprint, read_manifest
from cardium.data.render_records import Record, RenderJob
from cardium.demo import ecg_sheet, ecg_signal
from cardium.errors import CardiumError
from cardium.imaging.decode import decode
from cardium.imaging.render import render, render_image
from cardium.imaging.spec import Limits, Render
from cardium.stages import ingest, prepare
from cardium.workspace import Workspace

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture
def settings(tmp_path):
    rng = np.random.default_rng(2)
    for label in ("Normal", "Sick"):
        for frame, mode in enumerate(("L", "RGB", "RGBA", "P")):
            path = tmp_path / "data/cmri" / label / "Directory_1" / "SR_1" / f"IM{frame}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (40 + frame, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(path)
    deep = rng.integers(0, 4000, (40, 60)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "data/cmri/Sick/Directory_1/SR_1/IM9.png")
    settings = config.load(PROJECT)
    dataset = dataclasses.replace(settings.datasets["cmri"], render={"image": Render(24, 32), "heart": Render(133, 512)})
    settings = dataclasses.replace(settings, root=tmp_path, datasets={**settings.datasets, "cmri": dataset})
    ingest.run(settings, "cmri")
    return settings


def test_rows_are_the_rendered_files(settings, capsys):
    prepare.run(settings, "cmri-image")
    workspace = Workspace(settings.root)
    folder = workspace.rendering("cmri", "image")
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    manifest = read_manifest(workspace.manifest("cmri"))
    assert (pixels.shape, pixels.dtype, pixels.flags.c_contiguous) == ((9, 24, 32, 3), np.uint8, True)
    for record, path in zip(manifest["record"], manifest["path"], strict=True):
        data = (workspace.data("cmri") / path).read_bytes()
        np.testing.assert_array_equal(pixels[record], render_image(decode(data).pixels, 24, 32))
    assert json.loads((folder / "render.json").read_text()) == {
        "kind": "image",
        "height": 24,
        "width": 32,
        "area": "whole",
        "manifest_sha256": read_fingerprint(workspace.manifest("cmri"))["manifest_sha256"],
        "pixels_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
    }
    assert capsys.readouterr().out.splitlines()[-1] == "wrote processed/cmri/image"


def test_twice_gives_the_same_bytes(settings):
    prepare.run(settings, "cmri-image")
    file = Workspace(settings.root).rendering("cmri", "image") / "pixels.npy"
    first = file.read_bytes()
    prepare.run(settings, "cmri-image")
    assert file.read_bytes() == first


@pytest.fixture(scope="module")
def sheets(tmp_path_factory):
    """Two drawn ECG sheets, a copy of one, and a blank page, as records of a folder."""
    folder = tmp_path_factory.mktemp("sheets")
    for number, label in enumerate(("Normal", "MI")):
        style = ecg_sheet.sheet_style("reports", number, 3)
        pixels, _ = ecg_sheet.draw_sheet(ecg_signal.record(label, number, 3), style, number, 3)
        Image.fromarray(pixels).save(folder / f"{number}.png", compress_level=1)
    shutil.copy(folder / "0.png", folder / "2.png")
    Image.new("RGB", (300, 200), "white").save(folder / "3.png")
    return folder, [Record(f"{n}.png", hashlib.sha256((folder / f"{n}.png").read_bytes()).hexdigest()) for n in range(4)]


@pytest.mark.parametrize(
    ("kind", "size"),
    [("leads", Render(16, 24)), ("traces", Render(16, 96)), ("image", Render(32, 48, "paper"))],
)
def test_sheets_are_rendered_as_they_are_served_and_copies_once(sheets, kind, size, tmp_path, monkeypatch):
    folder, records = sheets
    job = RenderJob("data/ecg4", "again", folder, kind, size, Limits(10**8, 10**8, 10**8, 10**8))
    read = []
    render_record = render_records.render_record
    monkeypatch.setattr(render_records, "render_record", lambda job, record: read.append(record) or render_record(job, record))
    warned = render_records.render_records(job, records, "hash", tmp_path / kind)
    array = np.load(tmp_path / kind / "pixels.npy")
    assert len(read) == 3, "the copy was not rendered again"
    for number in (0, 1, 3):
        expected = render(decode((folder / f"{number}.png").read_bytes()).pixels, kind, size)
        np.testing.assert_array_equal(array[number], expected.array)
    np.testing.assert_array_equal(array[2], array[0])
    with (tmp_path / kind / "quality.csv").open(newline="") as file:
        quality = list(csv.DictReader(file))
    assert [row["path"] for row in quality] == [path for path, _ in records]
    assert [row["warnings"] for row in quality[:3]] == ["", "", ""]
    assert quality[0]["layout"] == quality[2]["layout"] != ""
    assert "no ECG" in quality[3]["warnings"]
    assert sum(warned.values()) >= 1


def test_traces_have_one_size():
    with pytest.raises(CardiumError, match="traces are 16 x 96, not 16 x 64"):
        render(np.zeros((50, 50, 3), np.uint8), "traces", Render(16, 64))
    with pytest.raises(CardiumError, match="unknown rendering `sheets`"):
        render(np.zeros((50, 50, 3), np.uint8), "sheets", Render(16, 64))


def test_a_file_that_changed_or_went_stops_the_stage_and_leaves_nothing(settings):
    path = settings.root / "data/cmri/Sick/Directory_1/SR_1/IM0.png"
    Image.new("L", (10, 10)).save(path)
    message = r"data/cmri/Sick/Directory_1/SR_1/IM0\.png has changed since ingest: run `cardium ingest --dataset cmri`"
    with pytest.raises(CardiumError, match=message):
        prepare.run(settings, "cmri-image")
    path.unlink()
    with pytest.raises(CardiumError, match=r"IM0\.png cannot be read .*: run `cardium ingest"):
        prepare.run(settings, "cmri-image")
    assert [entry.name for entry in (settings.root / "processed/cmri").iterdir()] == ["manifest"]


def test_a_limit_lowered_since_ingest(settings):
    lowered = dataclasses.replace(settings, ingest=dataclasses.replace(settings.ingest, max_pixels=100))
    with pytest.raises(CardiumError, match=r"too many pixels: .*: run `cardium ingest"):
        prepare.run(lowered, "cmri-image")


def test_without_a_manifest(tmp_path, settings):
    with pytest.raises(CardiumError, match="run `cardium ingest --dataset cmri`"):
        prepare.run(dataclasses.replace(settings, root=tmp_path / "elsewhere"), "cmri-image")
