"""Runs parts of the pipeline through DVC, and makes the demo data where a clone has none yet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cardium.errors import CardiumError


def environment(root: Path) -> dict[str, str]:
    """The environment for a child process: this Python first on PATH, and this package importable without installation."""
    env = dict(os.environ)
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    source = str(Path(__file__).resolve().parents[2])
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [source, env.get("PYTHONPATH", "")]))
    env["CARDIUM_ROOT"] = str(root)
    return env


def dvc(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `dvc ARGUMENTS` in `root` and returns its exit code and output."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, env=environment(root), capture_output=True, text=True, check=False)


def reproduce(root: Path, targets: list[str], *, single: bool = False, force: bool = False) -> bool:
    """`dvc repro TARGETS` (all stages when empty), its output passed on; True when anything ran.

    Data that a fresh clone lacks is made first. Raises CardiumError when a stage fails; the stage has then said why.
    """
    ensure_data(root)
    flags = [*(["--single-item"] if single else []), *(["--force"] if force else [])]
    command = [sys.executable, "-m", "dvc", "repro", *flags, *targets]
    ran = False
    with subprocess.Popen(command, cwd=root, env=environment(root), stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if _is_news(line):
                ran = True
                print(line, end="", flush=True)
    if process.returncode:
        raise CardiumError(
            f"`dvc repro {' '.join(targets)}` stopped at the stage above; nothing half-written is left: mend it, run again."
        )
    return ran


# DVC's lines that say nothing happened (the check that always runs is one of them), and its hints about git and remotes.
_SILENT = (
    "didn't change, skipping",
    "is cached - skipping run",
    "Data and pipelines are up to date",
    "Running stage 'tracked'",
    "stage tracked data",
    "'data.dvc'",
    "lock file 'dvc.lock'",
    "To track the changes",
    "git add",
    "To enable auto staging",
    "dvc config core.autostage",
    "Use `dvc push`",
)


def _is_news(line: str) -> bool:
    """Whether a line of DVC's output says that something was done."""
    return bool(line.strip()) and not any(words in line for words in _SILENT)


def ensure_data(root: Path) -> None:
    """Makes the demo data where `data/` is missing and data.dvc tracks the demo's; otherwise leaves all as it is."""
    if (root / "data").exists():
        return
    from cardium.config import DATASETS
    from cardium.demo.make import make_demo

    print("There is no data/ yet: making the demo data that data.dvc tracks.", flush=True)
    for dataset in DATASETS:
        make_demo(root, dataset)
    accept_demo(root)


def accept_demo(root: Path) -> None:
    """Checks the generated demo data against data.dvc's hash, and hands it to DVC's cache.

    Raises CardiumError when the hash is another.
    """
    if not (root / "data.dvc").is_file():
        return
    # Without --force, `dvc commit` takes data only when its hash is the tracked one.
    done = dvc(root, "commit", "data.dvc")
    if done.returncode:
        raise CardiumError(
            "The generated demo data has another hash than data.dvc tracks: if data.dvc is your own data's, fetch that with "
            "`dvc pull`; otherwise restore it with `git checkout data.dvc`."
        )
