"""The ECG sheets of the Mendeley dataset gwbz3fsgp8: systems 001 and 004's `ecg4` and system 003's `ecg5`.

Layouts, below any wrapper folders: version 2 (`ECG Images of Myocardial Infarction Patients (240x12=2880)/MI(1).jpg`),
version 1 (`ECG Images of COVID-19 Patients (250)/type_2/Binder1_Page_171.jpg`), both side by side, and Kaggle's
`ECG_DATA/{train,test}/<class>`. The words in a folder's name give the class: spellings differ between versions, and the counts
in brackets are not those of the files. A folder with folders of several classes is named after the collection, not after a
class (version 1 is called `ECG Images dataset of Cardiac and COVID-19 Patients`).

The publisher names no patients, and the ID printed on the sheets is no safe key (205 of its groups span classes), so only
identical files form a group. A misspelt class would be lost in silence; therefore a folder of images beside the class folders
whose name names no class stops the scan.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from cardium.datasets.collection import Collection, Found, Mendeley, Rejected
from cardium.datasets.scan import Entry, check_folders, last_number, prefixes, walk

# In system 001's order, and in system 003's (there: Covid, HB, MI, Normal, PMI).
ECG4 = ("MI", "History", "Abnormal", "Normal")
ECG5 = ("Covid", "Abnormal", "MI", "Normal", "History")

# Class -> the words that name it, in the order in which they are tried.
_NAMES: dict[str, set[str]] = {
    "Covid": {"covid", "corona", "coronavirus"},
    "History": {"pmi", "history", "histories", "previous"},
    "MI": {"mi", "infarct", "infarcts", "infarction", "infarctions"},
    "Abnormal": {"hb", "abnormal", "abnormality", "abnormalities", "arrhythmia", "arrhythmias"},
    "Normal": {"normal", "normals"},
}
# A history of infarction names the infarction; a sheet of a patient with Covid is filed under that.
_TOGETHER = ({"History", "MI"}, {"Covid", "MI"})
_IN_WORDS = {
    "Covid": "COVID-19",
    "History": "history of MI",
    "MI": "myocardial infarction",
    "Abnormal": "abnormal heartbeat",
    "Normal": "normal person",
}
# All other words that a class folder's name may have. Any word beside these may qualify the class in a way that is not certain
# (`not normal`, `Old MI`, `family history of MI`, `normal variant`), or name the whole (`dataset`): such a name names no class.
_FILLERS = {
    "ecg", "ecgs", "image", "images", "sheet", "sheets", "scan", "scans", "of", "with", "that", "have", "has", "the", "from",
    "patient", "patients", "person", "persons", "people", "subject", "subjects", "case", "cases", "class", "data", "cardiac",
    "heart", "beat", "beats", "heartbeat", "heartbeats", "rhythm", "myocardial", "acute", "disease", "infected", "infection",
    "train", "test", "validation", "version",
}  # fmt: skip
_VOCABULARY = sorted(_FILLERS.union(*_NAMES.values()), key=len, reverse=True)
# Words may be joined: `abnormalheartbeats`, `HistoryOfMI`.
_WORD = re.compile("|".join(_VOCABULARY))
_UNDERSTOOD = re.compile(f"(?:{_WORD.pattern})+")
_LETTERS = re.compile(r"[^\W\d_]+")
_IN_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_COUNT = re.compile(r"[\d\sx=*+.,]*")


def class_named(folder: str) -> str:
    """The class that a folder's name names, "" for none: `ECG Images of Patient that have History of MI (172x12=2064)`.

    A name with a word that is not understood, with a `?`, or with two classes, names none.
    """
    text = folder
    while (bracketed := _IN_BRACKETS.search(text)) is not None:
        # A count of files says nothing; anything else in brackets is a qualifier: `MI (ruled out)`.
        inner = bracketed.group()[1:-1]
        if not _COUNT.fullmatch(inner):
            return ""
        text = f"{text[: bracketed.start()]} {text[bracketed.end() :]}"
    words = _LETTERS.findall(text.lower())
    if "?" in text or not all(word == "v" or _UNDERSTOOD.fullmatch(word) for word in words):
        return ""
    parts = {part for word in words for part in _WORD.findall(word)}
    found = [label for label, names in _NAMES.items() if parts & names]
    return found[0] if len(found) == 1 or set(found) in _TOGETHER else ""


def scan(folder: Path, dataset: str, classes: Sequence[str]) -> Iterator[Found | Rejected]:
    """Scans `folder` in natural order; see Collection.scan.

    Raises CardiumError for a folder of images beside the class folders whose name names no class.
    """
    entries = list(walk(folder))
    labels = _folder_labels(entries)
    check_folders(entries, labels, dataset, ", ".join(f"{label} ({_IN_WORDS[label]})" for label in classes))
    for entry in entries:
        yield _judge(entry, labels, dataset, classes)


def _judge(entry: Entry, labels: dict[tuple[str, ...], str], dataset: str, classes: Sequence[str]) -> Found | Rejected:
    if entry.litter:
        return Rejected(entry.path, "", entry.litter)
    above = [(depth, label) for depth, part in prefixes(entry.folders) if (label := labels[part])]
    found = {label for _, label in above}
    label = found.pop() if len(found) == 1 else ""
    if not entry.name:
        return Rejected(entry.path, label if label in classes else "", entry.fault, entry.files)
    if not above:
        return Rejected(entry.path, "", f"outside of a class folder: none of {', '.join(classes)} is above it")
    if not label:
        return Rejected(entry.path, "", "inside folders of two classes")
    if label not in classes:
        return Rejected(entry.path, "", f"of a class that this dataset has not: {label}; {dataset} has {', '.join(classes)}")
    if entry.fault:
        return Rejected(entry.path, label, entry.fault)
    stem = entry.name.rpartition(".")[0] or entry.name
    return Found(entry.path, label, series="/".join(entry.folders[above[-1][0] :]), frame=last_number(stem))


def _folder_labels(entries: Sequence[Entry]) -> dict[tuple[str, ...], str]:
    """Folder -> its class; "" for none, and for a wrapper around folders of several classes."""
    folders = {part for entry in entries if not entry.litter for _, part in prefixes(entry.folders)}
    named = {folder: class_named(folder[-1]) for folder in folders}
    below: dict[tuple[str, ...], set[str]] = {folder: set() for folder in folders}
    for folder, label in named.items():
        if label:
            for _, part in prefixes(folder[:-1]):
                below[part].add(label)
    return {folder: "" if len(below[folder]) > 1 else label for folder, label in named.items()}


_PAGE = "https://data.mendeley.com/datasets/gwbz3fsgp8"
_LICENCE = "CC BY 4.0 as its Mendeley page states it; cardium passes none of its images on"

COLLECTIONS = {
    "ecg4": Collection(
        name="ecg4",
        title="ECG Images dataset of Cardiac Patients: sheets of 12-lead ECGs, infarction, history of it, abnormal or normal",
        classes=ECG4,
        published_counts={"MI": 239, "History": 172, "Abnormal": 233, "Normal": 284},
        page=f"{_PAGE}/2",
        licence=_LICENCE,
        scan=partial(scan, dataset="ecg4", classes=ECG4),
        published_split="kaggle_folders",
        recommended="traces_net",
        content="sheet",
        names_patients=False,
        handle="evilspirit05/ecg-analysis",
        mendeley={"": Mendeley("gwbz3fsgp8", 2)},
        demo="cardium.demo.ecg:ECG4",
        order=2,
    ),
    "ecg5": Collection(
        name="ecg5",
        title="ECG Images dataset of Cardiac and COVID-19 Patients, with its second version: sheets of 12-lead ECGs",
        classes=ECG5,
        # As system 003 counted the two versions together.
        published_counts={"Covid": 250, "Abnormal": 714, "MI": 313, "Normal": 1_143, "History": 326},
        page=f"{_PAGE} (versions 1 and 2)",
        licence=_LICENCE,
        scan=partial(scan, dataset="ecg5", classes=ECG5),
        published_split="random_tenths",
        recommended="traces_net",
        content="sheet",
        names_patients=False,
        mendeley={"v1": Mendeley("gwbz3fsgp8", 1), "v2": Mendeley("gwbz3fsgp8", 2)},
        demo="cardium.demo.ecg:ECG5",
        order=3,
    ),
}
