"""`cardium predict`: a trained run or a registered model, found by name, on files; the answers as rows and as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cardium.config import Settings
from cardium.data.studies import given_studies
from cardium.errors import CardiumError, first_line, harmless, system_reason
from cardium.evaluation.promotion import Promotion
from cardium.serving.classifier import GENERATED, Classifier
from cardium.tracking.models import run_folder_of
from cardium.tracking.registry import downloaded_version
from cardium.tracking.store import connected, store_exists
from cardium.workspace import Workspace

# What is said of a heart on the command line: name of the measure -> words.
_SAID = {"ejection_fraction": "ejection fraction", "wall_to_pool": "wall to pool", "thickening": "thickening"}


def load_classifier(settings: Settings, model: str) -> Classifier:
    """The classifier of a model that `find_model` finds. Raises CardiumError if there is none."""
    folder, version = find_model(settings, model)
    return Classifier(folder, version, settings.serve, settings.validate.sides)


def find_model(settings: Settings, model: str) -> tuple[Path, str | None]:
    """The run folder of a model, and its version in the registry where it has one.

    model: a run folder (path), or an MLflow model (`models:/cardium-cmri@champion`, `runs:/<id>/model`).
    Raises CardiumError if there is none.
    """
    if ":/" not in model:
        folder = Path(model).expanduser()
        if not folder.is_absolute() and not folder.exists():
            folder = settings.root / folder
        if not folder.is_dir():
            raise CardiumError(f"There is no model `{model}`: give a run folder or models:/<name>@champion.")
        return folder, None
    if not store_exists(settings):
        raise CardiumError(f"There is no model `{model}` (nothing is logged to MLflow yet): run `cardium promote` first.")
    from mlflow.exceptions import MlflowException

    with connected(settings):
        import mlflow

        try:
            downloaded = Path(mlflow.artifacts.download_artifacts(model))
        except (MlflowException, OSError) as error:
            reason = first_line(error).removeprefix("RESOURCE_DOES_NOT_EXIST: ")
            raise CardiumError(f"There is no model `{model}` ({reason[:160]}): {_why_none(settings, model)}") from None
    return run_folder_of(downloaded), downloaded_version(downloaded)


def _why_none(settings: Settings, model: str) -> str:
    """What to do about a champion that is missing: a promotion that was declined says so itself."""
    dataset = model.rpartition("/")[2].partition("@")[0].removeprefix(f"{settings.tracking.experiment}-")
    promotion = Promotion.read(Workspace(settings.root).promotion(dataset)) if dataset in settings.datasets else None
    if promotion is None or promotion.action != "kept":
        return "run `cardium promote` first."
    return f"none was promoted, since {promotion.summary}. `--model models/{dataset}/honest/<model>` takes a run that was not."


def predict_files(settings: Settings, files: Sequence[Path], model: str) -> list[dict[str, Any]]:
    """A row a file, in order: {"file", "label", "probability", "probabilities", "set", "set_coverage", "quality",
    "run", "model_version", "data"}.

    Of a model of whole patients a row a patient, with "measures" too: of a folder every patient in it, of a zip archive one.

    A file that cannot be read or is no image gets {"file", "error"}; the others are classified. model: as in `load_classifier`.
    Raises CardiumError if there is no such model.
    """
    classifier = load_classifier(settings, model)
    if classifier.of_patients:
        return _predict_patients(classifier, files)
    rows: list[dict[str, Any]] = []
    for file in files:
        try:
            row = classifier.classify([Path(file).read_bytes()])[0]
        except OSError as error:
            row = {"error": system_reason(error)}
        rows.append({"file": str(file), **row})
    return rows


def _predict_patients(classifier: Classifier, files: Sequence[Path]) -> list[dict[str, Any]]:
    """A row a patient: of every folder its patients, of an archive one, of all other files together one."""
    studies = given_studies(files, classifier.limits)
    return [{"file": study.name, **classifier.classify_study(study)} for study in studies]


def _measured(row: dict[str, Any]) -> str:
    measures = row.get("measures") or {}
    return "".join(f"  {words} {measures[name]:.2f}" for name, words in _SAID.items() if name in measures)


def prediction_table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of `predict_files` as plain text: file, label, probability of each class, the set, doubts; then the run behind
    them and what its sets hold."""
    names = [harmless(str(row["file"])) for row in rows]
    width = max(map(len, names))
    lines = []
    for name, row in zip(names, rows, strict=True):
        if "error" in row:
            lines.append(f"{name:<{width}}  error: {harmless(row['error'])}")
            continue
        shares = "  ".join(f"{name} {value:.3f}" for name, value in row["probabilities"].items())
        if row["set"] is not None and row["set"] != [row["label"]]:
            shares += f"; {set_text(row['set'])}"
        doubts = "" if row["quality"] == "ok" else f"  DOUBTFUL: {row['quality']}"
        lines.append(f"{name:<{width}}  {row['label']}  ({shares}){_measured(row)}{doubts}")
    classified = next((row for row in rows if "run" in row), None)
    if classified is not None:
        version = f", version {classified['model_version']}" if classified["model_version"] else ""
        if classified["set_coverage"]:
            kept = f"{classified['set_coverage']:.0%}".replace("%", " %")
            lines.append(
                f"A label alone, or `one of` several, holds in {kept} of the cases of each class that are like the data's."
            )
        if classified["data"].startswith(GENERATED):
            lines.insert(0, f"Trained on {GENERATED}: the answers say nothing about real patients.")
        lines.append(f"By {classified['run']}{version}, trained on {classified['data']}. Not for diagnosis.")
    return "\n".join(lines)


def set_text(names: Sequence[str]) -> str:
    """A prediction set that is not the label alone, in words: `one of MI, History`."""
    if not names:
        return "no class fits"
    return f"one of {', '.join(names)}" if len(names) > 1 else f"only {names[0]} fits"
