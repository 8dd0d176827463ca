"""A published collection -> data/<name>: fetched from Mendeley Data or through kagglehub, its archives unpacked, verified, and
put in place as a whole or not at all.
"""

from __future__ import annotations

import contextlib
import shutil
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cardium import atomic
from cardium.datasets import Collection, Found, get_collection
from cardium.download import mendeley, rar
from cardium.download.archive import unpack_tar, unpack_zip
from cardium.download.limits import DEFAULT_LIMITS, DownloadLimits
from cardium.errors import CardiumError, unknown
from cardium.imaging.spec import Limits
from cardium.process_environment import variables_set
from cardium.workspace import Workspace

# Of one file that is decoded, as `ingest` of params.yaml has them.
_DECODED = Limits(50_000_000, 100_000_000, 400_000_000, 1_000_000_000)

Fetch = Callable[[str], Path]


def download(
    name: str,
    root: Path,
    force: bool = False,
    fetch: Fetch | None = None,
    source: str = "",
    limits: DownloadLimits = DEFAULT_LIMITS,
    decoded: Limits = _DECODED,
) -> Path:
    """Fetches collection `name` into `root`/data/`name` and returns that folder.

    An interrupted download goes on where it stopped. source: `mendeley` or `kaggle`; "" for the collection's own first one.
    fetch(handle) -> folder: downloads the files from Kaggle (default: kagglehub). limits: of the download; decoded: of each
    file that is decoded to check it.
    Raises CardiumError for an unknown name or source, data that is there already (unless `force`), no network, no permission, a
    full disk, and an incomplete or unreadable download; data/ is then as it was.
    """
    collection = get_collection(name)
    source = _known_source(collection, source)
    workspace = Workspace(root)
    target = workspace.data(name)
    if target.exists() and any(target.iterdir()) and not force:
        raise CardiumError(
            f"data/{name} is there already: `--force` replaces it (demo data can be made again with `cardium demo-data`)."
        )
    # Beside data/, not in it: what is half there must not be tracked.
    staging = workspace.scratch() / "download" / name / source
    staging.mkdir(parents=True, exist_ok=True)
    if source == "kaggle" and fetch is None:
        _check_network(collection, limits.connect_seconds)
    try:
        if source == "mendeley":
            fetched = _fetch_mendeley(collection, staging, limits)
        else:
            # On data/'s own disk, so that files are moved instead of copied.
            with variables_set({"KAGGLEHUB_CACHE": str(staging)}):
                fetched = fetch(collection.handle) if fetch else _fetch_kaggle(collection.handle, limits)
            _unpack_archives(fetched, limits)
            fetched = _unwrapped(fetched, collection)
    except CardiumError:
        raise
    except Exception as error:  # kagglehub, requests, zipfile and the file system each have their own.
        raise _explained(collection, error) from error
    counts = _verify(collection, fetched, limits, decoded)
    _put(fetched, target)
    shutil.rmtree(staging.parent, ignore_errors=True)
    print(f"{collection.title}: {', '.join(f'{count} {label}' for label, count in counts.items())}")
    print(f"Licence: {collection.licence} ({collection.page})")
    print(f"wrote data/{name}")
    print("Next: `dvc add data`, then `dvc repro` (with `profile: study` in params.yaml for the published protocol).")
    return target


def _known_source(collection: Collection, source: str) -> str:
    """`source`, by default the collection's first one. Raises CardiumError for a source that the collection does not have."""
    known = [name for name, there in (("mendeley", collection.mendeley), ("kaggle", collection.handle)) if there]
    if not known:
        raise CardiumError(f"{collection.name} cannot be fetched by program: {_by_hand(collection)}")
    if source and source not in known:
        raise unknown(f"source of {collection.name}", source, known)
    return source or known[0]


def _fetch_mendeley(collection: Collection, staging: Path, limits: DownloadLimits) -> Path:
    folder = staging / collection.name
    try:
        archives = [
            path for place, of in collection.mendeley.items() for path in mendeley.fetch(of, folder / place, limits=limits)
        ]
    except CardiumError as error:
        raise CardiumError(f"{error} {_by_hand(collection)}") from None
    for archive in archives:
        archive.unlink()
    return folder


def _unpack_archives(folder: Path, limits: DownloadLimits = DEFAULT_LIMITS) -> None:
    """Unpacks every .rar below `folder` into a folder of its name beside it, then removes the archive with all its parts."""
    for archive in sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".rar" and path.is_file()):
        if not archive.exists():
            continue  # A later part of the one before.
        beside = archive.with_suffix("")
        while beside.exists():
            beside = beside.with_name(f"{beside.name}_unpacked")
        for part in rar.unpack(archive, beside, limits):
            part.unlink()


