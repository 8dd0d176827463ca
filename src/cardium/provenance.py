"""Where a result comes from: the commit, the data's version, the versions of what computed it."""

from __future__ import annotations

import datetime
import platform
import subprocess
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("cardium", "tensorflow", "keras", "numpy", "pandas", "scikit-learn", "openvino", "mlflow", "dvc", "pillow")


def commit(root: Path) -> tuple[str, bool]:
    """The commit that is checked out and whether tracked files differ from it; ("", False) outside of git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except FileNotFoundError:
        return "", False


def dvc_md5(root: Path) -> str:
    """The hash by which data.dvc knows `data/` ("<md5>.dir", 36 characters), or "" where nothing is tracked."""
    import yaml

    try:
        outs = yaml.safe_load((root / "data.dvc").read_text(encoding="utf-8"))["outs"]
        return str(outs[0]["md5"])
    except (OSError, KeyError, IndexError, TypeError, yaml.YAMLError):
        return ""


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def stamp(root: Path) -> dict[str, Any]:
    """What every run.json says of its making: a new id, commit, whether the tree was dirty, versions, and the time (UTC)."""
    sha, dirty = commit(root)
    return {
        "id": uuid.uuid4().hex,
        "commit": sha,
        "dirty": dirty,
        "versions": versions(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
