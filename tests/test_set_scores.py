"""How prediction sets and temperatures fare on test records: counted a second time here, and blind to the tested labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from run_folders import CLASSES, make_project, predictions, run_folder

from cardium.evaluation.evaluation import Interval, RunScores
from cardium.evaluation.metrics import score
from cardium.evaluation.set_scores import calibration_error_before, score_sets
from cardium.runs.prediction_sets import PredictionSets
from cardium.runs.temperature import tempered
from cardium.runs.trained_run import TrainedRun

COVERAGE = 0.6


@pytest.fixture
def run(tmp_path: Path) -> TrainedRun:
    return TrainedRun.read(run_folder(make_project(tmp_path / "project"), real=False))


@pytest.fixture
def tested() -> pd.DataFrame:
    return predictions(7, 0.8)


def scored(labels: np.ndarray, probabilities: np.ndarray, _: np.ndarray) -> dict[str, Interval]:
    return {name: Interval(value) for name, value in score(labels, probabilities, classes=CLASSES).items()}


def inside_by_hand(run: TrainedRun, tested: pd.DataFrame) -> np.ndarray:
    """Row after row: the sets of all held-out records but those of the row's own test fold."""
    held_out = pd.read_parquet(run.folder / "validation.parquet")
    rows = []
    for _, row in tested.iterrows():
        own_fold = set(tested[tested["test_fold"] == row["test_fold"]]["record"])
        others = held_out[[record not in own_fold for record in held_out["record"]]]
        p, labels, groups = others[["p_Normal", "p_Sick"]].to_numpy(), others["label"].to_numpy(), others["group"].to_numpy()
        sets = PredictionSets.fitted(p, labels, groups, CLASSES, COVERAGE)
        rows.append(sets.names(row[["p_Normal", "p_Sick"]].to_numpy(dtype=float)))
    return np.array([[name in names for name in CLASSES] for names in rows])


def test_shares_are_those_of_the_records(run: TrainedRun, tested: pd.DataFrame) -> None:
    inside = inside_by_hand(run, tested)
    found = score_sets(run, tested, COVERAGE, scored)
    assert found is not None
    label = tested["label"].to_numpy()
    own = inside[np.arange(len(label)), label]
    for number, name in enumerate(CLASSES):
        assert found.covered[name].value == pytest.approx(own[label == number].mean())
    alone = inside.sum(axis=1) == 1
    assert 0 < alone.mean() < 1, "both kinds are here"
    assert found.single.value == pytest.approx(alone.mean())
    assert found.right.value == pytest.approx(own[alone].mean())
    assert found.size == pytest.approx(inside.sum(axis=1).mean())
    assert found.groups == {"Normal": 6, "Sick": 6}
    assert found.too_few == []
    few = score_sets(run, tested, 0.9, scored)
    assert few is not None
    assert (few.too_few, few.size) == (CLASSES, 2)
    row = RunScores("a", "a", "honest", "train", sets=found, calibration_error_before=0.1)
    assert RunScores.from_json("a", row.to_json()) == row


def test_a_test_folds_own_records_do_not_fit_its_sets(run: TrainedRun, tested: pd.DataFrame) -> None:
    """With other validation rows of the first fold's records, nothing changes for that fold."""
    first = tested[tested["test_fold"] == 0]
    before = score_sets(run, first, COVERAGE, scored)
    path = run.folder / "validation.parquet"
    held_out = pd.read_parquet(path)
    own = held_out["record"].isin(first["record"])
    assert own.any()
    held_out.loc[own, ["p_Normal", "p_Sick"]] = [0.5, 0.5]
    held_out.to_parquet(path, index=False)
    after = score_sets(run, first, COVERAGE, scored)
    assert before is not None
    assert after is not None
    assert (after.covered, after.size) == (before.covered, before.size)
    assert after.floors != before.floors, "the served floors are of all records"


def test_where_validation_is_the_test_there_are_no_sets_to_score(run: TrainedRun, tested: pd.DataFrame) -> None:
    assert score_sets(run, tested.assign(test_fold=0), COVERAGE, scored) is None
    assert score_sets(run, tested.assign(test_fold=0), COVERAGE, scored, elsewhere=True) is not None


def test_the_error_before_scaling_is_that_of_the_plain_probabilities(run: TrainedRun, tested: pd.DataFrame) -> None:
    assert calibration_error_before(run, tested, 0.5) is None
    temperatures = {0: 2.0, 1: 0.7}
    columns = ["p_Normal", "p_Sick"]
    after = tested.copy()
    for fold, temperature in temperatures.items():
        rows = tested["test_fold"] == fold
        after.loc[rows, columns] = tempered(tested.loc[rows, columns].to_numpy(), temperature)
    scaled = dataclasses.replace(run, temperatures=temperatures)
    plain = score(tested["label"].to_numpy(), tested[columns].to_numpy())["calibration_error"]
    assert calibration_error_before(scaled, after, 0.5) == pytest.approx(plain)
