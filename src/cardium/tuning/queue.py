"""The queue of a search's trials: an Optuna study that several processes share and that survives kills.

Every trial records its worker (host, process, start time) and a heartbeat. If the worker is gone, the trial is failed and its
settings are queued again, up to three times: no trial is lost and none counts twice. Trials are counted before one starts,
under a lock on this machine and by trial number between machines, so exactly as many end as were asked for.

The storage is a journal (one file that processes append to) or any database that Optuna supports (an SQLAlchemy URL).
"""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError, OptunaError, StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from cardium.errors import CardiumError, first_line, masked, printable
from cardium.parallel import started

# What a trial says of itself, beside Optuna's own.
WORKER, BEAT, ATTEMPT, RETRY_OF, DEFAULTS, NOTE = "worker", "beat", "attempt", "retry_of", "defaults", "note"
# The place in the search of a trial that takes up a killed one.
PLACE = "place"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
_TAKEN = (*ENDED, TrialState.RUNNING)
# A settings' worker may be killed for what they need (memory): after so many attempts they are left alone.
_ATTEMPTS = 3
_BEAT_SECONDS = 15.0
# A worker of another machine that has been silent for this long is gone; clocks may differ by less.
_SILENT_SECONDS = 300.0

Objective = Callable[[optuna.Trial], float]


def open_storage(url: str, journal: Path) -> BaseStorage:
    """Opens the storage at `url` (an SQLAlchemy URL or a journal's path); "" opens the journal at `journal`.

    Raises CardiumError if it cannot be reached. The message leaves out the URL's password.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if "://" not in url:
        path = Path(url) if url else journal
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _end_last_line(path)
            return JournalStorage(JournalFileBackend(str(path)))
        except (OSError, ValueError) as error:
            raise CardiumError(f"--storage: {path} is no journal that can be written to ({error}).") from None
    shown = printable(url)
    try:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except ImportError as error:
        module = str(getattr(error.__cause__ or error, "name", "") or "its driver")
        missing = {"psycopg": '"psycopg[binary]"', "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}.get(module, module)
        raise CardiumError(
            f"--storage: {shown} needs a driver that is not installed: `uv pip install {missing}` into this environment."
        ) from None
    except RuntimeError as error:  # Optuna's, of tables that another version of it has made
        raise CardiumError(
            f"--storage: {shown} is of another version of Optuna ({masked(_reason(error), url)}): back it up, then run `optuna "
            "storage upgrade --storage` with its URL, or name another."
        ) from None
    except Exception as error:  # SQLAlchemy's errors, its drivers', and ArgumentError for a URL that is none
        raise CardiumError(
            f"--storage: {shown} does not answer ({masked(_reason(error), url)}): start it, or leave it out."
        ) from None


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Turns the errors of a storage that stops answering within the block into a CardiumError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, StorageInternalError) or type(error).__module__.startswith("sqlalchemy."):
            raise CardiumError(
                f"--storage: it stopped answering ({_reason(error)}): start it and run this again, which goes on from here."
            ) from None
        raise


def _end_last_line(journal: Path) -> None:
    """Removes an unfinished last line, left by a killed writer or a full disk. Nothing could be appended after it."""
    if not journal.is_file():
        return
    lock = JournalFileSymlinkLock(str(journal))
    lock.acquire()
    try:
        content = journal.read_bytes()
        if content and not content.endswith(b"\n"):
            os.truncate(journal, content.rfind(b"\n") + 1)
    finally:
        lock.release()


def study_names(storage: BaseStorage) -> list[str]:
    """Returns the names of all studies in a storage."""
    return list(optuna.get_all_study_names(storage))


def open_study(storage: BaseStorage, name: str, defaults: dict[str, Any], seed: int, startup: int) -> optuna.Study:
    """Opens the study `name`. A new study is created with a trial of the `defaults` in its queue.

    startup: the number of random trials before the sampler learns and any trial is pruned.
    """
    options: dict[str, Any] = {
        "storage": storage,
        "study_name": name,
        "sampler": _SeededByPlace(seed, startup),
        "pruner": optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=0),
    }
    try:
        study = optuna.create_study(**options, direction="maximize")
    except DuplicatedStudyError:
        options.pop("direction", None)
        study = optuna.load_study(**options)
        if not _has_defaults(study):
            time.sleep(1.0)  # Another process has just made the study and is about to put them in.
    if not _has_defaults(study):
        study.enqueue_trial(defaults, user_attrs={DEFAULTS: True})
    return study


def _has_defaults(study: optuna.Study) -> bool:
    trials = study.get_trials(deepcopy=False, states=(*_TAKEN, TrialState.WAITING))
    return any(trial.user_attrs.get(DEFAULTS) for trial in trials)


class _SeededByPlace(BaseSampler):
    """TPE (Bergstra et al. 2011, NeurIPS) whose draws are a function of seed, the trial's place and the trials that ended.

    A trial that takes up a killed one has that one's place, and those after it count on as if nothing had been killed: a
    search of one worker draws the same with and without kills. With one seed per process, workers on two machines would all
    draw the same first trials.
    """

    def __init__(self, seed: int, startup: int) -> None:
        self._seed, self._startup = seed, startup
        self._place = 0
        self._tpe = self._made()

    def _made(self, name: str = "") -> TPESampler:
        """A sampler for this place. name: of a setting that is drawn alone: it must not depend on those drawn before it."""
        seed = int(np.random.SeedSequence([self._seed, self._place, *name.encode()]).generate_state(1)[0])
        return TPESampler(seed=seed, n_startup_trials=self._startup, multivariate=True, constant_liar=True)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._place = _place(study, trial)
        self._tpe = self._made()
        self._tpe.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._made(param_name).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._tpe.after_trial(study, trial, state, values)


def _place(study: optuna.Study, trial: FrozenTrial) -> int:
    """Returns a trial's place in the search: how many others came before it, those that took up a killed one left out."""
    given = trial.user_attrs.get(PLACE)
    if given is not None:
        return int(given)
    return sum(other.number < trial.number and RETRY_OF not in other.user_attrs for other in study.get_trials(deepcopy=False))


