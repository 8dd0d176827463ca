"""Fetching from Mendeley Data: a stand-in with its API, Range and checksums; broken lines, wrong content, archives."""

import dataclasses
import hashlib
import http.server
import io
import json
import random
import stat
import tarfile
import threading
import time
import types
import zipfile
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cardium.datasets import Mendeley, ecg
from cardium.download import archive, guard, mendeley
from cardium.download.fetch import download
from cardium.download.limits import DownloadLimits
from cardium.errors import CardiumError

SOURCE = Mendeley("abc", 2)


def image(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return buffer.getvalue()


class Server(http.server.BaseHTTPRequestHandler):
    """A dataset's versions: version -> {path: bytes}. What goes wrong is set on the class."""

    protocol_version = "HTTP/1.1"
    versions: dict[int, dict[str, bytes]]
    asked: list[tuple[str, str]]  # (path of a file, its Range)
    cut: dict[str, list[int]]  # path -> after how many bytes each answer breaks off
    wrong: dict[str, int]  # path -> how many answers have another content
    ranges = True
    page = 1000
    status = 200

    def do_GET(self):
        where, _, query = self.path.partition("?")
        asked = dict(pair.split("=") for pair in query.split("&") if pair)
        parts = where.strip("/").split("/")
        if self.status != 200:
            self.answer(self.status, b"no")
        elif parts[0] == "file":
            self.file(int(parts[1]), bytes.fromhex(parts[2]).decode())
        elif parts[2] == "folders":
            self.answer(200, json.dumps(self.folders(int(parts[3]))).encode())
        else:
            self.listing(int(asked["version"]), asked["folder_id"], int(asked.get("offset", 0)))

    def folders(self, version):
        names = sorted({"/".join(p.split("/")[:n]) for p in self.versions[version] for n in range(1, p.count("/") + 1)})
        folder = {"": None} | {name: name.encode().hex() for name in names}
        return [{"id": folder[n], "name": n.rpartition("/")[2], "parent_id": folder[n.rpartition("/")[0]]} for n in names]

    def listing(self, version, folder, offset):
        here = "" if folder == "root" else bytes.fromhex(folder).decode()
        paths = sorted(path for path in self.versions[version] if path.rpartition("/")[0] == here)
        base = f"http://127.0.0.1:{self.server.server_port}"
        lines = [
            {
                "filename": path.rpartition("/")[2],
                "size": len(data := self.versions[version][path]),
                "content_details": {
                    "sha256_hash": hashlib.sha256(data).hexdigest(),
                    "download_url": f"{base}/file/{version}/{path.encode().hex()}",
                },
            }
            for path in paths[offset : offset + self.page]
        ]
        more = f"{base}/datasets/abc/files?folder_id={folder}&version={version}&offset={offset + self.page}"
        headers = {"Link": f'<{more}>; rel="next"'} if offset + self.page < len(paths) else {}
        self.answer(200, json.dumps(lines).encode(), headers)

    def file(self, version, path):
        data = self.versions[version][path]
        asked = self.headers.get("Range", "")
        self.asked.append((path, asked))
        if self.wrong.get(path, 0):
            self.wrong[path] -= 1
            data = bytes(len(data))
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        if start and start >= len(data):
            self.answer(416, b"")
            return
        body = data[start:]
        after = self.cut[path].pop(0) if self.cut.get(path) else None
        self.answer(206 if start else 200, body, cut=after)

    def answer(self, status, body, headers=None, cut=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:cut])
        self.close_connection = self.close_connection or cut is not None

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    handler = type("Handler", (Server,), {"versions": {}, "asked": [], "cut": {}, "wrong": {}})
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("CARDIUM_MENDELEY", f"http://127.0.0.1:{running.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(mendeley, "time", types.SimpleNamespace(sleep=lambda seconds: None))
    yield handler
    running.shutdown()
    running.server_close()
    thread.join()


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_folders_and_files_arrive_under_their_names(server, tmp_path):
    there = {f"Normal ({n})/deep  [x]/a (1).jpg": image(n) for n in range(3)} | {"read me.txt": b"x", "Normal (1)/ä.jpg": b""}
    server.versions[2] = there
    server.page = 1
    assert mendeley.fetch(SOURCE, tmp_path) == []
    assert files(tmp_path) == there
    before = len(server.asked)
    mendeley.fetch(SOURCE, tmp_path)
    assert len(server.asked) == before, "what is there is not fetched again"


def test_a_broken_connection_goes_on_where_it_stopped(server, tmp_path):
    data = bytes(range(256)) * 160
    server.versions[2] = {"a.jpg": data}
    server.cut = {"a.jpg": [9000, 20000]}
    mendeley.fetch(SOURCE, tmp_path)
    assert files(tmp_path) == {"a.jpg": data}
    assert server.asked == [("a.jpg", ""), ("a.jpg", "bytes=8192-"), ("a.jpg", "bytes=24576-")]


def test_an_interrupted_download_goes_on_at_the_next_call(server, tmp_path):
    data = bytes(range(256)) * 160
    server.versions[2] = {"a.jpg": data}
    server.cut = {"a.jpg": [9000, *[0] * 20]}
    with pytest.raises(CardiumError, match=r"broke off at a\.jpg \(.*\); what has arrived is kept: run it again") as caught:
        mendeley.fetch(SOURCE, tmp_path)
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == {"a.jpg.part": data[:8192]}
    server.cut, server.asked[:] = {}, []
    mendeley.fetch(SOURCE, tmp_path)
    assert files(tmp_path) == {"a.jpg": data}
    assert server.asked == [("a.jpg", "bytes=8192-")]


def test_a_server_without_ranges_sends_the_whole(server, tmp_path):
    data = bytes(range(256)) * 160
    server.versions[2] = {"a.jpg": data}
    server.ranges = False
    server.cut = {"a.jpg": [9000]}
    mendeley.fetch(SOURCE, tmp_path)
    assert files(tmp_path) == {"a.jpg": data}
    assert server.asked == [("a.jpg", ""), ("a.jpg", "bytes=8192-")]


def test_other_content_is_fetched_once_more_and_then_refused(server, tmp_path):
    server.versions[2] = {"a.jpg": b"0123456789", "b.jpg": b"b"}
    server.wrong = {"a.jpg": 1}
    mendeley.fetch(SOURCE, tmp_path)
    assert files(tmp_path) == {"a.jpg": b"0123456789", "b.jpg": b"b"}
    assert [path for path, _ in server.asked].count("a.jpg") == 2
    (tmp_path / "a.jpg").write_bytes(b"something!")
    server.wrong, server.asked[:] = {"a.jpg": 9}, []
    with pytest.raises(CardiumError, match=r"a\.jpg arrived twice with another content"):
        mendeley.fetch(SOURCE, tmp_path)
    assert [path for path, _ in server.asked] == ["a.jpg", "a.jpg"]
    assert not (tmp_path / "a.jpg.part").exists()


def test_a_beginning_of_another_file_is_not_taken_for_this_one(server, tmp_path):
    server.versions[2] = {"a.jpg": b"0123456789"}
    (tmp_path / "a.jpg.part").write_bytes(b"xyz")
    mendeley.fetch(SOURCE, tmp_path)
    assert files(tmp_path) == {"a.jpg": b"0123456789"}
    (tmp_path / "a.jpg").rename(tmp_path / "a.jpg.part")
    (tmp_path / "a.jpg.part").write_bytes(b"0123456789 and too much")
    mendeley.fetch(SOURCE, tmp_path)
    assert files(tmp_path) == {"a.jpg": b"0123456789"}


@pytest.mark.parametrize(("status", "message"), [(404, "answers 404"), (503, "answers 503")])
def test_what_the_server_may_answer(server, tmp_path, status, message):
    server.status = status
    with pytest.raises(CardiumError, match=message) as caught:
        mendeley.fetch(SOURCE, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["..", "a/b", "a\\b", ""])
def test_names_that_lead_elsewhere(name, tmp_path, monkeypatch):
    answers = {
        "folders": [],
        "files": [{"filename": name, "size": 1, "content_details": {"sha256_hash": "", "download_url": "http://x"}}],
    }
    monkeypatch.setattr(mendeley, "_json", lambda url, limits: answers["folders" if "/folders/" in url else "files"])
    with pytest.raises(CardiumError, match="is no name"):
        mendeley.fetch(SOURCE, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_archives_are_unpacked_into_folders_of_their_names(server, tmp_path):
    server.versions[2] = {
        "MI (2x12=24).zip": packed({"MI(1).jpg": b"1", "deep/MI(2).jpg": b"2"}),
        "v/n.zip": packed({"n.jpg": b"3"}),
    }
    archives = mendeley.fetch(SOURCE, tmp_path)
    assert sorted(path.name for path in archives) == ["MI (2x12=24).zip", "n.zip"]
    for one in archives:
        one.unlink()
    assert files(tmp_path) == {"MI (2x12=24)/MI(1).jpg": b"1", "MI (2x12=24)/deep/MI(2).jpg": b"2", "v/n/n.jpg": b"3"}


@pytest.mark.parametrize("member", ["../evil.jpg", "a/../../evil.jpg", "/evil.jpg", "..\\evil.jpg"])
def test_an_archive_cannot_write_elsewhere(tmp_path, member):
    home = tmp_path / "home"
    home.mkdir()
    (home / "a.zip").write_bytes(packed({"fine.jpg": b"x", member: b"evil"}))
    with pytest.raises(CardiumError, match="outside of its folder"):
        archive.unpack(home / "a.zip")
    assert files(tmp_path).keys() == {"home/a.zip"}


def test_a_damaged_archive(tmp_path):
    whole = packed({"a.jpg": bytes(1000)})
    (tmp_path / "a.zip").write_bytes(whole.replace(bytes(900), bytes(899) + b"x"))
    with pytest.raises(CardiumError, match=r"a\.zip cannot be unpacked"):
        archive.unpack(tmp_path / "a.zip")
    assert files(tmp_path).keys() == {"a.zip"}


def program(folder, body: str) -> None:
    """A stand-in for bsdtar: called as `bsdtar -xf ARCHIVE -C FOLDER`."""
    folder.mkdir()
    (folder / "bsdtar").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "bsdtar").chmod(0o755 | stat.S_IXUSR)


def test_what_python_does_not_unpack_is_left_to_a_program_that_is_watched(tmp_path, monkeypatch):
    packed_by_7z = tmp_path / "data" / "x (1).7z"
    packed_by_7z.parent.mkdir()
    packed_by_7z.write_bytes(b"7z\xbc\xaf\x27\x1c" * 100)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(CardiumError, match=r"Nothing here unpacks x \(1\)\.7z: install bsdtar"):
        archive.unpack(packed_by_7z)
    program(tmp_path / "bin", '/bin/cp "$2" "$4/a.jpg"')
    assert files(archive.unpack(packed_by_7z)) == {"a.jpg": packed_by_7z.read_bytes()}
    monkeypatch.setattr(guard, "_LOOK", 0.05)
    for name, body, said in (
        ("links", '/bin/ln -s /etc "$4/out"', "holds a link"),
        ("fails", "echo 'damaged header' >&2; exit 1", r"cannot be unpacked \(bsdtar: damaged header\)"),
        ("bomb", 'while /bin/true; do echo 0123456789 >> "$4/a.jpg"; done', "more than 6000 bytes, from 600: that is a bomb"),
        ("many", 'i=0; while /bin/true; do i=$((i+1)); : > "$4/$i"; done', "more than 20 files"),
        ("deep", 'cd "$4"; i=0; while [ $i -lt 18 ]; do i=$((i+1)); /bin/mkdir d; cd d; done', "more than 12 folders in one"),
    ):
        program(tmp_path / name, body)
        monkeypatch.setenv("PATH", str(tmp_path / name))
        with pytest.raises(CardiumError, match=said):
            archive.unpack(packed_by_7z, DownloadLimits(max_ratio=10, max_members=20, max_depth=12, spare_bytes=0))
    assert sorted(path.name for path in packed_by_7z.parent.iterdir()) == ["x (1)", "x (1).7z"]
    assert [path.name for path in (tmp_path / "data/x (1)").iterdir()] == ["a.jpg"]


def tarred(names: dict[str, bytes], **about: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed_files:
        for name, data in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in about.items():
                setattr(info, key, value)
            packed_files.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zipped(names: dict[str, bytes], **about: Any) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed_files:
        for name, data in names.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in about.items():
                setattr(info, key, value)
            packed_files.writestr(info, data)
    return out.getvalue()


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"zeros.jpg": bytes(1_000_000)}, "that is a bomb"),
        ({f"{number}.jpg": bytes([number]) for number in range(30)}, "lists .* files, more than 20"),
        ({"/".join(["d"] * 8) + "/a.jpg": b"x"}, "nests more than 5 folders"),
        ({"../a.jpg": b"x"}, "outside of its folder"),
        ({"a.jpg": random.Random(1).randbytes(5000)}, "make room"),
    ],
)
def test_the_guard_looks_before_anything_is_unpacked(tmp_path, monkeypatch, suffix, names, said):
    place = tmp_path / "home" / f"a{suffix}"
    place.parent.mkdir()
    place.write_bytes((zipped if suffix == ".zip" else tarred)(names))
    monkeypatch.setattr(archive, "free_bytes", lambda _: 104_000 if said == "make room" else 10**12)
    for way in (zipfile.ZipFile, tarfile.TarFile):
        monkeypatch.setattr(way, "extractall", lambda *_, **__: pytest.fail("unpacked"))
    with pytest.raises(CardiumError, match=said):
        archive.unpack(place, DownloadLimits(max_members=20, max_depth=5, max_ratio=50, spare_bytes=100_000))
    assert files(tmp_path).keys() == {f"home/a{suffix}"}


