"""What a row of a rendering stands for: a record of the manifest or, of renderings of whole patients, a patient.

rows = unit_table(manifest, kind)      # the manifest itself, or a table of the same columns with a row a patient

Splits, training, evaluation and explanations take the one as they take the other: groups, labels, copies and conflicts mean the
same, and `record` is the row's number in both.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from cardium.data.manifest import SCHEMA
from cardium.data.render_records import Record, Rendering, StudyRecord
from cardium.datasets.scan import taken_order
from cardium.errors import CardiumError
from cardium.imaging.kinds import of_patients

if TYPE_CHECKING:
    import pandas as pd


def unit_table(manifest: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The rows of the rendering `kind`: the manifest, or its patients, sorted by name. Columns as in manifest.SCHEMA.

    Of a patient, `path` is the name, `sha256` a hash of the files in order, `depth` their number, `bytes` their sum, and
    `copy_of` the first patient with the same files. Files under two labels and copies within a patient are left out, and
    with them patients of whom nothing is left. Raises CardiumError where no record names its patient.
    """
    if not of_patients(kind):
        return manifest
    import pandas as pd

    rows: list[dict[str, Any]] = []
    first: dict[str, int] = {}
    for patient, files in _files_of_patients(manifest):
        digest = hashlib.sha256("\n".join(files["sha256"]).encode()).hexdigest()
        copy_of = first.setdefault(digest, len(rows))
        row: dict[str, Any] = {str(name): value for name, value in files.iloc[0].items()}
        row |= {"record": len(rows), "path": patient, "patient": patient, "series": "", "frame": -1, "sha256": digest}
        row |= {"bytes": files["bytes"].sum(), "depth": len(files), "mean": files["mean"].mean(), "std": files["std"].mean()}
        row |= {"copy_of": -1 if copy_of == len(rows) else copy_of, "conflict": False}
        rows.append(row)
    return pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=dtype) for name, dtype in SCHEMA.items()})


def unit_records(manifest: pd.DataFrame, kind: str) -> list[Rendering]:
    """What is rendered into each row of `unit_table`, in order."""
    if not of_patients(kind):
        return [Record(*row) for row in zip(manifest["path"], manifest["sha256"], strict=True)]
    table = unit_table(manifest, kind)
    return [
        StudyRecord(patient, sha256, tuple(zip(files["path"], files["sha256"], files["series"], strict=True)))
        for sha256, (patient, files) in zip(table["sha256"], _files_of_patients(manifest), strict=True)
    ]


def _files_of_patients(manifest: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(patient, rows of its files) of every patient, sorted by name; rows in the order in which they were taken."""
    known = manifest[(manifest["patient"] != "") & ~manifest["conflict"]]
    if known.empty:
        raise CardiumError("No record of the manifest names its patient: a model of whole patients needs one folder a patient.")
    known = known.drop_duplicates(["patient", "sha256"])
    taken = [taken_order(*row) for row in zip(known["series"], known["frame"].tolist(), known["path"], strict=True)]
    known = known.iloc[sorted(range(len(known)), key=taken.__getitem__)]
    return [(str(patient), files) for patient, files in known.groupby("patient", sort=True)]
