"""The pages for people as MLflow runs of their own: a dataset's audit and its report, each page logged once."""

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
    NOTE,
    create_run,
    find_or_restore,
    has_artifact,
    is_complete,
    log_batches,
    milliseconds,
    to_metrics,
    to_tags,
)
from cardium.tracking.orphans import PROJECT, end_left_behind, project
from cardium.tracking.store import connected, errors_as_warnings, experiment_id
from cardium.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient


def log_audit(settings: Settings, dataset: str) -> bool | None:
    """Logs reports/<dataset>/audit as a run `audit` of the dataset's pages, unless it is there already; whether it was
    new. Errors as in `log_run`."""
    with errors_as_warnings(), connected(settings) as client:
        return add_audit(client, settings, dataset)
    return None


def log_report(settings: Settings, dataset: str) -> bool | None:
    """Logs reports/<dataset>/report as a run `report` of the dataset's pages, unless the same page is there already;
    whether it was new. Errors as in `log_run`."""
    with errors_as_warnings(), connected(settings) as client:
        return add_report(client, settings, dataset)
    return None


def add_audit(client: MlflowClient, settings: Settings, dataset: str) -> bool:
    """Whether anything was logged."""
    path = Workspace(settings.root).audit(dataset) / "audit.json"
    if not path.is_file():
        return False
    audit = json.loads(path.read_bytes())
    values: dict[str, Any] = {
        "files": audit["copies"]["files"],
        "distinct": audit["copies"]["distinct_contents"],
        "leaks": len(audit["leaks"]),
        "label_issues": audit["label_issues"]["count"],
    }
    scores = dict(audit["optimism"] or {})
    scores |= {f"shortcut_{line['name']}": line["score"] for line in audit["shortcuts"] if line["score"]}
    for name, score in scores.items():
        values |= _with_interval(name, score)
    verdict = audit["verdict"]
    note = "\n".join([f"**{verdict['headline']}**", *(f"- {line}" for line in verdict["said"])])
    return _add_page(client, settings, dataset, "audit", path, values, {"verdict": verdict["verdict"], NOTE: note})


def add_report(client: MlflowClient, settings: Settings, dataset: str) -> bool:
    """Whether anything was logged."""
    folder = Workspace(settings.root).report(dataset)
    if not (folder / "report.json").is_file():
        return False
    report = json.loads((folder / "report.json").read_bytes())
    advice = report["advice"]
    values = {"use": int(advice["use"]), "records": advice["records"], "groups": advice["groups"], "chance": advice["chance"]}
    for name, score in (("balanced_accuracy", advice["score"]), ("published_balanced_accuracy", advice["other"])):
        if score:
            values |= _with_interval(name, score)
    tags = {"model": advice["run"], NOTE: report["said"]}
    return _add_page(client, settings, dataset, "report", folder / "index.html", values, tags)


def _with_interval(name: str, score: Mapping[str, Any]) -> dict[str, Any]:
    """A score and the ends of its interval, under the names that metrics have."""
    return {name: score["value"], f"{name}_low": score["low"], f"{name}_high": score["high"]}


def _add_page(
    client: MlflowClient,
    settings: Settings,
    dataset: str,
    kind: str,
    path: Path,
    values: Mapping[str, Any],
    tags: Mapping[str, str],
) -> bool:
    """Logs the folder of `path` as a run named `kind` of its own, known by the hash of that file; whether it was new.

    A page that has changed is a new run: the older ones stay, with what they held then.
    """
    own_id = f"{kind}-{hashlib.sha256(path.read_bytes()).hexdigest()[:32]}"
    end_left_behind(client, settings, {"dataset": dataset, "kind": kind}, lambda: {own_id})
    run = next(iter(find_or_restore(client, ID, own_id)), None)
    if run is not None and is_complete(run) and has_artifact(run, kind):
        return False
    if run is None:
        own_tags = to_tags({ID: own_id, "dataset": dataset, "kind": kind, PROJECT: project(settings), **tags})
        run = create_run(client, experiment_id(client, settings, dataset, pages=True), own_id, run_name=kind, tags=own_tags)
    run_id = run.info.run_id
    stamp = milliseconds(path.stat().st_mtime)
    log_batches(client, run_id, metrics=to_metrics({f"{kind}_{name}": value for name, value in values.items()}, stamp))
    client.log_artifacts(run_id, str(path.parent), kind)
    client.set_terminated(run_id)
    client.set_tag(run_id, COMPLETE, "true")
    return True
