"""Checks that data/ is the data that data.dvc records, so that results are never filed under another data's hash.

DVC itself does not check: `dvc repro` accepts changed data and rewrites data.dvc, `frozen: true` or not, as soon as any stage
has a dependency below data/ (measured, dvc 3.67). So no stage has one, and this check runs instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cardium.errors import CardiumError, first_line
from cardium.provenance import dvc_md5

# DVC looks for git, and an archive of the project comes without.
NO_GIT = (
    "DVC finds no git repository here, as in an unpacked archive: run `git init`, or `dvc config --local core.no_scm true`."
)


def check_tracked(root: Path) -> str:
    """The md5 of data/ (`<hash>.dir`) as data.dvc records it, once DVC has found data/ to be just that.

    Returns "" without asking where nothing is tracked: no data.dvc, or no DVC repository (an unpacked archive).
    The files themselves are compared, whether or not DVC's cache has them: in a fresh clone, whose cache is empty, generated
    demo data passes and any other data does not. Unchanged files are not read again (DVC keeps their hashes).
    Raises CardiumError where data/ differs or DVC cannot tell.
    """
    if not (root / "data.dvc").is_file() or not (root / ".dvc").is_dir():
        return ""
    state = _status(root)
    if state in ("modified", "new", "deleted"):
        what = "is missing, though data.dvc tracks it" if state == "deleted" else "is not what data.dvc tracks"
        accept = "" if state == "deleted" else "accept it with `dvc add data`, or "
        raise CardiumError(
            f"data/ {what}: {accept}go back with `dvc checkout data.dvc` (`cardium demo-data` for the demo data)."
        )
    return recorded_md5(root)


def recorded_md5(root: Path) -> str:
    """The md5 in data.dvc. Raises CardiumError where it has none."""
    md5 = dvc_md5(root)
    if not md5:
        raise CardiumError("data.dvc cannot be read: restore it with `git checkout data.dvc`.")
    return md5


def _left_out(ignored: Any, root: Path) -> Iterator[str]:
    """Yields what lies in data/ and DVC does not look at, hidden files aside, which no collection reads either."""
    for place, folders, files in os.walk(root / "data"):
        folders[:] = [name for name in folders if not name.startswith(".")]
        seen = set().union(*ignored(place, list(folders), list(files)))
        for name in sorted({*folders, *files} - seen):
            if not name.startswith("."):
                yield (Path(place) / name).relative_to(root).as_posix()


def _status(root: Path) -> str:
    """What DVC finds data/ to be: "" (as recorded), modified, new or deleted.

    `dvc status` would not do: it says `not in cache` before it compares, of the right data and of any other.
    """
    from dvc.repo import Repo
    from dvc.scm import SCMError

    recorded_md5(root)  # Its error is the clearer one.
    try:
        with Repo(str(root)) as repo:
            # A relative path would be one of the current folder.
            stage = repo.stage.load_one(str(Path(repo.root_dir) / "data.dvc"))
            words = [word for out in stage.outs for word in out.workspace_status().values()]
            left_out = next(_left_out(repo.dvcignore, Path(repo.root_dir)), "")
    except SCMError as error:
        raise CardiumError(NO_GIT if "is not a git repository" in str(error) else f"DVC: {error}") from None
    except Exception as error:  # DVC's own, those of its parts (a .dvcignore below data/), the file system's
        raise CardiumError(
            f"DVC cannot compare data/ with data.dvc ({first_line(error)}): run `dvc data status` to see why."
        ) from None
    if left_out:
        raise CardiumError(
            f"{left_out} is left out of data/'s hash by .dvcignore, though it is read: take the pattern out of .dvcignore, or "
            "the files out of data/."
        )
    return str(words[0]) if words else ""
