"""What `make demo` ends with: the leaderboard, what was promoted and why, and the next commands; from files alone."""

from __future__ import annotations

import json
from typing import Any

from cardium.errors import CardiumError
from cardium.params import Settings
from cardium.workspace import Workspace


def leaderboard(settings: Settings, dataset: str) -> str:
    """The last evaluation's leaderboard as text. Raises CardiumError when there is none."""
    from cardium.stages.evaluate import leaderboard_text

    path = Workspace(settings.root).evaluation(dataset) / "metrics.json"
    if not path.is_file():
        raise CardiumError(f"{dataset} has not been evaluated yet: run `cardium evaluate --dataset {dataset}`.")
    return leaderboard_text(json.loads(path.read_text(encoding="utf-8")))


def closing(settings: Settings, dataset: str) -> str:
    """Leaderboard, promotion and next commands as text."""
    workspace = Workspace(settings.root)
    promotion: dict[str, Any] = json.loads((workspace.promotion(dataset) / "promotion.json").read_text(encoding="utf-8"))
    model = f"cardium-{dataset}"
    lines = [
        leaderboard(settings, dataset),
        "",
        f"Promotion: {promotion['summary']}",
        "",
        "Next:",
        f"  {workspace.evaluation(dataset).relative_to(settings.root)}/leaderboard.png    the same as a picture",
        "  make ui                                      compare the runs in MLflow",
        "  .venv/bin/cardium train --model resnet152v2 --epochs 12     an experiment beside the pipeline",
        f"  .venv/bin/cardium predict data/{dataset}/*/*/*/IM00001.jpg      the champion, without a server",
        "  source .venv/bin/activate && export MLFLOW_TRACKING_URI=sqlite:///mlflow.db",
        f"  mlflow models serve -m models:/{model}@champion --env-manager local -p 5001",
    ]
    return "\n".join(lines)
