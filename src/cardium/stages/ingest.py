"""data/<dataset> -> processed/<dataset>/manifest: every file read once, hashed, measured; listed, or rejected with reason."""

from __future__ import annotations

import csv
import functools
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cardium import atomic
from cardium.config import Settings
from cardium.data.manifest import Measured, build, fingerprint, kind
from cardium.datasets import Collection, Found, Rejected, get_collection
from cardium.errors import CardiumError
from cardium.parallel import FEW, in_chunks
from cardium.progress import progress
from cardium.workspace import Workspace

# Files to a chunk: small enough for a lively progress bar, large enough that passing it between processes costs nothing.
_CHUNK = 64
# Volumes are large: one at a time in a process; and few of them are worth a process once they have so many bytes.
_FEW_BYTES = 100_000_000
# Conflicts that are printed; fingerprint.json has all.
_SHOWN = 10


def run(settings: Settings, item: str) -> None:
    """Ingests dataset `item`; CardiumError where nothing is there or too much is bad."""
    collection = get_collection(item)
    workspace = Workspace(settings.root)
    folder = workspace.data(item)
    _check_there(folder, item)

    found: list[Found] = []
    rejected: list[Rejected] = []
    for entry in collection.scan(folder):
        found.append(entry) if isinstance(entry, Found) else rejected.append(entry)
    if not found:
        first = f" (of {len(rejected)} files, the first: {rejected[0].path}: {rejected[0].reason})" if rejected else ""
        wanted = " and ".join(f"{name}/" for name in collection.classes)
        wanted = f"no image in {wanted}" if collection.kind == "image" else f"no volume of {', '.join(collection.classes)}"
        raise CardiumError(f"data/{item} holds {wanted}{first}; {_folders(rejected)}: see {collection.page} for its layout.")

    unit = collection.kind
    measured: list[Measured] = []
    for result in progress(_measure_all(collection, folder, found, settings), total=len(found), desc="ingest", unit=unit):
        measured.append(result) if isinstance(result, Measured) else rejected.append(result)
    rejected.sort(key=lambda entry: entry.path)
    _check_losses(collection, measured, rejected, settings, workspace)

    manifest = build(measured)
    facts = fingerprint(collection, manifest, rejected)
    out = workspace.manifest(item)
    with atomic.replacing_folder(out) as part:
        manifest.to_parquet(part / "manifest.parquet", index=False)
        write_rejected(part / "rejected.csv", rejected)
        atomic.write_json(part / "fingerprint.json", facts)

    for name, count in facts["counts"].items():
        print(f"{name}: {count['records']} {unit}s, {count['distinct']} of them distinct, in {count['groups']} groups")
    if facts["unknown_patient"] and collection.names_patients:
        print(f"{facts['unknown_patient']} {unit}s tell no patient by their place; each counts as a patient of its own")
    if not collection.names_patients:
        print(f"the publisher names no patients: only identical {unit}s are one group")
    if facts["copies"]:
        print(f"{facts['copies']} {unit}s are copies of others, byte for byte")
    for conflict in facts["conflicts"][:_SHOWN]:
        print(f"conflict: one {unit} under two classes, left out of training, validation and test: {_said(conflict)}")
    if len(facts["conflicts"]) > _SHOWN:
        print(f"conflict: {len(facts['conflicts']) - _SHOWN} more such {unit}s are listed in fingerprint.json")
    if collection.published_labels:
        print(f"{facts['published_patients']} of the {len(collection.published_labels)} patients of the published experiments")
    for line in facts["contradictions"]:
        print(f"patient {line['patient']} is {line['label']} by the table, but was published as {line['published']}")
    for reason, count in facts["rejected"]["by_reason"].items():
        print(f"rejected {count}: {reason}")
    print(f"wrote {out.relative_to(settings.root).as_posix()}")


def _check_there(folder: Path, item: str) -> None:
    there = folder.is_dir() and any(folder.iterdir())
    if not there:
        state = "is empty" if folder.is_dir() else "is missing"
        raise CardiumError(
            f"data/{item} {state}: run `cardium demo-data` for generated data or `cardium download {item}` for the real ones."
        )


