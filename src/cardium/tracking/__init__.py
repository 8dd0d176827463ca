"""MLflow as a view of the files: run folders and evaluations in; runs, curves, tables and models in the tracking store out.

The files are the truth. Every run folder is logged exactly once, known by the `id` in its run.json (tag `cardium.id`), however
often this is called, from however many processes, and after a kill half-way (tag `cardium.complete`: a run without it is
completed). With the store away nothing is lost: `log_run` and `log_evaluation` say so in one line, and `sync` logs later what
is missing.

What a run is called and holds:

    name       the model, then the protocol if not honest, then what was overridden: `resnet152v2 published epochs=3`
    tags       dataset, model, protocol, kind, weights, cardium.*, the git commit, one for every warning
    params     cfg.<key> the effective settings, override.<key> what differs from params.yaml
    metrics    val_* final validation scores · test_*, test_patient_* from evaluate, the main ones with _low and _high ·
               training/* the curves (several test folds: the mean over the folds) · training_folds/* each fold's losses ·
               training_cost/* seconds, parameters, size. The UI sorts tables by name: the test scores come first
               explain/<method>_* how true each method's explanations are of the run
    inputs     the dataset, its digest DVC's md5 of data/
    artifacts  run.json, history.csv, figures/, predictions/, and `model`: a pyfunc from code that holds the whole run folder
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cardium.config import Settings
from cardium.errors import CardiumError
from cardium.workspace import Workspace, suffix

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Which run may take over the MLflow run that `mlflow run` opened (MLFLOW_RUN_ID): the one that was asked for, not the stages
# before it.
REQUESTED = "CARDIUM_MLFLOW_RUN"
ID, COMPLETE, EVALUATION, SAME_AS = "cardium.id", "cardium.complete", "cardium.evaluation", "cardium.same_as"
EXPLAINED = "cardium.explained"
SEARCH, PARENT = "cardium.search", "mlflow.parentRunId"
# One process at a time writes to the store from this project; logging the largest model takes seconds.
_LOCK_SECONDS = 600
# MLflow's own defaults (7 retries of 120 s) would hold a pipeline for a quarter of an hour when the server hangs.
_MLFLOW = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_PROBE_SECONDS = 3.0
# Both ends of every interval would be 60 more metrics, and bury the scores on the run's page.
_WITH_INTERVAL = ("balanced_accuracy", "accuracy", "roc_auc")
# What the served model imports, directly or through cardium.
_REQUIREMENTS = (
    "mlflow",
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "numpy",
    "pandas",
    "pillow",
    "pydicom",
    "nibabel",
    "uvloop",
    "httptools",
)


class StoreAway(CardiumError):  # noqa: N818
    """The tracking store cannot be reached, or not written to."""

    def __init__(self, uri: str, why: str) -> None:
        super().__init__(f"MLflow at {_without_password(uri)} does not answer ({why}): nothing lost, run `cardium sync` later.")


def tracking_uri(settings: Settings) -> str:
    """MLFLOW_TRACKING_URI, else tracking.uri of params.yaml, else mlflow.db in the project's root. Never relative to cwd."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or settings.tracking.uri or "sqlite:///mlflow.db"
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        return f"sqlite:///{settings.root / uri.removeprefix('sqlite:///')}"
    return uri


def experiment_name(settings: Settings, dataset: str) -> str:
    """One experiment a dataset, so that its runs are one page: `cardium-cmri`. The registered model has the same name."""
    return f"{settings.tracking.experiment}-{dataset}"


@contextlib.contextmanager
def connected(settings: Settings) -> Iterator[MlflowClient]:
    """A client of the tracking store and registry, with the store locked against this project's other processes.

    Creates the store at first use: under the lock, since creating it from several processes at once breaks it for good.
    Raises StoreAway within seconds if it cannot be reached. MLflow's process-wide settings are put back at the end.
    """
    uri = tracking_uri(settings)
    _probe(uri)
    with _environment({key: value for key, value in _MLFLOW.items() if key not in os.environ}), store_lock(settings):
        import mlflow
        from mlflow.exceptions import MlflowException

        with _quiet(), _process_wide_uri(uri):
            try:
                client = mlflow.MlflowClient(uri, registry_uri=uri)
                client.search_experiments(max_results=1)
            except (MlflowException, OSError) as error:
                raise StoreAway(uri, _first_line(error)) from None
            except Exception as error:  # sqlalchemy's, urllib3's: MLflow lets its backends' errors through
                raise StoreAway(uri, f"{type(error).__name__}: {_first_line(error)}") from None
            try:
                yield client
            except MlflowException as error:
                if "API request to" in str(error):
                    raise StoreAway(uri, "it stopped answering") from None
                raise


@contextlib.contextmanager
def store_lock(settings: Settings, name: str = "store", seconds: float = _LOCK_SECONDS) -> Iterator[None]:
    """Holds the lock `name` of the store, which the system frees when the process dies, however it dies.

    For a local store the lock lies beside the database: two clones that share one share the lock too. Raises CardiumError after
    `seconds`.
    """
    import filelock

    uri = tracking_uri(settings)
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///").partition("?")[0])
        if not database.parent.is_dir():
            raise StoreAway(uri, "its folder does not exist")
        path = database.with_name(f"{database.name}.{name}.lock")
    else:
        path = Workspace(settings.root).scratch() / f"mlflow.{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path, timeout=seconds)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise CardiumError(
            f"Another process holds {path.name} for more than {seconds:g} s: wait until it has ended, then run this again."
        ) from None
    except OSError as error:
        raise StoreAway(uri, _first_line(error)) from None
    try:
        yield
    finally:
        lock.release()


