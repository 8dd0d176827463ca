"""System 002's collection, ImageCHD: CT volumes `ct_<id>_image.nii.gz` of patients with congenital heart disease, and the
table `imageCHD_dataset_info.xlsx` of their defects.

The table has one row a patient and a column a defect; it has no column `cyanotic`. A rule over its flags (`rule`) gives the
class. It reproduces the published lists of patients except for one: 1047 is published as Non-Cyanotic, and its only flag, VSD,
is an explicit 0. A record keeps the rule's class, and fingerprint.json lists the published classes that contradict it.

The table may lie anywhere below the folder, since archives add wrapper folders. Rows without a volume, volumes without a row
and the label maps `ct_<id>_label.nii.gz` are listed among the rejected files; no label is guessed.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from cardium.datasets.collection import Collection, Found, Rejected
from cardium.datasets.scan import Entry, walk
from cardium.errors import CardiumError

CLASSES = ("Cyanotic", "Non-Cyanotic", "Normal")

TABLE = "imageCHD_dataset_info.xlsx"
SHEET = "classification dataset"
DEFECTS = (
    "ASD", "VSD", "AVSD", "ToF", "TGA", "DORV", "CAT", "CA", "AAH", "DAA", "IAA", "PA", "APVC", "DSVC", "PDA", "PAS",
)  # fmt: skip

# Patients of the published experiments and the class that they were published under.
PUBLISHED = {
    patient: label
    for label, patients in (
        ("Cyanotic", "1010 1012 1015 1028 1037 1050 1064 1074 1085 1092 1099 1111 1113 1120 1129 1145 1146 1147"),
        (
            "Non-Cyanotic",
            "1001 1002 1007 1011 1014 1018 1019 1020 1025 1029 1033 1035 1036 1041 1047 1061 1070 1079 1103 1132",
        ),
        ("Normal", "1003 1005 1032 1051 1062 1063 1066 1067 1072 1078 1080 1083 1101 1116 1117 1127 1128 1143 1144"),
    )
    for patient in patients.split()
}

_CYANOTIC = {"ToF", "TGA", "PA"}
_NON_CYANOTIC = {"ASD", "VSD", "PDA"}
_VOLUME = re.compile(r"ct_0*([0-9]{1,9})_image\.nii(?:\.gz)?", re.IGNORECASE)
_LABEL_MAP = re.compile(r"ct_[0-9]+_label\.nii(?:\.gz)?", re.IGNORECASE)
# The published table has 11 kB, and 80 kB inflated.
_MAX_TABLE, _MAX_INFLATED = 5_000_000, 50_000_000


def rule(defects: set[str]) -> str:
    """The class of a patient with these defects; "" if the rule excludes them."""
    if defects & _CYANOTIC:
        return "Cyanotic"
    if not defects:
        return "Normal"
    return "Non-Cyanotic" if defects <= _NON_CYANOTIC else ""


def patient_of(path: str) -> str:
    """The patient of a volume, from its file name: `a/ct_1001_image.nii.gz` -> 1001; "" for any other name."""
    match = _VOLUME.fullmatch(path.rpartition("/")[2])
    return match[1] if match else ""


def scan(folder: Path) -> Iterator[Found | Rejected]:
    """Scans `folder`: every file but the table, in natural order, then the table's rows without a volume; see Collection.scan.

    Raises CardiumError for a missing or unreadable table, and for an archive that was not unpacked.
    """
    entries = list(walk(folder))
    volumes = [entry for entry in entries if not entry.litter and patient_of(entry.name)]
    packed = [entry.path for entry in entries if not entry.litter and entry.name.lower().endswith(".rar")]
    if packed and not volumes:
        raise CardiumError(
            f"chd: {packed[0]} is not unpacked, and no volume lies beside it: unpack it there (`unar`, or `7z x`), then move"
            " the archive away; `cardium download chd` does both."
        )
    tables = _tables(entries)
    if not tables:
        raise CardiumError(f"chd: no {TABLE} lies with the volumes; it says which defects a patient has: get it at {_PAGE}.")
    contents = {(folder / table.path).read_bytes() for table in tables}
    if len(contents) > 1:
        names = " and ".join(table.path for table in tables[:2])
        raise CardiumError(f"chd: {names} are different tables of labels: keep the one that is right.")
    defects = read_table(folder / tables[0].path)
    for entry in entries:
        if entry not in tables:
            yield _judge(entry, defects)
    there = {patient_of(entry.name) for entry in volumes}
    home = next((PurePosixPath(entry.path).parent for entry in volumes), PurePosixPath())
    for patient in sorted(defects.keys() - there, key=int):
        # No loss of a class: the table may be the whole collection's, and the volumes a part of it.
        yield Rejected(str(home / f"ct_{patient}_image.nii.gz"), "", "no such file, though the label table has its row")


def _tables(entries: Sequence[Entry]) -> list[Entry]:
    """The files with the published table's name; if there is none, the only spreadsheet."""
    sheets = [entry for entry in entries if entry.name.lower().endswith(".xlsx") and not (entry.litter or entry.fault)]
    sheets = [entry for entry in sheets if not entry.name.startswith("~$")]  # Excel's own while a table is open.
    named = [entry for entry in sheets if entry.name.lower() == TABLE.lower()]
    return named or (sheets if len(sheets) == 1 else [])