def _said(conflict: dict[str, Any]) -> str:
    """Of every class the first file, and how many more."""
    paths: dict[str, list[str]] = {}
    for record in conflict["records"]:
        paths.setdefault(record["label"], []).append(record["path"])
    more = {label: f" and {len(of) - 1} more" if len(of) > 1 else "" for label, of in paths.items()}
    return "; ".join(f"{label}: {of[0]}{more[label]}" for label, of in paths.items())


def _folders(rejected: Sequence[Rejected]) -> str:
    """The folders that the files lie in, for a user whose folders are named otherwise."""
    names = list(dict.fromkeys(entry.path.rpartition("/")[0] for entry in rejected if "/" in entry.path))
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return f"folders there: {', '.join(f'`{name}`' for name in names[:6])}{more}" if names else "there is no folder"


def _measure_all(
    collection: Collection, folder: Path, found: Sequence[Found], settings: Settings
) -> Iterator[Measured | Rejected]:
    work = functools.partial(measure_chunk, collection.name, folder, *collection.limits(settings.ingest.limits))
    chunk, few = _CHUNK, FEW
    if collection.kind == "volume":
        sizes = sum((folder / entry.path).stat().st_size for entry in found if (folder / entry.path).is_file())
        chunk, few = 1, 2 if sizes > _FEW_BYTES else len(found) + 1
    for _, results in in_chunks(work, found, chunk, few=few):
        yield from results


def measure_chunk(dataset: str, folder: Path, most: int, max_bytes: int, found: Sequence[Found]) -> list[Measured | Rejected]:
    """Reads, hashes and measures some files; one that cannot be read comes back as Rejected. Runs in a worker process.

    most, max_bytes: the limits for one record, Collection.limits.
    """
    collection = get_collection(dataset)
    return [_measure(collection, folder, most, max_bytes, entry) for entry in found]


def _measure(collection: Collection, folder: Path, most: int, max_bytes: int, entry: Found) -> Measured | Rejected:
    path = folder / entry.path
    try:
        size = path.stat().st_size
        if size > max_bytes:  # Before it is read into memory.
            return Rejected(entry.path, entry.label, f"too many bytes: {size}, limit {max_bytes}")
        data = path.read_bytes()
        facts = collection.measure(data, most, max_bytes)
    except OSError as error:
        return Rejected(entry.path, entry.label, f"cannot be read: {error.strerror or type(error).__name__}")
    except MemoryError:
        return Rejected(entry.path, entry.label, "needs more memory than there is")
    except CardiumError as error:
        return Rejected(entry.path, entry.label, str(error))
    return Measured(entry, hashlib.sha256(data).hexdigest(), len(data), facts)


def _check_losses(
    collection: Collection,
    measured: Sequence[Measured],
    rejected: Sequence[Rejected],
    settings: Settings,
    workspace: Workspace,
) -> None:
    """Stops where more than `ingest.max_bad` of a class is lost; the list of what was rejected stays behind all the same."""
    read = Counter(record.found.label for record in measured)
    lost = Counter(entry.label for entry in rejected)
    for name in collection.classes:
        files = read[name] + lost[name]
        if files and lost[name] > settings.ingest.max_bad * files:
            listed = workspace.scratch() / "ingest" / collection.name / "rejected.csv"
            with atomic.replacing(listed) as part:
                write_rejected(part, rejected)
            reasons = Counter(kind(entry.reason) for entry in rejected if entry.label == name).most_common(3)
            raise CardiumError(
                f"data/{collection.name}: {lost[name]} of {files} files of class {name} cannot be used "
                f"({', '.join(f'{count} x {reason}' for reason, count in reasons)}), more than ingest.max_bad "
                f"{settings.ingest.max_bad:g} allows: mend or remove what {listed.relative_to(settings.root).as_posix()} lists."
            )


def write_rejected(path: Path, rejected: Iterable[Rejected]) -> None:
    """path, label, reason: one line a file."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["path", "label", "reason"])
        writer.writerows((entry.path, entry.label, entry.reason) for entry in rejected)