def test_links_and_special_files_are_refused_and_the_rest_arrives(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped({"a.jpg": b"/etc/passwd"}, external_attr=0o120777 << 16))
    (tmp_path / "b.tgz").write_bytes(tarred({"a.jpg": b""}, type=tarfile.SYMTYPE, linkname="/etc/passwd"))
    (tmp_path / "c.tar.gz").write_bytes(tarred({"a.jpg": b""}, type=tarfile.FIFOTYPE))
    for name in ("a.zip", "b.tgz", "c.tar.gz"):
        with pytest.raises(CardiumError, match="a link or a special file"):
            archive.unpack(tmp_path / name)
    (tmp_path / "d.tar.gz").write_bytes(tarred({"./a.jpg": b"1", "deep/b.jpg": b"2"}))
    assert files(archive.unpack(tmp_path / "d.tar.gz")) == {"a.jpg": b"1", "deep/b.jpg": b"2"}


# ------------------------------------------------------------------------------------------------ the whole download

V2 = {
    "ECG Images of Myocardial Infarction Patients (240x12=2880)/MI(1).jpg": 1,
    "Normal Person ECG Images (284x12=3408)/Normal(1).jpg": 2,
    "ECG Images of Patient that have History of MI (172x12=2064)/PMI(1).jpg": 3,
    "ECG Images of Patient that have abnormal heartbeat (233x12=2796)/HB(1).jpg": 4,
}
V1 = {
    "ECG Images of COVID-19 Patients (250)/type_1/Binder1_Page_001.jpg": 5,
    "Normal Person ECG Images (859)/Normal (1).jpg": 6,
}


