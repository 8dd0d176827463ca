"""serving: the same pixels as in training, over HTTP as without, and a clean answer to whatever a client sends."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from malformed_requests import CSV, JSON, LEAKS, PARQUET, Sent, malformed, png_of, send
from PIL import Image
from run_folders import CLASSES, SIDE, make_project, run_folder

from cardium import tracking
from cardium.config import Serve
from cardium.errors import CardiumError
from cardium.runs.trained_run import TrainedRun
from cardium.serving import Classifier, predict_files
from cardium.serving.predict import prediction_table, set_text
from cardium.serving.request import BadRequest, Refusal, files_of

BIN = Path(sys.executable).parent


def picture(seed: int = 0, size: tuple[int, int] = (60, 40)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 255, (size[1] // 10, size[0] // 10, 3), dtype=np.uint8)
    return blocks.repeat(10, axis=0).repeat(10, axis=1)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def dicom(pixels: np.ndarray) -> bytes:
    """uint8 (H, W) grey levels as an uncompressed single frame."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, generate_uid(entropy_srcs=["cardium"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = Dataset()
    made.file_meta = meta
    made.SOPClassUID, made.SOPInstanceUID, made.Modality = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, "MR"
    made.Rows, made.Columns = pixels.shape
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 8, 8, 7
    made.PixelData = pixels.tobytes()
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def bomb() -> bytes:
    """A PNG of a few hundred bytes whose header claims 60,000 x 60,000 pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


# ------------------------------------------------------------------------------------------------------- without a server


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Any:
    patch = pytest.MonkeyPatch()
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield make_project(tmp_path_factory.mktemp("serving") / "project")
    patch.undo()


@pytest.fixture(scope="module")
def folder(settings: Any) -> Path:
    return run_folder(settings, "mobilenetv2")


@pytest.fixture(scope="module")
def classifier(folder: Path) -> Classifier:
    return Classifier(folder)


def expected(folder: Path, data: bytes) -> np.ndarray:
    """Probabilities by Keras and Pillow alone: the training's way written a second time, for an 8-bit file."""
    import keras

    image = Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    return np.asarray(model(np.asarray(image, np.float32)[None]))[0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_probabilities_are_those_of_keras_on_the_files_pixels(classifier: Classifier, folder: Path, kind: str) -> None:
    data = encoded(picture(3), kind)
    [row] = classifier.classify([data])
    p = expected(folder, data)
    assert [row["probabilities"][name] for name in CLASSES] == pytest.approx(p.tolist(), abs=1e-6)
    assert row["label"] == CLASSES[int(p.argmax())]
    assert row["probability"] == row["probabilities"][row["label"]]
    assert row["run"] == "cmri-mobilenetv2"


def test_bytes_served_and_bytes_trained_on_give_the_same_pixels(
    settings: Any, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `prepare` puts into pixels.npy is what the served model's network is given."""
    from cardium import config
    from cardium.stages import ingest, prepare
    from cardium.workspace import Workspace

    for label in CLASSES:
        for patient in range(2):
            series = settings.root / f"data/cmri/{label}/Directory_{patient}/SR_1"
            series.mkdir(parents=True)
            pixels = picture(10 * patient + (label == "Sick"), (50, 70))
            (series / "IM00001.jpg").write_bytes(encoded(pixels, "JPEG", quality=80))
            (series / "IM00002.png").write_bytes(encoded(pixels[..., 0]))
    sized = config.load(settings.root, {"cmri.render.image.height": SIDE, "cmri.render.image.width": SIDE})
    ingest.run(sized, "cmri")
    prepare.run(sized, "cmri-image")
    workspace = Workspace(sized.root)
    trained_on = np.load(workspace.rendering("cmri", "image") / "pixels.npy")
    from cardium.data.manifest import read_manifest

    paths = read_manifest(workspace.manifest("cmri"))["path"]
    assert len(paths) == 8
    files = [(workspace.data("cmri") / path).read_bytes() for path in paths]
    given: list[np.ndarray] = []
    forward = classifier._forward
    monkeypatch.setattr(classifier, "_forward", lambda pixels: given.append(pixels) or forward(pixels))
    classifier.classify(files_of([text(data) for data in files]))
    np.testing.assert_array_equal(np.concatenate(given), trained_on.astype(np.float32))


def test_a_set_holds_what_cannot_be_ruled_out_and_says_how_often_it_is_right(folder: Path) -> None:
    """Six patients of a class are too few for 0.9 and enough for 0.5, whose floors are counted here a second time."""
    file = encoded(picture(3))
    [row] = Classifier(folder, limits=Serve(coverage=0.9)).classify([file])
    assert (row["set"], row["set_coverage"]) == (CLASSES, 0.9)
    held_out = pd.read_parquet(folder / "validation.parquet")
    floors = []
    for number, name in enumerate(CLASSES):
        own = held_out[held_out["label"] == number]
        # Of seven patients, the unseen one among them, five records each, half lie above the floor: 17.5 records of 35.
        floors.append(own[f"p_{name}"].sort_values(ascending=False).iloc[17])
    p = [row["probabilities"][name] for name in CLASSES]
    [row] = Classifier(folder, limits=Serve(coverage=0.5)).classify([file])
    assert row["set"] == [name for name, value, floor in zip(CLASSES, p, floors, strict=True) if value >= floor]


def test_it_abstains_only_where_asked_and_where_the_set_is_not_the_label_alone(folder: Path) -> None:
    files = [encoded(picture(i)) for i in range(12)]
    classifiers = {abstain: Classifier(folder, limits=Serve(coverage=0.5, abstain=abstain)) for abstain in (True, False)}
    rows = {abstain: classifier.classify(files) for abstain, classifier in classifiers.items()}
    for asked, plain in zip(rows[True], rows[False], strict=True):
        sure = plain["set"] == [plain["label"]]
        assert asked["label"] == (plain["label"] if sure else "unsure")
        assert {**asked, "label": ""} == {**plain, "label": ""}
    forced = classifiers[True]
    for names, label in (([], "unsure"), (CLASSES, "unsure")):
        forced.sets = dataclasses.replace(forced.sets, floors=np.full(2, 0.0 if names else 2.0))
        [row] = forced.classify(files[:1])
        assert (row["set"], row["label"]) == (names, label)


def test_a_run_without_held_out_records_has_no_sets(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "validation.parquet").unlink()
    [row] = Classifier(tmp_path / "run", limits=Serve(abstain=True)).classify([encoded(picture(3))])
    assert (row["set"], row["set_coverage"]) == (None, None)
    assert row["label"] in CLASSES


@pytest.mark.parametrize(
    ("names", "text"), [([], "no class fits"), (["MI"], "only MI fits"), (["MI", "History"], "one of MI, History")]
)
def test_a_set_in_words(names: list[str], text: str) -> None:
    assert set_text(names) == text


def test_dicom_is_the_same_image_as_its_png(classifier: Classifier) -> None:
    grey = picture(5)[..., 0]
    from_dicom, from_png = classifier.classify([dicom(grey), encoded(grey)])
    assert from_dicom == from_png


def test_a_batch_answers_as_its_images_alone(classifier: Classifier) -> None:
    """Batches longer than the piece that runs at once, in order."""
    files = [encoded(picture(i)) for i in range(40)]
    together = classifier.classify(files)
    for i in (0, 31, 32, 39):
        [alone] = classifier.classify([files[i]])
        assert together[i]["probabilities"]["Sick"] == pytest.approx(alone["probabilities"]["Sick"], abs=1e-6)
    assert len({row["probability"] for row in together}) > 30


def test_many_threads_at_once_get_their_own_answers(classifier: Classifier) -> None:
    files = [encoded(picture(i)) for i in range(24)]
    alone = [classifier.classify([data])[0]["probability"] for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: classifier.classify([data])[0]["probability"], files * 4))
    assert together == pytest.approx(alone * 4, abs=1e-6)


def test_a_new_batch_size_is_not_traced_again(classifier: Classifier) -> None:
    before = classifier._forward.experimental_get_tracing_count()
    for n in (1, 2, 3, 5):
        classifier.classify([encoded(picture(0))] * n)
    assert classifier._forward.experimental_get_tracing_count() == before == 1


@given(st.binary(min_size=1, max_size=200), st.sampled_from(["", " ", "\n", "\r\n\t "]), st.integers(1, 76))
def test_base64_survives_line_breaks_and_a_data_url(data: bytes, space: str, width: int) -> None:
    plain = text(data)
    broken = space.join(plain[i : i + width] for i in range(0, len(plain), width)) if space else plain
    assert files_of([broken, "data:image/png;base64," + broken, space + plain + space]) == [data] * 3


@given(
    st.lists(
        st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.integers())),
        min_size=1,
        max_size=4,
    )
)
def test_any_column_is_bytes_or_refused_row_by_row(values: list[Any]) -> None:
    for value, file in zip(values, files_of(values), strict=True):
        assert isinstance(file, bytes) == (isinstance(value, str) and readable(value))
        assert isinstance(file, bytes) or "\n" not in file.reason