def log_run(settings: Settings, run_folder: Path) -> str | None:
    """Logs the run folder unless it is logged already; returns the MLflow run's id.

    Under `mlflow run` (MLFLOW_RUN_ID) the run named by CARDIUM_MLFLOW_RUN is logged into the run that MLflow opened. If its
    folder is logged elsewhere already, that run gets the same scores and curves and the tag cardium.same_as, but no second
    model. With the store away, or on any other error of MLflow's: one line on stderr, and None. A training never fails for its
    log.
    """
    with _warned(), connected(settings) as client:
        return _log_run(client, settings, run_folder)[0]
    return None


def log_evaluation(settings: Settings, dataset: str) -> int | None:
    """Adds the test scores and figures of reports/<dataset>/evaluation to their runs; returns how many runs were new to them.

    Runs that are not logged are left to `sync`. Errors as in `log_run`.
    """
    with _warned(), connected(settings) as client:
        return len(_log_evaluation(client, settings, dataset))
    return None


def log_search(settings: Settings, folder: Path) -> str | None:
    """Logs a search's folder (study.json) as a run with one child a trial; returns the run's id.

    A search that has gone on since gets its new trials as children, its figures and its best settings anew. Errors as in
    `log_run`.
    """
    with _warned(), connected(settings) as client:
        return _log_search(client, settings, folder)[0]
    return None


def log_audit(settings: Settings, dataset: str) -> bool | None:
    """Logs reports/<dataset>/audit as a run `audit` of the dataset's experiment, unless it is there already; errors as in
    `log_run`."""
    with _warned(), connected(settings) as client:
        return _log_audit(client, settings, dataset)
    return None


def log_report(settings: Settings, dataset: str) -> bool | None:
    """Logs reports/<dataset>/report as a run `report` of the dataset's experiment, unless the same page is there already;
    errors as in `log_run`."""
    with _warned(), connected(settings) as client:
        return _log_report(client, settings, dataset)
    return None


def log_explanations(settings: Settings, folder: Path) -> int | None:
    """Adds reports/<dataset>/explanations/<run>/<method>/ to its run: the methods' table, their scores, the gallery.

    Returns how many MLflow runs it was new to. A run that is not logged is left to `sync`. Errors as in `log_run`.
    """
    with _warned(), connected(settings) as client:
        return _log_explanations(client, folder)
    return None


def sync(settings: Settings, dataset: str | None = None) -> dict[str, list[str]]:
    """Logs every run folder and evaluation (of one dataset, or all) that the store lacks.

    Returns {"logged", "known", "evaluated", "failed"}: run names, the last with a reason. Raises StoreAway.
    """
    from cardium.progress import progress

    summary: dict[str, list[str]] = {"logged": [], "known": [], "evaluated": [], "failed": []}
    folders = list(run_folders(settings.root, dataset))
    reports, own = settings.root / "reports", dataset or "*"

    @contextlib.contextmanager
    def noted(name: str) -> Iterator[None]:
        """One item's trouble must not keep the others out of the store; that of the store itself goes on up."""
        try:
            yield
        except Exception as error:
            _probe(tracking_uri(settings))
            summary["failed"].append(f"{name}: {type(error).__name__}: {_first_line(error)}")

    def named(folder: Path) -> str:
        return folder.relative_to(settings.root).as_posix()

    with connected(settings) as client:
        for folder in progress(folders, total=len(folders), desc="sync", unit="run"):
            with noted(named(folder)):
                try:
                    _, new = _log_run(client, settings, folder)
                    summary["logged" if new else "known"].append(named(folder))
                except CardiumError as error:
                    summary["failed"].append(f"{named(folder)}: {error}")
        for path in sorted(reports.glob(f"{own}/tuning/*/study.json")):
            with noted(named(path.parent)):
                _, new = _log_search(client, settings, path.parent)
                summary["logged" if new else "known"].append(named(path.parent))
        for kind, log in (("audit", _log_audit), ("report", _log_report)):
            for path in sorted(reports.glob(f"{own}/{kind}/{kind}.json")):
                with noted(named(path.parent)):
                    new = log(client, settings, path.parents[1].name)
                    summary["logged" if new else "known"].append(named(path.parent))
        for path in sorted(reports.glob(f"{own}/evaluation/metrics.json")):
            with noted(f"evaluation of {path.parents[1].name}"):
                summary["evaluated"] += _log_evaluation(client, settings, path.parents[1].name)
        for path in sorted(reports.glob(f"{own}/explanations/*/*/explanations.json")):
            with noted(named(path.parent)):
                _log_explanations(client, path.parent)
    return summary


def sync_text(settings: Settings, summary: dict[str, list[str]]) -> str:
    """What `sync` did, in a line or two."""
    logged, known, evaluated = (len(summary[key]) for key in ("logged", "known", "evaluated"))
    place = _without_password(tracking_uri(settings))
    lines = [f"Logged {logged} runs and {evaluated} evaluations to {place}; {known} runs were there."]
    lines += [f"not logged: {line}" for line in summary["failed"]]
    return "\n".join(lines)


def run_folders(root: Path, dataset: str | None = None) -> Iterator[Path]:
    """The run folders of the project, of all datasets or one: trained by the pipeline, then experiments with overrides."""
    for path in sorted([*root.glob("models/**/run.json"), *root.glob("experiments/**/run.json")]):
        if any(part.startswith(".") for part in path.relative_to(root).parts):
            continue  # half-written, beside its place
        if dataset is None or _dataset_of(path) == dataset:
            yield path.parent


