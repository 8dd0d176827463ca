"""The experiments beside the pipeline, scored as its runs are: the same test records and scores, and a row of the leaderboard.

experiments/<run>/<overrides>/evaluation/   metrics.json, an evaluation of this run alone; predictions/<run>.parquet

An experiment's name is its folder below experiments/: `cmri-mobilenetv2/epochs=3`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from cardium.atomic import replacing, replacing_folder
from cardium.config import Settings
from cardium.data.manifest import read_fingerprint, read_manifest
from cardium.errors import CardiumError, closest
from cardium.evaluation.evaluation import FILE, Evaluation, RunScores
from cardium.evaluation.table import Predict, evaluate_run, score_runs
from cardium.runs.data_version import DataVersion
from cardium.runs.trained_run import TrainedRun
from cardium.workspace import Workspace

if TYPE_CHECKING:
    import pandas

FOLDER = "evaluation"
_EXPERIMENTS = "experiments"


def experiment_name(settings: Settings, folder: Path) -> str:
    """The name of the experiment in `folder`. Raises CardiumError for a folder outside of experiments/."""
    try:
        return folder.resolve().relative_to((settings.root / _EXPERIMENTS).resolve()).as_posix()
    except ValueError:
        raise CardiumError(
            f"{folder} is no experiment: give a folder below experiments/, which `cardium train` with overrides makes; the "
            "pipeline's runs are scored by `cardium evaluate --dataset`."
        ) from None


def evaluate_experiment(settings: Settings, folder: Path, predict: Predict) -> tuple[Evaluation, TrainedRun, pandas.DataFrame]:
    """Scores the experiment in `folder` and writes its evaluation; returns it, the run and its test predictions.

    Raises CardiumError if the folder holds no whole run, or one of other data or another split than now.
    """
    name, trained = experiment_name(settings, folder), TrainedRun.read(folder)
    places, dataset = Workspace(settings.root), trained.run.dataset
    data = DataVersion.now(places, dataset)
    if not trained.data.same_records(data):
        raise CardiumError(f"{name} was trained on data or a split that has changed since: train it again, then score it.")
    one = evaluate_run(settings, trained, name, predict)
    manifest = read_manifest(places.manifest(dataset))
    classes = list(read_fingerprint(places.manifest(dataset))["classes"])
    patients = bool((manifest["patient"] != "").any())
    evaluation = score_runs(settings, dataset, classes, [one], data, patients=patients)
    with replacing_folder(folder / FOLDER) as part:
        with replacing(part / _predictions(trained.name)) as file:
            one.predictions.to_parquet(file, index=False)
        evaluation.write(part)
    return evaluation, trained, one.predictions


def scored_experiments(settings: Settings, evaluation: Evaluation) -> dict[str, Path]:
    """Name -> folder of each experiment that was scored on the records of `evaluation`; damaged ones are left out."""
    found = {}
    for path in sorted((settings.root / _EXPERIMENTS).glob(f"{evaluation.dataset}-*/*/{FOLDER}/{FILE}")):
        try:
            own = Evaluation.read(path.parent, evaluation.dataset)
        except CardiumError:
            continue
        if own.data.same_records(evaluation.data) and own.classes == evaluation.classes:
            found[experiment_name(settings, path.parents[1])] = path.parents[1]
    return found


def experiment_row(folder: Path, dataset: str) -> RunScores:
    """The scores of the experiment in `folder`. Raises CardiumError where it has not been scored."""
    try:
        return next(iter(Evaluation.read(folder / FOLDER, dataset).runs.values()))
    except CardiumError:
        raise CardiumError(f"{folder} has not been scored: run `cardium evaluate --run {folder}`.") from None


def with_experiments(settings: Settings, evaluation: Evaluation) -> Evaluation:
    """The evaluation and the rows of the experiments that were scored on its records."""
    rows = {
        name: experiment_row(folder, evaluation.dataset) for name, folder in scored_experiments(settings, evaluation).items()
    }
    return dataclasses.replace(evaluation, runs={**rows, **evaluation.runs})


def stored_predictions(settings: Settings, evaluation: Evaluation, name: str) -> pandas.DataFrame:
    """The stored test predictions of a row or an experiment by its name. Raises CardiumError, with the nearest name."""
    import pandas as pd

    experiments = scored_experiments(settings, evaluation)
    path = Workspace(settings.root).evaluation(evaluation.dataset) / "predictions" / f"{name}.parquet"
    if name in experiments:
        path = experiments[name] / FOLDER / _predictions(name.partition("/")[0])
    elif name not in evaluation.runs:
        known = [*evaluation.runs, *experiments]
        raise CardiumError(
            f"`{name}` has not been scored.{closest(name, known)} `cardium leaderboard --dataset {evaluation.dataset}` lists "
            "what has; `cardium evaluate --run FOLDER` scores an experiment."
        )
    if not path.is_file():
        again = f"cardium evaluate --run {experiments[name]}" if name in experiments else _again(evaluation.dataset)
        raise CardiumError(f"The test predictions of {name} are missing: run `{again}`.")
    return pd.read_parquet(path)


def _predictions(run: str) -> Path:
    return Path("predictions", f"{run}.parquet")


def _again(dataset: str) -> str:
    return f"dvc repro -f evaluate@{dataset}"
