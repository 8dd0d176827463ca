"""What a person sees first in the MLflow UI: a dataset's experiment with a leaderboard as its note, and its runs by test score.

The view of the runs is a saved one of the UI's own kind, a tag of the experiment: its link opens them sorted, with the columns
that matter. The experiment `<experiment>-pages` beside it holds the audits and reports, which are no runs to compare.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cardium.config import Settings
from cardium.evaluation.evaluation import Evaluation, RunScores
from cardium.evaluation.leaderboard import HEADINGS
from cardium.tracking.mlflow_run import NOTE
from cardium.tracking.store import connected, experiment_id, experiment_name, store_exists
from cardium.workspace import PROTOCOLS

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Where the UI looks for a view that was saved for a link, and ours.
_SAVED, _VIEW = "mlflow.sharedViewState.", "leaderboard"
# A run's test score with its interval, as a tag: the UI's table has no place for an interval.
SCORE = "score"
_NOTE_LIMIT = 4900


def score_text(evaluation: Evaluation, row: RunScores) -> str:
    """The tag `score` of a run: the balanced accuracy to expect with its interval, and what of."""
    return f"{evaluation.to_expect(row).text} by {'patient' if evaluation.patients else 'record'}"


def show_leaderboard(client: MlflowClient, settings: Settings, evaluation: Evaluation) -> None:
    """Writes the experiment's note and its saved view. evaluation: with the scored experiments."""
    experiment = experiment_id(client, settings, evaluation.dataset)
    client.set_experiment_tag(experiment, NOTE, leaderboard_markdown(evaluation)[:_NOTE_LIMIT])
    client.set_experiment_tag(experiment, _SAVED + _VIEW, json.dumps(_view(evaluation)))


def leaderboard_markdown(evaluation: Evaluation) -> str:
    """The leaderboard as a Markdown table a protocol, best first."""
    lines = ["**Generated demo data: these scores say nothing about real patients.**", ""] if evaluation.data.generated else []
    lines += [
        f"Balanced accuracy on test records, {evaluation.interval:.0%} interval; chance level {_chance(evaluation):.3f}.",
        "",
    ]
    for protocol in PROTOCOLS:
        block = [row for row in evaluation.ranked() if row.protocol == protocol]
        if not block:
            continue
        heads = ["run", "by patient", "by image"] if evaluation.patients else ["run", "balanced accuracy"]
        lines += [HEADINGS[protocol], "", f"| {' | '.join([*heads, 'weights'])} |", "|---" * (len(heads) + 1) + "|"]
        for row in sorted(block, key=lambda row: -(evaluation.to_expect(row).value or 0.0)):
            scores = [row.patient["balanced_accuracy"].text] if evaluation.patients else []
            lines.append(f"| {' | '.join([row.name, *scores, row.balanced_accuracy.text, row.weights or '-'])} |")
        lines.append("")
    lines.append("chosen: for each held-out fold the run that its validation chooses. naive: majority-class baseline.")
    return "\n".join(lines)


def _chance(evaluation: Evaluation) -> float:
    return 1 / len(evaluation.classes)


def _view(evaluation: Evaluation) -> dict[str, Any]:
    """The state of the UI's list of runs: sorted by the score to expect, with its interval and few columns more."""
    main = "test_patient_balanced_accuracy" if evaluation.patients else "test_balanced_accuracy"
    columns = [f"metrics.`{main}{end}`" for end in ("", "_low", "_high")]
    columns += [f"tags.`{name}`" for name in (SCORE, "protocol", "weights")]
    return {
        "searchFilter": "",
        "orderByKey": f"metrics.`{main}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": columns,
    }


def links(settings: Settings, address: str) -> dict[str, str]:
    """Dataset -> the link to its runs, sorted by test score; only datasets that have an experiment. Raises StoreAway.

    address: of the MLflow server, such as `http://127.0.0.1:5000`.
    """
    if not store_exists(settings):
        return {}
    found = {}
    with connected(settings) as client:
        for dataset in settings.active:
            experiment = client.get_experiment_by_name(experiment_name(settings, dataset))
            if experiment is None or experiment.lifecycle_stage != "active":
                continue
            saved = f"&viewStateShareKey={_VIEW}" if _SAVED + _VIEW in experiment.tags else ""
            opens = f"workflowType={quote('machine_learning')}&compareRunsMode=TABLE{saved}"
            found[dataset] = f"{address}/#/experiments/{experiment.experiment_id}/runs?{opens}"
    return found