def _judge(entry: Entry, defects: Mapping[str, set[str]]) -> Found | Rejected:
    if entry.litter:
        return Rejected(entry.path, "", entry.litter)
    if not entry.name:
        if entry.files:  # Of whichever classes: nobody can tell which share of one is lost.
            raise CardiumError(f"chd: {entry.path}: {entry.fault}: put its files there, or take it out.")
        return Rejected(entry.path, "", entry.fault, 0)
    patient = patient_of(entry.name)
    if not patient:
        known = "a label map, not a volume" if _LABEL_MAP.fullmatch(entry.name) else "not called ct_<id>_image.nii.gz"
        return Rejected(entry.path, "", known)
    if patient not in defects:
        return Rejected(entry.path, "", "no row in the label table")
    label = rule(defects[patient])
    if not label:
        excluded = ", ".join(name for name in DEFECTS if name in defects[patient])
        return Rejected(entry.path, "", f"excluded by the label rule: {excluded}")
    return Rejected(entry.path, label, entry.fault) if entry.fault else Found(entry.path, label, patient)


def read_table(path: Path) -> dict[str, set[str]]:
    """Reads the published table, or one like it: patient -> its defects (names of DEFECTS).

    1 sets a flag; 0 and blank do not. Raises CardiumError for anything that would make labels a guess: another file, a missing
    sheet or column, a column with an unknown name, another value, a patient without a number or with two rows.
    """
    rows = _rows(path)
    _check_values_are_there(path)
    columns = _columns(path.name, rows[0] if rows else ())
    defects: dict[str, set[str]] = {}
    for number, row in enumerate(rows[1:], start=2):
        if all(_blank(value) for value in row):
            continue
        values = {name: row[column] if column < len(row) else None for name, column in columns.items()}
        where = f"{path.name}, row {number}"
        patient = _patient(values.pop("index"), where)
        if patient in defects:
            raise CardiumError(f"{where}: patient {patient} has a row already: keep the one that is right.")
        unnamed = [value for column, value in enumerate(row) if column not in columns.values() and not _blank(value)]
        if unnamed:
            raise CardiumError(f"{where}: {unnamed[0]!r} stands in a column without a name: name it or take it out.")
        defects[patient] = {name for name, value in values.items() if _is_set(value, f"{where}, {name}")}
    if not defects:
        raise CardiumError(f"{path.name} has no patients: get it again at {_PAGE}.")
    return defects


