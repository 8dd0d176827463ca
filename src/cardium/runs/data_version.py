"""The version of the data behind a result: hashes of the raw files, the manifest and the split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cardium import provenance
from cardium.data.manifest import read_fingerprint
from cardium.errors import CardiumError
from cardium.workspace import Workspace


@dataclass(frozen=True)
class DataVersion:
    """Hashes of a dataset's data.

    dvc_md5: of `data/`, as DVC tracks it ("" if untracked). manifest_sha256, split_sha256: of the files of those names.
    generated: whether they are demo data, of no real patient.
    """

    dvc_md5: str
    manifest_sha256: str
    split_sha256: str
    generated: bool = False

    @classmethod
    def now(cls, workspace: Workspace, dataset: str) -> DataVersion:
        """Reads the current hashes. Raises CardiumError if there is no manifest or no split."""
        fingerprint = read_fingerprint(workspace.manifest(dataset))
        try:
            split = json.loads((workspace.split(dataset) / "split.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CardiumError(f"There is no split of {dataset}: run `dvc repro split@{dataset}`.") from None
        dvc_md5, manifest_sha256 = provenance.dvc_md5(workspace.root), str(fingerprint["manifest_sha256"])
        return cls(dvc_md5, manifest_sha256, str(split["sha256"]), bool(fingerprint.get("generated")))

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> DataVersion:
        """Builds the hashes from a file's table; missing ones become ""."""
        dvc_md5, manifest, split = (str(table.get(name, "")) for name in ("dvc_md5", "manifest_sha256", "split_sha256"))
        return cls(dvc_md5, manifest, split, bool(table.get("generated")))

    def to_json(self) -> dict[str, Any]:
        """The table of a file. Of data that were not generated it does not say so, as in files of older versions."""
        table = asdict(self)
        if not self.generated:
            del table["generated"]
        return table

    def same_records(self, other: DataVersion) -> bool:
        """Returns whether manifest and split agree, so that record numbers and folds mean the same."""
        return (self.manifest_sha256, self.split_sha256) == (other.manifest_sha256, other.split_sha256)
