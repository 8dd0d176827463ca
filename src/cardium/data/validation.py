"""The outcomes of the checks (quality.py) -> what validation.json holds and validation.html shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from cardium.data.quality import Outcome


def validation_report(
    dataset: str,
    fingerprint: Mapping[str, Any],
    manifest: pd.DataFrame,
    split: Mapping[str, Any],
    outcomes: Sequence[Outcome],
) -> dict[str, Any]:
    """What validation.json holds. split: the content of split.json."""
    failed = [outcome.check.severity for outcome in outcomes if not outcome.passed]
    return {
        "dataset": dataset,
        "manifest_sha256": fingerprint["manifest_sha256"],
        "split_sha256": split["sha256"],
        "verdict": "stopped" if "critical" in failed else "warnings" if "warning" in failed else "passed",
        "failed": {severity: failed.count(severity) for severity in ("critical", "warning", "info")},
        "what": f"{fingerprint['kind']}s",
        "records": len(manifest),
        "distinct": int((manifest["copy_of"] == -1).sum()),
        "conflicts": int(manifest["conflict"].sum()),
        "groups": int(manifest["group"].nunique()),
        "classes": {label: int((manifest["label"] == label).sum()) for label in fingerprint["classes"]},
        "folds": split["honest"],
        "published": split["published"],
        "checks": [_check_entry(outcome) for outcome in outcomes],
    }


def _check_entry(outcome: Outcome) -> dict[str, Any]:
    check = outcome.check
    return {
        "name": check.name,
        "title": check.title,
        "severity": check.severity,
        "passed": outcome.passed,
        "unexpected_count": outcome.count,
        "unit": counted(check.unit, outcome.count),
        "observed": check.observed,
        "meaning": check.meaning,
        "remedy": check.remedy,
        "rows": [{"where": where, "found": found} for where, found in outcome.rows],
        "expectations": outcome.expectations,
    }


def counted(unit: str, count: int) -> str:
    """The plural `unit` as it reads after `count`."""
    return unit if count != 1 else {"classes": "class"}.get(unit, unit.removesuffix("s"))
