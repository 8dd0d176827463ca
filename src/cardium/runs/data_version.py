"""The version of the data behind a result: hashes of the raw files, the manifest and the split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cardium import provenance
from cardium.data.manifest import read_fingerprint
from cardium.errors import CardiumError
from cardium.workspace import Workspace


@dataclass(frozen=True)
class DataVersion:
    """Hashes of a dataset's data.

    dvc_md5: of `data/`, as DVC tracks it ("" if untracked). manifest_sha256, split_sha256: of the files of those names.
    """

    dvc_md5: str
    manifest_sha256: str
    split_sha256: str

    @classmethod
    def now(cls, workspace: Workspace, dataset: str) -> DataVersion:
        """Reads the current hashes. Raises CardiumError if there is no manifest or no split."""
        manifest_sha256 = str(read_fingerprint(workspace.manifest(dataset))["manifest_sha256"])
        try:
            split = json.loads((workspace.split(dataset) / "split.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CardiumError(f"There is no split of {dataset}: run `dvc repro split@{dataset}`.") from None
        return cls(provenance.dvc_md5(workspace.root), manifest_sha256, str(split["sha256"]))

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> DataVersion:
        """Builds the hashes from a file's table; missing ones become ""."""
        return cls(*(str(table.get(name, "")) for name in ("dvc_md5", "manifest_sha256", "split_sha256")))

    def same_records(self, other: DataVersion) -> bool:
        """Returns whether manifest and split agree, so that record numbers and folds mean the same."""
        return (self.manifest_sha256, self.split_sha256) == (other.manifest_sha256, other.split_sha256)
