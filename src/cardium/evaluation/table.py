"""Which runs an evaluation scores, their test predictions, and the table of scores.

Each protocol has a naive row: the class shares of the training records as everybody's probabilities. Under `honest` the row
`chosen` is the score to expect of the run that validation chooses (nested.py). `published` rows are marked if the original's
test records also chose the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cardium.config import Settings
from cardium.data.manifest import class_numbers, read_manifest
from cardium.data.splits import Parts, read_parts
from cardium.data.units import unit_table
from cardium.errors import CardiumError
from cardium.evaluation import metrics
from cardium.evaluation.evaluation import CHOSEN, NAIVE, Evaluation, Interval, RunScores
from cardium.evaluation.intervals import groups_per_class, score_with_intervals
from cardium.evaluation.nested import Candidate, choose_by_fold
from cardium.evaluation.published import published_score
from cardium.evaluation.set_scores import calibration_error_before, score_sets
from cardium.imaging.kinds import of_patients
from cardium.progress import progress
from cardium.runs.data_version import DataVersion
from cardium.runs.predictions import VALIDATION, mean_predictions, prediction_rows, probability_columns
from cardium.runs.trained_run import NotTrainedError, TrainedRun
from cardium.workspace import RunId, Workspace, suffix

if TYPE_CHECKING:
    import pandas

# (settings, run, manifest, test fold -> parts) -> test predictions, as `scoring.predict_test`.
Predict = Callable[[Settings, TrainedRun, "pandas.DataFrame", Callable[[int], Parts]], "pandas.DataFrame"]


@dataclass(frozen=True)
class EvaluatedRun:
    """A run, a naive row or the chosen one with its test predictions.

    trained: None for a row that is no run, whose model is `naive` or `chosen`. choices: held-out fold -> the run chosen for it.
    """

    name: str
    model: str
    protocol: str
    test_folds: list[int]
    predictions: pandas.DataFrame
    trained: TrainedRun | None = None
    chosen_on_test: bool = False
    choices: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, run: TrainedRun, predictions: pandas.DataFrame, chosen_on_test: bool = False) -> EvaluatedRun:
        """Combines a trained run with its predictions."""
        return cls(run.name, run.run.model, run.run.protocol, run.test_folds, predictions, run, chosen_on_test)


# ---------------------------------------------------------------------------------------------------------- runs to evaluate


def find_runs(settings: Settings, dataset: str, data: DataVersion) -> list[TrainedRun]:
    """Reads the runs of `dataset` in the plan's order, those made of others last, and checks them against `data`.

    Raises CardiumError that names the command for the first run that is missing, of other data, another split or other test
    folds, or made of members that are not the plan's or were trained again since.
    """
    plan = settings.plan
    runs: dict[str, TrainedRun] = {}
    for run in plan.ids(dataset):
        runs[run.name] = _read_run(settings, run, plan.verb_of(run), data)
    for name, joint in plan.joints.items():
        if name not in runs:
            continue
        made, command = runs[name], f"dvc repro {joint.kind}@{name}"
        members = [member.name for member in joint.members]
        if sorted(made.members) != sorted(members) or not set(members) <= runs.keys():
            raise CardiumError(f"{name} was made of other members than params.yaml names now: run `{command}`.")
        if made.member_ids and made.member_ids != [runs[member].id for member in made.members]:
            raise CardiumError(f"{name} was made of members that have been trained again since: run `{command}`.")
    if not runs:
        raise CardiumError(f"params.yaml names no run of `{dataset}`: add a model to its study.")
    return list(runs.values())


def _read_run(settings: Settings, run: RunId, verb: str, data: DataVersion) -> TrainedRun:
    command = f"dvc repro {verb}@{run}"
    try:
        trained = TrainedRun.read(settings.root / run.folder)
    except NotTrainedError:
        raise CardiumError(f"{run} is not trained ({run.folder}/run.json is missing): run `{command}`.") from None
    except CardiumError:
        raise CardiumError(f"{run.folder}/run.json is broken: run `{command}`.") from None
    for was, now, what in (
        (trained.data.manifest_sha256, data.manifest_sha256, "data"),
        (trained.data.split_sha256, data.split_sha256, "a split"),
    ):
        if was != now:
            raise CardiumError(f"{run} was trained on {what} that has changed since: run `{command}`.")
    asked = settings.test_folds(run.dataset)
    if run.protocol == "honest" and sorted(trained.test_folds) != asked:
        has, wanted = (", ".join(map(str, folds)) for folds in (trained.test_folds, asked))
        raise CardiumError(f"{run} was trained for test folds {has}, params.yaml asks for {wanted}: run `{command}`.")
    return trained


# --------------------------------------------------------------------------------------------------------------- predictions


def evaluate_runs(
    settings: Settings, dataset: str, classes: list[str], runs: Sequence[TrainedRun], predict: Predict
) -> list[EvaluatedRun]:
    """Predicts the test records of the runs of `find_runs`, checks the predictions, and adds the chosen and the naive rows.

    Raises CardiumError if predictions do not cover the test records once each, have wrong labels, or are not finite.
    """
    places = Workspace(settings.root)
    manifest = read_manifest(places.manifest(dataset))

    def rows_of(run: TrainedRun | None) -> pandas.DataFrame:
        return manifest if run is None else unit_table(manifest, run.rendering)

    def parts_of(protocol: str, run: TrainedRun | None = None) -> Callable[[int], Parts]:
        rows = rows_of(run)
        return lambda fold: read_parts(places.split(dataset), rows, protocol, fold)

    frames: dict[str, pandas.DataFrame] = {}
    trained = [run for run in runs if run.kind != "ensemble"]
    for run in progress(trained, total=len(trained), desc="evaluate", unit="run"):
        frames[run.name] = predict(settings, run, rows_of(run), parts_of(run.run.protocol, run))
    for run in runs:
        if run.kind == "ensemble":
            frames[run.name] = mean_predictions([frames[member] for member in run.members], classes)
    evaluated = []
    for run in runs:
        first = parts_of(run.run.protocol, run)(run.test_folds[0])
        evaluated.append(EvaluatedRun.of(run, frames[run.name], np.array_equal(first.validation, first.test)))
    for protocol in dict.fromkeys(run.run.protocol for run in runs):
        # `published` has a single fold of its own.
        own = next(run for run in runs if run.run.protocol == protocol)
        folds = settings.test_folds(dataset) if protocol == "honest" else sorted(own.test_folds)
        naive = naive_predictions(manifest, classes, [(fold, parts_of(protocol)(fold)) for fold in folds])
        evaluated.append(EvaluatedRun(NAIVE + suffix(protocol), NAIVE, protocol, folds, naive))
    for one in evaluated:
        parts = [parts_of(one.protocol, one.trained)(fold) for fold in one.test_folds]
        _check_predictions(one, rows_of(one.trained), classes, parts)
    chosen = _chosen(settings, classes, evaluated)
    return [*evaluated, chosen] if chosen else evaluated


def evaluate_run(settings: Settings, run: TrainedRun, name: str, predict: Predict) -> EvaluatedRun:
    """Predicts the test records of one run and checks the predictions. name: of its row.

    Raises CardiumError as `evaluate_runs`, and for a run that was not trained for the test folds that params.yaml asks for.
    """
    places, dataset, protocol = Workspace(settings.root), run.run.dataset, run.run.protocol
    asked = settings.test_folds(dataset)
    if protocol == "honest" and sorted(run.test_folds) != asked:
        has, wanted = (", ".join(map(str, folds)) for folds in (run.test_folds, asked))
        raise CardiumError(f"{name} was trained for test folds {has}, params.yaml asks for {wanted}: train it again.")
    rows = unit_table(read_manifest(places.manifest(dataset)), run.rendering)

    def parts_of(fold: int) -> Parts:
        return read_parts(places.split(dataset), rows, protocol, fold)

    first = parts_of(run.test_folds[0])
    chosen_on_test = np.array_equal(first.validation, first.test)
    frame = predict(settings, run, rows, parts_of)
    one = EvaluatedRun(name, run.run.model, protocol, run.test_folds, frame, run, chosen_on_test)
    _check_predictions(one, rows, run.classes, [parts_of(fold) for fold in run.test_folds])
    return one


def _chosen(settings: Settings, classes: list[str], evaluated: Sequence[EvaluatedRun]) -> EvaluatedRun | None:
    """The nested choice among the honest runs; None without any."""
    import pandas as pd

    candidates, folds = [], []
    for one in evaluated:
        if one.trained is not None and one.protocol == "honest":
            validation = pd.read_parquet(settings.root / one.trained.run.folder / VALIDATION)
            candidates.append(Candidate(one.name, one.trained.parameters, validation, one.predictions))
            folds = one.test_folds
    if not candidates:
        return None
    predictions, choices = choose_by_fold(candidates, classes, settings.evaluate.threshold)
    return EvaluatedRun(CHOSEN, CHOSEN, "honest", folds, predictions, choices=choices)


def naive_predictions(manifest: pandas.DataFrame, classes: list[str], parts: list[tuple[int, Parts]]) -> pandas.DataFrame:
    """Predicts the class shares of the training records for every test record; of several folds, the mean share.

    Not each fold's own share: a fold's training records have less of what its test records have more of. A share near the
    threshold would change sides with the fold, and the naive row would score below chance.
    """
    import pandas as pd

    labels = class_numbers(manifest, classes)
    shares = np.mean([np.bincount(labels[part.train], minlength=len(classes)) / len(part.train) for _, part in parts], axis=0)
    frames = [
        prediction_rows(manifest, part.test, fold, labels, np.tile(shares, (len(part.test), 1)), classes)
        for fold, part in parts
    ]
    return pd.concat(frames).sort_values("record", ignore_index=True)


def arrays(predictions: pandas.DataFrame, classes: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Splits predictions into labels (n,), probabilities (n, C) and group names (n,)."""
    probabilities = predictions[probability_columns(classes)].to_numpy(dtype=np.float64)
    return predictions["label"].to_numpy(dtype=np.int64), probabilities, predictions["group"].to_numpy(dtype=str)


