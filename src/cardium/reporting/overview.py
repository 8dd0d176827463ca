"""What `make demo` ends with: leaderboards, promotions and the next commands, from files alone."""

from __future__ import annotations

from typing import Any

from cardium.config import Settings
from cardium.evaluation.evaluation import Evaluation
from cardium.evaluation.experiments import with_experiments
from cardium.evaluation.leaderboard import leaderboard_text
from cardium.evaluation.promotion import Promotion
from cardium.workspace import Workspace


def leaderboard(settings: Settings, dataset: str) -> str:
    """Formats the last evaluation's leaderboard, with the scored experiments. Raises CardiumError if there is none."""
    evaluation = Evaluation.read(Workspace(settings.root).evaluation(dataset), dataset)
    return leaderboard_text(with_experiments(settings, evaluation))


def leaderboard_rows(settings: Settings, dataset: str) -> list[dict[str, Any]]:
    """The same as data: a row a run, every score with its interval. Raises CardiumError if there is none."""
    evaluation = with_experiments(settings, Evaluation.read(Workspace(settings.root).evaluation(dataset), dataset))
    shared = {"dataset": dataset, "generated": evaluation.data.generated, "interval": evaluation.interval}
    return [{"run": row.name, **shared, **row.to_json()} for row in evaluation.ranked()]


def demo_summary(settings: Settings) -> str:
    """Formats every dataset's leaderboard and promotion, then the next commands."""
    workspace = Workspace(settings.root)
    lines: list[str] = []
    champions = []
    for dataset in settings.active:
        promotion = Promotion.read(workspace.promotion(dataset))
        if promotion and (promotion.action == "promoted" or promotion.champion):
            champions.append(dataset)
        summary = promotion.summary if promotion else f"none yet: run `cardium promote --dataset {dataset}`."
        lines += [leaderboard(settings, dataset), "", f"Promotion: {summary}", ""]
    first = settings.active[0]
    served = champions[0] if champions else first
    lines += [
        "Next:",
        "  reports/index.html                           open it in a browser: which model to use, how far to trust it",
        "  make ui                                      compare the runs in MLflow",
        *(["  make app                                     a page: drop a file on it, read the answer"] if champions else []),
        f"  .venv/bin/cardium train --dataset {first} --model resnet152v2 --epochs 12     an experiment beside the pipeline",
        f"  .venv/bin/cardium predict --dataset {served} data/{served}/<a file>      the champion, without a server",
        "  source .venv/bin/activate && export MLFLOW_TRACKING_URI=sqlite:///mlflow.db",
        f"  mlflow models serve -m models:/cardium-{served}@champion --env-manager local -p 5001",
    ]
    return "\n".join(lines)
