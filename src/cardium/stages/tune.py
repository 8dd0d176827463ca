"""tune: searches the settings of one run -> configs/tuned/<run>.yaml and reports/<dataset>/tuning/<run>/.

The reports folder holds:

    trials.csv          one row per trial: number, state, score, seconds, each fold's score, its settings
    study.json          what was searched, the best trial, its gain over the run's own settings, importance
    history.png, importance.png, slices.png
    defaults.parquet, best.parquet     validation predictions (test_fold: the fold that was validated on)
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from cardium import atomic
from cardium.config import RunSpec, Settings
from cardium.errors import unknown
from cardium.progress import progress
from cardium.reporting import plots
from cardium.tuning import queue
from cardium.tuning.result import conclude, result_text, tuned_text
from cardium.tuning.search import open_study, plan_search
from cardium.tuning.workers import Budget, run_trials
from cardium.workspace import Workspace


def run(settings: Settings, item: str) -> None:
    """Searches the settings of the run `item` of the plan; its bank or rendering must be there."""
    if item not in settings.plan.runs:
        raise unknown("run", item, list(settings.plan.runs))
    spec = settings.plan.runs[item]
    tune_run(settings, spec, settings.root / spec.reads)


def tune_run(
    settings: Settings, spec: RunSpec, reads: Path, *, trials: int = 0, workers: int = 0, space: str = "", storage: str = ""
) -> dict[str, Any]:
    """Continues the search of a run until `trials` have ended in all, and returns study.json.

    reads: the folder of the bank or the rendering. trials, workers: 0 for the values of params.yaml. storage: an SQLAlchemy URL
    that several machines share, or a journal's path; "" for the project's own journal.
    """
    budget = Budget(trials or settings.tune.trials, workers or settings.tune.workers, storage)
    search = plan_search(settings, spec, reads, space)
    began = time.perf_counter()
    with queue.storage_errors():
        study = open_study(search, storage)
        before = queue.count_trials(study)
        if before.ended:
            print(f"{spec.name}: {before.ended} trials are done already.")
        ended, total = run_trials(search, study, budget), max(budget.trials, before.ended)
        counts = lambda: queue.count_trials(study).text()  # noqa: E731
        for _ in progress(ended, total=total, desc=f"tune {spec.name}", unit="trial", note=counts):
            pass
        result = conclude(search, study, budget.trials, time.perf_counter() - began)
    workspace = Workspace(settings.root)
    with atomic.replacing_folder(workspace.tuning(spec.dataset, spec.name)) as part:
        table, info = part / "trials.csv", result.info
        result.trials.to_csv(table, index=False)
        result.defaults.to_parquet(part / "defaults.parquet", index=False)
        result.best.to_parquet(part / "best.parquet", index=False)
        atomic.write_json(part / "study.json", info)
        plots.search_history(table, part / "history.png", title=f"{spec.name}: trials")
        plots.search_importance(info["importance"], part / "importance.png", title=f"{spec.name}: what the score depends on")
        plots.search_slices(table, info["dimensions"], part / "slices.png", title=f"{spec.name}: settings and scores")
    atomic.write_text(workspace.tuned(spec.name), tuned_text(info))
    print(result_text(search, info))
    return info