def find_run(client: MlflowClient, tag: str, value: str) -> list[Any]:
    """The MLflow runs whose `tag` is `value`, of all experiments, oldest first: `mlflow run` opens its runs in any of them."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`{tag}` = '{value}'", order_by=["attributes.start_time ASC"])
    return list(runs)


def read_info(run_folder: Path) -> dict[str, Any]:
    """run.json of a run folder. Raises CardiumError if it is not there, not whole, or lacks its id."""
    path = run_folder / "run.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(info["id"], str) or not isinstance(info["classes"], list):
            raise TypeError
    except FileNotFoundError:
        raise CardiumError(f"{run_folder.name}: no run.json in it: not a run folder, or its training did not end.") from None
    except (ValueError, KeyError, TypeError):
        raise CardiumError(f"{run_folder.name}: run.json is not one that `cardium train` wrote: train the run again.") from None
    return dict(info)


# ---------------------------------------------------------------------------------------------------------------- one run


def _log_run(client: MlflowClient, settings: Settings, folder: Path) -> tuple[str, bool]:
    """The MLflow run's id, and whether anything was logged."""
    info = read_info(folder)
    known = find_run(client, ID, info["id"])
    requested = _requested(client, info)
    run = known[0] if known else requested
    new = run is None or run.data.tags.get(COMPLETE) != "true"
    if run is None:
        experiment = _experiment(client, settings, info["dataset"])
        start = int(_ended(info).timestamp() * 1000 - 1000 * _training_seconds(info))
        # The id goes in with the creation, in one request: a kill leaves no run that cannot be found again.
        run = client.create_run(experiment, start_time=start, tags=_tags(info), run_name=_title(info))
    if new:
        _write(client, run.info.run_id, settings, folder, info)
        if not _ours(run.info.run_id):
            client.set_terminated(run.info.run_id, "FINISHED", end_time=int(_ended(info).timestamp() * 1000))
    if requested is not None and requested.info.run_id != run.info.run_id and SAME_AS not in requested.data.tags:
        _mirror(client, client.get_run(run.info.run_id), requested.info.run_id, folder, info)
        new = True
    return run.info.run_id, new


def _requested(client: MlflowClient, info: dict[str, Any]) -> Any | None:
    """The run that `mlflow run` opened, if it was for this cardium run and holds no other."""
    from mlflow.exceptions import MlflowException

    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id or os.environ.get(REQUESTED) != info["run"]:
        return None
    try:
        run = client.get_run(run_id)
    except MlflowException:  # of another store
        return None
    return run if run.data.tags.get(ID, info["id"]) == info["id"] else None


def _ours(run_id: str) -> bool:
    """Whether `mlflow run` waits for this run: it ends it itself."""
    return os.environ.get("MLFLOW_RUN_ID") == run_id


def _write(client: MlflowClient, run_id: str, settings: Settings, folder: Path, info: dict[str, Any]) -> None:
    """Everything of a run folder. Each step can be repeated on a run that has it, so a half-logged run is completed by this."""
    from mlflow.entities import Param, RunTag

    client.log_batch(
        run_id, tags=[RunTag(key, value) for key, value in {**_tags(info), "mlflow.runName": _title(info)}.items()]
    )
    _batched(client, run_id, params=[Param(key, value) for key, value in _params(info).items()])
    _batched(client, run_id, metrics=[*_final_metrics(info), *_curves(folder, info)])
    _log_dataset(client, run_id, info)
    _log_files(client, run_id, folder, info)
    _log_model(client, run_id, settings, folder, info)
    client.set_tag(run_id, COMPLETE, "true")


def _mirror(client: MlflowClient, source: Any, run_id: str, folder: Path, info: dict[str, Any]) -> None:
    """Shows a run, logged before, in the run that `mlflow run` opened; the model stays where it is."""
    from mlflow.entities import Metric, Param, RunTag

    note = f"This training was done and logged before, in run {source.info.run_id}; its scores and curves, the model is there."
    tags = {**_tags(info), "mlflow.runName": _title(info), "mlflow.note.content": note}
    tags.pop(ID)
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    _batched(client, run_id, params=[Param(key, value) for key, value in _params(info).items()])
    stamp = int(_ended(info).timestamp() * 1000)
    last = [
        Metric(key, value, stamp, 0)
        for key, value in source.data.metrics.items()
        if not key.startswith(("training/", "training_folds/"))
    ]
    _batched(client, run_id, metrics=[*last, *_curves(folder, info)])
    _log_dataset(client, run_id, info)
    _log_files(client, run_id, folder, info)
    client.set_tag(run_id, SAME_AS, source.info.run_id)


def _title(info: dict[str, Any]) -> str:
    """What tells this run from the others of its dataset: `resnet152v2_spatial`, `resnet152v2 published epochs=3`."""
    words = [info["model"]]
    if info["protocol"] != "honest":
        words.append(info["protocol"])
    words += [f"{key.rsplit('.', 1)[-1]}={_text(value)}" for key, value in info.get("overrides", {}).items()]
    return " ".join(words)


def _tags(info: dict[str, Any]) -> dict[str, str]:
    weights = info.get("weights") or {}
    tags = {
        ID: info["id"],
        "cardium.run": info["run"],
        "dataset": info["dataset"],
        "model": info["model"],
        "protocol": info["protocol"],
        "kind": info["kind"],
        "weights": str(weights.get("used", "")),
        "mlflow.source.name": f"cardium {info['kind']} {info['run']}",
        "mlflow.source.type": "PROJECT",
        "mlflow.note.content": _note(info),
    }
    if info.get("commit"):
        tags["mlflow.source.git.commit"] = info["commit"]
        if info.get("dirty"):
            tags["dirty"] = "true: tracked files differed from the commit"
    if info.get("warnings"):
        tags["warnings"] = " · ".join(info["warnings"])[:4900]
    return {key: value for key, value in tags.items() if value}


def _note(info: dict[str, Any]) -> str:
    lines = [f"**{info['run']}**, protocol {info['protocol']}, classes {', '.join(info['classes'])}."]
    if info.get("members"):
        lines.append("Mean of the probabilities of " + ", ".join(info["members"]) + ".")
    lines += [f"⚠ {warning}" for warning in info.get("warnings", [])]
    return "\n\n".join(lines)


