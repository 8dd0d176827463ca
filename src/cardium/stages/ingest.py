"""data/<dataset> -> processed/<dataset>/manifest: every file read once, hashed, measured; listed, or rejected with reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cardium import atomic
from cardium.config import Settings
from cardium.data.manifest import build, kind, write_manifest, write_rejected
from cardium.datasets import Collection, Found, Rejected, get_collection
from cardium.datasets.demos import is_demo
from cardium.datasets.measured import Measured, measure_all
from cardium.datasets.scan import UNKNOWN
from cardium.errors import CardiumError, harmless
from cardium.progress import progress
from cardium.workspace import Workspace

# Conflicts that are printed; fingerprint.json has all.
_SHOWN = 10


def run(settings: Settings, item: str) -> None:
    """Ingests dataset `item`. Raises CardiumError if no record is there, or if too many files of a class cannot be used."""
    collection = get_collection(item)
    workspace = Workspace(settings.root)
    folder = workspace.data(item)
    _check_there(folder, collection)

    found: list[Found] = []
    rejected: list[Rejected] = []
    for entry in collection.scan(folder):
        found.append(entry) if isinstance(entry, Found) else rejected.append(entry)
    if not found:
        raise _no_record(collection, rejected)

    measured: list[Measured] = []
    results = measure_all(collection, folder, settings.ingest.limits, found)
    for result in progress(results, total=len(found), desc="ingest", unit=collection.kind):
        measured.append(result) if isinstance(result, Measured) else rejected.append(result)
    rejected.sort(key=lambda entry: entry.path)
    _check_losses(collection, measured, rejected, settings, workspace)
    _check_patients(collection, measured, settings.ingest.max_bad)

    out, manifest = workspace.manifest(item), build(measured)
    facts = write_manifest(out, collection, manifest, rejected, is_demo(settings.root, item, manifest))
    for line in _summary(collection, facts):
        print(harmless(line))
    print(f"wrote {out.relative_to(settings.root).as_posix()}")


def _check_there(folder: Path, collection: Collection) -> None:
    there = folder.is_dir() and any(folder.iterdir())
    if not there:
        item, state = collection.name, "is empty" if folder.is_dir() else "is missing"
        how = f"run `cardium demo-data` for generated data or `cardium download {item}` for the real ones"
        if not (collection.demo or collection.handle or collection.mendeley):
            how = f"lay its files out there as {collection.page} says"
        raise CardiumError(f"data/{item} {state}: {how}.")


def _no_record(collection: Collection, rejected: Sequence[Rejected]) -> CardiumError:
    """The error for a folder in which the scan found no record; it names the folders that are there."""
    first = f" (of {len(rejected)} files, the first: {rejected[0].path}: {rejected[0].reason})" if rejected else ""
    wanted = " and ".join(f"{name}/" for name in collection.classes)
    wanted = f"no image in {wanted}" if collection.kind == "image" else f"no volume of {', '.join(collection.classes)}"
    names = list(dict.fromkeys(entry.path.rpartition("/")[0] for entry in rejected if "/" in entry.path))
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    there = f"folders there: {', '.join(f'`{name}`' for name in names[:6])}{more}" if names else "there is no folder"
    return CardiumError(f"data/{collection.name} holds {wanted}{first}; {there}: see {collection.page} for its layout.")


def _summary(collection: Collection, facts: dict[str, Any]) -> list[str]:
    """The lines to print about a fingerprint."""
    unit = collection.kind
    lines = [collection.about(True)] if facts["generated"] else []
    lines += [
        f"{name}: {count['records']} {unit}s, {count['distinct']} of them distinct, in {count['groups']} groups"
        for name, count in facts["counts"].items()
    ]
    if facts["unknown_patient"] and collection.names_patients:
        lines.append(f"{facts['unknown_patient']} {unit}s tell no patient by their place; each counts as a patient of its own")
    if not collection.names_patients:
        lines.append(f"the publisher names no patients: only identical {unit}s are one group")
    if facts["copies"]:
        lines.append(f"{facts['copies']} {unit}s are copies of others, byte for byte")
    lines += [
        f"conflict: one {unit} under two classes, left out of training, validation and test: {_conflict_text(conflict)}"
        for conflict in facts["conflicts"][:_SHOWN]
    ]
    if len(facts["conflicts"]) > _SHOWN:
        lines.append(f"conflict: {len(facts['conflicts']) - _SHOWN} more such {unit}s are listed in fingerprint.json")
    if collection.published_labels:
        listed = len(collection.published_labels)
        lines.append(f"{facts['published_patients']} of the {listed} patients of the published experiments")
    lines += [
        f"patient {line['patient']} is {line['label']} by the table, but was published as {line['published']}"
        for line in facts["contradictions"]
    ]
    return lines + [f"rejected {count}: {reason}" for reason, count in facts["rejected"]["by_reason"].items()]


def _conflict_text(conflict: dict[str, Any]) -> str:
    """The first file of every class, and how many more there are."""
    paths: dict[str, list[str]] = {}
    for record in conflict["records"]:
        paths.setdefault(record["label"], []).append(record["path"])
    more = {label: f" and {len(of) - 1} more" if len(of) > 1 else "" for label, of in paths.items()}
    return "; ".join(f"{label}: {of[0]}{more[label]}" for label, of in paths.items())


def _check_losses(
    collection: Collection,
    measured: Sequence[Measured],
    rejected: Sequence[Rejected],
    settings: Settings,
    workspace: Workspace,
) -> None:
    """Raises CardiumError if a class loses more than `ingest.max_bad`, or a part of which nobody can tell how large it is.

    The list of rejected files is written all the same.
    """
    read = Counter(record.found.label for record in measured)
    for name in collection.classes:
        of_class = [entry for entry in rejected if entry.label == name]
        lost = sum(max(entry.files, 0) for entry in of_class)
        files = read[name] + lost
        unknown = next((entry for entry in of_class if entry.files == UNKNOWN), None)
        listed = workspace.scratch() / "ingest" / collection.name / "rejected.csv"
        if unknown or lost > settings.ingest.max_bad * files:
            with atomic.replacing(listed) as part:
                write_rejected(part, rejected)
        if unknown:
            raise CardiumError(
                f"data/{collection.name}/{unknown.path}: {unknown.reason}: nobody can tell how much of class {name} is lost "
                "with it: make it readable or take it out."
            )
        if lost > settings.ingest.max_bad * files:
            reasons: Counter[str] = Counter()
            for entry in of_class:
                reasons[kind(entry.reason)] += entry.files
            raise CardiumError(
                f"data/{collection.name}: {lost} of {files} files of class {name} cannot be used "
                f"({', '.join(f'{count} x {reason}' for reason, count in reasons.most_common(3))}), more than ingest.max_bad "
                f"{settings.ingest.max_bad:g} allows: mend or remove what {listed.relative_to(settings.root).as_posix()} lists."
            )


def _check_patients(collection: Collection, measured: Sequence[Measured], most: float) -> None:
    """Raises CardiumError if more than the share `most` of a class's files name no patient, though the publisher does.

    Each would be a patient of its own, and one patient's images would be trained and tested on.
    """
    if not collection.names_patients:
        return
    for name in collection.classes:
        of_class = [record.found for record in measured if record.found.label == name]
        unknown = [found for found in of_class if not found.patient]
        if len(unknown) > most * len(of_class):
            how = collection.patients_by or f"put each patient's files into a folder, {name}/<patient>/<file>"
            raise CardiumError(
                f"data/{collection.name}: {len(unknown)} of {len(of_class)} files of class {name} name no patient "
                f"(the first: {unknown[0].path}), so that one patient's files would be trained and tested on: "
                f"{how}."
            )