@pytest.fixture
def small(monkeypatch, server):
    counts = {"ecg4": {"MI": 1, "History": 1, "Abnormal": 1, "Normal": 1}}
    counts["ecg5"] = {"Covid": 1, "Abnormal": 1, "MI": 1, "Normal": 2, "History": 1}
    for name, of in counts.items():
        monkeypatch.setitem(ecg.COLLECTIONS, name, dataclasses.replace(ecg.COLLECTIONS[name], published_counts=of))
    server.versions.update({1: {path: image(n) for path, n in V1.items()}, 2: {path: image(n) for path, n in V2.items()}})
    return server


def test_a_collection_arrives_in_data(small, tmp_path, capsys):
    assert download("ecg4", tmp_path) == tmp_path / "data/ecg4"
    assert files(tmp_path / "data/ecg4") == small.versions[2]
    assert not (tmp_path / ".cardium/download/ecg4").exists()
    assert "1 MI, 1 History, 1 Abnormal, 1 Normal" in capsys.readouterr().out
    download("ecg5", tmp_path, source="mendeley")
    assert files(tmp_path / "data/ecg5/v1") == small.versions[1]
    assert files(tmp_path / "data/ecg5/v2") == small.versions[2]


def test_archives_instead_of_folders(small, tmp_path):
    small.versions[2] = {f"{path.split('/')[0]}.zip": packed({path.split("/")[1]: image(n)}) for path, n in V2.items()}
    download("ecg4", tmp_path)
    assert files(tmp_path / "data/ecg4").keys() == V2.keys()


