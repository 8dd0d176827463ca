"""manifest -> pixels.npy: the decoder's and renderer's own pixels, row by row, whole or not at all."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardium import params
from cardium.errors import CardiumError
from cardium.imaging.decode import decode
from cardium.imaging.render import render_image
from cardium.manifest import read_fingerprint, read_manifest
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
    settings = params.load(PROJECT)
    dataset = dataclasses.replace(settings.datasets["cmri"], render={"image": params.Render(24, 32)})
    settings = dataclasses.replace(settings, root=tmp_path, datasets={"cmri": dataset})
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