def _rows(path: Path) -> list[tuple[Any, ...]]:
    try:
        if path.stat().st_size > _MAX_TABLE:
            raise CardiumError(f"{path.name} is too large for a table of labels: get it again at {_PAGE}.")
        with zipfile.ZipFile(path) as parts:
            if sum(part.file_size for part in parts.infolist()) > _MAX_INFLATED:
                raise CardiumError(f"{path.name} inflates to more than a table of labels has: get it again at {_PAGE}.")

        from openpyxl import load_workbook

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of styles and extensions that are not read.
            book = load_workbook(path, read_only=True, data_only=True)
            try:
                if SHEET not in book.sheetnames:
                    names = ", ".join(f"`{name}`" for name in book.sheetnames)
                    raise CardiumError(f"{path.name} has no sheet `{SHEET}`, but {names}: name the sheet with the flags so.")
                return [tuple(row) for row in book[SHEET].iter_rows(values_only=True)]
            finally:
                book.close()
    except CardiumError:
        raise
    except Exception as error:  # openpyxl's, zipfile's and the XML parser's own
        raise CardiumError(
            f"{path.name} cannot be read as a table ({type(error).__name__}): get it again at {_PAGE}."
        ) from None


def _check_values_are_there(path: Path) -> None:
    """Raises CardiumError for cells that would pass for blank, and so for no defect.

    A formula whose value was never saved reads as blank, and so do all cells of a merged range but its first.
    """
    from openpyxl import load_workbook

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sheet = load_workbook(path)[SHEET]
        saved = load_workbook(path, data_only=True)[SHEET]
    unsaved = [
        cell.coordinate
        for row in sheet.iter_rows(min_row=2)
        for cell in row
        if cell.data_type == "f" and saved[cell.coordinate].value is None
    ]
    if unsaved:
        shown = ", ".join(unsaved[:5]) + (f" and {len(unsaved) - 5} more" if len(unsaved) > 5 else "")
        raise CardiumError(f"{path.name}: formulas without saved values in {shown}: open the table, save it, or write values.")
    merged = [area.coord for area in sheet.merged_cells.ranges if area.max_row > 1]
    if merged:
        raise CardiumError(
            f"{path.name}: merged cells {', '.join(sorted(merged)[:5])}: split them, and give each cell its value."
        )


def _columns(table: str, header: Sequence[Any]) -> dict[str, int]:
    """Maps each name (`index`, or a defect) to its column; the case of names does not matter."""
    known = {name.lower(): name for name in ("index", *DEFECTS)}
    columns: dict[str, int] = {}
    for column, value in enumerate(header):
        if _blank(value):
            continue
        name = known.get(str(value).strip().lower())
        if name is None:
            raise CardiumError(f"{table} has a column `{value}` that the label rule does not know: take it out.")
        if name in columns:
            raise CardiumError(f"{table} has two columns `{name}`: keep the one that is right.")
        columns[name] = column
    missing = [name for name in known.values() if name not in columns]
    if missing:
        raise CardiumError(f"{table}, sheet `{SHEET}`, lacks the columns {', '.join(missing)}: get it again at {_PAGE}.")
    return columns


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _patient(value: Any, where: str) -> str:
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise CardiumError(f"{where}: `{value}` is no patient's number.")
    return str(int(text))


def _is_set(value: Any, where: str) -> bool:
    if _blank(value):
        return False
    text = value.strip() if isinstance(value, str) else value
    if text in (0, 1, "0", "1"):
        return text in (1, "1")
    raise CardiumError(f"{where}: a flag is 1, 0 or blank, not `{value}`: mend it.")


_PAGE = "https://www.kaggle.com/datasets/xiaoweixumedicalai/imagechd"

COLLECTIONS = {
    "chd": Collection(
        name="chd",
        title="ImageCHD: CT volumes of patients with congenital heart disease, cyanotic, non-cyanotic or normal",
        classes=CLASSES,
        # Of the 110 patients of the published table; the rule excludes the others.
        published_counts={"Cyanotic": 32, "Non-Cyanotic": 24, "Normal": 21},
        page=_PAGE,
        licence="as its Kaggle page states it; cardium passes none of its volumes on",
        scan=scan,
        published_split="listed_patients",
        recommended="mobilenetv2_lstm",
        content="volume",
        published_labels=PUBLISHED,
        handle="xiaoweixumedicalai/imagechd",
        demo="cardium.demo.chd:DEMO",
        order=4,
    )
}
