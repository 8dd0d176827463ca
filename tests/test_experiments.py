"""Experiments beside the pipeline: scored as its runs are, on the leaderboard, compared in pairs, put forward, by hand too."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_folders import CLASSES, evaluation, make_project, predictions, run_folder
from test_evaluate import make_project as make_scored_project
from test_evaluate import predict, trained_run
from test_promote import MODEL, client_of, registered

from cardium import cli, tracking
from cardium.config import Settings
from cardium.errors import CardiumError
from cardium.evaluation.comparison import compare_runs, comparison_text
from cardium.evaluation.evaluation import Evaluation
from cardium.evaluation.experiments import FOLDER, evaluate_experiment, experiment_row, stored_predictions, with_experiments
from cardium.evaluation.leaderboard import leaderboard_text
from cardium.runs.data_version import DataVersion
from cardium.stages import evaluate
from cardium.tracking import promotion, registry
from cardium.workspace import RunId, Workspace

NAME = "cmri-mobilenetv2/epochs=3"


@pytest.fixture
def scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A project whose runs are evaluated, and an experiment of one of them."""
    settings = make_scored_project(tmp_path)
    monkeypatch.setattr(evaluate, "draw_evaluation", lambda *_: None)
    evaluate.run(settings, "cmri", predict)
    folder = settings.root / "experiments" / NAME
    folder.mkdir(parents=True)
    trained_run(RunId("cmri", "mobilenetv2"), id="other", overrides={"cmri.train.epochs": 3}).write(folder)
    return settings


def test_an_experiment_is_scored_as_the_same_run_of_the_pipeline(scored: Settings) -> None:
    pipeline = Evaluation.read(Workspace(scored.root).evaluation("cmri"), "cmri")
    assert with_experiments(scored, pipeline).runs.keys() == pipeline.runs.keys()
    folder = scored.root / "experiments" / NAME
    evaluate_experiment(scored, folder, predict)
    own, same = experiment_row(folder, "cmri"), pipeline.runs["cmri-mobilenetv2"]
    assert (own.name, own.run_id) == (NAME, "other")
    # The stand-in predicts by the run's name alone.
    assert (own.image, own.patient, own.confusion) == (same.image, same.patient, same.confusion)
    text = leaderboard_text(with_experiments(scored, pipeline))
    assert NAME in text
    assert "<run>/<overrides>: an experiment" in text
    pd.testing.assert_frame_equal(
        stored_predictions(scored, pipeline, NAME), stored_predictions(scored, pipeline, "cmri-mobilenetv2")
    )
    later = dataclasses.replace(pipeline, data=DataVersion("", "m", "another split"))
    assert NAME not in with_experiments(scored, later).runs, "scores of other test records stand on no leaderboard"


def test_what_is_no_experiment_or_of_other_data_is_not_scored(scored: Settings) -> None:
    with pytest.raises(CardiumError, match="is no experiment"):
        evaluate_experiment(scored, scored.root / RunId("cmri", "mobilenetv2").folder, predict)
    folder = scored.root / "experiments" / NAME
    trained_run(RunId("cmri", "mobilenetv2"), data=DataVersion("", "m", "old")).write(folder)
    with pytest.raises(CardiumError, match="has changed since: train it again"):
        evaluate_experiment(scored, folder, predict)
    trained_run(RunId("cmri", "mobilenetv2"), test_folds=[0]).write(folder)
    with pytest.raises(CardiumError, match="trained for test folds 0"):
        evaluate_experiment(scored, folder, predict)
    assert not (folder / FOLDER).exists()
    pipeline = Evaluation.read(Workspace(scored.root).evaluation("cmri"), "cmri")
    with pytest.raises(CardiumError, match=r"cmri-mobilenetv3.* has not been scored.*cmri-mobilenetv2"):
        stored_predictions(scored, pipeline, "cmri-mobilenetv3")


