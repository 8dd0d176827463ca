"""atomic: whole or not there, and nothing left behind by what was killed."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cardium import atomic
from cardium.errors import CardiumError

SOURCE = Path(__file__).resolve().parent.parent / "src"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text("")
    (tmp_path / "dvc.yaml").write_text("")
    return tmp_path


def python(code: str, *arguments: Path) -> subprocess.Popen[str]:
    """A process that runs `code`, in which `target` is its first argument."""
    script = f"import os, sys\nfrom pathlib import Path\nfrom cardium import atomic\ntarget = Path(sys.argv[1])\n{code}"
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        text=True,
    )


def parts_of(project: Path) -> list[Path]:
    return sorted((project / ".cardium" / "parts").iterdir())


def test_in_a_project_nothing_temporary_lies_among_the_outputs(project: Path) -> None:
    target = project / "models" / "a.csv"
    with atomic.replacing(target) as part:
        part.write_text("1")
        assert part.suffix == ".csv"
        assert part.parent == project / ".cardium" / "parts"
        assert list(target.parent.iterdir()) == []
    folder = project / "models" / "run"
    for text in ("old", "new"):
        with atomic.replacing_folder(folder) as made:
            assert made.parent == part.parent
            atomic.write_text(made / "inner.txt", text)
    assert (folder / "inner.txt").read_text() == "new"
    assert target.read_text() == "1"
    assert parts_of(project) == []


def test_elsewhere_or_on_another_device_it_lies_beside(tmp_path: Path) -> None:
    with atomic.replacing(tmp_path / "a.csv") as part:
        part.write_text("1")
    assert part.parent == tmp_path
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text("")
    (tmp_path / ".cardium").write_text("a file, where no folder can be made")
    with atomic.replacing(tmp_path / "a.csv") as part:
        part.write_text("2")
    assert part.parent == tmp_path


def test_two_mounts_of_one_device(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.replace

    def between_mounts(self: Path, target: Path) -> Path:
        if ("parts" in self.parts) != ("parts" in target.parts):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", between_mounts)
    for text in ("old", "new"):
        with atomic.replacing_folder(project / "models" / "run") as made:
            (made / "a.txt").write_text(text)
        atomic.write_text(project / "models" / "b.txt", text)
    assert (project / "models/run/a.txt").read_text() == (project / "models/b.txt").read_text() == "new"
    assert sorted(path.name for path in (project / "models").iterdir()) == ["b.txt", "run"]
    assert parts_of(project) == []


@pytest.mark.parametrize("in_project", [True, False])
def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(project: Path, in_project: bool) -> None:
    if not in_project:
        (project / "dvc.yaml").unlink()
    models = project / "models"
    writing = "with atomic.replacing_folder(target) as part:\n    print(part, flush=True)\n    "
    killed = python(writing + "os.kill(os.getpid(), 9)", models / "run")
    assert killed.wait(30) == -signal.SIGKILL
    living = python(writing + "import time; time.sleep(60)", models / "other")
    try:
        assert killed.stdout is not None
        assert living.stdout is not None
        left, kept = Path(killed.stdout.readline().strip()), Path(living.stdout.readline().strip())
        assert kept.is_dir()
        assert not left.exists(), "a later process sweeps at its first write"
    finally:
        living.kill()
        living.wait()
    assert python("atomic.write_text(target, '')", models / "a.txt").wait(30) == 0
    assert not kept.exists()
    assert [path.name for path in models.iterdir()] == ["a.txt"]


def test_a_worker_that_was_forked_names_itself(tmp_path: Path) -> None:
    code = "print(atomic.beside(target).name, flush=True)\nif os.fork(): os.wait()\nelse: print(atomic.beside(target).name)"
    process = python(code, tmp_path / "a.csv")
    out, _ = process.communicate(timeout=30)
    pids = [re.search(r"-(\d+)-\d*-[0-9a-f]{8}\.part\.csv$", line) for line in out.split()]
    assert all(pids)
    assert len({found.group(1) for found in pids if found}) == 2
    assert str(process.pid) in {found.group(1) for found in pids if found}


def test_names_that_do_not_tell_their_process_are_kept_until_they_are_old(tmp_path: Path) -> None:
    old, new, mine = tmp_path / ".run.0123abcd.part", tmp_path / ".a.0123abcd.part.csv", tmp_path / "data.jpg.part"
    old.mkdir()
    (old / "x").write_text("")
    new.write_text("")
    mine.write_text("")
    long_ago = time.time() - 30 * 24 * 3600
    for path in (old, mine):
        os.utime(path, (long_ago, long_ago))
    atomic.write_text(tmp_path / "b.txt", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, "b.txt", mine.name]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM])
@pytest.mark.parametrize("folder", [False, True])
def test_what_the_disk_refuses_is_one_line_and_leaves_what_was_there(project: Path, number: int, folder: bool) -> None:
    target = project / "models" / "a"
    write: Any = atomic.replacing_folder if folder else atomic.replacing
    with write(target) as part:
        (part / "x" if folder else part).write_text("old")

    def refused(part: Path) -> None:
        (part / "x" if folder else part).write_text("n")
        raise OSError(number, os.strerror(number))

    with pytest.raises(CardiumError) as caught, write(target) as part:
        refused(part)
    assert os.strerror(number) in str(caught.value)
    assert str(target) in str(caught.value)
    assert "then run the same command again" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (target / "x" if folder else target).read_text() == "old"
    assert parts_of(project) == []


@pytest.mark.parametrize(
    "words",
    ["98304 requested and 20480 written", "Can't write data (file write failed: errno = 28, error message = 'No space')"],
)
def test_numpys_and_h5pys_words_are_understood(tmp_path: Path, words: str) -> None:
    with pytest.raises(CardiumError, match="No space left"), atomic.replacing(tmp_path / "a.npy"):
        raise OSError(words)


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic.replacing(tmp_path / "a.npy"):
        (tmp_path / "none").read_text()
    with pytest.raises(OSError, match="image file is truncated"), atomic.replacing(tmp_path / "a.npy"):
        raise OSError("image file is truncated")


def test_a_files_size_may_be_limited(project: Path) -> None:
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from cardium.errors import CardiumError
try:
    atomic.write_text(target, "x" * 100_000)
except CardiumError as error:
    print(error)
"""
    out, _ = python(code, project / "models" / "a.txt").communicate(timeout=30)
    assert "ulimit -f" in out
    assert list((project / "models").iterdir()) == parts_of(project) == []


