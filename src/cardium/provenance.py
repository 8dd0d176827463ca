"""Where a result comes from: the commit, the data's version, the versions of what computed it.

What a process that was killed has left behind comes from somewhere, too: of other code or libraries it is no beginning of this
one's result, and its owner starts anew and says so (`made_by`, `said_anew`).
"""

from __future__ import annotations

import ast
import contextlib
import datetime
import functools
import hashlib
import os
import platform
import subprocess
import sys
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from cardium.process_environment import in_force

_PACKAGE = Path(__file__).parent
_LIBRARIES = ("keras", "numpy", "tensorflow")
_PACKAGES = ("cardium", "tensorflow", "keras", "numpy", "pandas", "scikit-learn", "openvino", "mlflow", "dvc", "pillow")


def commit(root: Path) -> tuple[str, bool]:
    """The commit that is checked out and whether tracked files differ from it; ("", False) where git cannot say."""
    sha, dirty, _ = _asked_git(root)
    return sha, dirty


def _asked_git(root: Path) -> tuple[str, bool, str]:
    """Commit, dirty, and the first line of git's error; no error where there is no repository at all."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        # In English, in which its errors are known.
        environment = {**os.environ, "LC_ALL": "C"}
        return subprocess.run(["git", *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False)

    try:
        head = git("rev-parse", "--verify", "HEAD")
        status = git("status", "--porcelain", "--untracked-files=no")
    except FileNotFoundError:
        there = any((folder / ".git").exists() for folder in (root, *root.parents))
        return "", False, "git is not installed" if there else ""
    failed = next((done for done in (head, status) if done.returncode), None)
    error = "" if failed is None else (failed.stderr.strip().splitlines() or ["git failed"])[0].removeprefix("fatal: ")
    if "not a git repository" in error:
        error = ""
    foreign = (root / "params.yaml").is_file() and git("ls-files", "--error-unmatch", "params.yaml").returncode
    if foreign and not error and not head.returncode:
        # A repository around an unpacked archive: its commit says nothing of this project.
        return "", False, "the repository around the project does not track it"
    sha = "" if head.returncode else head.stdout.strip()
    return sha, not status.returncode and bool(status.stdout.strip()), error


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
    return {"python": platform.python_version(), **_versions(_PACKAGES)}


def _versions(names: Iterable[str]) -> dict[str, str]:
    """The versions of those of the packages that are installed."""
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def made_by(*code: str, libraries: Iterable[str] = _LIBRARIES) -> dict[str, str]:
    """The parts of a state's key that are no settings: `code`, a hash, and `libraries`, their versions.

    code: rooms or files of cardium, such as `training` or `imaging/augment.py`. libraries: those that are installed count.
    """
    digest = hashlib.sha256("".join(_room_digest(name) for name in sorted(code)).encode()).hexdigest()
    return {
        "code": digest,
        "libraries": ", ".join(f"{name} {version}" for name, version in _versions(sorted(libraries)).items()),
    }


def said_anew(what: str, changed: Iterable[str]) -> str:
    """The line for a state that is not taken up. changed: what it was made with otherwise, such as `code`."""
    return f"{what} was made with other {' and '.join(dict.fromkeys(changed))}: starting anew."


@functools.cache
def code_digest(file: Path) -> str:
    """Hashes what a Python file says to the interpreter: comments, docstrings and layout do not count."""
    tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _room_digest(name: str) -> str:
    place = _PACKAGE / name
    files = [place] if place.suffix else sorted(place.rglob("*.py"))
    return "".join(f"{file.relative_to(_PACKAGE).as_posix()} {code_digest(file)}\n" for file in files)


@dataclass(frozen=True)
class Provenance:
    """What a result says of its making. versions: of Python and of packages, by name; created: ISO 8601, UTC.

    dirty: whether tracked files differed from the commit. environment: cores, Keras' settings and variables that were in
    force (`process_environment.in_force`), {} in older files. git_error: why git could not say the commit, in its own words;
    "" where it could, or where there is no repository. Not part of a file: `warnings` tells it.
    """

    commit: str
    dirty: bool
    versions: dict[str, str]
    created: str
    environment: dict[str, str] = field(default_factory=dict)
    git_error: str = field(default="", compare=False)

    @classmethod
    def now(cls, root: Path) -> Provenance:
        """Commit, versions and time as they are now, of the project in `root`; says on stderr where git fails."""
        sha, dirty, error = _asked_git(root)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        made = cls(sha, dirty, versions(), now, in_force(), error)
        for warning in made.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        return made

    @property
    def warnings(self) -> list[str]:
        """What a reader of the result must know of its making."""
        return [f"the commit is not recorded, git says: {self.git_error}"] if self.git_error else []

    def as_dict(self) -> dict[str, Any]:
        """The keys and values of a result's file."""
        table = asdict(self)
        del table["git_error"]
        return table

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