def test_two_runs_are_compared_case_by_case(tmp_path: Path) -> None:
    settings = make_project(tmp_path / "project", **{"evaluate.bootstrap": 300})
    good, bad = predictions(1, 0.9), predictions(2, 0.6)
    found = compare_runs(settings, CLASSES, ("good", "bad"), (good, bad), patients=True)
    by_patient, by_image = found.differences
    assert (by_patient.unit, by_patient.cases, by_image.unit, by_image.cases) == ("patient", 12, "image", 60)
    own, other = (np.mean([(t["p_Sick"] > 0.5)[t["label"] == y].eq(bool(y)).mean() for y in (0, 1)]) for t in (good, bad))
    assert by_image.difference == pytest.approx(own - other)
    assert by_image.low < by_image.difference < by_image.high
    right = [((t["p_Sick"] > 0.5) == (t["label"] == 1)).sum() for t in (good, bad)]
    assert found.a_right - found.b_right == right[0] - right[1]
    assert len(found.differing) == ((good["p_Sick"] > 0.5) != (bad["p_Sick"] > 0.5)).sum()
    assert (found.differing["a"] != found.differing["b"]).all()
    # The other way round it is the same comparison.
    turned = compare_runs(settings, CLASSES, ("bad", "good"), (bad, good), patients=True).differences[1]
    assert (turned.difference, turned.low) == pytest.approx((-by_image.difference, -by_image.high))
    text = comparison_text(found)
    assert f"A is right on {found.a_right}, B on {found.b_right}." in text
    assert max(map(len, text.splitlines())) <= 120
    same = compare_runs(settings, CLASSES, ("good", "same"), (good, good), patients=False)
    assert [one.unit for one in same.differences] == ["record"]
    assert (same.differences[0].difference, len(same.differing)) == (0, 0)
    assert "cannot be told apart" in comparison_text(same)
    json.dumps(found.to_json())
    with pytest.raises(CardiumError, match="no test record in common"):
        compare_runs(settings, CLASSES, ("a", "b"), (good, bad.assign(group="x", record=bad["record"] + 100)), patients=True)


def put_experiment(settings: Settings, skill: float) -> str:
    """An experiment that was scored, and whose test predictions are so good; its name."""
    folder = run_folder(settings, "mobilenetv2", seed=5, real=False, overrides={"cmri.train.epochs": 3})
    name = folder.relative_to(settings.root / "experiments").as_posix()
    whole = Evaluation.read(settings.root / "reports/cmri/evaluation", "cmri")
    own = json.loads((folder / "run.json").read_text())["id"]
    row = dataclasses.replace(whole.runs["cmri-mobilenetv2"], name=name, run_id=own)
    (folder / FOLDER / "predictions").mkdir(parents=True)
    dataclasses.replace(whole, runs={name: row}).write(folder / FOLDER)
    predictions(5, skill).to_parquet(folder / FOLDER / "predictions/cmri-mobilenetv2.parquet", index=False)
    return name


def test_an_experiment_is_put_forward_and_a_person_decides(
    tmp_path: Path, empty_store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", tracking.REQUESTED):
        monkeypatch.delenv(name, raising=False)
    settings: Any = make_project(tmp_path / "project", **{"evaluate.bootstrap": 300})
    shutil.copy(empty_store, settings.root / "mlflow.db")
    run_folder(settings, "mobilenetv2", seed=1, real=False)
    evaluation(settings, {"cmri-mobilenetv2": 0.95})
    promotion.put_forward(settings, "cmri")
    worse = put_experiment(settings, 0.6)
    promotion.put_forward(settings, "cmri", experiment=worse)
    assert registered(settings)[0] == {"champion": 1, "challenger": 2}
    said = capsys.readouterr().out
    assert f"{worse} is not promoted: its score" in said
    assert "put forward by name" in said
    promotion.put_forward(settings, "cmri", experiment=worse, by_hand="the other one is slow")
    assert registered(settings)[0] == {"champion": 2, "previous": 1}
    version = client_of(settings).get_model_version(MODEL, "2")
    assert version.tags[registry.BY_HAND] == "the other one is slow"
    assert "the rule would not have promoted it" in version.description
    # The pipeline's run, which was champion, does not come back by itself; a person can have it back.
    promotion.put_forward(settings, "cmri")
    assert registered(settings)[0] == {"champion": 2, "previous": 1, "challenger": 1}
    promotion.make_champion(settings, "cmri", 1, "it was better")
    assert registered(settings)[0] == {"champion": 1, "previous": 2}
    with pytest.raises(CardiumError, match="has no version 7; it has: 1, 2"):
        promotion.make_champion(settings, "cmri", 7, "x")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--force", "--version", "1"], "--force takes a reason"),
        (["--version", "1"], "say so with --force"),
        (["--force", "--reason", "x"], "--force takes --version N"),
    ],
)
def test_a_promotion_by_hand_takes_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: list[str], says: str
) -> None:
    make_project(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    assert cli.main(["promote", *given]) == 1
    assert says in capsys.readouterr().err