@dataclass(frozen=True)
class Counts:
    """The number of completed, pruned and running trials of a study, and its best completed trial."""

    completed: int
    pruned: int
    running: int
    best: FrozenTrial | None

    @property
    def ended(self) -> int:
        """Trials that count towards the budget: completed or pruned."""
        return self.completed + self.pruned

    def text(self) -> str:
        """The best score so far, for a progress bar."""
        return "" if self.best is None or self.best.value is None else f"best {self.best.value:.3f} (trial {self.best.number})"


def count_trials(study: optuna.Study) -> Counts:
    """Counts a study's trials. The defaults, then the first of equal trials, win a tie for the best."""
    trials = study.get_trials(deepcopy=False)
    of = {state: [trial for trial in trials if trial.state == state] for state in TrialState}
    completed = of[TrialState.COMPLETE]
    best = max(completed, key=lambda trial: (trial.value, bool(trial.user_attrs.get(DEFAULTS)), -trial.number), default=None)
    return Counts(len(completed), len(of[TrialState.PRUNED]), len(of[TrialState.RUNNING]), best)


def run_trials(study: optuna.Study, total: int, objective: Objective, lock: Path) -> Iterator[int]:
    """Runs trials until `total` have ended or are running in any process; yields the number of each one run here.

    objective: trial -> score, larger is better. It may raise optuna.TrialPruned, and CardiumError for settings that cannot be
    trained; such a trial counts as pruned. lock: a file that this machine's workers share.
    """
    import filelock

    while True:
        with filelock.FileLock(lock):
            recover(study)
            trial = _claim(study, total)
        if trial is None:
            return
        _run(study, trial, objective, lock)
        yield trial.number


def recover(study: optuna.Study) -> list[int]:
    """Fails the trials whose worker is gone, queues their settings again, and returns their numbers.

    Call it under the lock of this machine's workers.
    """
    trials = study.get_trials(deepcopy=False)
    # A worker that was killed between failing a trial and queueing it again.
    taken_up = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    for trial in trials:
        left = trial.state == TrialState.FAIL and NOTE not in trial.user_attrs and trial.number not in taken_up
        if left and _is_of_this_machine(study, trial):
            _queue_again(study, trial)
    found = []
    for trial in trials:
        if trial.state == TrialState.RUNNING and not _alive(study, trial) and _give_back(study, trial):
            found.append(trial.number)
    return found


