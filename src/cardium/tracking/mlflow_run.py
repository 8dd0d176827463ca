"""One run in MLflow: the tags that it is known by, how it is found, and how params, metrics and tables are written to it.

Every write can be repeated: it leaves the run as the first one did.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from cardium.process_environment import variables_set
from cardium.tracking.moved import local_path

if TYPE_CHECKING:
    import pandas
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, Run

Made = TypeVar("Made")

# The id in run.json, and whether everything of the run was written. SAME_AS: the MLflow run that a mirror shows.
ID, COMPLETE, SAME_AS = "cardium.id", "cardium.complete", "cardium.same_as"
NAME, PARENT, NOTE = "cardium.run", "mlflow.parentRunId", "mlflow.note.content"
# What `mlflow run` writes into a run that it opens.
ENTRY_POINT = "mlflow.project.entryPoint"
# Names the run that may take over the MLflow run that `mlflow run` opened (MLFLOW_RUN_ID): the one that was asked for, not the
# stages before it.
REQUESTED = "CARDIUM_MLFLOW_RUN"
# MLflow's limit for a tag is 5000 characters, for a param 6000, for a key 250.
_TAG, _PARAM, _KEY = 4900, 6000, 250


def find_run(client: MlflowClient, tag: str, value: str) -> list[Run]:
    """The MLflow runs whose `tag` is `value`, of all experiments, oldest first: `mlflow run` opens its runs in any of them."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`{tag}` = '{value}'", order_by=["attributes.start_time ASC"])
    return list(runs)


def find_or_restore(client: MlflowClient, tag: str, value: str) -> list[Run]:
    """As `find_run`; where there is none, those that were deleted, with their experiment or alone, restored.

    Logged anew beside a deleted one, a run would be there twice as soon as its experiment is restored.
    """
    from mlflow.entities import ViewType

    known = find_run(client, tag, value)
    if known:
        return known
    experiments = [experiment.experiment_id for experiment in client.search_experiments(view_type=ViewType.ALL)]
    deleted = client.search_runs(experiments, f"tags.`{tag}` = '{value}'", run_view_type=ViewType.ALL)
    for run in deleted:
        restore(client, run)
    return find_run(client, tag, value) if deleted else []


def restore(client: MlflowClient, run: Run) -> None:
    """Makes a deleted run active again, and its experiment; leaves an active one."""
    if client.get_experiment(run.info.experiment_id).lifecycle_stage != "active":
        client.restore_experiment(run.info.experiment_id)  # and its runs
    if client.get_run(run.info.run_id).info.lifecycle_stage != "active":
        client.restore_run(run.info.run_id)


