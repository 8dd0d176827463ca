"""A trained run as MLflow holds it: run.json and history.csv -> title, tags, params and metrics. Nothing is sent from here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cardium.runs.trained_run import TrainedRun
from cardium.tracking.mlflow_run import ID, NAME, NOTE, milliseconds, text, timestamp, to_metric, to_metrics, to_tags

if TYPE_CHECKING:
    from mlflow.entities import Metric

# What a run was trained on, in words.
DATA = "data"
_CURVES = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


def ended(run: TrainedRun) -> float:
    """When the training ended, in seconds since 1970."""
    return timestamp(run.provenance.created)


def began(run: TrainedRun) -> float:
    """When a training without interruptions would have begun, in seconds since 1970."""
    return ended(run) - run.seconds.train


def title(run: TrainedRun) -> str:
    """What tells this run from the others of its dataset: `resnet152v2_spatial`, `resnet152v2 published epochs=3`."""
    words = [run.run.model]
    if run.run.protocol != "honest":
        words.append(run.run.protocol)
    words += [f"{name.rsplit('.', 1)[-1]}={text(value)}" for name, value in run.overrides.items()]
    return " ".join(words)


def tags(run: TrainedRun) -> dict[str, str]:
    """The run's tags by name; the ones that would be empty are left out."""
    made = {
        ID: run.id,
        NAME: run.name,
        "dataset": run.run.dataset,
        "model": run.run.model,
        "protocol": run.run.protocol,
        "kind": run.kind,
        "weights": run.weights.used,
        DATA: f"generated demo data in the form of {run.run.dataset}" if run.data.generated else run.run.dataset,
        "mlflow.source.name": f"cardium {run.kind} {run.name}",
        "mlflow.source.type": "PROJECT",
        NOTE: _note(run),
    }
    if run.provenance.commit:
        made["mlflow.source.git.commit"] = run.provenance.commit
        if run.provenance.dirty:
            made["dirty"] = "true: tracked files differed from the commit"
    if run.warnings:
        made["warnings"] = " · ".join(run.warnings)
    return to_tags(made)


def _note(run: TrainedRun) -> str:
    lines = ["**Trained on generated demo data: its scores say nothing about real patients.**"] if run.data.generated else []
    lines += [f"**{run.name}**, protocol {run.run.protocol}, classes {', '.join(run.classes)}."]
    if run.members:
        lines.append("Mean of the probabilities of " + ", ".join(run.members) + ".")
    lines += [f"⚠ {warning}" for warning in run.warnings]
    return "\n\n".join(lines)


def param_values(run: TrainedRun) -> dict[str, str]:
    """cfg.* and override.*: never the bare names, which `mlflow run -P` has logged already, in its own spelling."""
    return {
        **{f"cfg.{name}": text(value) for name, value in _flat(run.settings)},
        **{f"override.{name}": text(value) for name, value in _flat(run.overrides)},
        "cfg.dataset": run.run.dataset,
        "cfg.model": run.run.model,
        "cfg.protocol": run.run.protocol,
        "cfg.test_folds": text(run.test_folds),
        "cfg.weights_used": run.weights.used,
    }


def _flat(table: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        name = f"{where}.{key}" if where else str(key)
        if isinstance(value, dict):
            yield from _flat(value, name)
        else:
            yield name, value


def final_metrics(run: TrainedRun, model_id: str | None = None) -> list[Metric]:
    """val_* and training_cost/*. model_id: of the logged model on whose page they show too."""
    # The UI's comparison opens on the metric that was logged first.
    scores = sorted(run.validation.items(), key=lambda item: item[0] != "balanced_accuracy")
    values: dict[str, Any] = {
        **{f"val_{name}": value for name, value in scores},
        "training_cost/features_seconds": run.seconds.features,
        "training_cost/train_seconds": run.seconds.train,
        "training_cost/parameters": run.parameters,
        "training_cost/trainable_parameters": run.trainable_parameters,
        "training_cost/model_megabytes": round(run.model_bytes / 1e6, 3),
    }
    return to_metrics(values, milliseconds(ended(run)), model_id=model_id)


def curves(run: TrainedRun) -> list[Metric]:
    """The epochs of history.csv as metrics, steps from 1; a second phase goes on counting where the first ended.

    training/* is the curve itself or, of several test folds, the mean over them, as far as every fold went. Time stamps come
    from the file, so that logging again writes the same points and not twice as many.
    """
    path = run.folder / "history.csv"
    if not path.is_file():
        return []  # an ensemble is not trained
    import pandas as pd

    history = pd.read_csv(path)
    history["step"] = history.groupby("test_fold").cumcount() + 1
    history["after"] = history.groupby("test_fold")["seconds"].cumsum()
    start = began(run)
    points: list[Metric] = []
    common = int(history.groupby("test_fold")["step"].max().min())
    mean = history[history["step"] <= common].groupby("step")[[*_CURVES, "after"]].mean()
    for step, row in mean.iterrows():
        for name in _CURVES:
            points += to_metric(f"training/{name}", float(row[name]), milliseconds(start + row["after"]), int(str(step)))
    if history["test_fold"].nunique() > 1:
        for epoch in history.to_dict("records"):
            stamp = milliseconds(start + epoch["after"])
            for name in ("loss", "val_loss"):
                points += to_metric(f"training_folds/{name}_{epoch['test_fold']}", epoch[name], stamp, int(epoch["step"]))
    return points
