"""`served: all`: a model trained anew on all records but a calibration part, for as long as the folds' trainings took."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_tune import make_project

from cardium import config
from cardium.config import Settings
from cardium.data.manifest import read_manifest
from cardium.data.splits import read_parts
from cardium.models import load_model
from cardium.runs.trained_run import TrainedRun
from cardium.serving.classifier import Classifier
from cardium.stages import train
from cardium.training.fit import Fitted
from cardium.training.fold import typical_rates
from cardium.training.schedule import Schedule, step_after
from cardium.workspace import RunId, Workspace


def fitted(best: int, rates: list[float]) -> Fitted:
    return Fitted([{"learning_rate": rate, "val_loss": 1.0} for rate in rates], best, 1.0)


def test_the_median_fold_says_how_long_and_at_which_rates() -> None:
    folds = [fitted(3, [4.0] * 5), fitted(1, [1.0, 0.5, 0.2]), fitted(2, [2.0, 2.0, 1.0, 1.0])]
    assert typical_rates(folds) == (2.0, 2.0, 1.0)
    assert typical_rates(folds[:2]) == (1.0, 0.5), "of two the shorter"
    assert typical_rates(folds[:1]) == (4.0,) * 4


@pytest.mark.parametrize("losses", [[1.0, 0.5], [0.5, 1.0], [9.0, 9.0]])
def test_replayed_rates_do_not_heed_validation(losses: list[float]) -> None:
    schedule = Schedule(1.0, 1, 1, 0.5, 0.0, replayed=(3.0, 2.0, 1.0))
    steps = [step_after(losses[:done], schedule) for done in range(3)]
    assert [(step.learning_rate, step.stop) for step in steps] == [(3.0, False), (2.0, False), (1.0, False)]
    assert step_after([*losses, 1.0], schedule).stop


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, TrainedRun, TrainedRun]:
    """The same run with and without a model to serve of its own."""
    settings = make_project(tmp_path_factory.mktemp("retrained") / "project", test_folds="all")
    spec = config.run_spec(settings, RunId("cmri", "cnn_baseline"))

    def run(served: Any, name: str) -> TrainedRun:
        changed = dataclasses.replace(spec, train=dataclasses.replace(spec.train, served=served, learning_rate=0.01))
        out = settings.root / "models" / name
        train.train_run(settings, changed, settings.root / spec.reads, out)
        return TrainedRun.read(out)

    return settings, run("all", "all"), run("first", "first")


def test_what_is_scored_is_as_without_it(trained: tuple[Settings, TrainedRun, TrainedRun]) -> None:
    _, own, plain = trained
    assert own.phases == plain.phases
    assert own.temperatures == plain.temperatures
    for fold in own.test_folds:
        for name, value in plain.fold_weights(fold).items():
            np.testing.assert_array_equal(own.fold_weights(fold)[name], value)
    first, other = (load_model(run.model_file).get_weights() for run in (own, plain))
    assert all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert (plain.retrained, plain.served_file.name) == (None, "model.keras")
    assert plain.served_by == "the model with fold 0 held out"


def test_it_has_learned_from_all_records_but_those_that_calibrate_it(
    trained: tuple[Settings, TrainedRun, TrainedRun],
) -> None:
    settings, run, _ = trained
    assert run.retrained is not None
    workspace = Workspace(settings.root)
    parts = read_parts(workspace.split("cmri"), read_manifest(workspace.manifest("cmri")), "honest", 0)
    rows = pd.read_parquet(run.folder / "calibration.parquet")
    assert sorted(rows["record"]) == sorted(parts.validation)
    assert run.retrained.records + run.retrained.calibration == 96
    assert run.retrained.calibration == len(parts.validation)
    best = sorted(phase.best_epoch for phase in run.phases)
    assert run.retrained.epochs == {"whole": best[(len(best) - 1) // 2] + 1}
    assert run.served_by == f"a model trained anew on all records but {len(rows)}, which fitted its temperature"


def test_it_answers_and_says_what_was_written_of_its_calibration_records(
    trained: tuple[Settings, TrainedRun, TrainedRun], tmp_path: Path
) -> None:
    settings, run, _ = trained
    rows = pd.read_parquet(run.folder / "calibration.parquet")
    pixels = np.load(settings.root / "processed" / "cmri" / "image" / "pixels.npy")[rows["record"]]
    classifier = Classifier(run.folder)
    np.testing.assert_allclose(classifier.probabilities(pixels), rows[["p_Normal", "p_Sick"]], atol=1e-6)
    first = Classifier(run.folder, file=run.model_file)
    assert np.abs(first.probabilities(pixels) - classifier.probabilities(pixels)).max() > 1e-4
    run.write(tmp_path)
    assert dataclasses.replace(TrainedRun.read(tmp_path), folder=run.folder) == run