def _claim(study: optuna.Study, total: int) -> optuna.Trial | None:
    """Takes the next trial for this process; None if enough trials have been taken."""
    if len(study.get_trials(deepcopy=False, states=_TAKEN)) >= total:
        return None
    trial = study.ask()
    trial.set_user_attr(WORKER, _myself())
    trial.set_user_attr(BEAT, time.time())
    # Another machine may have asked at the same moment: numbers are given out one by one, and the first `total` stand.
    before = sum(other.number < trial.number for other in study.get_trials(deepcopy=False, states=_TAKEN))
    if before >= total:
        trial.set_user_attr(NOTE, "one too many: another worker was first")
        study.tell(trial, state=TrialState.FAIL)
        return None
    return trial


def _run(study: optuna.Study, trial: optuna.Trial, objective: Objective, lock: Path) -> None:
    import filelock

    value: float | None = None
    state = TrialState.COMPLETE
    try:
        with _beating(trial):
            value = objective(trial)
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except CardiumError as error:
        trial.set_user_attr(NOTE, str(error))
        if trial.user_attrs.get(DEFAULTS):  # Not the settings' fault.
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            raise
        state = TrialState.PRUNED
    except UpdateFinishedTrialError:
        return  # This machine was silent for so long that another has taken the trial over.
    except KeyboardInterrupt:
        with filelock.FileLock(lock):
            _give_back(study, study.get_trials(deepcopy=False)[trial.number])
        raise
    except Exception as error:
        trial.set_user_attr(NOTE, f"{type(error).__name__}: {first_line(error)}")
        study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        raise
    with contextlib.suppress(UpdateFinishedTrialError):
        study.tell(trial, value, state=state, skip_if_finished=True)


def _give_back(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Fails a running trial and queues its settings again. Returns False if another process did so first."""
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (ValueError, UpdateFinishedTrialError):
        return False
    _queue_again(study, trial)
    return True


def _queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queues what a failed trial had drawn or was to try; what it had not drawn yet, its follower draws in its place."""
    attempt = int(trial.user_attrs.get(ATTEMPT, 1))
    if attempt < _ATTEMPTS:
        settings = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        kept = {DEFAULTS: True} if trial.user_attrs.get(DEFAULTS) else {}
        about = {ATTEMPT: attempt + 1, RETRY_OF: trial.number, PLACE: _place(study, trial), **kept}
        study.enqueue_trial(settings, user_attrs=about)


# ------------------------------------------------------------------------------------------------------------ who is alive


def _myself() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": started(os.getpid())}


def _is_of_this_machine(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Whether a trial's worker is a process of this machine; one that has not signed yet is, if the storage is a file."""
    worker = trial.user_attrs.get(WORKER)
    return isinstance(study._storage, JournalStorage) if worker is None else bool(worker["host"] == socket.gethostname())


def _alive(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Returns whether a running trial's worker is alive: its process on this machine, its heartbeat on others."""
    worker = trial.user_attrs.get(WORKER)
    if worker is None:
        # Between asking and signing lies a moment: on this machine one under the lock, which the caller holds.
        if _is_of_this_machine(study, trial):
            return False
        # Clocks and their zones may differ.
        begun = trial.datetime_start or datetime.datetime.now()
        return abs((datetime.datetime.now() - begun).total_seconds()) < 10
    if _is_of_this_machine(study, trial):
        since = started(int(worker["pid"]))
        return since is not None and since == worker["started"]
    return time.time() - float(trial.user_attrs.get(BEAT, 0.0)) < _SILENT_SECONDS


@contextlib.contextmanager
def _beating(trial: optuna.Trial) -> Iterator[None]:
    """Renews the trial's heartbeat while the block runs."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(_BEAT_SECONDS):
            # A storage that is away for a moment must not end a training.
            with contextlib.suppress(Exception):
                trial.set_user_attr(BEAT, time.time())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def importance(study: optuna.Study, seed: int) -> dict[str, float]:
    """Computes how much of the scores' variance each setting explains (fANOVA, Hutter et al. 2014), largest first."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    if count_trials(study).completed < 3:
        return {}
    try:
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed))
    except (OptunaError, ValueError, RuntimeError):  # all trials alike
        return {}
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(getattr(error, "orig", None) or error).splitlines() if line.strip()]
    return lines[0][:160] if lines else type(error).__name__