def _params(info: dict[str, Any]) -> dict[str, str]:
    """cfg.* and override.*: never the bare names, which `mlflow run -P` has logged already, in its own spelling."""
    params = {f"cfg.{key}": _text(value) for key, value in _flat(info.get("settings", {}))}
    params |= {f"override.{key}": _text(value) for key, value in _flat(info.get("overrides", {}))}
    params |= {f"cfg.{key}": info[key] for key in ("dataset", "model", "protocol")}
    params |= {
        "cfg.test_folds": _text(info.get("test_folds", [])),
        "cfg.weights_used": str((info.get("weights") or {}).get("used", "")),
    }
    return {_key(key): value[:6000] for key, value in params.items()}


def _flat(table: dict[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        name = f"{where}.{key}" if where else str(key)
        if isinstance(value, dict):
            yield from _flat(value, name)
        else:
            yield name, value


def _text(value: Any) -> str:
    """One spelling for one value, whoever wrote it: floats by repr, lists by JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _key(name: str) -> str:
    """`name` with only what MLflow takes in a key."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)[:250]


def _ended(info: dict[str, Any]) -> datetime:
    ended = datetime.fromisoformat(info["created"])
    return ended if ended.tzinfo else ended.replace(tzinfo=UTC)


def _training_seconds(info: dict[str, Any]) -> float:
    return float((info.get("seconds") or {}).get("train", 0.0))


def _metric(name: str, value: Any, stamp: int, step: int, model_id: str | None = None) -> Iterator[Any]:
    from mlflow.entities import Metric

    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield Metric(_key(name), float(value), stamp, step, model_id=model_id)


def _curves(folder: Path, info: dict[str, Any]) -> list[Any]:
    """The epochs of history.csv as metrics, steps from 1; a second phase goes on counting where the first ended.

    training/* is the curve itself or, of several test folds, the mean over them, as far as every fold went. Time stamps come
    from the file, so that logging again writes the same points and not twice as many.
    """
    path = folder / "history.csv"
    if not path.is_file():
        return []  # an ensemble is not trained
    import pandas as pd

    history = pd.read_csv(path)
    history["step"] = history.groupby("test_fold").cumcount() + 1
    history["after"] = history.groupby("test_fold")["seconds"].cumsum()
    start = _ended(info).timestamp() - _training_seconds(info)
    values = ["loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]
    metrics: list[Any] = []
    folds = history["test_fold"].nunique()
    common = int(history.groupby("test_fold")["step"].max().min())
    mean = history[history["step"] <= common].groupby("step")[[*values, "after"]].mean()
    for step, row in mean.iterrows():
        for name in values:
            metrics += _metric(f"training/{name}", float(row[name]), int(1000 * (start + row["after"])), int(str(step)))
    if folds > 1:
        for point in history.to_dict("records"):
            for name in ("loss", "val_loss"):
                stamp = int(1000 * (start + point["after"]))
                metrics += _metric(f"training_folds/{name}_{point['test_fold']}", point[name], stamp, int(point["step"]))
    return metrics


def _final_metrics(info: dict[str, Any], model_id: str | None = None) -> list[Any]:
    stamp = int(_ended(info).timestamp() * 1000)
    metrics: list[Any] = []
    validation = info.get("validation", {})
    # The UI's comparison opens on the metric that was logged first.
    for name, value in sorted(validation.items(), key=lambda item: item[0] != "balanced_accuracy"):
        metrics += _metric(f"val_{name}", value, stamp, 0, model_id)
    for name, value in (info.get("seconds") or {}).items():
        metrics += _metric(f"training_cost/{name}_seconds", value, stamp, 0, model_id)
    metrics += _metric("training_cost/parameters", info.get("parameters"), stamp, 0, model_id)
    metrics += _metric("training_cost/trainable_parameters", info.get("trainable_parameters"), stamp, 0, model_id)
    metrics += _metric("training_cost/model_megabytes", round(info.get("model_bytes", 0) / 1e6, 3), stamp, 0, model_id)
    return metrics


def _batched(client: MlflowClient, run_id: str, params: Iterable[Any] = (), metrics: Iterable[Any] = ()) -> None:
    """log_batch within the tracking API's limits: 100 params or 1000 metrics a request."""
    params, metrics = list(params), list(metrics)
    for start in range(0, len(params), 100):
        client.log_batch(run_id, params=params[start : start + 100])
    for start in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[start : start + 1000])


def _log_dataset(client: MlflowClient, run_id: str, info: dict[str, Any]) -> None:
    """The dataset as the run's input. Its digest is DVC's md5 of data/: `dvc get` or `git log -S<digest> data.dvc` finds it."""
    from mlflow.data.dataset_source_registry import resolve_dataset_source
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag

    data = info.get("data") or {}
    digest = (data.get("dvc_md5") or data.get("manifest_sha256") or "unknown")[:36]
    source = resolve_dataset_source(f"data/{info['dataset']}")
    # mypy takes the class for abstract; MLflow's own documentation makes one.
    dataset = MetaDataset(source, name=info["dataset"], digest=digest)  # type: ignore[abstract]
    tags = [InputTag("mlflow.data.context", "training"), InputTag("protocol", info["protocol"])]
    client.log_inputs(run_id, [DatasetInput(dataset._to_mlflow_entity(), tags)])


def _log_files(client: MlflowClient, run_id: str, folder: Path, info: dict[str, Any]) -> None:
    for name in ("run.json", "history.csv"):
        if (folder / name).is_file():
            client.log_artifact(run_id, str(folder / name))
    for figure in sorted(folder.glob("*.png")):
        client.log_artifact(run_id, str(figure), "figures")
    validation = folder / "validation.parquet"
    if validation.is_file():
        import pandas as pd

        predictions = pd.read_parquet(validation)
        client.log_artifact(run_id, str(validation), "predictions")
        _log_table(client, run_id, predictions, info["classes"], _threshold(info), "predictions/validation.json")
        _log_confusion(client, run_id, predictions, info, "validation")


def _log_table(client: MlflowClient, run_id: str, predictions: Any, classes: list[str], threshold: float, name: str) -> None:
    """Predictions as a table that the UI shows. As client.log_table, which would append to a table that is there already."""
    import numpy as np
    import pandas as pd

    from cardium.evaluation.metrics import decide

    p = predictions[[f"p_{c}" for c in classes]].to_numpy()
    table = pd.DataFrame(
        {
            "record": predictions["record"],
            "group": predictions["group"],
            "label": np.array(classes)[predictions["label"]],
            "decided": np.array(classes)[decide(p, threshold)],
            **{f"p_{c}": p[:, i].round(4) for i, c in enumerate(classes)},
        }
    )
    _show_table(client, run_id, table, name)


def _show_table(client: MlflowClient, run_id: str, table: Any, name: str) -> None:
    client.log_text(run_id, table.to_json(orient="split", index=False), name)
    tables = json.loads(client.get_run(run_id).data.tags.get("mlflow.loggedArtifacts", "[]"))
    if {"path": name, "type": "table"} not in tables:
        client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([*tables, {"path": name, "type": "table"}]))


def _log_confusion(client: MlflowClient, run_id: str, predictions: Any, info: dict[str, Any], part: str) -> None:
    """The confusion matrix as numbers and as a figure."""
    from tempfile import TemporaryDirectory

    from cardium.evaluation.metrics import confusion
    from cardium.reporting.plots import confusion_matrix

    classes = info["classes"]
    p = predictions[[f"p_{c}" for c in classes]].to_numpy()
    matrix = confusion(predictions["label"].to_numpy(), p, _threshold(info))
    _log_matrix(client, run_id, matrix.tolist(), classes, part)
    with TemporaryDirectory() as folder:
        figure = Path(folder) / f"confusion_{part}.png"
        confusion_matrix([(part, matrix)], classes, figure, title=_title(info))
        client.log_artifact(run_id, str(figure), "figures")


def _log_matrix(client: MlflowClient, run_id: str, matrix: list[list[int]], classes: list[str], part: str) -> None:
    table = {"classes": classes, "rows": "label", "columns": "decided", "matrix": matrix}
    client.log_dict(run_id, table, f"confusion_{part}.json")


def _threshold(info: dict[str, Any]) -> float:
    return float(dict(_flat(info.get("settings", {}))).get("evaluate.threshold", 0.5))


# ------------------------------------------------------------------------------------------------------------------ model


def _log_model(client: MlflowClient, run_id: str, settings: Settings, folder: Path, info: dict[str, Any]) -> None:
    """The run folder as a served model: code and files, no pickle. Skipped if the run has one that is whole.

    The steps of mlflow.pyfunc.log_model but for one: that serves the input example at once, and so would load every network a
    second time, right after its training.
    """
    from tempfile import TemporaryDirectory

    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.entities.logged_model_status import LoggedModelStatus
    from mlflow.models import Model

    import cardium
    from cardium.serving import classifier as serving

    if model_of(client, run_id) is not None:
        return
    run = client.get_run(run_id)
    for left_half_way in client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'"):
        client.delete_logged_model(left_half_way.model_id)
    logged = client.create_logged_model(
        run.info.experiment_id,
        name="model",
        source_run_id=run_id,
        tags={ID: info["id"], "cardium.run": info["run"], "protocol": info["protocol"]},
        params={key: info[key] for key in ("dataset", "model", "protocol")},
    )
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    artifacts = {"run": str(folder)}
    split = _own_split(settings, info)
    if split is not None:
        # What this model has seen: a later promotion must know it when the split has changed since.
        artifacts["split"] = str(split)
    package = Path(cardium.__file__).parent
    facts = {"cardium": {key: info[key] for key in ("id", "run", "dataset", "model", "protocol", "classes")}}
    with TemporaryDirectory() as temporary:
        place = Path(temporary) / "model"
        mlflow.pyfunc.save_model(
            place,
            mlflow_model=Model(logged.artifact_location, run_id=run_id, model_uuid=logged.model_id, model_id=logged.model_id),
            python_model=str(package / "serving" / "served_model.py"),
            artifacts=artifacts,
            code_paths=[str(package)],
            pip_requirements=requirements(),
            signature=serving.signature(info["classes"]),
            input_example=serving.input_example(info["rendering"]["kind"]),
            metadata=facts,
        )
        client.log_model_artifacts(logged.model_id, str(place))
    # The scores show on the model's own page too.
    _batched(client, run_id, metrics=_final_metrics(info, model_id=logged.model_id))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)