def test_an_incomplete_dataset_is_refused(small, tmp_path):
    del small.versions[2][next(iter(V2))]
    with pytest.raises(CardiumError, match="incomplete: 0 files of class MI where 1 are published"):
        download("ecg4", tmp_path)
    assert not (tmp_path / "data").exists()


def test_a_second_source(small, tmp_path):
    def fetch(handle):
        assert handle == "evilspirit05/ecg-analysis"
        for path, data in small.versions[2].items():
            for part in ("train", "test"):
                file = tmp_path / "fetched/ECG_DATA" / part / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
        return tmp_path / "fetched"

    download("ecg4", tmp_path, fetch=fetch, source="kaggle")
    assert sorted(path.name for path in (tmp_path / "data/ecg4").iterdir()) == ["test", "train"]
    assert small.asked == []
    with pytest.raises(CardiumError, match=r"Unknown source of ecg5 `kaggle`.* Known: mendeley\."):
        download("ecg5", tmp_path, source="kaggle")


def test_without_a_network_it_names_the_page_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("CARDIUM_MENDELEY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    start = time.monotonic()
    with pytest.raises(CardiumError, match=r"cannot be reached.*datasets/gwbz3fsgp8/2, unzip it into data/ecg4") as caught:
        download("ecg4", tmp_path)
    assert time.monotonic() - start < 10
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()