def readable(value: str) -> bool:
    """Base64 by its definition (RFC 4648, section 4): whole groups of four of its alphabet, padded at the end only."""
    import re

    return bool(
        re.fullmatch(
            r"\s*(data:[^,]{0,200},)?([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})",
            re.sub(r"[ \t\n\r\v\f]", "", value),
        )
    )


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (7, "`image` is no text"),
        (None, "`image` is nothing"),
        (float("nan"), "`image` is nothing"),
        (b"AAAA", "`image` is no text"),
        ("", "`image` is empty"),
        ("data:image/png;base64,", "`image` is empty"),
        ("é", "`image` is not base64"),
        ("AAA", "`image` is not base64"),
        ("AA-_", "`image` is not base64"),
        ("A" * 2000, "more than 0 MB"),
    ],
)
def test_a_value_that_is_no_file_is_refused_beside_one_that_is(value: Any, says: str) -> None:
    one, refused = files_of(["AAAA", value], max_bytes=1000)
    assert one == bytes(3)
    assert isinstance(refused, Refusal)
    assert refused.reason.startswith(says)


@pytest.mark.parametrize(("values", "says"), [([], "empty"), (["AAAA"] * 3, "3 files: send at most 2")])
def test_a_batch_of_none_or_of_too_many_is_a_bad_request(values: list[str], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        files_of(values, max_rows=2)


@pytest.mark.parametrize("data", [b"garbage", encoded(picture())[:100], encoded(picture(), "JPEG")[:300], bomb()])
def test_bytes_that_are_no_image_are_an_error_beside_answers(classifier: Classifier, data: bytes) -> None:
    good = encoded(picture())
    first, refused, last = classifier.classify([good, data, good])
    assert first == last == classifier.classify([good])[0]
    assert list(refused) == ["error"]


def test_predict_files_from_a_run_folder(settings: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a relative folder is looked for here first, and a demo may have trained one of that name
    good, bad = tmp_path / "good.png", tmp_path / "bad.jpg"
    good.write_bytes(encoded(picture(2)))
    bad.write_bytes(b"\xff\xd8\xff nothing")
    rows = predict_files(settings, [good, bad, tmp_path / "missing.png"], "models/cmri/honest/mobilenetv2")
    assert rows[0]["probabilities"]["Sick"] == pytest.approx(float(expected(folder, good.read_bytes())[1]), abs=1e-6)
    assert "JPEG" in rows[1]["error"]
    assert rows[2]["error"] == "no such file or directory"
    table = prediction_table(rows).splitlines()
    assert len(table) == 5
    assert rows[0]["label"] in table[0]
    assert "one of Normal, Sick" in table[0], "too few patients to rule one out"
    assert "error: " in table[1]
    assert "holds in 90 % of the cases of each class" in table[3]
    # Names that are no UTF-8, and names that a terminal would obey.
    odd = [Path(os.fsdecode(os.fsencode(tmp_path) + name)) for name in (b"/IM\xff.png", b"/\x1b[31m.png")]
    for path in odd:
        path.write_bytes(good.read_bytes())
    rows = predict_files(settings, odd, "models/cmri/honest/mobilenetv2")
    shown = prediction_table(rows)
    shown.encode("utf-8")
    assert "IM\\xff.png" in shown
    assert "\\x1b[31m.png" in shown
    assert all("label" in row for row in rows)


@pytest.mark.parametrize("model", ["models/cmri/honest/nothing", "models:/cardium-cmri@champion", "models:/cardium-cmri/7"])
def test_a_model_that_is_not_there_is_one_line(settings: Any, tmp_path: Path, model: str) -> None:
    with pytest.raises(CardiumError) as caught:
        predict_files(settings, [tmp_path / "x.png"], model)
    assert "\n" not in str(caught.value)
    assert model in str(caught.value)


def test_a_folder_without_a_whole_run_is_one_line(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(CardiumError, match=r"no run\.json"):
        Classifier(tmp_path)
    (tmp_path / "run.json").write_text((folder / "run.json").read_text())
    with pytest.raises(CardiumError, match=r"no model\.keras"):
        Classifier(tmp_path)


# --------------------------------------------------------------------------------------------------------------- over HTTP


class Server:
    """`mlflow models serve` of the champion, in a process of its own; `log` is what it wrote."""

    def __init__(self, settings: Any, where: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MLFLOW_RUN_ID")}
        environment |= {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "MLFLOW_TRACKING_URI": tracking.tracking_uri(settings),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        self.log = where / "server.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    BIN / "mlflow",
                    "models",
                    "serve",
                    "-m",
                    "models:/cardium-cmri@champion",
                    "--env-manager",
                    "local",
                    "-p",
                    str(self.port),
                ],
                env=environment,
                cwd=where,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self, seconds: float = 180) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
        raise AssertionError(f"The server did not come up:\n{self.log.read_text()[-3000:]}")

    def post(self, body: Any, kind: str = "application/json") -> tuple[int, str]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/invocations", data, {"Content-Type": kind}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def stop(self) -> None:
        import signal

        with_group = os.getpgid(self.process.pid)
        os.killpg(with_group, signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(with_group, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def server(settings: Any, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    from cardium.tracking import registry

    tracking.log_run(settings, folder)
    with tracking.connected(settings) as client:
        version = registry.register(client, "cardium-cmri", TrainedRun.read(folder).id)
        registry.set_aliases(client, "cardium-cmri", {registry.CHAMPION: version.number})
    started = Server(settings, tmp_path_factory.mktemp("server"))
    try:
        started.wait()
        yield started
    finally:
        started.stop()


def of(*images: Any) -> dict[str, Any]:
    return {"dataframe_split": {"columns": ["image"], "data": [[image] for image in images]}}


def test_the_server_answers_as_keras_does(server: Server, folder: Path) -> None:
    files = [encoded(picture(1)), encoded(picture(2), "JPEG"), dicom(picture(3)[..., 0])]
    status, answer = server.post(of(*[text(data) for data in files]))
    assert status == 200, answer
    rows = json.loads(answer)["predictions"]
    for row, data in zip(rows[:2], files[:2], strict=True):
        p = expected(folder, data)
        assert [row["probabilities"][name] for name in CLASSES] == pytest.approx(p.tolist(), abs=1e-6)
        assert row["label"] == CLASSES[int(p.argmax())]
        assert row["run"] == "cmri-mobilenetv2"
        assert row["model_version"] == "1"
    grey = expected(folder, encoded(picture(3)[..., 0]))
    assert rows[2]["probabilities"]["Sick"] == pytest.approx(float(grey[1]), abs=1e-6)


def test_records_and_line_breaks_are_understood(server: Server) -> None:
    data = encoded(picture(1))
    broken = base64.encodebytes(data).decode()
    plain = server.post(of(text(data)))
    assert plain[0] == 200
    assert server.post({"dataframe_records": [{"image": broken}]}) == plain
    assert server.post({"inputs": [text(data)]}) == plain
    assert server.post({"inputs": [{"image": "data:image/png;base64," + text(data)}]}) == plain


def test_predict_without_a_server_says_the_same(server: Server, settings: Any, tmp_path: Path) -> None:
    file = tmp_path / "one.png"
    file.write_bytes(encoded(picture(4)))
    [row] = predict_files(settings, [file], "models:/cardium-cmri@champion")
    [served] = json.loads(server.post(of(text(file.read_bytes())))[1])["predictions"]
    assert row["model_version"] == served["model_version"] == "1"
    assert row["label"] == served["label"]
    assert row["probability"] == pytest.approx(served["probability"], abs=1e-6)


GOOD = text(encoded(picture(1)))
BAD = {
    "garbage": (of("!!! no base64 !!!"), "Row 0"),
    "base64 of garbage": (of(text(b"no image at all")), "Row 0"),
    "truncated PNG": (of(text(encoded(picture(1))[:100])), "Row 0"),
    "truncated JPEG": (of(text(encoded(picture(1), "JPEG")[:300])), "Row 0"),
    "decompression bomb": (of(text(bomb())), "Row 0"),
    "a line of pixels": (of(text(png_of(50, 1_000_000))), "too many pixels: 50 x 1000000"),
    "a small line of pixels": (of(text(png_of(100, 20_000))), "sides out of range: 100 x 20000"),
    "a thumbnail": (of(text(png_of(31, 40))), "sides out of range: 31 x 40"),
    "nothing but bad rows": (of("AAAA", 7, ""), "The other 2"),
    "GIF": (of(text(encoded(picture(1), "GIF"))), "Row 0"),
    "empty text": (of(""), "Row 0"),
    "int": (of(7), "image"),
    "float": (of(7.5), "image"),
    "true": (of(True), "image"),
    "null": (of(None), "image"),
    "list": (of([1, 2]), "image"),
    "table": (of({"a": 1}), "image"),
    "empty batch": ({"dataframe_split": {"columns": ["image"], "data": []}}, "empty"),
    "empty records": ({"dataframe_records": []}, ""),
    "missing column": ({"dataframe_split": {"columns": ["picture"], "data": [[GOOD]]}}, "image"),
    "too many": (of(*["AAAA"] * (Serve().max_rows + 1)), "at most"),
    "pixels as numbers": ({"inputs": [[[0, 1], [2, 3]]]}, ""),
    "no known key": ({"image": GOOD}, ""),
    "not JSON": (b"{", ""),
    "not UTF-8": (b"\xff\xfe\x00", ""),
    "empty body": (b"", ""),
    "null body": (b"null", ""),
    "number": (b"7", ""),
    "nested": (b"[" * 2200, "not JSON"),
    "nested deeper than a stack": (b"[" * 50_000, "more values than files"),
    "a long number": (b'{"inputs": [' + b"1" * 5000 + b"]}", "not JSON"),
    "two tables": ({"inputs": [GOOD], "instances": [GOOD]}, "several tables"),
    "a column twice": ({"dataframe_split": {"columns": ["image", "image"], "data": [[GOOD, GOOD]]}}, "stands twice"),
    "ragged table": (b'{"dataframe_split": {"columns": ["image"], "data": [["AAAA", "BBBB"]]}}', ""),
}


@pytest.mark.parametrize("name", BAD)
def test_what_a_client_does_wrong_is_a_clean_400(server: Server, name: str) -> None:
    body, says = BAD[name]
    status, answer = server.post(body)
    assert status == 400, answer[:2000]
    message = json.loads(answer)
    assert says in message["message"]
    assert not LEAKS.search(answer), answer[:2000]
    status, answer = server.post(of(GOOD))
    assert status == 200, "the server lives on"


def test_a_bad_row_is_an_error_beside_the_others_answers(server: Server) -> None:
    status, answer = server.post(of(GOOD, "!!! no base64 !!!", text(bomb()), GOOD, None))
    assert status == 200
    first, garbled, large, last, missing = json.loads(answer)["predictions"]
    assert first == last == json.loads(server.post(of(GOOD))[1])["predictions"][0]
    assert garbled == {"error": "`image` is not base64 text"}
    assert large["error"].startswith("too many pixels: 60000 x 60000")
    assert missing["error"].startswith("`image` is nothing")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/octet-stream", "image/png", "", "application/json; charset=latin-1"]
)
def test_another_content_type_is_refused(server: Server, kind: str) -> None:
    answer = send(server.port, Sent(json.dumps(of(GOOD)).encode(), {"Content-Type": kind} if kind else {}))
    assert answer.status == 415
    assert not answer.fault()


def test_csv_and_parquet_are_read_as_json_is(server: Server) -> None:
    import pandas as pd

    plain = server.post(of(GOOD, GOOD))
    assert plain[0] == 200
    table = pd.DataFrame({"note": ["a, b", "c"], "image": [GOOD, GOOD]})
    assert server.post(table.to_csv(index=False).encode(), CSV) == plain
    file = io.BytesIO()
    table.to_parquet(file)
    assert server.post(file.getvalue(), PARQUET) == plain
    for kind in (CSV, PARQUET):
        for body in (b"", b"picture\nAAAA\n", file.getvalue()[:300], b"\xff\xfe" * 20):
            answer = send(server.port, Sent(body, {"Content-Type": kind}))
            assert answer.status == 400
            assert not answer.fault()


def test_a_huge_request_is_refused_and_the_server_lives_on(server: Server) -> None:
    status, answer = server.post(of("A" * (Serve().max_bytes * 3 // 2 + 4)))
    assert status == 400
    assert "Row 0: more than" in json.loads(answer)["message"]
    assert server.post(b'{"inputs": [' + b"1," * 25_000_000 + b"1]}")[0] == 400
    said = {"Content-Type": JSON, "Content-Length": str(Serve().max_request_bytes + 1)}
    assert send(server.port, Sent(b"{", said)).status == 413
    assert server.post(of(GOOD))[0] == 200


def test_malformed_requests_among_slow_connections(server: Server) -> None:
    """None is answered with 5xx, a path, a traceback, an echo or a library's names, and good ones between them are right.

    Meanwhile connections that do not finish their headers, or their body, are ended.
    """
    begun = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
    for number, one in enumerate(slow):
        one.sendall(begun if number % 2 else begun[:30])
    good = Sent(json.dumps(of(GOOD)).encode())
    right = send(server.port, good).text

    @settings_of_hypothesis(
        max_examples=250, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(st.lists(malformed(), min_size=4, max_size=4))
    def check(requests: list[Sent]) -> None:
        with ThreadPoolExecutor(5) as clients:
            *answers, between = clients.map(lambda sent: send(server.port, sent), [*requests, good])
        assert between.text == right
        for sent, answer in zip(requests, answers, strict=True):
            assert not answer.fault(), (answer, sent)

    check()
    for number, one in enumerate(slow):
        one.settimeout(60)
        ended = one.recv(1000)
        assert ended.startswith(b"HTTP/1.1 408") if number % 2 else ended == b""
        one.close()


def test_clients_at_once_get_their_own_answers(server: Server) -> None:
    bodies = [of(text(encoded(picture(i)))) for i in range(8)]
    alone = [server.post(body) for body in bodies]
    together: dict[int, tuple[int, str]] = {}

    def ask(i: int) -> None:
        together[i] = server.post(bodies[i % 8])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, (status, answer) in together.items():
        assert status == 200
        mine = json.loads(answer)["predictions"][0]["probability"]
        assert mine == pytest.approx(json.loads(alone[i % 8][1])["predictions"][0]["probability"], abs=1e-6)


def test_an_error_of_ours_is_a_clean_500(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.exceptions import MlflowException

    from cardium.serving.served_model import ServedModel

    model = ServedModel()
    model.load_context(mlflow.pyfunc.PythonModelContext({"run": str(folder)}, None))

    def broken(images: Any) -> Any:
        raise RuntimeError(f"secret place {folder}")

    monkeypatch.setattr(model.classifier, "classify", broken)
    with pytest.raises(MlflowException) as caught:
        model.predict(None, pd.DataFrame({"image": [GOOD]}))
    assert caught.value.get_http_status_code() == 500
    assert "RuntimeError" in str(caught.value)
    assert str(folder) not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_served_model_has_the_limits_that_it_was_logged_under(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.exceptions import MlflowException

    from cardium.serving.served_model import ServedModel

    model = ServedModel()
    model.load_context(mlflow.pyfunc.PythonModelContext({"run": str(folder)}, {"max_rows": 2, "max_pixels": 1199}))
    # Outside a server, in Spark for instance, any number of rows is answered, and none fails the others.
    rows = model.predict(None, pd.DataFrame({"image": [GOOD] * 3}))
    assert rows["error"].str.startswith("too many pixels").tolist() == [True] * 3
    monkeypatch.setitem(sys.modules, "mlflow.pyfunc.scoring_server.app", sys)
    with pytest.raises(MlflowException, match="send at most 2 at once"):
        model.predict(None, pd.DataFrame({"image": [GOOD] * 3}))
    with pytest.raises(MlflowException, match="too many pixels: 60 x 40, limit 1199"):
        model.predict(None, pd.DataFrame({"image": [GOOD] * 2}))
