"""A run folder as one MLflow run, logged exactly once: known by the id in its run.json (tag `cardium.id`).

Half-way killed it is completed (tag `cardium.complete`). What such a run is called and holds:

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

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cardium.config import Settings
from cardium.errors import CardiumError
from cardium.runs.predictions import VALIDATION
from cardium.runs.trained_run import FILE, TrainedRun
from cardium.tracking import run_values
from cardium.tracking.mlflow_run import (
    COMPLETE,
    ID,
    NAME,
    NOTE,
    SAME_AS,
    create_run,
    find_opened,
    find_or_restore,
    finish,
    has_artifact,
    is_complete,
    log_batches,
    log_confusion,
    log_predictions,
    milliseconds,
    set_tags,
    to_metrics,
    to_params,
)
from cardium.tracking.models import has_files, log_model, model_of
from cardium.tracking.moved import local_path
from cardium.tracking.orphans import PROJECT, end_left_behind, project
from cardium.tracking.store import connected, errors_as_warnings, experiment_id

# The experiment of runs that none was named for.
_DEFAULT = "0"

if TYPE_CHECKING:
    import pandas
    from mlflow import MlflowClient
    from mlflow.entities import Run


def log_run(settings: Settings, run_folder: Path) -> str | None:
    """Logs the run folder unless it is logged already; returns the MLflow run's id.

    Under `mlflow run` (MLFLOW_RUN_ID) the run named by CARDIUM_MLFLOW_RUN is logged into the run that MLflow opened. If its
    folder is logged elsewhere already, that run gets the same scores and curves and the tag cardium.same_as, but no second
    model. With the store away, or on any other error of MLflow's: one line on stderr, and None. A training never fails for its
    log.
    """
    with errors_as_warnings(), connected(settings) as client:
        return add_run(client, settings, run_folder)[0]
    return None


def add_run(client: MlflowClient, settings: Settings, folder: Path) -> tuple[str, bool]:
    """The MLflow run's id, and whether anything was logged. Raises CardiumError if the folder holds no whole run."""
    run = TrainedRun.read(folder)
    known = find_or_restore(client, ID, run.id)
    opened = find_opened(client, run.name, run.id)
    # Opened in MLflow's Default, since nobody named an experiment, it only shows the run, which belongs beside its like.
    logged = known[0] if known else opened if opened is not None and opened.info.experiment_id != _DEFAULT else None
    new = not is_complete(logged) or _lost_files(client, logged)
    if logged is None:
        # The id goes in with the creation, in one request: a kill leaves no run that cannot be found again.
        logged = create_run(
            client,
            experiment_id(client, settings, run.run.dataset),
            run.id,
            start_time=milliseconds(run_values.began(run)),
            tags={**run_values.tags(run), PROJECT: project(settings)},
            run_name=run_values.title(run),
        )
    run_id = logged.info.run_id
    if new:
        _write(client, run_id, settings, run)
        finish(client, run_id, run_values.ended(run))
        # Last: what was killed before is done again, and none stays RUNNING.
        client.set_tag(run_id, COMPLETE, "true")
    of_name = {NAME: run.name, "kind": run.kind}
    end_left_behind(client, settings, of_name, lambda: {one.id for one in trained_runs(settings.root)})
    if opened is not None and opened.info.run_id != run_id and SAME_AS not in opened.data.tags:
        _mirror(client, client.get_run(run_id), opened.info.run_id, run)
        new = True
    return run_id, new


def _lost_files(client: MlflowClient, run: Run | None) -> bool:
    """Whether files of a run that was logged to its end were deleted since: its artifacts' or its model's."""
    if run is None or local_path(run.info.artifact_uri) is None:
        return False
    model = model_of(client, run.info.run_id)
    return not has_artifact(run, FILE) or (model is not None and not has_files(model))


def run_folders(root: Path, dataset: str | None = None) -> Iterator[Path]:
    """The run folders of the project, of all datasets or one: trained by the pipeline, then experiments with overrides."""
    for path in sorted([*root.glob(f"models/**/{FILE}"), *root.glob(f"experiments/**/{FILE}")]):
        if any(part.startswith(".") for part in path.relative_to(root).parts):
            continue  # half-written, beside its place
        if dataset is None or any(run.run.dataset == dataset for run in _read(path.parent)):
            yield path.parent


