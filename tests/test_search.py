"""A search's queue: as many trials as asked for, whoever runs them and however they end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from cardium.errors import CardiumError
from cardium.parallel import started
from cardium.tuning import queue

SOURCE = Path(__file__).resolve().parents[1] / "src"
DEFAULTS = {"x": 0.9, "kind": "b"}


def objective(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", 0.0, 1.0)
    return -((x - 0.3) ** 2) - (trial.suggest_categorical("kind", ["a", "b"]) == "b") * 0.1


def study_in(folder: Path, url: str = "", name: str = "s", seed: int = 7) -> optuna.Study:
    return queue.open_study(queue.open_storage(url, folder / "s.journal"), name, DEFAULTS, seed=seed, startup=4)


def run(study: optuna.Study, total: int, folder: Path, of: Any = objective) -> list[int]:
    return list(queue.run_trials(study, total, of, folder / "s.lock"))


def worker(folder: Path, total: int, pause: float, url: str = "") -> subprocess.Popen[str]:
    """Another process at the same study; it says which trial it is at."""
    code = f"""
import sys, time
sys.path[:0] = [{str(SOURCE)!r}, {str(Path(__file__).parent)!r}]
from pathlib import Path
import test_search as t
def slow(trial):
    value = t.objective(trial)
    print("at", trial.number, flush=True)
    time.sleep({pause})
    return value