def model_of(client: MlflowClient, run_id: str) -> Any | None:
    """The run's logged model, if its logging was finished."""
    from mlflow.entities.logged_model_status import LoggedModelStatus

    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    return next((model for model in found if model.status == LoggedModelStatus.READY), None)


def run_folder_of(model_folder: Path) -> Path:
    """The run folder inside of a logged model's folder. Raises CardiumError if cardium did not log it."""
    for path in model_folder.glob("artifacts/*/run.json"):
        return path.parent
    raise CardiumError("This MLflow model was not logged by cardium: it holds no run folder.")


def _own_split(settings: Settings, info: dict[str, Any]) -> Path | None:
    """honest.csv, if it still is the one that the run was trained on."""
    folder = Workspace(settings.root).split(info["dataset"])
    try:
        current = json.loads((folder / "split.json").read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError):
        return None
    path = folder / "honest.csv"
    return path if current == (info.get("data") or {}).get("split_sha256") and path.is_file() else None


def requirements() -> list[str]:
    """What the served model needs, pinned to what is installed here."""
    from importlib.metadata import PackageNotFoundError, version

    pinned = []
    for name in _REQUIREMENTS:
        with contextlib.suppress(PackageNotFoundError):
            pinned.append(f"{name}=={version(name)}")
    return pinned