def trained_runs(root: Path) -> list[TrainedRun]:
    """The whole runs of the project's run folders."""
    return [run for folder in run_folders(root) for run in _read(folder)]


def _read(folder: Path) -> list[TrainedRun]:
    """The run of a run folder; none where it holds no whole one."""
    try:
        return [TrainedRun.read(folder)]
    except (CardiumError, OSError):
        return []


def _write(client: MlflowClient, run_id: str, settings: Settings, run: TrainedRun) -> None:
    """Everything of a run folder. Each step can be repeated on a run that has it, so a half-logged run is completed by this."""
    set_tags(client, run_id, {**run_values.tags(run), "mlflow.runName": run_values.title(run)})
    log_batches(
        client,
        run_id,
        to_params(run_values.param_values(run)),
        [*run_values.final_metrics(run), *run_values.curves(run)],
    )
    _log_dataset(client, run_id, run)
    _log_files(client, run_id, run)
    log_model(client, run_id, settings, run)


def _mirror(client: MlflowClient, source: Run, run_id: str, run: TrainedRun) -> None:
    """Shows a run, logged before, in the run that `mlflow run` opened; the model stays where it is."""
    experiment = client.get_experiment(source.info.experiment_id).name
    note = f"This training is logged in the experiment {experiment}, run {source.info.run_id}, with its model."
    tags = {**run_values.tags(run), "mlflow.runName": run_values.title(run), NOTE: note}
    del tags[ID]
    set_tags(client, run_id, tags)
    final = {
        name: value
        for name, value in source.data.metrics.items()
        if not name.startswith(("training/", "training_folds/"))  # the curves have all their points
    }
    log_batches(
        client,
        run_id,
        to_params(run_values.param_values(run)),
        [*to_metrics(final, milliseconds(run_values.ended(run))), *run_values.curves(run)],
    )
    _log_dataset(client, run_id, run)
    _log_files(client, run_id, run)
    client.set_tag(run_id, SAME_AS, source.info.run_id)


def _log_dataset(client: MlflowClient, run_id: str, run: TrainedRun) -> None:
    """The dataset as the run's input. Its digest is DVC's md5 of data/: `dvc get` or `git log -S<digest> data.dvc` finds it."""
    from mlflow.data.dataset_source_registry import resolve_dataset_source
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag

    digest = (run.data.dvc_md5 or run.data.manifest_sha256 or "unknown")[:36]
    source = resolve_dataset_source(f"data/{run.run.dataset}")
    # mypy takes the class for abstract; MLflow's own documentation makes one.
    dataset = MetaDataset(source, name=run.run.dataset, digest=digest)  # type: ignore[abstract]
    tags = [InputTag("mlflow.data.context", "training"), InputTag("protocol", run.run.protocol)]
    client.log_inputs(run_id, [DatasetInput(dataset._to_mlflow_entity(), tags)])


def _log_files(client: MlflowClient, run_id: str, run: TrainedRun) -> None:
    for name in (FILE, "history.csv"):
        if (run.folder / name).is_file():
            client.log_artifact(run_id, str(run.folder / name))
    for figure in sorted(run.folder.glob("*.png")):
        client.log_artifact(run_id, str(figure), "figures")
    validation = run.folder / VALIDATION
    if validation.is_file():
        import pandas as pd

        predictions = pd.read_parquet(validation)
        client.log_artifact(run_id, str(validation), "predictions")
        log_predictions(client, run_id, predictions, run.classes, run.threshold, "predictions/validation.json")
        _log_validation_confusion(client, run_id, predictions, run)


def _log_validation_confusion(client: MlflowClient, run_id: str, predictions: pandas.DataFrame, run: TrainedRun) -> None:
    """The confusion matrix as numbers and as a figure."""
    from tempfile import TemporaryDirectory

    from cardium.evaluation.metrics import confusion
    from cardium.reporting.plots import confusion_matrix
    from cardium.runs.predictions import probability_columns

    p = predictions[probability_columns(run.classes)].to_numpy()
    matrix = confusion(predictions["label"].to_numpy(), p, run.threshold)
    log_confusion(client, run_id, matrix.tolist(), run.classes, "validation")
    with TemporaryDirectory() as folder:
        figure = Path(folder) / "confusion_validation.png"
        confusion_matrix([("validation", matrix)], run.classes, figure, title=run_values.title(run))
        client.log_artifact(run_id, str(figure), "figures")
