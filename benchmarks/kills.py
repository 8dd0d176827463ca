"""What a kill costs: a verb is killed at a random moment by a random signal, repeated, and compared with an unbroken one.

A project of 12 drawn patients, 32x32 images, a bank, a head on it, a search of four trials. Each verb starts from what those
before it left in an unbroken run. It is killed (KILL, TERM or INT, from its start-up on; one in three once more while it is
repeated), then repeated to its end. Then four things are asked:

files      are all files the unbroken run's, byte by byte? Ids, times and seconds are made alike first.
store      does MLflow hold every run once, and none that is still RUNNING?
left       is a temporary file, a lock that is held or a process left?
words      was a traceback printed?

    python benchmarks/kills.py                          # 60 kills, two projects at a time
    python benchmarks/kills.py --kills 500 --jobs 8
    python benchmarks/kills.py --verbs train tune --seed 7
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import csv
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
RUN = "cmri-mobilenetv2"
# In the order of the pipeline. `repro` is all up to the rendering through DVC, from the data alone.
VERBS = {
    "ingest": ["stage", "ingest", "cmri"],
    "split": ["stage", "split", "cmri"],
    "prepare": ["stage", "prepare", "cmri-image"],
    "features": ["stage", "features", RUN],
    "train": ["stage", "train", RUN],
    "tune": ["stage", "tune", RUN],
    "evaluate": ["stage", "evaluate", "cmri"],
    "promote": ["stage", "promote", "cmri"],
    "repro": ["repro", "prepare@cmri-image"],
}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
OUTPUTS = ("processed", "features", "models", "reports", "configs", "data")
TOKEN = "CARDIUM_KILLS"
_ID = re.compile(r"\b[0-9a-f]{32}\b|\bm-[0-9a-f]{32}\b")
_TIME = re.compile(r"\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:\+00:00)?")
# Of a search: a trial that takes up a killed one has another number.
_COLUMNS = {"seconds", "started", "trial", "retry_of", "note"}
_KEYS = {"seconds", "seconds_per_trial", "this_time", "trial"}
_NOT_COMPARED = ("history.png", "slices.png")  # of a search, drawn by the trials' numbers
_PATIENCE = 25.0


@dataclass
class Outcome:
    """One kill. moments: seconds after the start, -1 where the verb had ended by then. faults: what did not hold."""

    verb: str
    seed: int
    signals: list[str] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def main() -> int:
    options = _options()
    with contextlib.ExitStack() as stack:
        if options.keep:
            place = Path(options.keep).resolve()
        else:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kills-", dir=options.scratch)))
        seconds = unbroken(place, options.verbs)
        print("unbroken: " + ", ".join(f"{verb} {took:.0f} s" for verb, took in seconds.items()), flush=True)
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            free = [place / f"job{number}" for number in range(options.jobs)]
            running = [
                pool.submit(one_kill, place, free, verb, options.seed + number, seconds[verb])
                for number, verb in enumerate(_chosen(options))
            ]
            outcomes = []
            for done in concurrent.futures.as_completed(running):
                outcomes.append(done.result())
                one = outcomes[-1]
                what = "; ".join(one.faults) or "as unbroken"
                print(f"{len(outcomes)} {one.verb} (seed {one.seed}) {one.signals} {one.moments}: {what}", flush=True)
                if options.minutes and time.monotonic() - _BEGAN > 60 * options.minutes:
                    for waiting in running:
                        waiting.cancel()
                    running = [future for future in running if not future.cancelled()]
                    break
            outcomes += [future.result() for future in running if not future.cancelled() and future.result() not in outcomes]
    print(table(outcomes))
    return int(any(one.faults for one in outcomes))


_BEGAN = time.monotonic()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kills verbs at random moments and compares what is left with unbroken ones.")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=2, help="projects at a time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verbs", nargs="+", default=list(VERBS), choices=list(VERBS))
    parser.add_argument("--minutes", type=float, default=0, help="begin no kill after so long; 0 for no limit")
    parser.add_argument("--scratch", default=None, help="a folder for the projects")
    parser.add_argument("--keep", default="", help="a folder that keeps the unbroken runs, and has them from an earlier call")
    return parser.parse_args()


def _chosen(options: argparse.Namespace) -> list[str]:
    drawn = random.Random(options.seed)
    return [drawn.choice(options.verbs) for _ in range(options.kills)]


# ------------------------------------------------------------------------------------------------------------ the project


def make_project(root: Path) -> None:
    """A clone's tracked files with small settings, drawn images of 12 patients, and a commit."""
    import numpy as np
    import yaml
    from PIL import Image

    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (PROJECT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, root / name)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["datasets"] = ["cmri"]
    params["studies"]["demo"] = {"cmri": {"models": ["mobilenetv2"]}}
    quick = {"weights": "none", "views": 1, "epochs": 4, "batch": 16, "learning_rate": 1e-2}
    params["cmri"] = {"render": {"image": {"height": 32, "width": 32}}, "train": quick}
    params["profiles"]["demo"]["split"] = {"folds": 3}
    params["profiles"]["demo"]["tune"] = {"trials": 4, "startup": 2}
    params["evaluate"]["bootstrap"] = 100
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    rng = np.random.default_rng(0)
    for patient in range(12):
        label = ("Normal", "Sick")[patient % 2]
        for frame in range(4):
            path = root / f"data/cmri/{label}/Directory_{patient}/SR_1/IM0000{frame}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 200 + 50 * (patient % 2), (32, 32), np.uint8)).save(path)
    (root / "data.dvc").unlink()
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    for command in (["cardium", "plan"], ["dvc", "add", "-q", "data"]):
        subprocess.run([sys.executable, "-m", *command], cwd=root, env=environment(root), check=True, capture_output=True)
    for words in (["add", "-A"], ["-c", "user.name=k", "-c", "user.email=k@k", "commit", "-qm", "kills"]):
        subprocess.run(["git", *words], cwd=root, check=True, capture_output=True)


