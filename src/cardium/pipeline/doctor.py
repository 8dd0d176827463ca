"""`cardium doctor`: whether this machine and this clone have what cardium needs, and what here could change a result.

Looks at files and the system only: nothing heavy is imported, nothing is written.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cardium.config import Settings
from cardium.data.tracked import recorded_md5
from cardium.errors import CardiumError, printable
from cardium.models.backbones import BACKBONES
from cardium.models.weights import weights_folders
from cardium.parallel import cores
from cardium.process_environment import in_force
from cardium.provenance import commit
from cardium.tracking.store import probe, store_exists, tracking_uri

# What the study profile needs of memory and disk, about.
_MEMORY, _DISK = 8e9, 20e9
_NEEDED = ("tensorflow", "keras", "mlflow", "dvc", "great_expectations", "openvino", "optuna")


@dataclass(frozen=True)
class Finding:
    """state: ok; note, which is to be known; missing, without which something does not work. said: what is so. do: "" or what
    mends it."""

    name: str
    state: Literal["ok", "note", "missing"]
    said: str
    do: str = ""


def examine(settings: Settings) -> list[Finding]:
    """All findings, in the order of a first day."""
    return [
        *_machine(settings.root),
        *_installed(),
        *_clone(settings),
        *_weights(settings),
        *_stores(settings),
        *_environment(),
    ]


def _machine(root: Path) -> list[Finding]:
    version = sys.version_info
    right = (3, 11) <= version[:2] <= (3, 13)
    found = [
        Finding(
            "Python",
            "ok" if right else "missing",
            f"{version.major}.{version.minor}.{version.micro}",
            "" if right else "use Python 3.11, 3.12 or 3.13",
        )
    ]
    memory, free = _memory(), shutil.disk_usage(root).free
    found.append(Finding("cores", "ok", str(cores())))
    if memory:
        few = memory < _MEMORY
        found.append(Finding("memory", "note" if few else "ok", f"{memory / 1e9:.0f} GB", "use `--jobs 1`" if few else ""))
    little = free < _DISK
    found.append(
        Finding(
            "disk", "note" if little else "ok", f"{free / 1e9:.0f} GB free", "the study profile takes more" if little else ""
        )
    )
    fast = _cpu_flags() & {"amx_bf16", "avx512_bf16"}
    found.append(
        Finding("bfloat16", "ok", f"{', '.join(sorted(fast))}: `features.engine: openvino_bfloat16` is faster, and inexact")
        if fast
        else Finding("bfloat16", "ok", "not in hardware: banks are computed in float32")
    )
    gpu = _gpu()
    found.append(Finding("GPU", "ok", gpu or "none: everything runs on the CPU"))
    return found


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in text.splitlines() if line.startswith("flags")), set())


def _gpu() -> str:
    """The names of NVIDIA GPUs, "" for none."""
    if not shutil.which("nvidia-smi"):
        return ""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "; ".join(done.stdout.strip().splitlines()) if done.returncode == 0 else ""


def _installed() -> list[Finding]:
    found = []
    for name in _NEEDED:
        if importlib.util.find_spec(name) is None:
            found.append(Finding(name, "missing", "not installed", "run `make setup`, then `source .venv/bin/activate`"))
            continue
        try:
            version = importlib.metadata.version(name.replace("_", "-"))
        except importlib.metadata.PackageNotFoundError:  # tensorflow-cpu is tensorflow under another name
            version = "installed"
        found.append(Finding(name, "ok", version))
    return found


def _clone(settings: Settings) -> list[Finding]:
    root = settings.root
    sha, dirty = commit(root)
    found = [
        Finding("git", "ok", f"commit {sha[:12]}{', with changes that are not committed' if dirty else ''}")
        if sha
        else Finding("git", "note", "no commit can be told", "run `git init`, or `git config --global --add safe.directory`")
    ]
    there = (root / ".dvc").is_dir()
    found.append(
        Finding("DVC", "ok" if there else "missing", ".dvc is there" if there else "no .dvc", "" if there else "run `dvc init`")
    )
    try:
        tracked = recorded_md5(root)
    except CardiumError as error:
        tracked, unread = "", str(error)
    else:
        unread = ""
    data = (root / "data").is_dir()
    said = f"data/ is {'there' if data else 'missing'}; data.dvc tracks {tracked or 'nothing'}"
    do = "" if data else "run `cardium demo-data`, or `dvc pull` for your own"
    found.append(Finding("data", "ok" if data and not unread else "note", unread or said, do))
    return found


def _weights(settings: Settings) -> list[Finding]:
    folders = [folder for folder in weights_folders(settings.root) if folder.is_dir()]
    files = sorted({path.name for folder in folders for path in folder.glob("*.h5")})
    if files:
        return [Finding("weights", "ok", f"{len(files)} files of ImageNet weights, for {len(BACKBONES)} backbones")]
    return [
        Finding("weights", "note", "no ImageNet weights in weights/", "Keras downloads them; without a network they are random")
    ]


def _stores(settings: Settings) -> list[Finding]:
    uri = tracking_uri(settings)
    shown = printable(uri)
    try:
        probe(uri)
    except CardiumError as error:
        return [Finding("MLflow", "missing", str(error), "start the server, or unset MLFLOW_TRACKING_URI")]
    return [Finding("MLflow", "ok", f"{shown}{'' if store_exists(settings) else ', made at the first run'}")]


def _environment() -> list[Finding]:
    changed = {name: value for name, value in in_force().items() if name != "cores"}
    if not changed:
        return [Finding("environment", "ok", "nothing is set that changes a result")]
    told = ", ".join(f"{name}={value}" for name, value in changed.items())
    return [Finding("environment", "note", f"{told}: may change a result's last bits; run.json records it")]


def findings_text(findings: list[Finding]) -> str:
    """Formats the findings, a line each, then what they come to."""
    marks = {"ok": "ok     ", "note": "note   ", "missing": "MISSING"}
    width = max(len(one.name) for one in findings)
    lines = [f"{marks[one.state]}  {one.name:<{width}}  {one.said}{f': {one.do}' if one.do else ''}" for one in findings]
    missing = sum(one.state == "missing" for one in findings)
    return "\n".join([*lines, "", f"{missing} missing: see above." if missing else "Nothing is missing. Next: cardium demo"])
