"""The registry of collections is the list of files in datasets/: what each carries, and what a new file is enough for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dropped_dataset import drop
from PIL import Image

from cardium.data.manifest import build, read_fingerprint, write_manifest
from cardium.data.splits import PUBLISHED_SPLITS
from cardium.datasets import Found, get_collection, list_collections
from cardium.datasets.demos import get_demo, list_demos, make_demo, make_demos
from cardium.datasets.measured import Measured, measure_all
from cardium.demo.make import Demo
from cardium.errors import CardiumError
from cardium.imaging.spec import Limits
from cardium.models import list_models

LIMITS = Limits(10**6, 10**6, 10**6, 10**6)


def test_collections_are_listed_in_their_own_order() -> None:
    assert list_collections() == list_demos() == ["cmri", "ecg4", "ecg5", "chd"]
    assert [get_collection(name).content for name in list_collections()] == ["image", "sheet", "sheet", "volume"]
    assert [get_collection(name).kind for name in list_collections()] == ["image", "image", "image", "volume"]


@pytest.mark.parametrize("name", list_collections())
def test_what_a_collection_names_exists(name: str) -> None:
    collection = get_collection(name)
    assert collection.name == name
    assert collection.published_split in PUBLISHED_SPLITS
    assert collection.recommended in list_models()
    assert set(collection.published_counts) <= set(collection.classes)
    assert set(collection.published_labels.values()) <= set(collection.classes)
    assert isinstance(collection.load_demo(), Demo)


def test_the_registry_is_quick_and_light() -> None:
    """The settings import it, and so does every command."""
    code = (
        "import sys, time; began = time.process_time(); import cardium.datasets as d; d.list_collections()\n"
        "heavy = {'numpy', 'PIL', 'openpyxl', 'nibabel', 'pandas', 'cardium.demo.make'} & sys.modules.keys()\n"
        "print(time.process_time() - began, *heavy)"
    )
    answers = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    seconds = [float(one.stdout.split()[0]) for one in answers]
    assert answers[0].stdout.split()[1:] == []
    assert min(seconds) < 0.1


def test_a_dataset_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, root = tmp_path / "package", tmp_path / "project"
    package.mkdir()
    drop(monkeypatch, package, "another")
    assert list_collections() == ["cmri", "ecg4", "ecg5", "chd", "another"]
    assert "another" not in list_demos()
    with pytest.raises(CardiumError, match="Unknown demo dataset `another`"):
        make_demo(root, "another")

    folder = root / "data" / "another"
    for number, label in enumerate(("Normal", "Sick")):
        path = folder / label / f"Directory_{number}" / "SR_1" / "IM00001.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((20, 30), 100 * number, np.uint8)).save(path)
    collection = get_collection("another")
    found = [entry for entry in collection.scan(folder) if isinstance(entry, Found)]
    measured = [one for one in measure_all(collection, folder, LIMITS, found) if isinstance(one, Measured)]
    out = root / "processed" / "another" / "manifest"
    facts = write_manifest(out, collection, build(measured), [])
    assert read_fingerprint(out) == facts
    assert (facts["dataset"], facts["records"], facts["sizes"]) == ("another", 2, {"30x20": 2})


def test_two_files_of_one_name_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = drop(monkeypatch, tmp_path, "copied")
    path.write_text(path.read_text().replace('"copied"', '"cmri"'))
    with pytest.raises(CardiumError, match=r"cmri and cardium\.datasets\.copied both have a dataset `cmri`|`cmri`: rename"):
        list_collections()


def test_a_dataset_without_a_demo_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cardium.demo import make

    (tmp_path / "package").mkdir()
    drop(monkeypatch, tmp_path / "package", "another")
    made: list[str] = []
    monkeypatch.setattr(make, "write_demo", lambda root, dataset, demo, count, seed: made.append(dataset) or 0)
    make_demos(tmp_path)
    assert made == ["cmri", "ecg4", "ecg5", "chd"]


def test_unknown_demo_lists_the_names() -> None:
    with pytest.raises(CardiumError, match="Known: cmri, ecg4, ecg5, chd"):
        get_demo("cmr")