folder = Path({str(folder)!r})
t.run(t.study_in(folder, {url!r}), {total}, folder, slow)
"""
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kept(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=queue.ENDED)


def test_the_defaults_come_first_and_the_best_is_found(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    assert run(study, 12, tmp_path) == list(range(12))
    trials = study.get_trials()
    assert trials[0].params == DEFAULTS
    assert trials[0].user_attrs[queue.DEFAULTS] is True
    assert sum(bool(trial.user_attrs.get(queue.DEFAULTS)) for trial in trials) == 1
    counts = queue.count_trials(study)
    assert counts.ended == counts.completed == 12
    assert counts.best is not None
    assert counts.best.value == max(trial.value for trial in trials) > trials[0].value
    assert queue.importance(study, 1).keys() == {"x", "kind"}
    # A study that is opened again goes on: nothing is tried twice.
    assert run(study_in(tmp_path), 15, tmp_path) == [12, 13, 14]
    assert run(study_in(tmp_path), 15, tmp_path) == []


def test_of_equals_the_defaults_are_the_best(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    run(study, 5, tmp_path, lambda trial: objective(trial) * 0 + 0.5)
    best = queue.count_trials(study).best
    assert best is not None
    assert best.number == 0


class Killed(BaseException):
    """Ends a worker at once: nothing of it runs any more, not even what a `finally` would do to the journal."""


def test_killed_at_any_write_a_search_draws_and_finds_what_an_unbroken_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = JournalFileBackend.append_logs
    writes = {"left": -1, "done": 0}
    life = {"number": 0}

    def dying(self: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        if writes["left"] == 0:
            raise Killed
        writes["left"] -= 1
        writes["done"] += 1
        append(self, logs)

    monkeypatch.setattr(JournalFileBackend, "append_logs", dying)
    # Each life is a process of its own.
    monkeypatch.setattr(queue, "started", lambda _: str(life["number"]))

    def found(folder: Path) -> list[tuple[Any, ...]]:
        folder.mkdir(exist_ok=True)
        study = study_in(folder)
        run(study, 9, folder, drawn)
        return [(trial.params, trial.value) for trial in kept(study)]

    def drawn(trial: optuna.Trial) -> float:
        trial.suggest_float("y", 1e-3, 1.0, log=True)
        return objective(trial)

    unbroken = found(tmp_path / "unbroken")
    total = writes["done"]
    assert len(unbroken) == 9
    for number in range(1, total, 9):
        for left in (number, 7):
            writes["left"], life["number"] = left, life["number"] + 1
            with contextlib.suppress(Killed):
                found(tmp_path / f"killed {number}")
        writes["left"], life["number"] = -1, life["number"] + 1
        assert found(tmp_path / f"killed {number}") == unbroken, number


def test_what_is_drawn_depends_on_seed_and_number_alone(tmp_path: Path) -> None:
    drawn = []
    for name, seed in (("one", 7), ("again", 7), ("other", 8)):
        study = study_in(tmp_path, name=name, seed=seed)
        if name == "again":  # In two goes, as after a break.
            run(study, 4, tmp_path)
            study = study_in(tmp_path, name=name, seed=seed)
        run(study, 8, tmp_path)
        drawn.append([trial.params for trial in study.get_trials()])
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({str(params) for params in drawn[0]}) == 8, "no two workers draw the same"


def test_two_processes_and_a_kill_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    # TEST_STORAGE=postgresql://... tries the same on a server.
    url = os.environ.get("TEST_STORAGE", "")
    study_in(tmp_path, url)  # One process alone makes a database.
    first, second = worker(tmp_path, 10, 0.3, url), worker(tmp_path, 10, 0.3, url)
    assert first.stdout is not None
    at = int(first.stdout.readline().split()[1])
    first.send_signal(signal.SIGKILL)
    first.wait()
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    study = study_in(tmp_path, url)
    run(study, 10, tmp_path)  # What the second could not know of when it ended is made up for.
    trials = study.get_trials()
    assert len(kept(study)) == 10
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.FAIL}
    assert trials[at].state == TrialState.FAIL
    [again] = [trial for trial in trials if trial.user_attrs.get(queue.RETRY_OF) == at]
    assert again.state == TrialState.COMPLETE
    assert again.params == trials[at].params
    assert sum(bool(trial.user_attrs.get(queue.DEFAULTS)) for trial in kept(study)) == 1
    assert len({str(sorted(trial.params.items())) for trial in kept(study)}) == 10
    # Both have worked.
    assert len({trial.user_attrs[queue.WORKER]["pid"] for trial in trials}) >= 2


def test_a_database_is_as_good_as_a_journal(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    assert run(study_in(tmp_path, url), 2, tmp_path) == [0, 1]
    assert run(study_in(tmp_path, url), 3, tmp_path) == [2]
    assert not (tmp_path / "s.journal").exists()


def test_settings_that_kill_their_worker_are_left_alone_after_three_times(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    for _ in range(3):
        trial = queue._claim(study, 1)
        assert trial is not None
        objective(trial)
        trial.set_user_attr(queue.WORKER, {**trial.user_attrs[queue.WORKER], "started": "long ago"})
        assert queue.recover(study) == [trial.number]
        assert queue.recover(study) == []
    states = [trial.state for trial in study.get_trials()]
    assert states == [TrialState.FAIL] * 3


def test_a_worker_of_another_machine_is_judged_by_its_heartbeat(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    trial = queue._claim(study, 5)
    assert trial is not None
    trial.set_user_attr(queue.WORKER, {"host": "elsewhere", "pid": 1, "started": "1"})
    assert queue.recover(study) == []
    trial.set_user_attr(queue.BEAT, time.time() - 3600)
    assert queue.recover(study) == [trial.number]
    # Should it come back, its result is not taken beside the one of whoever does the trial now.
    queue._run(study, trial, lambda _: 1.0, tmp_path / "s.lock")
    assert study.get_trials()[trial.number].state == TrialState.FAIL


def test_the_heart_beats_while_a_trial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_BEAT_SECONDS", 0.05)
    seen = []

    def watched(trial: optuna.Trial) -> float:
        for _ in range(2):
            seen.append(study.get_trials()[trial.number].user_attrs[queue.BEAT])
            time.sleep(0.3)
        return 0.0

    study = study_in(tmp_path)
    run(study, 1, tmp_path, watched)
    assert seen[0] < seen[1]


def test_a_trial_that_another_machine_asked_for_first_is_none_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_in(tmp_path)
    run(study, 2, tmp_path)
    asked = study.ask

    def beaten() -> optuna.Trial:
        elsewhere = asked()
        elsewhere.set_user_attr(queue.WORKER, {"host": "elsewhere", "pid": 1, "started": "1"})
        elsewhere.set_user_attr(queue.BEAT, time.time())
        return asked()

    monkeypatch.setattr(study, "ask", beaten)
    assert run(study, 3, tmp_path) == []
    states = [trial.state for trial in study.get_trials()]
    assert states[2:] == [TrialState.RUNNING, TrialState.FAIL]


def test_an_interrupted_trial_is_taken_up_again(tmp_path: Path) -> None:
    study = study_in(tmp_path)

    def interrupted(trial: optuna.Trial) -> float:
        objective(trial)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(study, 3, tmp_path, interrupted)
    run(study, 3, tmp_path)
    trials = study.get_trials()
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert trials[1].params == DEFAULTS
    assert trials[1].user_attrs[queue.DEFAULTS]


def test_settings_that_cannot_be_trained_count_as_cut_short_unless_they_are_the_defaults(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    run(study, 1, tmp_path)

    def diverged(trial: optuna.Trial) -> float:
        objective(trial)
        raise CardiumError("Training diverged.")

    run(study, 2, tmp_path, diverged)
    assert [trial.state.name for trial in study.get_trials()] == ["COMPLETE", "PRUNED"]
    assert study.get_trials()[1].user_attrs[queue.NOTE] == "Training diverged."
    with pytest.raises(CardiumError, match="diverged"):
        run(study_in(tmp_path, name="other"), 2, tmp_path, diverged)


def test_a_journal_whose_writer_was_killed_within_a_line_goes_on(tmp_path: Path) -> None:
    run(study_in(tmp_path), 3, tmp_path)
    journal = tmp_path / "s.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker_')
    study = study_in(tmp_path)
    run(study, 5, tmp_path)
    assert len(kept(study_in(tmp_path))) == 5


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:////nowhere/at/all/s.db", r"--storage: sqlite:////nowhere/at/all/s.db does not answer \(unable to open"),
        ("nonsense://user:secret@host/db", r"--storage: nonsense://host/db does not answer"),
        (
            "mysql://user:secret@host/db",
            r"--storage: mysql://host/db needs a driver that is not installed: `uv pip install mysqlcl",
        ),
        ("/proc/none/s.journal", "--storage: /proc/none/s.journal is no journal"),
    ],
)
def test_a_storage_that_is_away_is_one_line(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(CardiumError, match=message) as caught:
        queue.open_storage(url, tmp_path / "j")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_worker_leaves_with_its_parent(tmp_path: Path) -> None:
    code = f"""
import os, subprocess, sys, time
sys.path.insert(0, {str(SOURCE)!r})
if len(sys.argv) == 1:
    child = subprocess.Popen([sys.executable, __file__, str(os.getpid())], stdout=sys.stdout)
    print(child.pid, flush=True)
    time.sleep(60)
from cardium.parallel import exit_with_parent
exit_with_parent(int(sys.argv[1]))
print("here", flush=True)
time.sleep(60)
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert parent.stdout.readline() == "here\n"
        parent.kill()
        # The pipe ends when the last process that holds it is gone.
        assert parent.stdout.read() == ""
    until = time.monotonic() + 10
    while started(child) is not None:  # Its last moment, after its files are closed.
        assert time.monotonic() < until
        time.sleep(0.05)
    assert started(os.getpid())