# ------------------------------------------------------------------------------------------------------------- evaluation


def _log_evaluation(client: MlflowClient, settings: Settings, dataset: str) -> list[str]:
    """The names of the runs that got test scores they did not have."""
    from mlflow.entities import RunTag

    folder = Workspace(settings.root).evaluation(dataset)
    path = folder / "metrics.json"
    if not path.is_file():
        return []
    table = json.loads(path.read_text(encoding="utf-8"))
    stamp = int(path.stat().st_mtime * 1000)
    logged = []
    for name, entry in table["runs"].items():
        if not entry.get("run_id"):
            continue  # the naive rows are no runs
        shared = [table.get(key) for key in ("classes", "interval", "bootstrap", "threshold", "data")]
        digest = hashlib.sha256(json.dumps([entry, shared], sort_keys=True).encode()).hexdigest()
        known = find_run(client, ID, entry["run_id"])
        for run in [*known, *(mirror for original in known for mirror in find_run(client, SAME_AS, original.info.run_id))]:
            run_id = run.info.run_id
            if run.data.tags.get(EVALUATION) == digest:
                continue
            _batched(client, run_id, metrics=_test_metrics(entry, stamp))
            _log_evaluation_files(client, run_id, folder, name, entry, table)
            client.log_batch(run_id, tags=[RunTag(EVALUATION, digest)])
            logged.append(name)
    return logged


def _log_explanations(client: MlflowClient, folder: Path) -> int:
    from mlflow.entities import RunTag

    told = json.loads((folder / "explanations.json").read_text(encoding="utf-8"))
    faithful = folder / "faithfulness.json"
    if not faithful.is_file():
        return 0  # of files that somebody gave: no part of a run
    import pandas as pd

    digest = hashlib.sha256((folder / "explanations.json").read_bytes() + faithful.read_bytes()).hexdigest()
    called = told["method"].replace("+", "p")  # gradcampp: MLflow's keys know no +
    tag, place = f"{EXPLAINED}.{called}", f"explanations/{called}"
    stamp = int(faithful.stat().st_mtime * 1000)
    logged = 0
    for run in find_run(client, ID, told["run_id"]):
        run_id = run.info.run_id
        if run.data.tags.get(tag) == digest:
            continue
        metrics: list[Any] = []
        for method, row in json.loads(faithful.read_text(encoding="utf-8"))["methods"].items():
            for name, value in row.items():
                metrics += _metric(f"explain/{method.replace('+', 'p')}_{name}", value, stamp, 0)
        _batched(client, run_id, metrics=metrics)
        _show_table(client, run_id, pd.read_csv(folder / "faithfulness.csv"), f"{place}/faithfulness_table.json")
        client.log_artifacts(run_id, str(folder), place)
        client.log_batch(run_id, tags=[RunTag(tag, digest)])
        logged += 1
    return logged


def _test_metrics(entry: dict[str, Any], stamp: int) -> list[Any]:
    """test_* per image and test_patient_* per patient; main scores with their intervals, the others' in evaluation.json."""
    metrics: list[Any] = []
    for part, prefix in (("image", "test_"), ("patient", "test_patient_")):
        for name, value in (entry.get(part) or {}).items():
            metrics += _metric(f"{prefix}{name}", value.get("value"), stamp, 0)
            for end in ("low", "high") if name in _WITH_INTERVAL else ():
                metrics += _metric(f"{prefix}{name}_{end}", value.get(end), stamp, 0)
    return metrics


def _log_evaluation_files(
    client: MlflowClient, run_id: str, folder: Path, name: str, entry: dict[str, Any], table: dict[str, Any]
) -> None:
    shared = {key: table.get(key) for key in ("classes", "interval", "bootstrap", "threshold", "data")}
    client.log_dict(run_id, {**shared, **entry}, "evaluation.json")
    predictions = folder / "predictions" / f"{name}.parquet"
    if predictions.is_file():
        import pandas as pd

        client.log_artifact(run_id, str(predictions), "predictions/test")
        threshold = float(table.get("threshold", 0.5))
        _log_table(client, run_id, pd.read_parquet(predictions), table["classes"], threshold, "predictions/test.json")
    if entry.get("confusion"):
        _log_matrix(client, run_id, entry["confusion"], table["classes"], "test")
    # A run's own figures carry its name; the rest show all the runs.
    figures = sorted(folder.glob("figures/*.png")) + sorted(folder.glob("*.png"))
    for figure in figures:
        if _figure_of(figure.stem, name, entry["protocol"]):
            client.log_artifact(run_id, str(figure), "figures/test")


def _figure_of(stem: str, run: str, protocol: str) -> bool:
    return stem in ("leaderboard", "roc" + suffix(protocol)) or stem.endswith(f"-{run}")


# ----------------------------------------------------------------------------------------------------------------- search


