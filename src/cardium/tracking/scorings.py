"""What `cardium score` came to, in the MLflow run that `mlflow run -e score` has opened; without one, nothing is logged."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from cardium.config import Settings
from cardium.tracking.mlflow_run import find_opened, log_batches, milliseconds, to_metrics
from cardium.tracking.store import connected, errors_as_warnings


def log_scoring(settings: Settings, dataset: str, values: Mapping[str, float]) -> bool:
    """Logs a command's numbers as metrics of the run that was opened for it; whether there was one."""
    if not os.environ.get("MLFLOW_RUN_ID"):
        return False
    with errors_as_warnings(), connected(settings) as client:
        run = find_opened(client, f"score {dataset}", "")
        if run is None:
            return False
        log_batches(client, run.info.run_id, metrics=to_metrics(values, milliseconds(time.time())))
        return True
    return False
