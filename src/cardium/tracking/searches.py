"""A search as one MLflow run with a child a trial: from reports/<dataset>/tuning/<run>/, study.json and trials.csv.

The search's id and its trials' numbers are the keys; a hash of study.json (tag `cardium.search`) tells what is logged already.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cardium.config import Settings
from cardium.tracking.mlflow_run import (
    COMPLETE,
    ID,
    NAME,
    NOTE,
    PARENT,
    SAME_AS,
    create_run,
    find_opened,
    find_or_restore,
    finish,
    has_artifact,
    is_complete,
    log_batches,
    milliseconds,
    restore,
    set_tags,
    text,
    timestamp,
    to_metrics,
    to_params,
    to_tags,
)
from cardium.tracking.orphans import PROJECT, end_left_behind, project
from cardium.tracking.store import connected, errors_as_warnings, experiment_id
from cardium.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

FILE = "study.json"
# The hash of the study.json that is logged.
SEARCH = "cardium.search"
# More trials than any search has: MLflow pages its answers.
_MOST_TRIALS = 5000


def log_search(settings: Settings, folder: Path) -> str | None:
    """Logs a search's folder (study.json) as a run with one child a trial; returns the run's id.

    A search that has gone on since gets its new trials as children, its figures and its best settings anew. Errors as in
    `log_run`.
    """
    with errors_as_warnings(), connected(settings) as client:
        return add_search(client, settings, folder)[0]
    return None


def add_search(client: MlflowClient, settings: Settings, folder: Path) -> tuple[str, bool]:
    """The MLflow run's id, and whether anything was new."""
    study = json.loads((folder / FILE).read_text(encoding="utf-8"))
    digest = hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
    known = find_or_restore(client, ID, study["id"])
    opened = find_opened(client, f"tune {study['run']}", study["id"])
    run = known[0] if known else opened
    ended = timestamp(study["created"])
    if run is None:
        run = create_run(
            client,
            experiment_id(client, settings, study["dataset"]),
            study["id"],
            start_time=milliseconds(ended - float(study["seconds"]["trials"])),
            tags=_tags(study) | {PROJECT: project(settings)},
            run_name=_title(study),
        )
    run_id = run.info.run_id
    new = run.data.tags.get(SEARCH) != digest or not has_artifact(run, FILE)
    if new:
        _write(client, run, settings, folder, study)
        finish(client, run_id, ended)
        set_tags(client, run_id, {SEARCH: digest, COMPLETE: "true"})
    end_left_behind(client, settings, {NAME: study["run"], "kind": "tune"}, lambda: {study["id"]})
    if opened is not None and opened.info.run_id != run_id and SAME_AS not in opened.data.tags:
        note = f"This search was logged before, in run {run_id}: its trials and figures are there. {study['verdict']}"
        tags = _tags(study) | {NOTE: note, "mlflow.runName": _title(study), SAME_AS: run_id}
        del tags[ID]
        set_tags(client, opened.info.run_id, to_tags(tags))
        new = True
    return run_id, new


def _title(study: Mapping[str, Any]) -> str:
    """`tune mobilenetv2_se`, `tune mobilenetv2_se fine_tune`."""
    return f"tune {study['model']}" + ("" if study["space"] == "bank" else f" {study['space']}")


def _tags(study: Mapping[str, Any]) -> dict[str, str]:
    return to_tags(
        {
            ID: study["id"],
            NAME: study["run"],
            "dataset": study["dataset"],
            "model": study["model"],
            "kind": "tune",
            "verdict": study["verdict"],
            NOTE: f"**tune {study['run']}**. {study['verdict']}",
            "mlflow.source.name": f"cardium tune {study['run']}",
            "mlflow.source.type": "PROJECT",
            "mlflow.source.git.commit": study.get("commit") or "",
        }
    )


def _write(client: MlflowClient, run: Run, settings: Settings, folder: Path, study: Mapping[str, Any]) -> None:
    """Everything of a search's folder; each step can be repeated."""
    run_id = run.info.run_id
    set_tags(client, run_id, {**_tags(study), "mlflow.runName": _title(study)})
    # Only what a search that goes on cannot change: MLflow takes a param once.
    fixed = {**study["defaults"]["settings"], "space": study["space"], "held_out": study["held_out"], "study": study["study"]}
    values = {
        "best": study["best"]["score"],
        "defaults": study["defaults"]["score"],
        **{f"gain_{name}": value for name, value in study["gain"].items()},
        **{f"trials_{name}": value for name, value in study["trials"].items()},
        "seconds_per_trial": study["seconds_per_trial"],
        **{f"importance/{name}": value for name, value in study["importance"].items()},
    }
    log_batches(
        client,
        run_id,
        to_params({f"cfg.{name}": text(value) for name, value in fixed.items()}),
        to_metrics(values, milliseconds(timestamp(study["created"])), study["trials"]["completed"]),
    )
    _log_trials(client, run, folder, study)
    for name in (FILE, "trials.csv"):
        client.log_artifact(run_id, str(folder / name))
    for figure in sorted(folder.glob("*.png")):
        client.log_artifact(run_id, str(figure), "figures")
    tuned = Workspace(settings.root).tuned(study["run"])
    if tuned.is_file():
        client.log_artifact(run_id, str(tuned))


def _log_trials(client: MlflowClient, parent: Run, folder: Path, study: Mapping[str, Any]) -> None:
    """A child run for each trial that has ended and has none yet."""
    import pandas as pd
    from mlflow.entities import ViewType

    experiment, of_parent = parent.info.experiment_id, f"tags.`{PARENT}` = '{parent.info.run_id}'"
    children = client.search_runs([experiment], of_parent, ViewType.ALL, max_results=_MOST_TRIALS)
    logged = {run.data.tags.get(ID): run for run in children}
    trials = pd.read_csv(folder / "trials.csv", keep_default_na=False)
    for row in trials[trials["state"].isin(["complete", "pruned"])].to_dict("records"):
        trial = {str(name): value for name, value in row.items()}
        own_id = f"{study['id']}/{trial['trial']}"
        run = logged.get(own_id)
        if run is not None and run.info.lifecycle_stage != "active":
            restore(client, run)
        if is_complete(run):
            continue
        began = timestamp(str(trial["started"]))
        ended = milliseconds(began) + milliseconds(float(trial["seconds"] or 0))
        if run is None:
            tags = {
                ID: own_id,
                PARENT: parent.info.run_id,
                "dataset": study["dataset"],
                "model": study["model"],
                "kind": "trial",
                "state": "completed" if trial["state"] == "complete" else "cut short",
                "note": str(trial["note"]),
                "defaults": "true" if str(trial["defaults"]) == "True" else "",
            }
            name = f"trial {trial['trial']}"
            run = create_run(client, experiment, own_id, start_time=milliseconds(began), tags=to_tags(tags), run_name=name)
        settings = {name.removeprefix("set."): value for name, value in trial.items() if name.startswith("set.")}
        scores = {"val_balanced_accuracy": trial["score"], "seconds": trial["seconds"]}
        scores |= {name: value for name, value in trial.items() if name.startswith("fold_")}
        log_batches(
            client,
            run.info.run_id,
            to_params({f"cfg.{name}": str(value) for name, value in settings.items()}),
            to_metrics({name: _number(value) for name, value in scores.items()}, ended),
        )
        client.set_terminated(run.info.run_id, "FINISHED", end_time=ended)
        client.set_tag(run.info.run_id, COMPLETE, "true")


def _number(cell: Any) -> float | None:
    """A cell of a CSV file; None where it is empty."""
    return float(cell) if str(cell) else None
