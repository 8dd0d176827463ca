"""Serving of volumes: the same slices as in training, and a clean answer to whatever is no volume."""

from __future__ import annotations

import base64
import gzip
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from run_folders import make_project, run_folder

from cardium import models
from cardium.config import Serve
from cardium.imaging.spec import Render
from cardium.imaging.volume import read_volume, render_volume
from cardium.serving import Classifier, predict_files
from cardium.tracking.signature import input_example

CLASSES = ["Cyanotic", "Non-Cyanotic", "Normal"]
SIZE = Render(16, 16, frames=6, window=[-200.0, 600.0])


def scan(seed: int = 0, flipped: bool = False, slices: int = 12) -> bytes:
    """A .nii.gz of noise about a chest's values with air around it; flipped: the same volume stored the other way round."""
    rng = np.random.default_rng(seed)
    voxels = rng.integers(-150, 500, (40, 48, slices)).astype(np.int16)
    voxels[:3] = -1000
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    if flipped:
        voxels, affine = voxels[::-1], np.diag([2.0, -2.0, 3.0, 1.0])
    return gzip.compress(nib.Nifti1Image(voxels, affine).to_bytes(), 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_project(tmp_path_factory.mktemp("volumes") / "project")
    made = run_folder(
        project, "cnn_lstm", run="chd-cnn_lstm", dataset="chd", classes=CLASSES, rendering={"kind": "slices", **SIZE.as_dict()}
    )
    model = models.create_model("cnn_lstm", classes=3, height=16, width=16, frames=6, seed=4)
    model.save(made / "model.keras")
    (made / "validation.parquet").unlink()  # Of two other classes; what is asked here are the volumes.
    return made


@pytest.fixture(scope="module")
def classifier(folder: Path) -> Classifier:
    return Classifier(folder)


def test_a_volume_is_answered_as_keras_answers_what_prepare_renders(classifier: Classifier, folder: Path) -> None:
    data = [scan(1), scan(2, slices=4)]
    rows = classifier.classify(data)
    model = models.load_model(folder / "model.keras")
    for one, row in zip(data, rows, strict=True):
        slices = render_volume(read_volume(one, 10**6, 10**7), SIZE).array
        p = np.asarray(model(slices[None].astype("float32")))[0]
        assert [row["probabilities"][name] for name in CLASSES] == pytest.approx(p.tolist(), abs=1e-6)
        assert row["run"] == "chd-cnn_lstm"
    assert rows[0]["quality"] == "ok"
    assert rows[1]["quality"] == "very few slices"


def test_how_a_volume_is_stored_does_not_change_the_answer(classifier: Classifier) -> None:
    one, other = (row["probabilities"] for row in classifier.classify([scan(3), scan(3, flipped=True)]))
    assert one == pytest.approx(other)


def test_values_that_are_no_hounsfield_units_are_doubted(classifier: Classifier) -> None:
    magnetic = nib.Nifti1Image(np.random.default_rng(0).integers(0, 900, (40, 40, 12)).astype(np.int16), np.eye(4)).to_bytes()
    [row] = classifier.classify([magnetic])
    assert row["quality"] == "values are not Hounsfield units"


def flat() -> bytes:
    return gzip.compress(nib.Nifti1Image(np.arange(1600, dtype=np.int16).reshape(40, 40), np.eye(4)).to_bytes())


def thin() -> bytes:
    """A volume whose slices, once turned, are 40 rows of 20 columns."""
    voxels = np.random.default_rng(0).integers(0, 9, (12, 20, 40)).astype(np.int16)
    affine = np.array([[0, -2.0, 0, 0], [0, 0, -2.0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
    return nib.Nifti1Image(voxels, affine).to_bytes()


def bomb() -> bytes:
    """A gzip file of some kilobytes that inflates to far more than its header's voxels need."""
    header = nib.Nifti1Image(np.arange(12800, dtype=np.int16).reshape(40, 40, 8), np.eye(4)).to_bytes()
    return gzip.compress(header + bytes(40_000_000), 9)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (scan()[:200], "truncated gzip file"),
        (flat(), "2-D, not a volume"),
        (bomb(), "too many bytes: it inflates"),
        (thin(), "sides out of range: 20 x 40 x 12"),
        (b"\x89PNG\r\n\x1a\n" + bytes(1000), "not a NIfTI file"),
        (b"", "empty file"),
    ],
)
def test_what_is_no_volume_is_an_error_beside_answers(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch, data: bytes, says: str
) -> None:
    monkeypatch.setattr(classifier, "limits", Serve(max_volume_bytes=10_000_000, max_inflated_bytes=30_000_000))
    answered, refused = classifier.classify([scan(), data])
    assert answered["label"] in CLASSES
    assert refused["error"].startswith(says)


def test_the_served_model_takes_base64_and_its_own_example(classifier: Classifier, folder: Path) -> None:
    from cardium.serving.served_model import ServedModel

    served: Any = ServedModel()
    served.classifier = classifier
    [row] = served.predict(None, input_example("slices")).to_dict("records")
    assert row["label"] in CLASSES
    example = input_example("slices")
    example["image"] = base64.b64encode(flat()).decode()
    assert served.predict(None, example)["error"][0].startswith("2-D, not a volume")


def test_predict_takes_files(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(scan(5))
    (tmp_path / "flat.nii").write_bytes(gzip.decompress(flat()))
    project = make_project(tmp_path / "project")
    shutil.copytree(folder, tmp_path / "run")
    one, other = predict_files(project, [tmp_path / "scan.nii.gz", tmp_path / "flat.nii"], str(tmp_path / "run"))
    assert one["label"] in CLASSES
    assert other["error"].startswith("2-D, not a volume")
