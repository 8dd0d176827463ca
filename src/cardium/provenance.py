"""Where a result comes from: the commit, the data's version, the versions of what computed it."""

from __future__ import annotations

import datetime
import platform
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from cardium.process_environment import in_force

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


@dataclass(frozen=True)
class Provenance:
    """What a result says of its making. versions: of Python and of packages, by name; created: ISO 8601, UTC.

    dirty: whether tracked files differed from the commit. environment: cores, Keras' settings and variables that were in
    force (`process_environment.in_force`), {} in older files.
    """

    commit: str
    dirty: bool
    versions: dict[str, str]
    created: str
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def now(cls, root: Path) -> Provenance:
        """Commit, versions and time as they are now, of the project in `root`."""
        sha, dirty = commit(root)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return cls(sha, dirty, versions(), now, in_force())

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Provenance:
        """What a file's table says of its making; empty values for what it lacks."""
        return cls(
            str(table.get("commit", "")),
            bool(table.get("dirty", False)),
            dict(table.get("versions", {})),
            str(table.get("created", "")),
            dict(table.get("environment", {})),
        )


def new_id() -> str:
    """A result's id: 32 hexadecimal digits, never given twice."""
    return uuid.uuid4().hex