def _check_network(collection: Collection, seconds: float) -> None:
    """Raises CardiumError if Kaggle cannot be reached: kagglehub's first request has no timeout and would hang for minutes."""
    import requests
    from kagglesdk.kaggle_env import get_endpoint, get_env

    try:
        requests.head(get_endpoint(get_env()), timeout=seconds)
    except requests.RequestException:
        raise CardiumError(f"Kaggle cannot be reached from here. {_by_hand(collection)}") from None


def _fetch_kaggle(handle: str, limits: DownloadLimits) -> Path:
    import kagglehub
    from kagglehub import http_resolver

    # kagglehub itself asks nothing of an archive before it unpacks it.
    with _guarded(http_resolver, limits):
        return Path(kagglehub.dataset_download(handle))


@contextlib.contextmanager
def _guarded(resolver: Any, limits: DownloadLimits) -> Iterator[None]:
    """Lets kagglehub unpack through the guard within the block."""
    own = resolver._extract_archive

    def extract(archive: str, folder: str) -> None:
        place, path = Path(folder), Path(archive)
        if zipfile.is_zipfile(path):
            unpack_zip(path, place, limits)
        elif tarfile.is_tarfile(path):
            unpack_tar(path, place, limits)
        else:
            own(archive, folder)  # Its error is its own.

    resolver._extract_archive = extract
    try:
        yield
    finally:
        resolver._extract_archive = own


def _explained(collection: Collection, error: Exception) -> CardiumError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403) or type(error).__name__ == "UnauthenticatedError":
        return CardiumError(
            f"Kaggle wants to know who asks for {collection.handle}: put an API token (kaggle.com, Settings, API) into "
            f"KAGGLE_API_TOKEN or ~/.kaggle/kaggle.json and run it again. {_by_hand(collection)}"
        )
    if status == 404:
        return CardiumError(f"Kaggle has no {collection.handle} (any more). {_by_hand(collection)}")
    if isinstance(error, OSError) and error.errno == 28:
        return CardiumError(f"The disk is full: {collection.name} needs about twice its size while it is unpacked.")
    lines = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
    return CardiumError(f"The download of {collection.name} failed ({what}): run it again, it goes on. {_by_hand(collection)}")


def _by_hand(collection: Collection) -> str:
    return (
        f"By hand: download it at {collection.page}, unzip it into data/{collection.name}, then `dvc add data` "
        f"(without it: `cardium demo-data`)."
    )


def _unwrapped(folder: Path, collection: Collection) -> Path:
    """The first folder inwards from `folder` that holds more than one folder."""
    classes = {name.lower() for name in collection.classes}
    while True:
        inner = list(folder.iterdir())
        if len(inner) != 1 or not inner[0].is_dir() or inner[0].name.lower() in classes:
            return folder
        folder = inner[0]


def _verify(collection: Collection, folder: Path, limits: DownloadLimits, decoded: Limits) -> dict[str, int]:
    """Files per class. Raises CardiumError if files are missing or a sample does not decode."""
    found: dict[str, list[Found]] = {name: [] for name in collection.classes}
    for entry in collection.scan(folder):
        if isinstance(entry, Found):
            found[entry.label].append(entry)
    counts = {name: len(entries) for name, entries in found.items()}
    for name, published in collection.published_counts.items():
        if counts[name] < (1 - limits.max_missing) * published:
            raise CardiumError(
                f"The download of {collection.name} is incomplete: {counts[name]} files of class {name} where {published} are "
                f"published. Delete .cardium/download and run it again. {_by_hand(collection)}"
            )
        if counts[name] != published:
            print(f"note: {counts[name]} files of class {name}; its page stated {published} when cardium was written")
    bad: Counter[str] = Counter()
    tried = 0
    for entries in found.values():
        for entry in entries[:: max(1, len(entries) // limits.sampled(collection.kind))]:
            tried += 1
            try:
                collection.measure((folder / entry.path).read_bytes(), *collection.limits(decoded))
            except (CardiumError, OSError) as error:
                bad[str(error)] += 1
    if bad.total() > limits.max_unreadable * tried:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in bad.most_common(3))
        raise CardiumError(
            f"The download of {collection.name} is damaged: of {tried} files tried, {bad.total()} cannot be read ({reasons}). "
            f"Delete .cardium/download and run it again."
        )
    return counts


def _put(fetched: Path, target: Path) -> None:
    """Moves `fetched` to `target`; removes the old data only after that."""
    target.parent.mkdir(parents=True, exist_ok=True)
    old = atomic.beside(fetched.parent / target.name)
    if target.exists():
        shutil.move(target, old)
    try:
        shutil.move(fetched, target)
    except BaseException:
        if old.exists() and not target.exists():
            shutil.move(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
