"""Runs a search's trials, in this process or in several that share one queue."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cardium import config
from cardium.config import RunSpec
from cardium.errors import CardiumError, harmless, masked
from cardium.tuning import queue
from cardium.tuning.search import Search, objective_of, open_study, plan_search

if TYPE_CHECKING:
    import optuna

# Rounds in which workers die and no trial ends, before the search gives up.
_ROUNDS = 3


@dataclass(frozen=True)
class Budget:
    """How far a search goes.

    trials: the number that must have ended, in any process. workers: processes of this machine. storage: as `open_study` takes
    it.
    """

    trials: int
    workers: int
    storage: str = ""


def run_trials(search: Search, study: optuna.Study, budget: Budget) -> Iterator[None]:
    """Runs the search; yields once for every ended trial, including those of other machines and earlier sessions.

    Raises CardiumError if a worker fails, or if workers are killed repeatedly before a trial ends.
    """
    import filelock

    shown = 0

    def newly_ended() -> Iterator[None]:
        nonlocal shown
        ended = queue.count_trials(study).ended
        while shown < ended:
            shown += 1
            yield None

    rounds_without_trial = 0
    yield from newly_ended()
    while queue.count_trials(study).ended < budget.trials:
        before = queue.count_trials(study).ended
        if budget.workers == 1:
            for _ in queue.run_trials(study, budget.trials, objective_of(search), search.lock):
                yield from newly_ended()
        else:
            for _ in _run_processes(search, budget):
                yield from newly_ended()
        with filelock.FileLock(search.lock):
            queue.recover(study)
        yield from newly_ended()
        now = queue.count_trials(study)
        rounds_without_trial = 0 if now.ended > before or now.running else rounds_without_trial + 1
        if rounds_without_trial >= _ROUNDS:
            raise CardiumError(
                "The workers are killed before a trial ends, most likely for want of memory: use fewer --workers."
            )
        if now.ended < budget.trials and now.running:
            time.sleep(1.0)  # Another machine is at the last trials.


@dataclass(frozen=True)
class _Job:
    """The arguments of a worker process. parent: the id of the process that started it."""

    root: Path
    spec: RunSpec
    reads: Path
    space: str
    budget: Budget
    parent: int


def _run_processes(search: Search, budget: Budget) -> Iterator[None]:
    """Runs worker processes until enough trials have been taken; yields regularly meanwhile."""
    # Spawned: TensorFlow's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    job = _Job(search.settings.root, search.spec, search.reads, search.space.name, budget, os.getpid())
    processes = [context.Process(target=_run_worker, args=(job,), daemon=True) for _ in range(budget.workers)]
    for process in processes:
        process.start()
    try:
        while any(process.is_alive() for process in processes):
            time.sleep(0.5)
            yield None
    finally:
        for process in processes:
            process.terminate()
            process.join()
    # Killed ones are replaced; one that failed has printed why.
    if any(process.exitcode and process.exitcode > 0 for process in processes):
        raise CardiumError("A worker failed; its words are above. What the others have tried is kept.")


def _run_worker(job: _Job) -> None:
    """Runs trials in a worker process."""
    import sys

    from cardium.parallel import cores, exit_with_parent
    from cardium.tensorflow_import import import_tensorflow

    exit_with_parent(job.parent)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import_tensorflow()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(max(1, cores() // job.budget.workers))
    try:
        search = plan_search(config.load(job.root), job.spec, job.reads, job.space)
        with queue.storage_errors():
            study = open_study(search, job.budget.storage)
            for _ in queue.run_trials(study, job.budget.trials, objective_of(search), search.lock):
                pass
    except CardiumError as error:
        print(f"error: {harmless(masked(str(error)))}", file=sys.stderr)
        raise SystemExit(1) from None