@pytest.mark.parametrize(("at_once", "in_project"), [(True, True), (False, True), (False, False)])
def test_killed_at_any_step_a_folder_is_the_old_or_the_new_one(project: Path, at_once: bool, in_project: bool) -> None:
    """Every rename and removal in turn is the last thing that a process does."""
    if not in_project:
        (project / "dvc.yaml").unlink()
    target = project / "models" / "run"
    code = f"""
if not {at_once}: atomic._exchange = lambda one, other: False
left = int(sys.argv[2])
def counted(does):
    def step(*given, **named):
        global left
        left -= 1
        if left < 0: os.kill(os.getpid(), 9)
        return does(*given, **named)
    return step
for name in ("_exchange", "_remove"): setattr(atomic, name, counted(getattr(atomic, name)))
for name in ("replace", "symlink_to"): setattr(Path, name, counted(getattr(Path, name)))
with atomic.replacing_folder(target) as part:
    (part / "x").write_text("new")
"""
    found = []
    for steps in range(20):
        shutil.rmtree(target, ignore_errors=True)
        with atomic.replacing_folder(target) as part:
            (part / "x").write_text("old")
        killed = python(code, target, Path(str(steps))).wait(30)
        # The next process heals and sweeps at its first write.
        assert python("atomic.write_text(target, '')", target.parent / "a.txt").wait(30) == 0
        found.append((target / "x").read_text())
        assert sorted(path.name for path in target.parent.iterdir()) == ["a.txt", "run"]
        if in_project:
            assert parts_of(project) == []
        if not killed:
            break
    assert killed == 0
    assert found[0] == "old"
    assert found == sorted(found, reverse=True), "first old, then new"


def test_room_is_kept_before_a_file_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(100, 500))
    assert path.stat().st_blocks * 512 < 50_000
    atomic.preallocated(path, 128, 50_000)
    assert 50_000 <= path.stat().st_blocks * 512 < 90_000
    atomic.preallocated(path)
    assert path.stat().st_blocks * 512 >= path.stat().st_size == 100_128

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(CardiumError, match=r"a\.npy cannot be written .No space left on device.: make room"):
        atomic.preallocated(path)


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_exchange", lambda *_: False)
    target = project / "models" / "run"
    with atomic.replacing_folder(target) as part:
        (part / "x").write_text("old")

    def refused(*_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(target))

    monkeypatch.setattr(atomic, "_rename", refused)
    with pytest.raises(CardiumError, match="the right to it"), atomic.replacing_folder(target) as part:
        (part / "x").write_text("new")
    assert (target / "x").read_text() == "old"
    assert parts_of(project) == []
