"""manifest + split -> validation: validation.json and validation.html. A critical failure stops the pipeline after that.

The page stands by itself (no network, no script) and is the same bytes for the same data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cardium.atomic import replacing_folder, write_json, write_text
from cardium.config import Settings
from cardium.data.manifest import read_fingerprint, read_manifest
from cardium.data.splits import read_folds, read_published
from cardium.data.validation import counted, validation_report
from cardium.errors import CardiumError
from cardium.reporting.page import render
from cardium.workspace import Workspace

if TYPE_CHECKING:
    from cardium.data.quality import Outcome

# Offending rows on the page and in the error's one line; the JSON has all that quality.py names.
_ON_PAGE, _IN_ERROR = 20, 3


def run(settings: Settings, item: str) -> None:
    """Validates dataset `item`. Raises CardiumError if a critical check fails; the report is written all the same."""
    # Great Expectations takes seconds to import: missing files are reported first.
    workspace = Workspace(settings.root)
    manifest = read_manifest(workspace.manifest(item))
    fingerprint = read_fingerprint(workspace.manifest(item))
    split = _read_split(workspace.split(item))
    rejected = pd.read_csv(workspace.manifest(item) / "rejected.csv", dtype=str, keep_default_na=False)

    from cardium.data.quality import assemble, make_checks, run_checks

    folds, classes = int(split["folds"]), fingerprint["classes"]
    honest, published = read_folds(workspace.split(item)), read_published(workspace.split(item))
    frames = assemble(manifest, honest, published, rejected, classes, fingerprint["published_counts"], folds)
    checks = make_checks(frames, settings.validate, classes, folds, fingerprint["names_patients"], fingerprint["kind"])
    outcomes = run_checks(checks, frames)

    report = validation_report(item, fingerprint, manifest, split, outcomes)
    out = workspace.validation(item)
    with replacing_folder(out) as folder:
        write_json(folder / "validation.json", report)
        write_text(folder / "validation.html", page(report))
    where = out.relative_to(settings.root).as_posix()
    failed = [outcome for outcome in outcomes if not outcome.passed]
    for outcome in failed:
        print(f"{outcome.check.severity}: {_counted(outcome)} against `{outcome.check.title}`: {_first(outcome, 1)}")
    print(f"{item}: {len(outcomes) - len(failed)} of {len(outcomes)} checks passed")
    print(f"wrote {where}")
    critical = [outcome for outcome in failed if outcome.check.severity == "critical"]
    if critical:
        worst = critical[0]
        more = f"; it also fails {', '.join(other.check.name for other in critical[1:])}" if len(critical) > 1 else ""
        raise CardiumError(
            f"{item} fails the check `{worst.check.name}` ({worst.check.title}): {_counted(worst)}"
            f" ({_first(worst, _IN_ERROR)}){more}. See {where}/validation.html. {worst.check.remedy}"
        )


def _read_split(folder: Path) -> dict[str, Any]:
    if not (folder / "split.json").is_file():
        raise CardiumError(
            f"There is no split of {folder.parent.name} yet: run `cardium split --dataset {folder.parent.name}`."
        )
    content: dict[str, Any] = json.loads((folder / "split.json").read_text(encoding="utf-8"))
    return content


def page(report: Mapping[str, Any]) -> str:
    """The report as one HTML page."""
    from cardium.data.quality import NAMED

    rank = {"critical": 0, "warning": 1, "info": 2}
    failed = sorted((check for check in report["checks"] if not check["passed"]), key=lambda check: rank[check["severity"]])
    passed = [check for check in report["checks"] if check["passed"]]
    return render("validation.html.j2", report=report, failed=failed, passed=passed, limit=_ON_PAGE, named=NAMED)


def _counted(outcome: Outcome) -> str:
    return f"{outcome.count:,} {counted(outcome.check.unit, outcome.count)}"


def _first(outcome: Outcome, limit: int) -> str:
    shown = ", ".join(f"{where}: {found}" for where, found in outcome.rows[:limit])
    rest = outcome.count - limit
    # One line, whatever a file is called.
    return (shown + (f", and {rest:,} more" if rest > 0 else "")).replace("\n", "\\n").replace("\r", "\\r")
