"""Runs that a killed process left RUNNING in MLflow and that nobody will complete: their files are another run's by now.

They are ended as KILLED, with a note, and not deleted: what they hold may be all that is left of a training.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from cardium.config import Settings
from cardium.tracking.local_store import database_of
from cardium.tracking.mlflow_run import ENTRY_POINT, ID, NOTE, PARENT
from cardium.tracking.store import tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# Which project logs a run: on a server, another machine may be logging a run of the same name at this moment.
PROJECT = "cardium.project"
_LEFT = "Left half-logged by a process that was killed; it was made anew since, and is logged in another run."


def project(settings: Settings) -> str:
    """Twelve hex digits for this machine's project folder, which tell no path."""
    return hashlib.sha256(f"{platform.node()}:{settings.root}".encode()).hexdigest()[:12]


def end_left_behind(
    client: MlflowClient, settings: Settings, tags: Mapping[str, str], left: Callable[[], Collection[str]]
) -> list[str]:
    """Ends this project's RUNNING runs with these tags, and their children, but those whose cardium.id is in `left()`.

    left: the ids that the project's files still have; asked for only where a run is RUNNING. Runs that `mlflow run` opened are
    its own to end. Call it under the store's lock, under which nothing else of this project is being logged. Returns the ended
    runs' ids.
    """
    candidates = [run for run in _running(client, tags) if _is_own(run, settings)]
    if not candidates:
        return []
    still = left()
    ended = [run for run in candidates if run.data.tags.get(ID) not in still]
    ended += [child for run in ended for child in _running(client, {PARENT: run.info.run_id})]
    for run in ended:
        note = run.data.tags.get(NOTE, "")
        client.set_tag(run.info.run_id, NOTE, f"{_LEFT}\n\n{note}".strip())
        client.set_terminated(run.info.run_id, "KILLED")
    return [run.info.run_id for run in ended]


def _running(client: MlflowClient, tags: Mapping[str, str]) -> list[Run]:
    words = ["attributes.status = 'RUNNING'", *(f"tags.`{name}` = '{value}'" for name, value in tags.items())]
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, " and ".join(words)))


def _is_own(run: Run, settings: Settings) -> bool:
    """Whether this project began to log the run; in a local store, also one that does not say which did."""
    if ID not in run.data.tags or ENTRY_POINT in run.data.tags:
        return False
    local = database_of(tracking_uri(settings)) is not None
    mine = project(settings)
    return run.data.tags.get(PROJECT, mine if local else "") == mine
