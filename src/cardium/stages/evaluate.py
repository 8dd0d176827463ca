"""evaluate: scores every run and ensemble of a dataset on the test records, once -> reports/<dataset>/evaluation/.

    predictions/<run>.parquet   test predictions; everything else is a pure function of them and of run.json
    metrics.json                every score per image and per patient, with intervals; confusion matrices; cost; warnings
    summary.json                what all datasets have in common, for `dvc metrics show`
    leaderboard.csv, .png       sorted by balanced accuracy per image, one block per protocol
    figures/                    confusion matrix and reliability diagram per run, ROC curves per protocol

No other verb opens the test fold. It stops where a run is not served as it is scored (serving/parity.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from cardium.atomic import replacing, replacing_folder, write_json, write_text
from cardium.config import Settings
from cardium.data.manifest import read_fingerprint, read_manifest
from cardium.evaluation.evaluation import Parity
from cardium.evaluation.leaderboard import leaderboard_table, leaderboard_text
from cardium.evaluation.scoring import predict_test
from cardium.evaluation.table import Predict, evaluate_runs, find_runs, score_runs
from cardium.progress import progress
from cardium.reporting.evaluation_figures import draw_evaluation
from cardium.runs.data_version import DataVersion
from cardium.runs.trained_run import TrainedRun
from cardium.serving.parity import ServedAsScored
from cardium.workspace import Workspace

if TYPE_CHECKING:
    import pandas

# (settings, run, manifest, its test predictions) -> how far its saved model says the same, as `parity.ServedAsScored`.
Compare = Callable[[Settings, TrainedRun, "pandas.DataFrame", "pandas.DataFrame"], Parity]


def run(settings: Settings, dataset: str, predict: Predict = predict_test, compare: Compare | None = None) -> None:
    """Scores the runs that the plan names for `dataset`.

    predict, compare: return a run's test predictions, and whether its saved model says the same; tests replace them.
    Raises CardiumError if a run is not trained, was trained on other data or another split, or is not served as it is scored;
    the message names the command.
    """
    places = Workspace(settings.root)
    classes = list(read_fingerprint(places.manifest(dataset))["classes"])
    data = DataVersion.now(places, dataset)
    runs = find_runs(settings, dataset, data)
    evaluated = evaluate_runs(settings, dataset, classes, runs, predict)
    manifest = read_manifest(places.manifest(dataset))
    patients = bool((manifest["patient"] != "").any())
    evaluation = score_runs(settings, dataset, classes, evaluated, data, patients=patients)
    predictions = {one.name: one.predictions for one in evaluated}
    if settings.evaluate.compared:
        compare = compare or ServedAsScored()
        for trained in progress(runs, total=len(runs), desc="served as scored", unit="run"):
            parity = compare(settings, trained, manifest, predictions[trained.name])
            evaluation.runs[trained.name] = dataclasses.replace(evaluation.runs[trained.name], parity=parity)
    out = places.evaluation(dataset)
    with replacing_folder(out) as folder:
        for name, frame in predictions.items():
            with replacing(folder / "predictions" / f"{name}.parquet") as part:
                frame.to_parquet(part, index=False)
        evaluation.write(folder)
        write_json(folder / "summary.json", evaluation.summary())
        write_text(folder / "leaderboard.csv", leaderboard_table(evaluation).to_csv(index=False, lineterminator="\n"))
        draw_evaluation(evaluation, predictions, folder)
    print(leaderboard_text(evaluation))
    print(f"Scored {len(runs)} runs of {dataset}. Written: {out.relative_to(settings.root).as_posix()}")
