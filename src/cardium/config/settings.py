"""All of params.yaml after the profile and the overrides, as one value; and the plan that it comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cardium.config.plan import Plan, make_plan
from cardium.config.schema import (
    Audit,
    Dataset,
    Evaluate,
    Explain,
    Features,
    Ingest,
    Promote,
    ProtocolSettings,
    Serve,
    Split,
    Study,
    Tracking,
    Tune,
    Validate,
)
from cardium.download.limits import DownloadLimits
from cardium.ranges import Seed


@dataclass(frozen=True)
class Settings:
    """All of params.yaml after the profile and the overrides.

    active: the datasets that the pipeline runs. studies: of the chosen profile, a dataset each. datasets: a dataset's
    settings by its name.
    """

    root: Path
    profile: str
    seed: Seed
    active: list[str]
    studies: dict[str, Study]
    systems: dict[str, dict[str, Any]]
    protocols: dict[str, ProtocolSettings]
    datasets: dict[str, Dataset]
    ingest: Ingest
    split: Split
    validate: Validate
    features: Features
    evaluate: Evaluate
    audit: Audit
    promote: Promote
    explain: Explain
    tune: Tune
    serve: Serve
    download: DownloadLimits
    tracking: Tracking
    overrides: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def plan(self) -> Plan:
        """What these settings come to: every run, bank and rendering with its effective settings."""
        return make_plan(self)

    def test_folds(self, dataset: str) -> list[int]:
        """The folds that are held out in turn: [t], or all of them."""
        if self.evaluate.test_folds == "all" or dataset in self.evaluate.cross_validated:
            return list(range(self.split.folds))
        return [int(self.evaluate.test_folds)]
