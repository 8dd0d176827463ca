"""What is found out of a run after its training, added to its MLflow run: test scores and explanations.

test_* are of records, test_patient_* of patients, the balanced accuracy with its interval (_low, _high); the tag `score` has it
in words. explain/<method>_* say how true the method's explanations are of the run. A hash of the files tells what a run has.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from cardium.config import Settings
from cardium.evaluation.evaluation import FILE, Evaluation, RunScores
from cardium.evaluation.experiments import FOLDER as EXPERIMENT
from cardium.evaluation.experiments import with_experiments
from cardium.runs.trained_run import TrainedRun
from cardium.tracking.mlflow_run import (
    ID,
    SAME_AS,
    find_run,
    has_artifact,
    log_batches,
    log_confusion,
    log_predictions,
    log_table,
    milliseconds,
    to_metrics,
)
from cardium.tracking.store import connected, errors_as_warnings
from cardium.tracking.views import SCORE, score_text, show_leaderboard
from cardium.workspace import Workspace, suffix

if TYPE_CHECKING:
    from mlflow import MlflowClient

# The hash of the scores that a run has; of its explanations, one a method.
EVALUATION, EXPLAINED = "cardium.evaluation", "cardium.explained"
# All of them, by class and with both ends of every interval, would be 150 metrics, and bury these on the run's page.
_LOGGED = ("balanced_accuracy", "accuracy", "roc_auc", "f1_macro", "loss", "brier", "calibration_error")
_WITH_INTERVAL = ("balanced_accuracy",)


def log_evaluation(settings: Settings, dataset: str) -> int | None:
    """Adds the test scores and figures of reports/<dataset>/evaluation to their runs; returns how many runs were new to them.

    Runs that are not logged are left to `sync`. Errors as in `log_run`.
    """
    with errors_as_warnings(), connected(settings) as client:
        return len(add_evaluation(client, settings, dataset))
    return None


def add_evaluation(client: MlflowClient, settings: Settings, dataset: str) -> list[str]:
    """The names of the runs that got test scores they did not have. Renews what the experiment shows first."""
    folder = Workspace(settings.root).evaluation(dataset)
    if not (folder / FILE).is_file():
        return []
    evaluation = Evaluation.read(folder, dataset)
    new = _add(client, folder, evaluation)
    show_leaderboard(client, settings, with_experiments(settings, evaluation))
    return new


def log_experiment(settings: Settings, run_folder: Path) -> int | None:
    """Adds the test scores of an experiment, which lie in its run folder, to its run. Errors as in `log_run`."""
    with errors_as_warnings(), connected(settings) as client:
        new = add_experiment(client, run_folder)
        add_evaluation(client, settings, TrainedRun.read(run_folder).run.dataset)
        return len(new)
    return None


def add_experiment(client: MlflowClient, run_folder: Path) -> list[str]:
    """The names of the runs that got test scores they did not have: the experiment's, or none."""
    folder = run_folder / EXPERIMENT
    if not (folder / FILE).is_file():
        return []
    return _add(client, folder, Evaluation.read(folder, TrainedRun.read(run_folder).run.dataset))


