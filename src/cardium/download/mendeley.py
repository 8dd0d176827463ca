"""A version of a Mendeley Data dataset -> a folder: every file with its published sha256, resumed where it stopped, unpacked.

The public API, without a key: GET datasets/<id>/folders/<version> lists {id, name, parent_id}, GET
datasets/<id>/files?folder_id=<folder or root>&version=<version> lists {filename, size, content_details: {sha256_hash,
download_url}}. CARDIUM_MENDELEY names another server with the same API (a mirror, a test's stand-in).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cardium.datasets import Mendeley
from cardium.download.archive import SUFFIXES, unpack
from cardium.download.limits import DEFAULT_LIMITS, DownloadLimits
from cardium.errors import CardiumError
from cardium.progress import progress

if TYPE_CHECKING:
    import requests

API = "https://data.mendeley.com/public-api"
# Bytes to a piece: of one that a broken connection cuts, nothing is kept.
_CHUNK = 1 << 13
# The front of data.mendeley.com turns some libraries' own names away.
_HEADERS = {"User-Agent": "cardium/0.1", "Accept": "*/*", "Accept-Encoding": "identity"}


_threads = threading.local()


@dataclass(frozen=True)
class Remote:
    """A file as the server lists it. path: below the dataset's folder, with /. size: -1 if unknown. sha256: "" if unknown."""

    path: str
    url: str
    size: int
    sha256: str


def fetch(source: Mendeley, folder: Path, api: str = "", limits: DownloadLimits = DEFAULT_LIMITS) -> list[Path]:
    """Downloads all files of `source` into `folder`, whole and checked; files that are there already are not fetched again.

    Archives are unpacked into folders of their names beside them, and returned. The caller removes them: without them a second
    call would fetch them again. api: the server's base address (default: CARDIUM_MENDELEY, or Mendeley's
    own). Raises CardiumError in one line.
    """
    base = (api or os.environ.get("CARDIUM_MENDELEY") or API).rstrip("/")
    files = list_files(base, source, limits)
    with _pool(limits.files_at_once) as pool:
        waiting = [pool.submit(_fetch_file, remote, folder, limits) for remote in files]
        for done in progress(as_completed(waiting), total=len(waiting), desc="download", unit="file"):
            done.result()
    archives = [folder / remote.path for remote in files if remote.path.lower().endswith(SUFFIXES)]
    for archive in archives:
        unpack(archive, limits)
    return archives


@contextlib.contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads; it drops the remaining work as soon as one of them fails or the user stops."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _session() -> requests.Session:
    """This thread's own session: sessions are not safe to share between threads."""
    import requests

    if not hasattr(_threads, "session"):
        _threads.session = requests.Session()
        _threads.session.headers.update(_HEADERS)
    session: requests.Session = _threads.session
    return session


def list_files(base: str, source: Mendeley, limits: DownloadLimits) -> list[Remote]:
    """Lists every file of `source`, sorted by path."""
    address = f"{base}/datasets/{source.dataset}"
    folders = {str(line["id"]): line for line in _json(f"{address}/folders/{source.version}", limits)}
    files = []
    for number in ("root", *folders):
        for line in _json(f"{address}/files?folder_id={number}&version={source.version}", limits):
            content = line["content_details"]
            path = "/".join([*_folder_path(number, folders), _safe(line["filename"])])
            size = content.get("size", line.get("size"))
            sha256 = str(content.get("sha256_hash") or "").lower()
            files.append(Remote(path, str(content["download_url"]), -1 if size is None else int(size), sha256))
    # A server that answers `root` with the files of all folders lists some of them twice.
    return sorted({remote.url: remote for remote in files}.values(), key=lambda remote: remote.path)


def _folder_path(number: str, folders: dict[str, dict[str, Any]]) -> list[str]:
    names: list[str] = []
    while number in folders and len(names) < len(folders):
        names.insert(0, _safe(folders[number]["name"]))
        number = str(folders[number].get("parent_id"))
    return names


def _safe(name: Any) -> str:
    """`name` as one part of a path. Raises CardiumError for a name that would lead elsewhere."""
    text = str(name)
    if text in ("", ".", "..") or any(sign in text for sign in "/\\\0"):
        raise CardiumError(f"Mendeley Data lists a file or folder called {text!r}, which is no name.")
    return text


def _json(url: str, limits: DownloadLimits) -> list[dict[str, Any]]:
    """The list at `url` with its further pages."""
    import requests

    lines: list[dict[str, Any]] = []
    while url:
        try:
            answer = _session().get(url, timeout=_timeout(limits))
        except requests.RequestException:
            raise CardiumError("Mendeley Data cannot be reached from here.") from None
        if not answer.ok:
            raise CardiumError(f"Mendeley Data answers {answer.status_code} to {url}.")
        try:
            page = answer.json()
        except requests.JSONDecodeError:
            page = None
        if not isinstance(page, list):
            raise CardiumError(f"Mendeley Data's answer to {url} is no list of files.")
        lines += page
        url = answer.links.get("next", {}).get("url", "")
    return lines


def _timeout(limits: DownloadLimits) -> tuple[float, float]:
    return limits.connect_seconds, limits.read_seconds


def _fetch_file(remote: Remote, folder: Path, limits: DownloadLimits) -> None:
    """Downloads one file and compares its checksum; a file with another content is fetched once more."""
    target = folder / remote.path
    if target.is_file() and _matches(target, remote):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for _ in range(2):
        _receive(remote, part, limits)
        if _matches(part, remote):
            part.replace(target)
            return
        part.unlink()
    raise CardiumError(
        f"{remote.path} arrived twice with another content than Mendeley Data's checksum says: run it again later."
    )


def _receive(remote: Remote, part: Path, limits: DownloadLimits) -> None:
    """Appends to `part` until it is whole; resumes a broken connection where it stopped."""
    import requests

    stuck, reason = 0, ""
    while stuck < limits.attempts:
        time.sleep(limits.pause_seconds * stuck)
        there = part.stat().st_size if part.exists() else 0
        if there and there == remote.size:
            return
        if 0 <= remote.size < there:
            part.unlink()
            there = 0
        try:
            headers = {"Range": f"bytes={there}-"} if there else {}
            with _session().get(remote.url, headers=headers, timeout=_timeout(limits), stream=True) as answer:
                if answer.status_code == 416:  # Nothing from here on: whole, or not this file's beginning.
                    return
                if 400 <= answer.status_code < 500:
                    raise CardiumError(f"Mendeley Data answers {answer.status_code} to {remote.path}.")
                answer.raise_for_status()
                # A server that knows no ranges sends the whole.
                with part.open("ab" if answer.status_code == 206 else "wb") as file:
                    for data in answer.iter_content(_CHUNK):
                        file.write(data)
            if remote.size < 0 or part.stat().st_size >= remote.size:
                return
            reason = "it ended early"
        except requests.RequestException as error:
            reason = type(error).__name__
        stuck = 0 if part.exists() and part.stat().st_size > there else stuck + 1
    raise CardiumError(
        f"The connection to Mendeley Data broke off at {remote.path} ({reason}); what has arrived is kept:"
        " run it again, it goes on."
    )


def _matches(file: Path, remote: Remote) -> bool:
    """Whether a file has the listed size and checksum, as far as the server states them."""
    if remote.size >= 0 and file.stat().st_size != remote.size:
        return False
    if not remote.sha256:
        return True
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest() == remote.sha256
