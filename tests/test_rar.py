"""RAR archives: what is refused before a byte is written, and what comes out of the rest, with and without a program.

The archives are written here, header by header (RAR 5.0 archive format, rarlab.com/technote.htm): members stored as they are,
or marked as compressed, which only a program reads.
"""

import stat
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from test_chd import table, volume

from cardium.datasets import chd
from cardium.download import fetch as downloads
from cardium.download import guard, rar
from cardium.download.fetch import download
from cardium.download.guard import Member, check
from cardium.download.limits import DownloadLimits
from cardium.download.rar import unpack
from cardium.errors import CardiumError


def vint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def block(kind: int, flags: int, fields: bytes, extra: bytes = b"", data: bytes | None = None) -> bytes:
    flags |= (1 if extra else 0) | (2 if data is not None else 0)
    head = vint(kind) + vint(flags) + (vint(len(extra)) if extra else b"") + (vint(len(data)) if data is not None else b"")
    content = head + fields + extra
    sized = vint(len(content)) + content
    return zlib.crc32(sized).to_bytes(4, "little") + sized + (data or b"")


def member(
    name: str,
    data: bytes = b"",
    size: int | None = None,
    method: int = 0,
    folder: bool = False,
    link: str = "",
    link_kind: int = 1,
    locked: bool = False,
    file_flags: int = 0,
    crc: int | None = None,
) -> bytes:
    extra = b""
    if link:
        record = vint(5) + vint(link_kind) + vint(0) + vint(len(link)) + link.encode()
        extra += vint(len(record)) + record
    if locked:
        record = vint(1) + vint(0) + vint(0) + bytes([15]) + bytes(32)
        extra += vint(len(record)) + record
    fields = (
        vint((1 if folder else 4) | file_flags) + vint(len(data) if size is None else size) + vint(0o755 if folder else 0o644)
    )
    if not folder:
        fields += (zlib.crc32(data) if crc is None else crc).to_bytes(4, "little")
    fields += vint(method << 7) + vint(1) + vint(len(name.encode())) + name.encode()
    return block(2, 0, fields, extra, None if folder else data)


def archive(path: Path, *members: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"Rar!\x1a\x07\x01\x00" + block(1, 0, vint(0)) + b"".join(members) + block(5, 0, vint(0)))
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def no_programs(monkeypatch, tmp_path):
    """None of the machine's own programs, so that every machine tests the same."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def program(folder: Path, name: str, body: str) -> None:
    """A stand-in: a Python program that is told ARCHIVE and FOLDER, wherever they stand among its arguments."""
    script = f"""#!{sys.executable}