def environment(root: Path, **more: str) -> dict[str, str]:
    """One thread, so that the last bits of a training do not depend on what else the machine does."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "CARDIUM_"))}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(root / "src"), "TF_CPP_MIN_LOG_LEVEL": "3", **threads, **more}


def unbroken(place: Path, verbs: list[str]) -> dict[str, float]:
    """Runs every verb once and keeps the project before and after each one; returns how long each took."""
    known = place / "unbroken.json"
    if known.is_file():
        return dict(json.loads(known.read_text()))
    root = place / "job0"
    make_project(root)
    _copy(root, place / "before repro")
    seconds = {}
    last = max(list(VERBS).index(verb) for verb in verbs if verb != "repro") if set(verbs) - {"repro"} else -1
    for verb in list(VERBS)[: last + 1]:
        _copy(root, place / f"before {verb}")
        seconds[verb] = _run_whole(root, verb)
        _copy(root, place / f"after {verb}")
    if "repro" in verbs:
        _copy(place / "before repro", root)
        seconds["repro"] = _run_whole(root, "repro")
        _copy(root, place / "after repro")
    known.write_text(json.dumps(seconds))
    return seconds


def _run_whole(root: Path, verb: str) -> float:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "cardium", *VERBS[verb]], cwd=root, env=environment(root), capture_output=True)
    if done.returncode:
        raise SystemExit(f"{verb} fails unbroken: {done.stderr.decode()[-2000:]}")
    return time.monotonic() - began


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)


# --------------------------------------------------------------------------------------------------------------- one kill


def one_kill(place: Path, free: list[Path], verb: str, seed: int, seconds: float) -> Outcome:
    """Kills `verb` in a project of its own, repeats it, and looks at what is there."""
    root = free.pop()
    try:
        return _one_kill(place, root, verb, seed, seconds)
    finally:
        free.append(root)


def _one_kill(place: Path, root: Path, verb: str, seed: int, seconds: float) -> Outcome:
    drawn = random.Random(f"{verb} {seed}")
    outcome = Outcome(verb, seed)
    _copy(place / f"before {verb}", root)
    for _ in range(1 + (drawn.random() < 1 / 3)):
        number = drawn.choice(SIGNALS)
        # A third in the first moments, which are the interpreter's and the libraries'.
        moment = drawn.uniform(0, 2) if drawn.random() < 1 / 3 else drawn.uniform(0, seconds)
        outcome.signals.append(number.name)
        outcome.moments.append(round(_killed(root, verb, number, moment, outcome), 2))
    code, text = _process(root, verb, outcome)
    if code:
        outcome.faults.append(f"the repeated one ends with {code}: {text.strip().splitlines()[-1:]}")
    outcome.faults += [f"differs: {name}" for name in differing(place / f"after {verb}", root)]
    outcome.faults += store_faults(root)
    outcome.faults += left_behind(root)
    return outcome


def _killed(root: Path, verb: str, number: signal.Signals, moment: float, outcome: Outcome) -> float:
    """Starts the verb and signals it after `moment` seconds; returns the moment, -1 where it had ended."""
    token = uuid.uuid4().hex
    with tempfile.TemporaryFile() as output:
        process = _start(root, verb, token, output)
        try:
            process.wait(moment)
            moment = -1
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            try:
                process.wait(_PATIENCE * 6)
            except subprocess.TimeoutExpired:
                outcome.faults.append(f"goes on after {number.name}: at {moment:.1f} s")
                process.kill()
                process.wait()
        _check_ended(token, outcome)
        output.seek(0)
        _check_words(output.read().decode(errors="replace"), number, moment, outcome)
    return moment


def _process(root: Path, verb: str, outcome: Outcome) -> tuple[int, str]:
    token = uuid.uuid4().hex
    with tempfile.TemporaryFile() as output:
        code = _start(root, verb, token, output).wait()
        _check_ended(token, outcome)
        output.seek(0)
        text = output.read().decode(errors="replace")
    _check_words(text, None, -1, outcome)
    return code, text


def _start(root: Path, verb: str, token: str, output: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cardium", *VERBS[verb]]
    env = environment(root, **{TOKEN: token})
    return subprocess.Popen(command, cwd=root, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)


def _check_words(text: str, number: signal.Signals | None, moment: float, outcome: Outcome) -> None:
    """A traceback is a fault, but one of a Ctrl-C within Python's own start, before any code of ours runs."""
    if "Traceback" in text and not (number == signal.SIGINT and "KeyboardInterrupt" in text and 0 <= moment < 2):
        outcome.faults.append(f"traceback: {text.strip().splitlines()[-1][:200]}")