def _log_search(client: MlflowClient, settings: Settings, folder: Path) -> tuple[str, bool]:
    """The MLflow run's id, and whether anything was new. The search's id and its trials' numbers are the keys."""
    from mlflow.entities import Metric, Param, RunTag

    info = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256((folder / "study.json").read_bytes()).hexdigest()
    known = find_run(client, ID, info["id"])
    requested = _requested(client, {"run": f"tune {info['run']}", "id": info["id"]})
    run = known[0] if known else requested
    title = f"tune {info['model']}" + ("" if info["space"] == "bank" else f" {info['space']}")
    tags = {
        ID: info["id"],
        "cardium.run": info["run"],
        "dataset": info["dataset"],
        "model": info["model"],
        "kind": "tune",
        "verdict": info["verdict"],
        "mlflow.note.content": f"**tune {info['run']}**. {info['verdict']}",
        "mlflow.source.name": f"cardium tune {info['run']}",
        "mlflow.source.type": "PROJECT",
        **({"mlflow.source.git.commit": info["commit"]} if info.get("commit") else {}),
    }
    if run is None:
        start = int(_ended(info).timestamp() * 1000 - 1000 * float(info["seconds"]["trials"]))
        experiment = _experiment(client, settings, info["dataset"])
        run = client.create_run(experiment, start_time=start, tags=tags, run_name=title)
    run_id, experiment = run.info.run_id, run.info.experiment_id
    new = run.data.tags.get(SEARCH) != digest
    if new:
        client.log_batch(run_id, tags=[RunTag(key, value[:4900]) for key, value in {**tags, "mlflow.runName": title}.items()])
        # Only what a search that goes on cannot change: MLflow takes a param once.
        fixed = {**info["defaults"]["settings"], "space": info["space"], "held_out": info["held_out"], "study": info["study"]}
        _batched(client, run_id, params=[Param(_key(f"cfg.{key}"), _text(value)) for key, value in fixed.items()])
        stamp = int(_ended(info).timestamp() * 1000)
        found = {
            "best": info["best"]["score"],
            "defaults": info["defaults"]["score"],
            **{f"gain_{name}": value for name, value in info["gain"].items()},
            **{f"trials_{name}": value for name, value in info["trials"].items()},
            "seconds_per_trial": info["seconds_per_trial"],
            **{f"importance/{name}": value for name, value in info["importance"].items()},
        }
        _batched(
            client, run_id, metrics=[Metric(_key(k), float(v), stamp, info["trials"]["completed"]) for k, v in found.items()]
        )
        _log_trials(client, experiment, run_id, folder, info)
        for name in ("study.json", "trials.csv"):
            client.log_artifact(run_id, str(folder / name))
        for figure in sorted(folder.glob("*.png")):
            client.log_artifact(run_id, str(figure), "figures")
        tuned = Workspace(settings.root).tuned(info["run"])
        if tuned.is_file():
            client.log_artifact(run_id, str(tuned))
        client.log_batch(run_id, tags=[RunTag(SEARCH, digest), RunTag(COMPLETE, "true")])
        if not _ours(run_id):
            client.set_terminated(run_id, "FINISHED", end_time=stamp)
    if requested is not None and requested.info.run_id != run_id and SAME_AS not in requested.data.tags:
        note = f"This search was logged before, in run {run_id}: its trials and figures are there. {info['verdict']}"
        shown = {key: value for key, value in tags.items() if key != ID} | {
            "mlflow.note.content": note,
            "mlflow.runName": title,
        }
        client.log_batch(
            requested.info.run_id, tags=[RunTag(key, value[:4900]) for key, value in {**shown, SAME_AS: run_id}.items()]
        )
        new = True
    return run_id, new


def _log_trials(client: MlflowClient, experiment: str, parent: str, folder: Path, info: dict[str, Any]) -> None:
    """A child run for each trial that has ended and has none yet."""
    import pandas as pd
    from mlflow.entities import Param

    children = client.search_runs([experiment], f"tags.`{PARENT}` = '{parent}'", max_results=5000)
    there = {run.data.tags.get(ID): run for run in children}
    trials = pd.read_csv(folder / "trials.csv", keep_default_na=False)
    for row in trials[trials["state"].isin(["complete", "pruned"])].to_dict("records"):
        key = f"{info['id']}/{row['trial']}"
        run = there.get(key)
        if run is not None and run.data.tags.get(COMPLETE) == "true":
            continue
        began = int(datetime.fromisoformat(str(row["started"])).timestamp() * 1000)
        ended = began + int(1000 * float(row["seconds"] or 0))
        if run is None:
            tags = {
                ID: key,
                PARENT: parent,
                "dataset": info["dataset"],
                "model": info["model"],
                "kind": "trial",
                "state": "completed" if row["state"] == "complete" else "cut short",
                **({"note": str(row["note"])} if row["note"] else {}),
                **({"defaults": "true"} if str(row["defaults"]) == "True" else {}),
            }
            run = client.create_run(experiment, start_time=began, tags=tags, run_name=f"trial {row['trial']}")
        set_to = {str(name).removeprefix("set."): value for name, value in row.items() if str(name).startswith("set.")}
        _batched(client, run.info.run_id, params=[Param(_key(f"cfg.{name}"), str(value)) for name, value in set_to.items()])
        metrics: list[Any] = []
        for name in ("score", "seconds", *(name for name in row if str(name).startswith("fold_"))):
            value = row[name]
            metrics += _metric("val_balanced_accuracy" if name == "score" else str(name), _number(value), ended, 0)
        _batched(client, run.info.run_id, metrics=metrics)
        client.set_terminated(run.info.run_id, "FINISHED", end_time=ended)
        client.set_tag(run.info.run_id, COMPLETE, "true")


def _number(text: Any) -> float | None:
    """A cell of a CSV file; None where it is empty."""
    return float(text) if str(text) else None


