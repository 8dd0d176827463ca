"""A run's logged model: a pyfunc from code that holds the whole run folder and cardium's own code, without pickle.

It holds no patient's name (pseudonyms.py) and no path of this machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from cardium.config import Settings
from cardium.errors import CardiumError
from cardium.runs.trained_run import FILE, TrainedRun
from cardium.tracking.mlflow_run import ID, NAME, create_once, log_batches
from cardium.tracking.moved import local_path
from cardium.tracking.pseudonyms import pseudonym_key, without_names, write_folds
from cardium.tracking.run_values import final_metrics
from cardium.tracking.signature import input_example, signature
from cardium.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

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


def log_model(client: MlflowClient, run_id: str, settings: Settings, run: TrainedRun) -> None:
    """Logs the run folder as a served model. Skipped if the MLflow run has one that is whole; one whose files were deleted gets
    them again, in its own place: the registry knows it by that.

    The steps are those of mlflow.pyfunc.log_model but for one: that serves the input example at once, and so would load every
    network a second time, right after its training.
    """
    from tempfile import TemporaryDirectory

    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.entities.logged_model_status import LoggedModelStatus
    from mlflow.models import Model

    import cardium

    logged = model_of(client, run_id)
    if logged is not None and has_files(logged):
        return
    experiment = client.get_run(run_id).info.experiment_id
    for left_half_way in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        if logged is None or left_half_way.model_id != logged.model_id:
            client.delete_logged_model(left_half_way.model_id)
    named = {"dataset": run.run.dataset, "model": run.run.model, "protocol": run.run.protocol}
    if logged is None:
        tags = {ID: run.id, NAME: run.name, "protocol": run.run.protocol}
        logged = create_once(
            lambda: client.create_logged_model(experiment, "model", source_run_id=run_id, tags=tags, params=named),
            lambda: next(iter(client.search_logged_models([experiment], f"source_run_id = '{run_id}'")), None),
        )
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    key = pseudonym_key(client, settings, run.run.dataset)
    package = Path(cardium.__file__).parent
    with TemporaryDirectory() as temporary:
        place = Path(temporary) / "model"
        artifacts = {"run": _artifact(without_names(run.folder, Path(temporary), key))}
        split = _own_split(settings, run)
        if split is not None:
            # What this model has seen: a later promotion must know it when the split has changed since.
            artifacts["split"] = _artifact(write_folds(split, Path(temporary), key))
        mlflow.pyfunc.save_model(
            place,
            mlflow_model=Model("model", run_id=run_id, model_uuid=logged.model_id, model_id=logged.model_id),
            python_model=str(package / "serving" / "served_model.py"),
            artifacts=artifacts,
            code_paths=[str(package)],
            pip_requirements=requirements(),
            signature=signature(run.classes, run.rendering),
            input_example=input_example(run.rendering),
            model_config={**dataclasses.asdict(settings.serve), "sides": dataclasses.asdict(settings.validate.sides)},
            metadata={"cardium": {"id": run.id, "run": run.name, **named, "classes": run.classes}},
        )
        _leave_out_paths(place / "MLmodel")
        client.log_model_artifacts(logged.model_id, str(place))
    # The scores show on the model's own page too.
    log_batches(client, run_id, metrics=final_metrics(run, model_id=logged.model_id))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)


def _leave_out_paths(mlmodel: Path) -> None:
    """Takes out of MLmodel where this machine has the files that were copied beside it; they are read from there."""
    import yaml

    table = yaml.safe_load(mlmodel.read_text(encoding="utf-8"))
    served = table["flavors"]["python_function"]
    served["model_code_path"] = Path(served["model_code_path"]).name
    for artifact in served["artifacts"].values():
        artifact["uri"] = artifact["path"]
    mlmodel.write_text(yaml.safe_dump(table, sort_keys=False), encoding="utf-8")


def _artifact(path: Path) -> str:
    """A file or folder as MLflow takes it: it unescapes what stands before the last name, and nothing in that."""
    return f"{path.resolve().parent.as_uri()}/{path.name}"


def model_of(client: MlflowClient, run_id: str) -> LoggedModel | None:
    """The logged model of an MLflow run, if its logging was finished."""
    from mlflow.entities.logged_model_status import LoggedModelStatus

    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    return next((model for model in found if model.status == LoggedModelStatus.READY), None)


def has_files(model: LoggedModel) -> bool:
    """Whether a model's files are still there; True where they are on a server, which is not asked."""
    place = local_path(model.artifact_location)
    return place is None or (place / "MLmodel").is_file()


def run_folder_of(model_folder: Path) -> Path:
    """The run folder inside of a logged model's folder. Raises CardiumError if cardium did not log it."""
    for path in model_folder.glob(f"artifacts/*/{FILE}"):
        return path.parent
    raise CardiumError("This MLflow model was not logged by cardium: it holds no run folder.")


def requirements() -> list[str]:
    """What the served model needs, pinned to what is installed here."""
    from importlib.metadata import PackageNotFoundError, version

    pinned = []
    for name in _REQUIREMENTS:
        with contextlib.suppress(PackageNotFoundError):
            pinned.append(f"{name}=={version(name)}")
    return pinned


def _own_split(settings: Settings, run: TrainedRun) -> Path | None:
    """honest.csv, if it still is the one that the run was trained on."""
    folder = Workspace(settings.root).split(run.run.dataset)
    try:
        current = json.loads((folder / "split.json").read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError):
        return None
    path = folder / "honest.csv"
    return path if current == run.data.split_sha256 and path.is_file() else None
