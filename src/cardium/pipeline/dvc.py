"""Runs parts of the pipeline through DVC, and makes the demo data where a clone has none yet."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cardium.data.tracked import NO_GIT, recorded_md5
from cardium.errors import CardiumError, not_installed
from cardium.pipeline.fork_server import IMPORTS, fork_server
from cardium.pipeline.graph import chains, outdated
from cardium.pipeline.process_group import run_group
from cardium.pipeline.side_by_side import default_jobs, run_chains
from cardium.pipeline.stages import ALWAYS, COMMAND, JOURNAL, STAGES, journal_entries
from cardium.pipeline.turn import turn, wait_for_dvc

# DVC's words where it finds no git.
_NOT_GIT = "is not a git repository"


def environment(root: Path) -> dict[str, str]:
    """The environment for a child process: this Python first on PATH, and this package importable without installation."""
    env = dict(os.environ)
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    source = str(Path(__file__).resolve().parents[2])
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [source, env.get("PYTHONPATH", "")]))
    env["CARDIUM_ROOT"] = str(root)
    return env


def check_dvc(root: Path) -> None:
    """Raises CardiumError where DVC cannot run here: it is not installed, or the project came without .dvc or without git."""
    if importlib.util.find_spec("dvc") is None:
        raise CardiumError(not_installed("dvc"))
    if not (root / ".dvc").is_dir():
        raise CardiumError("There is no .dvc/ here, which the project comes with: copy it, too, or run `dvc init --no-scm`.")
    if any((folder / ".git").exists() for folder in (root, *root.parents)):
        return
    from dvc.repo import Repo
    from dvc.scm import SCMError

    try:
        Repo(str(root)).close()
    except SCMError:
        raise CardiumError(NO_GIT) from None


def run_dvc(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `dvc ARGUMENTS` in `root` and returns its exit code and output."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, env=environment(root), capture_output=True, text=True, check=False)


def reproduce(root: Path, targets: list[str], *, single: bool = False, force: bool = False, jobs: int = 0) -> bool:
    """`dvc repro TARGETS` (all stages when empty), the stages' own output passed on; True when anything was made.

    jobs: how many stages run at once at most; 0: as many as cores and memory allow. Something was made where a stage ran or
    dvc.lock changed (DVC may restore a result from its cache). Data that a fresh clone lacks is made first. Waits for other
    commands of the project, and says for which. Raises CardiumError when a stage fails; the stage has then said why.
    """
    check_dvc(root)
    flags = [*(["--single-item"] if single else []), *(["--force"] if force else [])]
    lock = root / "dvc.lock"
    with turn(root), tempfile.TemporaryDirectory(prefix="cardium-") as folder:
        ensure_data(root)
        journal = Path(folder) / "journal"
        env = {**environment(root), JOURNAL: str(journal), COMMAND: str(os.getpid())}
        wait_for_dvc(root)
        before = _content(lock)
        jobs = jobs or default_jobs()
        if flags or jobs == 1 or (done := _reproduce_side_by_side(root, targets, env, jobs, Path(folder))) is None:
            done = run_group(_repro(*flags, *targets), root, env) == 0
        entries = list(journal_entries(_content(journal)))
        if not done:
            raise CardiumError(_why_it_stopped(root, targets, entries))
        return any(target.partition("@")[0] != ALWAYS for _, target in entries) or _content(lock) != before


def _repro(*arguments: str) -> list[str]:
    """The command `dvc repro`. Quiet: DVC's own lines repeat what the stages say; what it refuses itself is asked for later."""
    return [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--quiet", *arguments]


def _reproduce_side_by_side(root: Path, targets: list[str], env: dict[str, str], jobs: int, folder: Path) -> bool | None:
    """Runs what is not up to date in several processes; returns whether all went well, None where DVC has to do it alone.

    folder: an empty one, for as long as this takes.
    """
    found = outdated(root, targets)
    if found is None:
        return None
    before = _content(root / "dvc.lock")
    if found.checks and run_group(_repro("--single-item", *found.checks), root, env):
        return False
    if _content(root / "dvc.lock") != before:  # A check has let in other data.
        found = outdated(root, targets) or found
    waits = chains(found.stages)
    verbs = [name.partition("@")[0] for name in found.stages]
    with contextlib.ExitStack() as stack:
        # One stage alone imports as fast by itself.
        if sum(STAGES[verb].heavy for verb in verbs if verb in STAGES) > 1:
            checks = ["great_expectations"] if "validate" in verbs else []
            env = stack.enter_context(fork_server(root, env, folder, [*checks, *IMPORTS]))
        if len(waits) == 1:
            return run_group(_repro("--single-item", *next(iter(waits))), root, env) == 0
        return run_chains(waits, lambda chain: _repro("--single-item", *chain), root, env, jobs)


def would_run(root: Path, target: str) -> list[str]:
    """The stages that `reproduce(root, [target])` may have to run, in order; changes nothing, and makes no data.

    Raises CardiumError where DVC cannot say.
    """
    import networkx as nx

    check_dvc(root)
    wait_for_dvc(root)
    found = outdated(root, [target])
    if found is None:
        raise CardiumError(_why_it_stopped(root, [target], []))
    return list(nx.lexicographical_topological_sort(found.stages))


def _why_it_stopped(root: Path, targets: list[str], entries: list[tuple[str, str]]) -> str:
    """One line for a `dvc repro` that failed: which stage stopped, or what DVC itself refused."""
    ended = {target for what, target in entries if what == "ended"}
    stopped = [target for what, target in entries if what == "began" and target not in ended]
    if stopped:
        return f"{stopped[-1]} stopped for the reason above; nothing half-written is left: fix it, then run again."
    dry = run_dvc(root, "repro", "--dry", *targets)
    refused = [line.removeprefix("ERROR: ") for line in dry.stderr.splitlines() if line.startswith("ERROR: ")]
    if refused and _NOT_GIT in refused[0]:
        return NO_GIT
    if refused:
        return f"`dvc repro {' '.join(targets)}`: {refused[0]}"
    return (
        f"`dvc repro {' '.join(targets)}` stopped for the reason above; nothing half-written is left: fix it, then run again."
    )


def _content(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def ensure_data(root: Path) -> None:
    """Makes the demo data where `data/` is missing and data.dvc tracks the demo's; otherwise leaves all as it is.

    Raises CardiumError where `data/` is missing and data.dvc tracks other data.
    """
    if (root / "data").exists():
        return
    _check_demo_is_tracked(root)
    print("There is no data/ yet: making the demo data that data.dvc tracks.", flush=True)
    _make_demo_data(root)


def make_demo_data(root: Path) -> None:
    """Makes the demo data of every collection that has some, and hands it to DVC's cache.

    Raises CardiumError, before a file is written, where data.dvc tracks other data.
    """
    with turn(root):
        _make_demo_data(root)


def _make_demo_data(root: Path) -> None:
    from cardium.datasets.demos import make_demos

    _check_demo_is_tracked(root)
    if (root / "data.dvc").is_file():
        check_dvc(root)
    make_demos(root)
    accept_demo(root)


def _check_demo_is_tracked(root: Path) -> None:
    """Raises CardiumError where data.dvc tracks another data than the demo's, or cannot be read."""
    from cardium.datasets.demos import TRACKED_MD5

    if (root / "data.dvc").is_file() and recorded_md5(root) != TRACKED_MD5:
        raise CardiumError(
            "data.dvc tracks data of your own, so no demo data is made: fetch yours with `dvc pull` (`dvc checkout data.dvc` "
            "where this machine has it), or have the demo's data.dvc back with `git checkout`."
        )


def accept_demo(root: Path) -> None:
    """Hands the generated demo data to DVC's cache. Raises CardiumError when it has another hash than data.dvc tracks."""
    if not (root / "data.dvc").is_file():
        return
    wait_for_dvc(root)
    # Without --force, `dvc commit` takes data only when its hash is the tracked one.
    done = run_dvc(root, "--wait-for-lock", "commit", "data.dvc")
    if done.returncode:
        if _NOT_GIT in done.stderr:
            raise CardiumError(NO_GIT)
        raise CardiumError(
            "The generated demo data has another hash than data.dvc tracks: if data.dvc is your own data's, fetch that with "
            "`dvc pull`; otherwise restore it with `git checkout data.dvc`."
        )