def _check_predictions(run: EvaluatedRun, manifest: pandas.DataFrame, classes: list[str], parts: list[Parts]) -> None:
    frame = run.predictions
    expected = np.sort(np.concatenate([part.test for part in parts]))
    if not np.array_equal(np.sort(frame["record"].to_numpy()), expected):
        raise CardiumError(
            f"{run.name}: predictions of {len(frame)} records where {len(expected)} are to be tested, once each."
        )
    labels, probabilities, _ = arrays(frame, classes)
    true = manifest["label"].to_numpy()[frame["record"].to_numpy()]
    if not np.array_equal(np.asarray(classes, dtype=object)[labels], true):
        raise CardiumError(f"{run.name}: predictions with other labels than the manifest's: run `dvc repro`.")
    broken = int((~np.isfinite(probabilities).all(axis=1)).sum())
    if broken:
        raise CardiumError(
            f"{run.name}: {broken} of {len(frame)} predictions are not finite: train it again at a lower learning rate."
        )


# -------------------------------------------------------------------------------------------------------------------- scores


def score_runs(
    settings: Settings,
    dataset: str,
    classes: list[str],
    runs: Sequence[EvaluatedRun],
    data: DataVersion,
    *,
    patients: bool = True,
    elsewhere: bool = False,
) -> Evaluation:
    """Scores the predictions: a function of them, of run.json, and of `evaluate` and `seed` in params.yaml.

    runs: all runs of one protocol hold predictions of the same records, or of the patients that these are of. patients: whether
    groups are patients.
    elsewhere: whether the predictions are of another collection.
    """
    how = settings.evaluate
    rows = {run.name: _score_run(settings, dataset, classes, run, patients, elsewhere) for run in runs}
    return Evaluation(dataset, classes, how.interval, how.threshold, data, rows, patients)