def _add(client: MlflowClient, folder: Path, evaluation: Evaluation) -> list[str]:
    """Adds the scores of an evaluation's rows to their runs. folder: of its files."""
    stamp = milliseconds((folder / FILE).stat().st_mtime)
    new = []
    for name, row in evaluation.runs.items():
        if not row.run_id:
            continue  # the naive and chosen rows are no runs
        content = json.dumps([row.to_json(), list(_shared(evaluation).values())], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()
        known = find_run(client, ID, row.run_id)
        mirrors = [mirror for run in known for mirror in find_run(client, SAME_AS, run.info.run_id)]
        for run in [*known, *mirrors]:
            run_id = run.info.run_id
            if run.data.tags.get(EVALUATION) == digest and has_artifact(run, "evaluation.json"):
                continue
            log_batches(client, run_id, metrics=to_metrics(_test_scores(evaluation, row), stamp))
            client.set_tag(run_id, SCORE, score_text(evaluation, row))
            _log_evaluation_files(client, run_id, folder, evaluation, row)
            client.set_tag(run_id, EVALUATION, digest)
            new.append(name)
    return new


def log_explanations(settings: Settings, folder: Path) -> int | None:
    """Adds reports/<dataset>/explanations/<run>/<method>/ to its run: the methods' table, their scores, the gallery.

    Returns how many MLflow runs it was new to. A run that is not logged is left to `sync`. Errors as in `log_run`.
    """
    with errors_as_warnings(), connected(settings) as client:
        return add_explanations(client, folder)
    return None


def add_explanations(client: MlflowClient, folder: Path) -> int:
    """How many MLflow runs the explanations were new to. Those without tests, of files that somebody gave, belong to none."""
    tests = folder / "faithfulness.json"
    if not tests.is_file():
        return 0
    import pandas as pd

    explanations = json.loads((folder / "explanations.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256((folder / "explanations.json").read_bytes() + tests.read_bytes()).hexdigest()
    method = _without_plus(explanations["method"])
    tag, place = f"{EXPLAINED}.{method}", f"explanations/{method}"
    # The tested method's own; the table has those of all methods and of random places.
    own = json.loads(tests.read_text(encoding="utf-8"))["methods"].get(explanations["method"], {})
    scores = {f"explain/{method}_{name}": own[name] for name in ("deletion", "insertion") if name in own}
    stamp = milliseconds(tests.stat().st_mtime)
    new = 0
    for run in find_run(client, ID, explanations["run_id"]):
        run_id = run.info.run_id
        if run.data.tags.get(tag) == digest and has_artifact(run, place):
            continue
        log_batches(client, run_id, metrics=to_metrics(scores, stamp))
        log_table(client, run_id, pd.read_csv(folder / "faithfulness.csv"), f"{place}/faithfulness_table.json")
        client.log_artifacts(run_id, str(folder), place)
        client.set_tag(run_id, tag, digest)
        new += 1
    return new


def _shared(evaluation: Evaluation) -> dict[str, object]:
    """What all rows of an evaluation have in common."""
    table = evaluation.to_json()
    return {key: table[key] for key in ("classes", "interval", "threshold", "data")}


def _test_scores(evaluation: Evaluation, row: RunScores) -> dict[str, float | None]:
    """test_* per record and, where patients are known, test_patient_*: the main scores; evaluation.json has all of them."""
    values: dict[str, float | None] = {}
    parts = [("test_", row.image), *([("test_patient_", row.patient)] if evaluation.patients else [])]
    for prefix, scores in parts:
        for name in _LOGGED:
            score = scores.get(name)
            if score is None:
                continue
            values[f"{prefix}{name}"] = score.value
            if name in _WITH_INTERVAL:
                values |= {f"{prefix}{name}_low": score.low, f"{prefix}{name}_high": score.high}
    return values


def _log_evaluation_files(client: MlflowClient, run_id: str, folder: Path, evaluation: Evaluation, row: RunScores) -> None:
    client.log_dict(run_id, {**_shared(evaluation), **row.to_json()}, "evaluation.json")
    # An experiment's row is named after its folder, its file after its run.
    predictions = folder / "predictions" / f"{row.name.partition('/')[0]}.parquet"
    if predictions.is_file():
        import pandas as pd

        table = pd.read_parquet(predictions)
        client.log_artifact(run_id, str(predictions), "predictions/test")
        log_predictions(client, run_id, table, evaluation.classes, evaluation.threshold, "predictions/test.json")
    if row.confusion:
        log_confusion(client, run_id, row.confusion, evaluation.classes, "test")
    for figure in sorted(folder.glob("figures/*.png")) + sorted(folder.glob("*.png")):
        if _shows(figure.stem, row):
            client.log_artifact(run_id, str(figure), "figures/test")


def _shows(figure: str, row: RunScores) -> bool:
    """Whether a figure is of this run: its own carry its name, the rest show all the runs."""
    return figure in ("leaderboard", "roc" + suffix(row.protocol)) or figure.endswith(f"-{row.name}")


def _without_plus(method: str) -> str:
    """gradcampp: MLflow's keys know no +."""
    return method.replace("+", "p")