def create_once(create: Callable[[], Made], find: Callable[[], Made | None]) -> Made:
    """What `create` makes in the store, or what a failed attempt of it has made there: `find` looks before the second one.

    A server may have done what it was asked to and then answer with an error. MLflow would repeat the request at once, and the
    thing would be there twice. So its own repeats are off meanwhile. Raises MlflowException if the second attempt fails too.
    """
    from mlflow.exceptions import MlflowException

    for attempt in (1, 2):
        try:
            with variables_set({"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}):
                return create()
        except MlflowException as error:
            if "API request to" not in str(error):
                raise
            made = find()
            if made is not None:
                return made
            if attempt == 2:
                raise
    raise AssertionError("unreachable")


def create_run(client: MlflowClient, experiment: str, own_id: str, **options: Any) -> Run:
    """A new MLflow run with the tag cardium.id among the `tags` of `options`, made once even if the server fails meanwhile."""
    return create_once(lambda: client.create_run(experiment, **options), lambda: next(iter(find_run(client, ID, own_id)), None))


def find_opened(client: MlflowClient, name: str, own_id: str) -> Run | None:
    """The run that `mlflow run` opened, if it was asked for the run or search `name` and holds none but that of `own_id`.

    Such a run is still running: one that has ended, named by an MLFLOW_RUN_ID left in the environment, stays as it is, and so
    does a running one that something else opened, a notebook for instance.
    """
    from mlflow.exceptions import MlflowException

    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id or os.environ.get(REQUESTED) != name:
        return None
    try:
        run = client.get_run(run_id)
    except MlflowException:  # of another store
        return None
    if run.info.status != "RUNNING" or run.info.lifecycle_stage != "active" or ENTRY_POINT not in run.data.tags:
        return None
    return run if run.data.tags.get(ID, own_id) == own_id else None


def is_complete(run: Run | None) -> bool:
    """Whether everything of a run was written: one that was killed half-way is not."""
    return run is not None and run.data.tags.get(COMPLETE) == "true"


def has_artifact(run: Run, name: str) -> bool:
    """Whether a file or folder among a run's artifacts is still there; True where they are on a server, which is not asked."""
    place = local_path(run.info.artifact_uri)
    return place is None or (place / name).exists()


def finish(client: MlflowClient, run_id: str, ended: float) -> None:
    """Ends a run at `ended` (seconds since 1970); leaves the one that `mlflow run` opened, which that ends itself."""
    if os.environ.get("MLFLOW_RUN_ID") != run_id:
        client.set_terminated(run_id, "FINISHED", end_time=milliseconds(ended))


def timestamp(created: str) -> float:
    """ISO 8601 -> seconds since 1970; UTC where it names no time zone."""
    moment = datetime.fromisoformat(created)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def milliseconds(seconds: float) -> int:
    return int(1000 * seconds)


def key(name: str) -> str:
    """`name` with only what MLflow takes in a key."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)[:_KEY]


def text(value: Any) -> str:
    """One spelling for one value, whoever wrote it: floats by repr, lists by JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def to_tags(values: Mapping[str, str]) -> dict[str, str]:
    """Tags as MLflow takes them: long ones cut, empty ones left out."""
    return {name: value[:_TAG] for name, value in values.items() if value}


def set_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Sets all tags in one request."""
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def to_params(values: Mapping[str, str]) -> list[Param]:
    """Params by name; long values are cut."""
    from mlflow.entities import Param

    return [Param(key(name), value[:_PARAM]) for name, value in values.items()]


def to_metric(name: str, value: Any, stamp: int, step: int = 0, model_id: str | None = None) -> Iterator[Metric]:
    """One metric, or none where `value` is no finite number.

    stamp: milliseconds since 1970. model_id: of a logged model on whose page it shows too.
    """
    from mlflow.entities import Metric

    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield Metric(key(name), float(value), stamp, step, model_id=model_id)


def to_metrics(values: Mapping[str, Any], stamp: int, step: int = 0, model_id: str | None = None) -> list[Metric]:
    """The finite numbers of `values` as metrics. stamp, step, model_id: as for `to_metric`."""
    return [metric for name, value in values.items() for metric in to_metric(name, value, stamp, step, model_id)]


def log_batches(client: MlflowClient, run_id: str, params: Iterable[Param] = (), metrics: Iterable[Metric] = ()) -> None:
    """log_batch within the tracking API's limits: 100 params or 1000 metrics a request."""
    params, metrics = list(params), list(metrics)
    for start in range(0, len(params), 100):
        client.log_batch(run_id, params=params[start : start + 100])
    for start in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[start : start + 1000])


def log_table(client: MlflowClient, run_id: str, table: pandas.DataFrame, name: str) -> None:
    """A table that the UI shows. As client.log_table, which would append to a table that is there already."""
    client.log_text(run_id, table.to_json(orient="split", index=False), name)
    tables = json.loads(client.get_run(run_id).data.tags.get("mlflow.loggedArtifacts", "[]"))
    if {"path": name, "type": "table"} not in tables:
        client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([*tables, {"path": name, "type": "table"}]))


def log_predictions(
    client: MlflowClient, run_id: str, predictions: pandas.DataFrame, classes: Sequence[str], threshold: float, name: str
) -> None:
    """Predictions as a table that the UI shows: record, group, label, decision and probabilities."""
    import numpy as np
    import pandas as pd

    from cardium.evaluation.metrics import decide
    from cardium.runs.predictions import probability_columns

    columns = probability_columns(list(classes))
    p = predictions[columns].to_numpy()
    table = pd.DataFrame(
        {
            "record": predictions["record"],
            "group": predictions["group"],
            "label": np.array(classes)[predictions["label"]],
            "decided": np.array(classes)[decide(p, threshold)],
            **{column: p[:, i].round(4) for i, column in enumerate(columns)},
        }
    )
    log_table(client, run_id, table, name)


def log_confusion(client: MlflowClient, run_id: str, matrix: list[list[int]], classes: Sequence[str], part: str) -> None:
    """A confusion matrix as numbers. part: `validation` or `test`."""
    table = {"classes": list(classes), "rows": "label", "columns": "decided", "matrix": matrix}
    client.log_dict(run_id, table, f"confusion_{part}.json")
