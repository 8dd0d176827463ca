"""`evaluate` compares what it scores with what is served, through the files and the saved model."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from run_folders import CLASSES, SIDE, make_project, run_folder

from cardium.config import Settings
from cardium.errors import CardiumError
from cardium.evaluation.evaluation import Evaluation, RunScores
from cardium.models import load_model
from cardium.models.fusion import create_fusion
from cardium.models.saving import save_model
from cardium.models.trained import set_trained
from cardium.runs.data_version import DataVersion
from cardium.runs.trained_run import TrainedRun, write_fold_weights
from cardium.serving import parity
from cardium.serving.parity import ServedAsScored, parity_of
from cardium.workspace import SERVED

FILES = 5


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, TrainedRun, pd.DataFrame, pd.DataFrame]:
    """A project with files, a run of two folds, the manifest, and its test predictions made from the pixels themselves."""
    settings = make_project(tmp_path_factory.mktemp("project"))
    run = TrainedRun.read(run_folder(settings))
    rng = np.random.default_rng(0)
    folder = settings.root / "data" / "cmri"
    folder.mkdir(parents=True)
    pixels = rng.integers(0, 256, (FILES, SIDE, SIDE)).astype(np.uint8)
    for number, one in enumerate(pixels):
        Image.fromarray(one).save(folder / f"{number}.png")
    paths = [f"{number}.png" for number in range(FILES)]
    hashes = [hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in paths]
    manifest = pd.DataFrame({"path": paths, "sha256": hashes})
    inputs = np.repeat(pixels[..., None], 3, axis=-1).astype(np.float32)
    p = np.asarray(load_model(run.model_file)(inputs), np.float64)
    first = pd.DataFrame({"record": range(FILES), "test_fold": 0, "label": 0, "p_Normal": p[:, 0], "p_Sick": p[:, 1]})
    # The second fold's rows are another model's, and are not compared with the first one's file.
    return settings, run, manifest, pd.concat([first, first.assign(test_fold=1, p_Normal=1.0, p_Sick=0.0)], ignore_index=True)


def test_what_the_saved_model_says_of_the_files_is_what_was_scored(
    scored: tuple[Settings, TrainedRun, pd.DataFrame, pd.DataFrame],
) -> None:
    settings, run, manifest, predictions = scored
    found = ServedAsScored()(settings, run, manifest, predictions)
    assert (found.records, found.decisions) == (FILES, 0)
    assert found.difference < 1e-5


def test_another_score_stops_with_one_line(scored: tuple[Settings, TrainedRun, pd.DataFrame, pd.DataFrame]) -> None:
    settings, run, manifest, predictions = scored
    other = predictions.assign(p_Normal=predictions["p_Normal"] + 0.05, p_Sick=predictions["p_Sick"] - 0.05)
    with pytest.raises(CardiumError, match=r"up to 0\.05.*evaluate\.tolerance is 0\.005.*train anew") as caught:
        ServedAsScored()(settings, run, manifest, other)
    assert "\n" not in str(caught.value)
    inexact = dataclasses.replace(run, engine="openvino 2026.4.1 bf16")
    with pytest.raises(CardiumError, match=r"bfloat16; set `features\.engine: auto`"):
        ServedAsScored()(settings, inexact, manifest, other)


def test_a_file_that_changed_since_ingest_is_named(
    scored: tuple[Settings, TrainedRun, pd.DataFrame, pd.DataFrame],
) -> None:
    settings, run, manifest, predictions = scored
    with pytest.raises(CardiumError, match=r"data/cmri/0\.png has changed since ingest"):
        ServedAsScored()(settings, run, manifest.assign(sha256="0"), predictions)


def test_what_was_compared_is_not_loaded_again_until_something_changes(
    scored: tuple[Settings, TrainedRun, pd.DataFrame, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, run, manifest, predictions = scored
    found = ServedAsScored()(settings, run, manifest, predictions)
    loaded: list[Path] = []

    def load(path: Path) -> object:
        loaded.append(path)
        return load_model(path)

    monkeypatch.setattr(parity, "load_model", load)
    assert ServedAsScored()(settings, run, manifest, predictions) == found
    assert loaded == []
    # Rows of another score, the same model in another file, other limits: each is compared anew.
    ServedAsScored()(settings, run, manifest, predictions.assign(p_Normal=predictions["p_Normal"] + 1e-6))
    with zipfile.ZipFile(run.model_file, "a") as file:
        file.writestr("note", "a changed file")
    ServedAsScored()(settings, run, manifest, predictions)
    changed = dataclasses.replace(settings, ingest=dataclasses.replace(settings.ingest, max_pixels=10_000))
    ServedAsScored()(changed, run, manifest, predictions)
    assert loaded == [run.model_file] * 3


def test_the_folds_mean_is_compared_with_the_mean_of_the_folds_models(
    scored: tuple[Settings, TrainedRun, pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    settings, run, manifest, predictions = scored
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    first = load_model(run.model_file)
    name = first.layers[-1].name
    own = {f"{name}|{place}": np.asarray(weight) for place, weight in enumerate(first.get_layer(name).weights)}
    other = {key: value + 0.5 * (value.ndim == 2) * np.sign(value) for key, value in own.items()}
    second = load_model(run.model_file)
    set_trained(second, other)
    write_fold_weights(folder, {0: own, 1: other})
    mean = TrainedRun.read(folder)

    save_model(create_fusion([first, second], names=["fold0", "fold1"], mode="average", classes=2), folder / SERVED)
    found = ServedAsScored()(settings, mean, manifest, predictions)
    assert found.records == 2 * FILES
    assert found.difference < 1e-5
    # A served graph of one fold's model alone is none of the mean, though the first fold's model is saved as it was scored.
    save_model(second, folder / SERVED)
    with pytest.raises(CardiumError, match="is not served as it is scored: of 10 records"):
        ServedAsScored()(settings, mean, manifest, predictions)


def test_parity_is_the_largest_difference_and_the_changed_decisions() -> None:
    scored, served = np.array([[0.6, 0.4], [0.51, 0.49], [0.2, 0.8]]), np.array([[0.6, 0.4], [0.49, 0.51], [0.1, 0.9]])
    found = parity_of(scored, served, 0.5)
    assert (found.records, found.decisions) == (3, 1)
    assert found.difference == pytest.approx(0.1)


def test_an_evaluation_keeps_and_tells_it(tmp_path: Path) -> None:
    rows = {
        name: RunScores(name, name, "honest", "train", parity=parity_of(np.array([[0.5, 0.5]]), served, 0.5))
        for name, served in (("a", np.array([[0.5, 0.5]])), ("b", np.array([[0.4, 0.6]])))
    }
    evaluation = Evaluation("cmri", CLASSES, 0.95, 0.5, DataVersion("", "m", "s"), rows)
    evaluation.write(tmp_path)
    assert Evaluation.read(tmp_path, "cmri") == evaluation
    said = "on 2 records of 2 runs the saved models' probabilities differ by up to 0.10000 (b), 1 decisions differ."
    assert evaluation.served_as_scored() == f"Served as scored: {said}"
