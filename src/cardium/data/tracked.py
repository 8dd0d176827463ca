"""Checks that data/ is the data that data.dvc records, so that results are never filed under another data's hash.

DVC itself does not check: `dvc repro` accepts changed data and rewrites data.dvc, `frozen: true` or not, as soon as any stage
has a dependency below data/ (measured, dvc 3.67). So no stage has one, and this check runs instead.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from cardium.errors import CardiumError
from cardium.provenance import dvc_md5

# Another `dvc` command may hold the repository's lock for a moment.
_ATTEMPTS = 5
_PAUSE = 1.0


def check_tracked(root: Path) -> str:
    """The md5 of data/ (`<hash>.dir`) as data.dvc records it, once DVC has found data/ to be just that.

    Returns "" without asking where nothing is tracked: no data.dvc, or no DVC repository (an unpacked archive).
    A cache without the data (a fresh clone with its demo data generated) is no difference: the hash is compared, and is equal.
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


def _status(root: Path) -> str:
    """DVC's word on data/: "" (as recorded), modified, new, deleted, or `not in cache`."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    for attempt in range(_ATTEMPTS):
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "status", "--json", "data.dvc"],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode == 0:
            break
        if "lock" not in done.stderr.lower() or attempt == _ATTEMPTS - 1:
            last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
            raise CardiumError(f"`dvc status data.dvc` failed ({last[0].removeprefix('ERROR: ')}): run it yourself to see why.")
        time.sleep(_PAUSE)
    try:
        entries = json.loads(done.stdout).get("data.dvc", [])
        return next((str(word) for entry in entries for word in entry.get("changed outs", {}).values()), "")
    except (ValueError, AttributeError):
        raise CardiumError(
            "`dvc status data.dvc` gave no answer that cardium understands: run it yourself to see why."
        ) from None
