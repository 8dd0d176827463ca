"""Runs that a kill left RUNNING and that are made anew since: ended with a note, and nobody else's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from run_folders import make_project, run_folder

from cardium import tracking
from cardium.tracking import orphans, runs


class Killed(BaseException):
    pass


@pytest.fixture
def settings(tmp_path: Path, empty_store: Path) -> Any:
    made = make_project(tmp_path / "project")
    shutil.copy(empty_store, made.root / "mlflow.db")
    return made


def states(settings: Any) -> dict[str, str]:
    """cardium.id -> status of all runs."""
    client = MlflowClient(tracking.tracking_uri(settings))
    found = client.search_runs([one.experiment_id for one in client.search_experiments()])
    return {run.data.tags[tracking.ID]: run.info.status for run in found}


def half_logged(settings: Any, monkeypatch: pytest.MonkeyPatch, where: str, **changes: Any) -> str:
    """The id of a new run whose logging was killed."""
    folder = run_folder(settings, real=False, **changes)

    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(runs, where, kill)
        with pytest.raises(Killed):
            tracking.log_run(settings, folder)
    return str(json.loads((folder / "run.json").read_text())["id"])


@pytest.mark.parametrize("where", ["_write", "log_model"])
def test_what_was_trained_again_ends_its_half_logged_run(settings: Any, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    before = half_logged(settings, monkeypatch, where)
    beside = half_logged(settings, monkeypatch, where, overrides={"epochs": 2})
    assert states(settings) == {before: "RUNNING", beside: "RUNNING"}
    folder = run_folder(settings, real=False)
    run_id = tracking.log_run(settings, folder)
    now = json.loads((folder / "run.json").read_text())["id"]
    assert states(settings) == {before: "KILLED", beside: "RUNNING", now: "FINISHED"}, "what is still there is completed"
    client = MlflowClient(tracking.tracking_uri(settings))
    [ended] = [run for run in client.search_runs(["1"]) if run.data.tags[tracking.ID] == before]
    assert "made anew since" in ended.data.tags["mlflow.note.content"]
    assert "made anew since" not in client.get_run(str(run_id)).data.tags["mlflow.note.content"]
    tracking.sync(settings)
    assert states(settings) == {before: "KILLED", beside: "FINISHED", now: "FINISHED"}


def test_a_kill_before_the_end_is_written_leaves_none_running(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    own = half_logged(settings, monkeypatch, "finish")
    assert states(settings) == {own: "RUNNING"}
    assert tracking.sync(settings)["logged"] == ["models/cmri/honest/mobilenetv2"]
    assert states(settings) == {own: "FINISHED"}


def test_another_projects_runs_and_those_of_mlflow_run_are_left_alone(settings: Any) -> None:
    with tracking.connected(settings) as client:
        tags = {"cardium.run": "cmri-mobilenetv2", "kind": "train"}
        client.create_run("0", tags={**tags, tracking.ID: "theirs", orphans.PROJECT: "another"})
        client.create_run("0", tags={**tags, tracking.ID: "opened", "mlflow.project.entryPoint": "train"})
        client.create_run("0", tags={**tags, tracking.ID: "old"})
        client.create_run(
            "0", tags={"kind": "audit", "dataset": "cmri", tracking.ID: "page", orphans.PROJECT: orphans.project(settings)}
        )
        client.create_run("0", tags={**tags, tracking.ID: "done"})
        client.set_terminated(client.search_runs(["0"], "tags.`cardium.id` = 'done'")[0].info.run_id)
    tracking.log_run(settings, run_folder(settings, real=False))
    assert {name: state for name, state in states(settings).items() if len(name) < 10} == {
        "theirs": "RUNNING", "opened": "RUNNING", "old": "KILLED", "page": "RUNNING", "done": "FINISHED",
    }  # fmt: skip
    with tracking.connected(settings) as client:
        orphans.end_left_behind(client, settings, {"kind": "audit", "dataset": "cmri"}, lambda: {"other"})
    assert states(settings)["page"] == "KILLED"