def _check_ended(token: str, outcome: Outcome) -> None:
    """All that a killed command started ends with it, within seconds."""
    until = time.monotonic() + _PATIENCE
    while pids := _with_token(token):
        if time.monotonic() > until:
            outcome.faults.append(f"{len(pids)} processes left")
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.2)


def _with_token(token: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"{TOKEN}={token}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


# ------------------------------------------------------------------------------------------------------- what is compared


def differing(expected: Path, actual: Path) -> list[str]:
    """The files of the outputs that are not alike in two projects."""
    ours, theirs = _contents(expected), _contents(actual)
    return [name for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)]


def _contents(root: Path) -> dict[str, str]:
    found = {}
    for name in OUTPUTS:
        for path in sorted((root / name).rglob("*")):
            inner = path.relative_to(root).as_posix()
            if path.is_file() and not ("/tuning/" in inner and path.name in _NOT_COMPARED):
                found[inner] = hashlib.sha256(_alike(path, path.read_bytes())).hexdigest()
    return found


def _alike(path: Path, data: bytes) -> bytes:
    """The content of a file without what no two runs share: ids, moments, seconds."""
    if path.suffix == ".json":
        data = json.dumps(_without(json.loads(data)), sort_keys=True).encode()
    elif path.suffix == ".csv":
        data = repr(_rows(data.decode())).encode()
    if path.suffix in (".json", ".csv", ".yaml", ".html"):
        data = _TIME.sub("TIME", _ID.sub("ID", data.decode())).encode()
    return data


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(inner) for key, inner in value.items() if key not in _KEYS}
    return [_without(inner) for inner in value] if isinstance(value, list) else value


def _rows(text: str) -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(text)))
    # Trials that a kill cut off are listed as failed; those that took them up count.
    kept = [row for row in rows if row.get("state") != "fail"]
    return [{key: value for key, value in row.items() if key not in _COLUMNS} for row in kept]


def store_faults(root: Path) -> list[str]:
    """What is wrong in the local MLflow store: runs that are still RUNNING, runs and versions that are there twice."""
    database = root / "mlflow.db"
    if not database.is_file():
        return []
    faults = []
    with contextlib.closing(sqlite3.connect(database)) as connection:
        running = connection.execute("SELECT count(*) FROM runs WHERE status = 'RUNNING'").fetchone()[0]
        twice = connection.execute(
            "SELECT count(*) FROM (SELECT value FROM tags JOIN runs USING (run_uuid) WHERE key = 'cardium.id' AND "
            "lifecycle_stage = 'active' GROUP BY value HAVING count(*) > 1)"
        ).fetchone()[0]
        versions = connection.execute("SELECT count(*) - count(DISTINCT run_id) FROM model_versions").fetchone()[0]
    faults += [f"{running} runs are RUNNING"] if running else []
    faults += [f"{twice} runs are there twice"] if twice else []
    return faults + ([f"{versions} versions are there twice"] if versions else [])


def left_behind(root: Path) -> list[str]:
    """Temporary files, DVC's lists of readers and writers, and locks that somebody still holds."""
    import filelock

    faults = []
    parts = [path for path in root.rglob("*") if ".part" in path.name and ".git" not in path.parts and ".dvc" not in path.parts]
    faults += [f"left: {path.relative_to(root)}" for path in parts[:3]]
    for path in [*root.rglob("*.lock"), root / ".dvc" / "tmp" / "lock"]:
        if not path.is_file() or "src" in path.parts or path.name in ("dvc.lock", "requirements.lock"):
            continue
        try:
            filelock.FileLock(path).acquire(timeout=0).lock.release()
        except filelock.Timeout:
            faults.append(f"held: {path.relative_to(root)}")
    return faults


def table(outcomes: list[Outcome]) -> str:
    """A row a verb: kills, how many ended as the unbroken one did, and the faults by their kind."""
    lines = [f"{'verb':<10}{'kills':>7}{'as unbroken':>13}  faults"]
    for verb in [*VERBS, "all"]:
        of = [one for one in outcomes if verb in (one.verb, "all")]
        if of:
            kinds = collections.Counter(fault.partition(":")[0] for one in of for fault in one.faults)
            said = ", ".join(f"{count} x {kind}" for kind, count in kinds.items()) or "none"
            kills = sum(len(one.signals) for one in of)
            lines.append(f"{verb:<10}{kills:>7}{sum(not one.faults for one in of):>7} of {len(of):<3}  {said}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
