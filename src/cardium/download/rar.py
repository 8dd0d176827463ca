"""A .rar archive -> a folder: checked before a byte is unpacked, and unpacked whole or not at all.

The library rarfile lists the archive's members; the guard looks at that list. rarfile itself reads members that are
stored without compression. Compressed ones need a program, since RAR's compression is not free: one of PROGRAMS that the
machine has unpacks the whole archive at once, is watched while it runs, and its result is compared with the list.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cardium import atomic
from cardium.download.guard import Member, check, check_files, free_bytes, run_watched, written
from cardium.download.limits import DEFAULT_LIMITS, DownloadLimits
from cardium.errors import CardiumError

# Program -> its arguments, in the order in which they are tried: those made for the format first. Some read some archives only
# (bsdtar none of several volumes, unar not every solid one, 7-Zip as Debian builds it no compressed ones).
PROGRAMS = {
    "unrar": ["x", "-o+", "-idq", "-p-", "{archive}", "{folder}/"],
    "unar": ["-quiet", "-no-directory", "-force-overwrite", "-output-directory", "{folder}", "{archive}"],
    "7z": ["x", "-y", "-bd", "-o{folder}", "{archive}"],
    "7zz": ["x", "-y", "-bd", "-o{folder}", "{archive}"],
    "bsdtar": ["-xf", "{archive}", "-C", "{folder}"],
}
_PACKAGES = "unar, libarchive-tools (bsdtar), unrar"
# How far beyond the list a program may write.
_SLACK = 1_000_000
_STORED = 0x30
_UNKNOWN_SIZE = 0x08
_CHUNK = 1 << 20


def unpack(archive: Path, folder: Path, limits: DownloadLimits = DEFAULT_LIMITS) -> list[Path]:
    """Unpacks `archive` into `folder`, which is made, or replaced as a whole once everything is there.

    Returns the files that the archive consists of: itself, and its further parts. Raises CardiumError for a file that is no
    archive or a damaged one, a password, a member that would land elsewhere, a link, more than the limits or the disk allow,
    and if no program can unpack it; `folder` is then as it was.
    """
    members, parts = read_members(archive)
    check(archive.name, members, sum(file.stat().st_size for file in parts), free_bytes(folder), limits)
    with atomic.replacing_folder(folder) as part:
        if all(member.stored or member.folder for member in members):
            _copy_out(archive, members, part)
        else:
            _run_programs(archive, members, part)
        _check_result(archive.name, members, part)
    return parts


def read_members(archive: Path) -> tuple[list[Member], list[Path]]:
    """Returns the archive's members and the files that it consists of. Raises CardiumError for a damaged archive."""
    import rarfile

    try:
        with rarfile.RarFile(archive, errors="strict") as opened:
            if opened.needs_password() and not opened.infolist():
                raise CardiumError(f"{archive.name} is locked by a password: unpack it by hand.")
            parts = [Path(part) for part in opened.volumelist()]
            return [_member(info, len(parts) == 1) for info in opened.infolist()], parts
    except rarfile.NeedFirstVolume:
        raise CardiumError(f"{archive.name} is a later part of an archive: begin with its first.") from None
    except rarfile.RarCannotExec:  # What old versions keep compressed in the list itself.
        raise _no_program(archive) from None
    except CardiumError:
        raise
    except Exception as error:  # rarfile's own, and struct's and others' on crafted bytes
        what = (str(error).splitlines() or [""])[0][:160] or type(error).__name__
        raise CardiumError(f"{archive.name} is no RAR archive, or a damaged one ({what}): get it again.") from None


def _member(info: Any, single: bool) -> Member:
    path = str(info.filename)
    locked = bool(info.needs_password())
    link = bool(info.is_symlink()) or info.file_redir is not None or not (info.is_file() or info.is_dir())
    known = isinstance(info.file_size, int) and not getattr(info, "file_flags", 0) & _UNKNOWN_SIZE
    stored = single and info.compress_type == _STORED and not (locked or link) and info.compress_size == info.file_size
    return Member(path, info.file_size if known else -1, bool(info.is_dir()), link, locked, stored)


def _copy_out(archive: Path, members: Sequence[Member], folder: Path) -> None:
    import rarfile

    try:
        with rarfile.RarFile(archive, errors="strict") as opened:
            for member, info in zip(members, opened.infolist(), strict=True):
                target = folder / member.path
                if member.folder:
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(info) as source, target.open("xb") as file:
                    _copy(source, file, member.size)
    except (rarfile.Error, EOFError, ValueError, OSError) as error:
        what = (str(error).splitlines() or [""])[0][:160] or type(error).__name__
        raise CardiumError(f"{archive.name} cannot be unpacked ({what}): get it again.") from None


def _copy(source: IO[bytes], file: IO[bytes], size: int) -> None:
    """Copies at most `size` bytes, and one more if there are more."""
    left = size + 1
    while left > 0 and (data := source.read(min(left, _CHUNK))):
        file.write(data)
        left -= len(data)


def _run_programs(archive: Path, members: Sequence[Member], folder: Path) -> None:
    """Unpacks with the first of PROGRAMS that succeeds."""
    programs = [name for name in PROGRAMS if shutil.which(name)]
    if not programs:
        raise _no_program(archive)
    most = sum(member.size for member in members) + _SLACK
    failures = []
    for program in programs:
        for left in folder.iterdir():  # What a program before this one left behind.
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        words = [word.format(archive=archive.absolute(), folder=folder.absolute()) for word in PROGRAMS[program]]
        failure = run_watched([program, *words], lambda: "it wrote more than the archive lists" * (written(folder).size > most))
        if not failure:
            return
        failures.append(f"{program}: {failure}")
    reasons = "; ".join(failures)
    raise CardiumError(
        f"{archive.name} cannot be unpacked ({reasons}): get it again, or install another of the packages {_PACKAGES}."
    )


def _no_program(archive: Path) -> CardiumError:
    return CardiumError(
        f"Nothing here unpacks {archive.name}: install one of the packages {_PACKAGES} and run it again, it goes on."
    )


def _check_result(name: str, members: Sequence[Member], folder: Path) -> None:
    """Raises CardiumError unless `folder` holds exactly the listed files; a link would lead out of it when it is read."""
    wanted = {str(PurePosixPath(member.path)): member.size for member in members if not member.folder}
    there = {}
    check_files(name, folder)
    for path in folder.rglob("*"):
        if path.is_file():
            there[path.relative_to(folder).as_posix()] = path.stat().st_size
    if there != wanted:
        wrong = sorted(set(there.items()) ^ set(wanted.items()))[0][0]
        raise CardiumError(f"{name} came out otherwise than it lists ({wrong!r}): get it again, or unpack it by hand.")
