"""An archive of any format -> a folder of its name beside it, whole or not at all.

zip and tar are listed and unpacked by Python, rar as rar.py does; the guard looks at the list first. What nothing here lists
(7z) a program unpacks that is watched, and ended as soon as it has written more than the limits allow.
"""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path

from cardium import atomic
from cardium.download import rar
from cardium.download.guard import Member, check, check_files, free_bytes, run_watched, written
from cardium.download.limits import DEFAULT_LIMITS, DownloadLimits
from cardium.errors import CardiumError, first_line

SUFFIXES = (".zip", ".rar", ".7z", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# Programs that unpack what Python cannot, in the order in which they are looked for.
_UNPACKERS = {name: rar.PROGRAMS[name] for name in ("bsdtar", "7z", "unar", "unrar")}


def unpack(archive: Path, limits: DownloadLimits = DEFAULT_LIMITS) -> Path:
    """Unpacks `archive` into a folder of its name beside it, and returns that folder.

    Raises CardiumError for a damaged archive, for one that the limits or the disk do not allow, for a link and for a member
    that would land elsewhere, and if no program here can unpack it; the folder is then as it was.
    """
    suffix = next((end for end in SUFFIXES if archive.name.lower().endswith(end)), archive.suffix)
    folder = archive.with_name(archive.name[: -len(suffix)] or "unpacked")
    if zipfile.is_zipfile(archive) or archive.name.lower().endswith(".zip"):
        unpack_zip(archive, folder, limits)
    elif archive.name.lower().endswith(".rar"):
        rar.unpack(archive, folder, limits)
    elif tarfile.is_tarfile(archive):
        unpack_tar(archive, folder, limits)
    else:
        _unpack_by_program(archive, folder, limits)
    return folder


def unpack_zip(archive: Path, folder: Path, limits: DownloadLimits = DEFAULT_LIMITS) -> None:
    """As `unpack`, of a zip file into `folder`."""
    try:
        with zipfile.ZipFile(archive) as packed:
            infos = packed.infolist()
            members = [
                Member(info.filename, info.file_size, info.is_dir(), _is_link(info), bool(info.flag_bits & 1)) for info in infos
            ]
            check(archive.name, members, archive.stat().st_size, free_bytes(folder), limits)
            with atomic.replacing_folder(folder) as part:
                packed.extractall(part)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise CardiumError(f"{archive.name} cannot be unpacked ({first_line(error)}): run it again.") from None


def _is_link(info: zipfile.ZipInfo) -> bool:
    kind = stat.S_IFMT(info.external_attr >> 16)
    return kind not in (0, stat.S_IFREG, stat.S_IFDIR)


def unpack_tar(archive: Path, folder: Path, limits: DownloadLimits = DEFAULT_LIMITS) -> None:
    """As `unpack`, of a tar file, compressed or not, into `folder`."""
    try:
        members, total = [], 0
        with tarfile.open(archive) as packed:
            # Its list lies among the files: it is read no further than the limits go.
            for info in packed:
                members.append(
                    Member(info.name.removeprefix("./") or ".", info.size, info.isdir(), not (info.isreg() or info.isdir()))
                )
                total += info.size
                if len(members) > limits.max_members or total > limits.max_ratio * archive.stat().st_size:
                    break
            check(archive.name, members, archive.stat().st_size, free_bytes(folder), limits)
            with atomic.replacing_folder(folder) as part:
                # Python before 3.11.4 has no filter; `check` has refused links, special files and paths out of the folder.
                if hasattr(tarfile, "data_filter"):
                    packed.extractall(part, filter="data")
                else:
                    packed.extractall(part)
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise CardiumError(f"{archive.name} cannot be unpacked ({first_line(error)}): run it again.") from None


def _unpack_by_program(archive: Path, folder: Path, limits: DownloadLimits) -> None:
    program = next((name for name in _UNPACKERS if shutil.which(name)), None)
    if program is None:
        raise CardiumError(
            f"Nothing here unpacks {archive.name}: install bsdtar (package libarchive-tools) or 7z and run it again,"
            " it goes on."
        )
    packed, free = archive.stat().st_size, free_bytes(folder)
    most = min(limits.max_unpacked_bytes, limits.max_ratio * packed, free - limits.spare_bytes)
    with atomic.replacing_folder(folder) as part:

        def too_much() -> str:
            found = written(part)
            if found.entries > limits.max_members:
                return f"more than {limits.max_members} files: unpack it by hand"
            if found.depth >= limits.max_depth:
                return f"more than {limits.max_depth} folders in one another: unpack it by hand"
            return f"more than {most} bytes, from {packed}: that is a bomb, or unpack it by hand" if found.size > most else ""

        words = [word.format(archive=archive.absolute(), folder=part.absolute()) for word in _UNPACKERS[program]]
        if failure := run_watched([program, *words], too_much):
            raise CardiumError(f"{archive.name} cannot be unpacked ({program}: {failure}): run it again.")
        check_files(archive.name, part)
