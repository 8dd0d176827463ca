"""Fetching the real collection: from a stand-in for Kaggle's server, through kagglehub itself; and what goes wrong."""

import dataclasses
import http.server
import io
import json
import tarfile
import threading
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from cardium.datasets import cmri
from cardium.download import fetch as downloads
from cardium.download.fetch import download
from cardium.errors import CardiumError

COUNTS = {"Normal": 6, "Sick": 4}


def image(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def archive(counts=COUNTS, content=image) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for label, count in counts.items():
            for n in range(count):
                packed.writestr(f"CAD Cardiac MRI Dataset/{label}/Directory_{n % 2}/SR_1/IM0000{n}.jpg", content(n))
    return buffer.getvalue()


class Kaggle(http.server.BaseHTTPRequestHandler):
    """Answers the two calls that kagglehub makes for a dataset."""

    status = 200
    body = b""
    asked: list[str]

    def do_HEAD(self):
        self.answer(200, b"", "text/html")

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        type(self).asked.append(self.path)
        if self.status != 200:
            self.answer(self.status, json.dumps({"code": self.status, "message": "no"}).encode(), "application/json")
        elif self.path.endswith("GetDataset"):
            self.answer(200, json.dumps({"currentVersionNumber": 3}).encode(), "application/json")
        else:
            self.answer(200, self.body, "application/zip")

    def answer(self, status, body, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def kaggle(monkeypatch, tmp_path_factory):
    from kagglesdk import kaggle_env

    handler = type("Handler", (Kaggle,), {"asked": [], "body": archive()})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for name in (
        "KAGGLE_API_ENVIRONMENT",
        "KAGGLEHUB_CACHE",
        "KAGGLE_API_TOKEN",
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, f"http://127.0.0.1:{server.server_port}")
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    collection = dataclasses.replace(cmri.COLLECTIONS["cmri"], published_counts=COUNTS)
    monkeypatch.setitem(cmri.COLLECTIONS, "cmri", collection)


def test_through_kagglehub(kaggle, tmp_path, capsys):
    target = download("cmri", tmp_path)
    assert target == tmp_path / "data/cmri"
    assert sorted(entry.name for entry in target.iterdir()) == ["Normal", "Sick"]
    assert (target / "Normal/Directory_1/SR_1/IM00003.jpg").read_bytes() == image(3)
    assert [path.rpartition("/")[2] for path in kaggle.asked] == ["GetDataset", "DownloadDataset"]
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == ["cmri"]
    assert not (tmp_path / ".cardium/download/cmri").exists()
    output = capsys.readouterr().out
    assert "6 Normal, 4 Sick" in output
    assert output.splitlines()[-1].startswith("Next: `dvc add data`, then `dvc repro`")


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "API token"), (403, "API token"), (404, "has no danialsharifrazi"), (500, "run it again, it goes on")],
)
def test_what_kaggle_may_answer(kaggle, tmp_path, status, message):
    kaggle.status = status
    with pytest.raises(CardiumError, match=message) as caught:
        download("cmri", tmp_path)
    assert "\n" not in str(caught.value)
    assert cmri.COLLECTIONS["cmri"].page in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_an_archive_that_is_none(kaggle, tmp_path):
    kaggle.body = b"this is no archive"
    with pytest.raises(CardiumError, match="The download of cmri failed"):
        download("cmri", tmp_path)
    assert not (tmp_path / "data").exists()
    kaggle.body = archive()
    download("cmri", tmp_path)


def test_a_bomb_from_kaggle_is_refused_before_kagglehub_unpacks_it(kaggle, tmp_path, monkeypatch):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("Normal/Directory_1/SR_1/IM00001.jpg", bytes(3_000_000))
    kaggle.body = bomb.getvalue()
    for way in (zipfile.ZipFile, tarfile.TarFile):
        monkeypatch.setattr(way, "extractall", lambda *_, **__: pytest.fail("unpacked"))
    with pytest.raises(CardiumError, match="says that it unpacks to 3000000: that is a bomb"):
        download("cmri", tmp_path)
    assert not (tmp_path / "data").exists()
    assert not list(tmp_path.rglob("*.jpg"))


def test_without_a_network_it_says_so_at_once(monkeypatch, tmp_path):
    from kagglesdk import kaggle_env

    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    start = time.monotonic()
    with pytest.raises(CardiumError, match=r"cannot be reached.*unzip it into data/cmri, then `dvc add data`") as caught:
        download("cmri", tmp_path)
    assert time.monotonic() - start < 10
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_existing_data_is_kept_unless_forced(kaggle, tmp_path):
    (tmp_path / "data/cmri").mkdir(parents=True)
    (tmp_path / "data/cmri/mine.txt").write_text("mine")
    with pytest.raises(CardiumError, match="data/cmri is there already: `--force`"):
        download("cmri", tmp_path)
    assert kaggle.asked == []
    kaggle.status = 500
    with pytest.raises(CardiumError):
        download("cmri", tmp_path, force=True)
    assert (tmp_path / "data/cmri/mine.txt").read_text() == "mine"
    kaggle.status = 200
    download("cmri", tmp_path, force=True)
    assert sorted(entry.name for entry in (tmp_path / "data/cmri").iterdir()) == ["Normal", "Sick"]


def test_incomplete_and_damaged_downloads_are_refused(tmp_path):
    def fetched(packed: bytes, name: str):
        def fetch(handle):
            folder = tmp_path / name
            zipfile.ZipFile(io.BytesIO(packed)).extractall(folder)
            return folder

        return fetch

    with pytest.raises(CardiumError, match="incomplete: 3 files of class Sick where 4 are published"):
        download("cmri", tmp_path, fetch=fetched(archive({"Normal": 6, "Sick": 3}), "few"))
    with pytest.raises(CardiumError, match=r"damaged: of 10 files tried, 10 cannot be read \(10 x truncated JPEG file\)"):
        download("cmri", tmp_path, fetch=fetched(archive(content=lambda n: image(n)[:400]), "cut"))
    assert not (tmp_path / "data").exists()


def test_a_full_disk_and_an_unknown_name(tmp_path):
    def full(handle):
        raise OSError(28, "No space left on device")

    with pytest.raises(CardiumError, match="The disk is full"):
        download("cmri", tmp_path, fetch=full)
    with pytest.raises(CardiumError, match="Unknown dataset `cmrii`"):
        download("cmrii", tmp_path)


def test_a_failed_move_puts_the_old_data_back(tmp_path, monkeypatch):
    target, new = tmp_path / "data/cmri", tmp_path / "new"
    for folder in (target, new):
        folder.mkdir(parents=True)
    (target / "old.txt").write_text("old")
    move = downloads.shutil.move

    def failing(source, place):
        if source == new:
            raise OSError("no")
        return move(source, place)

    monkeypatch.setattr(downloads.shutil, "move", failing)
    with pytest.raises(OSError, match="no"):
        downloads._put(new, target)
    assert (target / "old.txt").read_text() == "old"