def _score_run(
    settings: Settings, dataset: str, classes: list[str], run: EvaluatedRun, patients: bool, elsewhere: bool
) -> RunScores:
    how, trained = settings.evaluate, run.trained
    own = trained if not elsewhere else None
    labels, probabilities, groups = arrays(run.predictions, classes)
    of_group, means, names = metrics.per_group(labels, probabilities, groups)
    warnings = list(trained.warnings) if trained else []
    few = {classes[label]: count for label, count in groups_per_class(labels, groups).items() if count < how.least_groups}
    if few:
        listed, unit = ", ".join(f"{label} {count}" for label, count in few.items()), "patients" if patients else "groups"
        warnings.append(f"fewer than {how.least_groups} {unit} of a class ({listed}): its intervals are not to be relied on")

    def scores(labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray) -> dict[str, Interval]:
        if run.model == NAIVE:
            # One answer for all, whoever is asked.
            return {
                name: Interval(value) for name, value in metrics.score(labels, probabilities, how.threshold, classes).items()
            }
        found = score_with_intervals(labels, probabilities, groups, how.threshold, how.interval, classes)
        return {name: Interval(**score) for name, score in found.items()}

    fold = run.predictions["test_fold"].to_numpy()
    by_fold = {
        str(number): metrics.score(labels[fold == number], probabilities[fold == number], how.threshold)["balanced_accuracy"]
        for number in run.test_folds
    }
    return RunScores(
        name=run.name,
        model=run.model,
        protocol=run.protocol,
        kind=trained.kind if trained else run.model,
        weights=trained.weights.used if trained else "",
        unit="patient" if trained and of_patients(trained.rendering) else "image",
        records=len(run.predictions),
        groups=len(np.unique(groups)),
        test_folds=run.test_folds,
        chosen_on_test=run.chosen_on_test,
        image=scores(labels, probabilities, groups),
        patient=scores(of_group, means, names),
        folds=by_fold,
        choices={str(number): name for number, name in run.choices.items()},
        confusion=metrics.confusion(labels, probabilities, how.threshold).tolist(),
        patient_confusion=metrics.confusion(of_group, means, how.threshold).tolist(),
        published_balanced_accuracy=published_score(dataset, run.model),
        published_accuracy=published_score(dataset, run.model, "accuracy"),
        seconds=trained.seconds if trained else None,
        epochs=trained.mean_epochs if trained else None,
        parameters=trained.parameters if trained else None,
        trainable_parameters=trained.trainable_parameters if trained else None,
        model_bytes=trained.model_bytes if trained else None,
        validation_balanced_accuracy=trained.validation.get("balanced_accuracy") if trained else None,
        warnings=warnings,
        run_id=trained.id if trained else None,
        calibration_error_before=calibration_error_before(own, run.predictions, how.threshold) if own else None,
        sets=score_sets(trained, run.predictions, settings.serve.coverage, scores, elsewhere=elsewhere) if trained else None,
    )