def _log_audit(client: MlflowClient, settings: Settings, dataset: str) -> bool:
    """Whether anything was logged."""
    folder = Workspace(settings.root).audit(dataset)
    path = folder / "audit.json"
    if not path.is_file():
        return False
    report = json.loads(path.read_bytes())
    values: dict[str, Any] = {
        "files": report["copies"]["files"],
        "distinct": report["copies"]["distinct_contents"],
        "leaks": len(report["leaks"]),
        "label_issues": report["label_issues"]["count"],
    }
    scores = dict(report["optimism"] or {})
    scores |= {f"shortcut_{line['name']}": line["score"] for line in report["shortcuts"] if line["score"]}
    for name, score in scores.items():
        values |= _with_ends(name, score)
    said = report["verdict"]
    note = "\n".join([f"**{said['headline']}**", *(f"- {line}" for line in said["said"])])
    return _log_page(
        client, settings, dataset, "audit", path, values, {"verdict": said["verdict"], "mlflow.note.content": note}
    )


def _log_report(client: MlflowClient, settings: Settings, dataset: str) -> bool:
    """Whether anything was logged."""
    folder = Workspace(settings.root).report(dataset)
    if not (folder / "report.json").is_file():
        return False
    report = json.loads((folder / "report.json").read_bytes())
    advice = report["advice"]
    values = {"use": int(advice["use"]), "records": advice["records"], "groups": advice["groups"], "chance": advice["chance"]}
    for name, score in (("balanced_accuracy", advice["score"]), ("published_balanced_accuracy", advice["other"])):
        if score:
            values |= _with_ends(name, score)
    tags = {"model": advice["run"], "mlflow.note.content": report["said"]}
    return _log_page(client, settings, dataset, "report", folder / "index.html", values, tags)


def _with_ends(name: str, score: Mapping[str, Any]) -> dict[str, Any]:
    """A score and the ends of its interval, under the names that metrics have."""
    return {name: score["value"], f"{name}_low": score["low"], f"{name}_high": score["high"]}


def _log_page(
    client: MlflowClient,
    settings: Settings,
    dataset: str,
    kind: str,
    path: Path,
    values: Mapping[str, Any],
    tags: Mapping[str, str],
) -> bool:
    """Logs the folder of `path` as a run named `kind` of its own, known by the hash of that file; whether it was new.

    A page that has changed is a new run: the older ones stay, with what was said then.
    """
    content = path.read_bytes()
    own = f"{kind}-{hashlib.sha256(content).hexdigest()[:32]}"
    known = find_run(client, ID, own)
    if known and known[0].data.tags.get(COMPLETE) == "true":
        return False
    if known:
        run_id = known[0].info.run_id
    else:
        own_tags = {ID: own, "dataset": dataset, "kind": kind, **tags}
        run_id = client.create_run(_experiment(client, settings, dataset), run_name=kind, tags=own_tags).info.run_id
    stamp = int(path.stat().st_mtime * 1000)
    _batched(client, run_id, metrics=[one for name in values for one in _metric(f"{kind}_{name}", values[name], stamp, 0)])
    client.log_artifacts(run_id, str(path.parent), kind)
    client.set_tag(run_id, COMPLETE, "true")
    client.set_terminated(run_id)
    return True


# -------------------------------------------------------------------------------------------------------------- the store


def _experiment(client: MlflowClient, settings: Settings, dataset: str) -> str:
    """The dataset's experiment, made if missing. A local store keeps its artifacts in the project's mlruns/."""
    name = experiment_name(settings, dataset)
    known = client.get_experiment_by_name(name)
    if known is not None:
        if known.lifecycle_stage != "active":
            client.restore_experiment(known.experiment_id)
        return str(known.experiment_id)
    place = None
    if tracking_uri(settings).startswith("sqlite:"):
        place = (settings.root / "mlruns" / name).as_uri()
    # The UI's word for what this is not: its pages for language models.
    tags = {"mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(name, artifact_location=place, tags=tags))


def store_exists(settings: Settings) -> bool:
    """False for a local store that nothing has been logged to: looking into it would create it."""
    uri = tracking_uri(settings)
    return not uri.startswith("sqlite:///") or Path(uri.removeprefix("sqlite:///").partition("?")[0]).is_file()


def _probe(uri: str) -> None:
    """Raises StoreAway if an HTTP server does not answer within seconds; MLflow itself would try for minutes."""
    if not uri.startswith(("http://", "https://")):
        return
    import requests

    try:
        requests.get(uri.rstrip("/") + "/health", timeout=_PROBE_SECONDS)
    except requests.RequestException as error:
        raise StoreAway(
            uri, {"ConnectTimeout": "no connection", "ReadTimeout": "no reply"}.get(type(error).__name__, "connection refused")
        ) from None
    except ValueError as error:
        raise StoreAway(uri, _first_line(error)) from None


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextlib.contextmanager
def _process_wide_uri(uri: str) -> Iterator[None]:
    """Model.log and the artifact repositories ask for the process' store; both it and its variable are put back."""
    import mlflow
    from mlflow.tracking._tracking_service import utils

    variable, before = os.environ.get("MLFLOW_TRACKING_URI"), utils._tracking_uri
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]
        if variable is not None:
            os.environ["MLFLOW_TRACKING_URI"] = variable
        elif before is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """MLflow tells of tables it creates and of type hints it misses; ours say what a user can act on."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "mlflow.store.db.utils")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _warned() -> Iterator[None]:
    """Turns any error into one line on stderr: what is logged is a view, and the files are whole without it."""
    try:
        yield
    except CardiumError as error:
        print(f"warning: {error}", file=sys.stderr)
    except Exception as error:
        reason = f"{type(error).__name__}: {_first_line(error)}"
        print(f"warning: MLflow could not log this ({reason}): nothing lost, run `cardium sync` later.", file=sys.stderr)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    return uri.replace(f"{parts.username}:{parts.password}@", "") if parts.password else uri


def _dataset_of(run_json: Path) -> str | None:
    try:
        return str(json.loads(run_json.read_text(encoding="utf-8"))["dataset"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