import os, sys, time
ARCHIVE = next(word for word in sys.argv[1:] if word.endswith(".rar"))
words = [word for word in sys.argv[1:] if word != ARCHIVE and "/" in word]
FOLDER = words[0].removeprefix("-o").rstrip("/")
def put(name, data):
    os.makedirs(os.path.dirname(os.path.join(FOLDER, name)), exist_ok=True)
    open(os.path.join(FOLDER, name), "wb").write(data)
{body}
"""
    path = folder / "bin" / name
    path.write_text(script)
    path.chmod(0o755 | stat.S_IXUSR)


@given(
    st.dictionaries(
        st.lists(st.sampled_from(["a", "b c", "é", "..x", "-y", "Z.nii.gz"]), min_size=1, max_size=3).map("/".join),
        st.binary(max_size=2000),
        min_size=1,
        max_size=5,
    )
)
@hypothesis_settings(max_examples=40)
def test_stored_members_need_no_program(tmp_path_factory, contents):
    # No name is a file and a folder at once.
    contents = {name: data for name, data in contents.items() if not any(other.startswith(f"{name}/") for other in contents)}
    root = tmp_path_factory.mktemp("rar")
    path = archive(root / "x.rar", *(member(name, data) for name, data in contents.items()))
    assert unpack(path, root / "out") == [path]
    assert files(root / "out") == contents
    assert {entry.name for entry in root.iterdir()} == {"x.rar", "out"}


def test_folders_come_too_and_what_lay_there_is_replaced(tmp_path):
    path = archive(tmp_path / "x.rar", member("a", folder=True), member("a/b", folder=True), member("a/c.txt", b"1"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").write_text("old")
    unpack(path, tmp_path / "out")
    assert files(tmp_path / "out") == {"a/c.txt": b"1"}
    assert (tmp_path / "out/a/b").is_dir()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (member("../evil", b"x"), r"would write outside of its folder \('\.\./evil'\)"),
        (member("a/../../evil", b"x"), "outside"),
        (member("/etc/evil", b"x"), "outside"),
        (member("C:/evil", b"x"), "outside"),
        (member("a\\..\\evil", b"x"), "outside"),
        (member("a\nb", b"x"), "outside"),
        (member("../evil", folder=True), "outside"),
        (member("link", link="/etc/passwd"), "holds a link or a special file"),
        (member("link", link="../../x", link_kind=4), "holds a link"),
        (member("copy", link="good.txt", link_kind=5), "holds a link"),
        (member("locked", b"x", locked=True), "locked by a password"),
        (member("huge", b"x" * 20, size=10**15, method=3), "that is a bomb"),
        (member("large", b"x" * 2000, size=1_000_000, method=3), "that is a bomb"),
        (member("unsaid", b"x", file_flags=8), "does not say how large"),
        (member("good.txt", b"other"), "lists 'good.txt' twice"),
        (member("wrong", b"data", crc=1), "cannot be unpacked"),
        (member("short", b"data", size=9), "Nothing here unpacks"),
        (
            member("packed", b"data", method=3),
            r"Nothing here unpacks x\.rar: install one of the packages unar, libarchive-tools",
        ),
    ],
)
def test_what_is_refused_leaves_nothing(tmp_path, bad, message):
    path = archive(tmp_path / "in" / "x.rar", member("good.txt", b"good"), bad)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/before").write_text("before")
    with pytest.raises(CardiumError, match=message) as error:
        unpack(path, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert files(tmp_path / "out") == {"before": b"before"}
    assert {entry.name for entry in tmp_path.iterdir()} == {"bin", "in", "out"}


def test_what_is_no_archive(tmp_path):
    whole = archive(tmp_path / "x.rar", member("a", b"data" * 100), member("b", b"more")).read_bytes()
    for name, content in (("empty", b""), ("text", b"hello" * 100), ("cut", whole[:-200]), ("head", whole[:30])):
        (tmp_path / "y.rar").write_bytes(content)
        with pytest.raises(CardiumError, match=r"y\.rar ") as error:
            unpack(tmp_path / "y.rar", tmp_path / "out")
        assert "\n" not in str(error.value), name
        assert not (tmp_path / "out").exists()
    with pytest.raises(CardiumError, match="holds no files"):
        unpack(archive(tmp_path / "z.rar", member("a", folder=True)), tmp_path / "out")
    with pytest.raises(CardiumError, match="no RAR archive"):
        unpack(tmp_path / "missing.rar", tmp_path / "out")


@given(st.data())
@hypothesis_settings(max_examples=150)
def test_damage_is_an_error_or_changes_nothing(tmp_path_factory, data):
    contents = {"a/b.txt": b"some text" * 5, "c": b"more"}
    root = tmp_path_factory.mktemp("rar")
    path = archive(root / "x.rar", *(member(name, content) for name, content in contents.items()))
    broken = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(broken)
    try:
        unpack(path, root / "out")
    except CardiumError:
        assert not (root / "out").exists()
    else:
        assert files(root / "out").items() <= contents.items()


def test_limits():
    many = [Member(f"{n}", 1) for n in range(11)]
    check("x.rar", many, 100, 10**12)
    with pytest.raises(CardiumError, match=r"the disk has 0\.1 GB left: make room"):
        check("x.rar", many, 100, 100_000_000)
    with pytest.raises(CardiumError, match="lists 11 files, more than 10"):
        check("x.rar", many, 100, 10**12, DownloadLimits(max_members=10))
    with pytest.raises(CardiumError, match="bomb"):
        check("x.rar", [Member("a", DownloadLimits().max_unpacked_bytes + 1)], 10**12, 10**15)


PACKED = (member("a/b.txt", b"????", size=5, method=3), member("c", b"??", size=3, method=3))
GOOD = 'put("a/b.txt", b"hello"); put("c", b"abc")'


@pytest.mark.parametrize("name", list(rar.PROGRAMS))
def test_compressed_members_by_each_program(tmp_path, name):
    program(tmp_path, name, GOOD)
    unpack(archive(tmp_path / "in" / "x.rar", *PACKED), tmp_path / "out")
    assert files(tmp_path / "out") == {"a/b.txt": b"hello", "c": b"abc"}


def test_where_one_program_fails_the_next_begins_anew(tmp_path):
    program(tmp_path, "unrar", 'put("left/over", b"x"); print("ERROR: unknown format"); sys.exit(3)')
    path = archive(tmp_path / "in" / "x.rar", *PACKED)
    with pytest.raises(CardiumError, match=r"cannot be unpacked \(unrar: ERROR: unknown format\)"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    program(tmp_path, "bsdtar", GOOD)
    unpack(path, tmp_path / "out")
    assert files(tmp_path / "out") == {"a/b.txt": b"hello", "c": b"abc"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('put("a/b.txt", b"hello")', r"came out otherwise than it lists \('c'\)"),
        (GOOD + '; put("c", b"abcd")', r"came out otherwise than it lists \('c'\)"),
        (GOOD + '; put("extra", b"")', r"came out otherwise than it lists \('extra'\)"),
        (GOOD + '; os.remove(FOLDER + "/c"); os.symlink("/etc/passwd", FOLDER + "/c")', "holds a link"),
        (GOOD + '; os.symlink("/etc", FOLDER + "/d")', "holds a link"),
        (GOOD + "; sys.exit(1)", r"unar: it ended with 1"),
        (GOOD + '; put("c", b"x" * 3_000_000)', "it wrote more than the archive lists"),
        # It would go on for ever: ended as soon as it has written more than it may.
        ('n = 0\nwhile True:\n    put(f"f{n}", b"x" * 100_000); n += 1; time.sleep(0.01)', "wrote more than the archive lists"),
    ],
)
def test_a_programs_result_is_held_against_the_list(tmp_path, monkeypatch, body, message):
    monkeypatch.setattr(guard, "_LOOK", 0.05)
    program(tmp_path, "unar", body)
    with pytest.raises(CardiumError, match=message):
        unpack(archive(tmp_path / "in" / "x.rar", *PACKED), tmp_path / "out")
    assert {entry.name for entry in tmp_path.iterdir()} == {"bin", "in"}


def imagechd(folder: Path, patients: dict, **changes) -> Path:
    """What arrives from Kaggle: the table, and the volumes in an archive."""
    table(folder / chd.TABLE, patients)
    members = [member("ImageCHD_dataset", folder=True)]
    for patient in patients:
        members.append(member(f"ImageCHD_dataset/ct_{patient}_image.nii.gz", volume(int(patient)), **changes))
    archive(folder / "ImageCHD_dataset.rar", *members)
    return folder


@pytest.fixture
def small(monkeypatch):
    import dataclasses

    counts = {"Cyanotic": 1, "Non-Cyanotic": 1, "Normal": 1}
    monkeypatch.setitem(chd.COLLECTIONS, "chd", dataclasses.replace(chd.COLLECTIONS["chd"], published_counts=counts))


PATIENTS = {1010: ["ToF"], 1001: ["VSD"], 1003: [], 1004: ["DORV"]}


def test_a_download_is_unpacked_and_its_archive_gone(tmp_path, small, capsys):
    target = download("chd", tmp_path, fetch=lambda handle: imagechd(tmp_path / ".cardium" / "fetched" / handle, PATIENTS))
    entries = list(chd.scan(target))
    assert sorted(entry.path.rpartition("/")[2] for entry in entries) == [f"ct_{n}_image.nii.gz" for n in sorted(PATIENTS)]
    assert not list(target.rglob("*.rar"))
    assert "1 Cyanotic, 1 Non-Cyanotic, 1 Normal" in capsys.readouterr().out


def test_a_download_that_nothing_unpacks_says_what_to_install_and_goes_on_then(tmp_path, small):
    folder = tmp_path / ".cardium" / "fetched"
    fetch = lambda handle: folder if folder.exists() else imagechd(folder, PATIENTS, method=3)  # noqa: E731
    with pytest.raises(CardiumError, match=r"Nothing here unpacks ImageCHD_dataset\.rar: install one of the packages unar"):
        download("chd", tmp_path, fetch=fetch)
    assert not (tmp_path / "data/chd").exists()
    (tmp_path / "in").mkdir()
    for patient in PATIENTS:
        (tmp_path / "in" / str(patient)).write_bytes(volume(patient))
    names = {patient: f"ImageCHD_dataset/ct_{patient}_image.nii.gz" for patient in PATIENTS}
    body = f'for n, name in {names}.items(): put(name, open(f"{tmp_path}/in/{{n}}", "rb").read())'
    program(tmp_path, "unrar", body)
    target = download("chd", tmp_path, fetch=fetch)
    assert len(list(target.rglob("*.nii.gz"))) == 4
    assert not list(target.rglob("*.rar"))


def test_a_folder_of_the_archives_name_is_left_alone(tmp_path):
    archive(tmp_path / "x.rar", member("a", b"1"))
    (tmp_path / "x").mkdir()
    (tmp_path / "x/b").write_bytes(b"2")
    downloads._unpack_archives(tmp_path)
    assert {name: data for name, data in files(tmp_path).items() if not name.startswith("bin")} == {
        "x/b": b"2",
        "x_unpacked/a": b"1",
    }


def test_a_damaged_volume_is_a_damaged_download(tmp_path, small):
    folder = imagechd(tmp_path / "fetched", PATIENTS)
    archive(folder / "ImageCHD_dataset.rar", *(member(f"ct_{n}_image.nii.gz", volume(n)[:-100]) for n in PATIENTS))
    with pytest.raises(CardiumError, match=r"of 3 files tried, 3 cannot be read \(3 x truncated gzip file\)"):
        download("chd", tmp_path, fetch=lambda handle: folder)
    assert not (tmp_path / "data/chd").exists()
