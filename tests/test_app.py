"""`cardium app`: the page over HTTP and in a browser, on champions that are quick: what a network says is made up here."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import json
import re
import socket
import string
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import chromium
import numpy as np
import pytest
import requests
import uvicorn
from PIL import Image
from run_folders import CLASSES, make_project, run_folder

from cardium.app import server, web
from cardium.app.answers import MOST_ANSWERS, Answer, Answering
from cardium.app.catalogue import Language, catalogue, language_of
from cardium.app.champions import Champion, Score, _score
from cardium.app.looked import LookedAt, Looker, _drawn
from cardium.app.page import answers
from cardium.app.seen import ALONE, HEIC, NO_READER, NO_SHEET, PDF, Reads, Seen, see, see_any
from cardium.config import Serve
from cardium.demo.ecg_sheet import SheetStyle, draw_sheet
from cardium.demo.ecg_signal import record
from cardium.errors import CardiumError
from cardium.evaluation.evaluation import Interval
from cardium.evaluation.promotion import Expected
from cardium.imaging import heart, sheet, trace_format
from cardium.imaging.decode import Undecodable
from cardium.imaging.kinds import Rendered
from cardium.imaging.spec import Render, Sides
from cardium.reporting.plots import Overlay
from cardium.serving import classifier
from cardium.tracking.signature import example_file

_APP = Path(web.__file__).parent
_TRACES, _HEART = {"kind": "traces", "height": 16, "width": 96}, {"kind": "heart", "height": 133, "width": 512}
_SLICES = {"kind": "slices", "height": 32, "width": 32, "frames": 4, "window": [-200, 500]}
_GREEN = (0, 255, 0)


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    """A sheet whose header and footer are green: whatever is printed there."""
    pixels = draw_sheet(record("Normal", 4, 1), SheetStyle("report", "A", 3.94, 90), 1, 1)[0].copy()
    found = sheet.find_sheet(pixels)
    _, top, _, bottom = found.paper
    pixels[: top - 2] = _GREEN
    pixels[bottom + 2 :] = _GREEN
    return pixels


def png(pixels: np.ndarray) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG", compress_level=1)
    return target.getvalue()


@pytest.fixture(scope="module")
def sheet_file(drawn: np.ndarray) -> bytes:
    return png(drawn)


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answering]:
    """Champions of ECG sheets, patients' hearts and volumes: all say the first of two classes with 0.9."""

    def load(path: Path, shape: tuple[int, ...]) -> Any:
        return lambda pixels: np.tile(np.array([0.9, 0.1]), (len(pixels), 1))

    settings = make_project(tmp_path_factory.mktemp("app") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "_load", load)
        champions = []
        for dataset, rendering, score, generated in (
            ("ecg4", _TRACES, Score(0.851, 0.76, 0.91, "record", 0.5), True),
            ("cmri", _HEART, Score(0.6, 0.4, 0.8, "patient", 0.5), False),
            ("chd", _SLICES, None, False),
        ):
            folder = run_folder(settings, dataset, real=False, dataset=dataset, rendering=rendering)
            champions.append(
                Champion(dataset, f"The collection {dataset}", classifier.Classifier(folder, "3"), score, generated)
            )
    made = Answering(champions, processes=1)
    yield made
    made.close()


@contextlib.contextmanager
def served(answering: Answering, token: str = "") -> Iterator[str]:
    """The page's address, while it is served."""
    bound = socket.create_server(("127.0.0.1", 0))
    app = web.make_app(answering, ["ecg5"], token)
    running = uvicorn.Server(
        uvicorn.Config(app, http="h11", log_level="critical", access_log=False, timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join(10)
        bound.close()


@pytest.fixture(scope="module")
def page(answering: Answering) -> Iterator[str]:
    with served(answering) as address:
        yield address


def sent(page: str, files: Sequence[tuple[str, bytes]], lang: str = "en", **fields: str) -> requests.Response:
    parts = [("files", (name, data, "application/octet-stream")) for name, data in files]
    return requests.post(f"{page}/answer?lang={lang}", files=parts, data=fields, timeout=120)


def attached(text: str, kind: str) -> list[bytes]:
    return [base64.b64decode(found) for found in re.findall(rf'"data:{kind}[^,"]*;base64,([^"]*)"', text)]


def test_the_form_says_who_answers_and_on_what_data(page: str) -> None:
    for lang, note in (
        ("en", "research only; not a medical device"),
        ("de", "kein Medizinprodukt"),
        ("es", "producto sanitario"),
    ):
        answer = requests.get(f"{page}/?lang={lang}", timeout=30)
        assert answer.status_code == 200
        assert f'<html lang="{lang}">' in answer.text
        assert note in answer.text
        # Generated data are named before the form.
        assert 0 < answer.text.index(Language(lang).word("demo_banner")) < answer.text.index("<form")
        for expected in ("ecg4", "cmri", "chd", "ecg5", "ecg4-ecg4, version 3", "[0"):
            assert expected in answer.text
    assert requests.get(page, headers={"Accept-Language": "fr, es;q=0.8"}, timeout=30).text.count('lang="es"') > 0


def test_no_page_holds_a_script_or_a_style(page: str, sheet_file: bytes) -> None:
    answers = [requests.get(page, timeout=30), sent(page, [("a.png", sheet_file)]), requests.get(f"{page}/none", timeout=30)]
    assert [answer.status_code for answer in answers] == [200, 200, 404]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "no-store" in answer.headers["cache-control"]
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|https?://", answer.text)


def test_a_sheet_is_answered_and_shown_without_what_is_printed_around_it(
    page: str, sheet_file: bytes, drawn: np.ndarray
) -> None:
    answer = sent(page, [("my <sheet>.png", sheet_file)])
    assert answer.status_code == 200
    assert "my &lt;sheet&gt;.png" in answer.text
    for expected in ("Normal", "0.90", "Chosen from the file: ecg4", "0.85 [0.76, 0.91]", "generated demo data", "Heart rate"):
        assert expected in answer.text
    [shown] = attached(answer.text, "image/jpeg")
    pixels = np.asarray(Image.open(io.BytesIO(shown))).astype(int)
    assert pixels.shape[1] > 600
    assert (np.abs(drawn.astype(int) - _GREEN).sum(axis=2) < 60).any()
    assert not (np.abs(pixels - _GREEN).sum(axis=2) < 120).any()


def test_the_answers_are_files_in_the_page(page: str, sheet_file: bytes) -> None:
    answer = sent(page, [("=cmd().png", sheet_file), ("text.txt", b"hello")])
    [saved] = attached(answer.text, "application/json")
    content = json.loads(saved)
    assert content["models"][0]["trained_on_generated_demo_data"] is True
    assert content["models"][0]["expected_balanced_accuracy"]["low"] == 0.76
    first, second = content["answers"]
    assert first["file"] == "=cmd().png"
    assert first["probabilities"] == {"Normal": 0.9, "Sick": 0.1}
    assert 30 < first["measured"]["heart_rate"]["value"] < 200
    assert second == {"file": "text.txt", "error": "not a JPEG, PNG or DICOM file"}
    [table] = attached(answer.text, "text/csv")
    rows = list(csv.DictReader(io.StringIO(table.decode(), newline="")))
    # A spreadsheet would run a text that begins so.
    assert [row["file"] for row in rows] == ["'=cmd().png", "text.txt"]
    assert rows[0]["p_Normal"] == "0.9"
    assert rows[0]["data"] == "generated demo data in the form of ecg4"
    assert rows[1]["error"]


def test_pictures_that_are_no_sheet_are_one_patients_study(page: str, sheet_file: bytes) -> None:
    slices = [(f"IM{number}.png", png(np.full((64, 64, 3), 20 * number, np.uint8))) for number in (1, 2, 3)]
    answer = sent(page, [*slices, ("sheet.png", sheet_file)], lang="de")
    assert answer.text.count("<article") == 2
    assert "IM1.png + 2" in answer.text
    # No heart beats in them: the answer is doubtful, and says so in the page's language.
    assert Language("de").sentence(heart.NO_RING) in answer.text or Language("de").sentence(heart.NO_MOTION) in answer.text
    assert Language("de").word("not_above_chance") in answer.text


def test_files_of_every_kind_at_once_each_find_their_reader(page: str, sheet_file: bytes) -> None:
    rng = np.random.default_rng(0)
    noise = png(rng.integers(0, 255, (300, 400, 3), np.uint8))
    files = [("v.nii", example_file("slices")), ("broken.nii.gz", b"\x1f\x8bxxxx"), ("noise.png", noise), ("s.png", sheet_file)]
    answer = sent(page, files)
    [saved] = attached(answer.text, "application/json")
    found = {one["file"]: one for one in json.loads(saved)["answers"]}
    assert found["v.nii"]["dataset"] == "chd"
    assert found["s.png"]["dataset"] == "ecg4"
    assert found["broken.nii.gz"]["error"] == "damaged gzip file"
    assert found["noise.png"]["error"] == ALONE
    assert Language("en").word("no_score") in answer.text


def test_where_the_leads_are_not_known_the_picture_is_too_small_to_be_read(page: str) -> None:
    rng = np.random.default_rng(0)
    noise = png(rng.integers(0, 255, (400, 600, 3), np.uint8))
    answer = sent(page, [("noise.png", noise)], dataset="ecg4")
    [shown] = attached(answer.text, "image/jpeg")
    assert max(Image.open(io.BytesIO(shown)).size) <= 120
    # The doubt stands where the class would.
    assert f"<strong>Doubtful: {sheet.NOTHING}</strong>" in re.sub(r"; [^<]*", "", answer.text)


def test_a_sheet_on_its_side_is_a_doubtful_sheet_and_no_slice_of_a_heart(page: str, drawn: np.ndarray) -> None:
    answer = sent(page, [("side.png", png(np.ascontiguousarray(np.rot90(drawn))))])
    assert "Chosen from the file: ecg4" in answer.text
    assert f"Doubtful: {sheet.SIDEWAYS}" in answer.text
    # Nothing is measured on leads that are not known.
    assert Language("en").word("heart_rate") not in answer.text


def test_what_is_wrong_is_a_page_that_says_it(page: str, sheet_file: bytes, answering: Answering) -> None:
    assert "choose at least one" in sent(page, [("", b"")]).text
    assert sent(page, [("a.png", sheet_file)], dataset="nothing").status_code == 400
    assert sent(page, [(f"{n}.txt", b"x") for n in range(MOST_ANSWERS + 1)]).status_code == 400
    assert requests.post(f"{page}/answer", data=b"x", headers={"Content-Type": "text/plain"}, timeout=30).status_code == 400
    large = {"Content-Length": str(answering.max_bytes + 1), "Content-Type": "multipart/form-data; boundary=x"}
    with socket.create_connection(("127.0.0.1", int(page.rpartition(":")[2]))) as line:
        head = "".join(
            f"{name}: {value}\r\n" for name, value in {**large, "Host": "localhost", "Expect": "100-continue"}.items()
        )
        line.sendall(f"POST /answer HTTP/1.1\r\n{head}\r\n".encode())
        assert b" 413 " in line.recv(100)


def test_an_upload_that_does_not_say_how_large_it_is_is_bounded_as_it_comes(
    page: str, monkeypatch: pytest.MonkeyPatch, sheet_file: bytes
) -> None:
    body = b"--x\r\nContent-Disposition: form-data; name=files; filename=a.png\r\n\r\n" + sheet_file + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}

    def in_pieces() -> Iterator[bytes]:
        for at in range(0, len(body), 20_000):
            yield body[at : at + 20_000]

    assert requests.post(f"{page}/answer", data=in_pieces(), headers=headers, timeout=60).status_code == 200
    monkeypatch.setattr(Answering, "max_bytes", property(lambda _: 30_000))
    assert requests.post(f"{page}/answer", data=in_pieces(), headers=headers, timeout=60).status_code == 413


def test_nobody_from_elsewhere_is_answered(page: str) -> None:
    assert requests.get(page, headers={"Host": "evil.example"}, timeout=30).status_code == 403
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = requests.post(f"{page}/answer", files={"files": ("a", b"x")}, headers=headers, timeout=30)
        assert answer.status_code == 403


def test_off_this_machine_a_token_is_asked_for(answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "0123456789abcdef"
    with served(answering, token) as address, requests.Session() as browser:
        assert browser.get(address, timeout=30).status_code == 401
        assert browser.post(f"{address}/answer", files={"files": ("a", b"x")}, timeout=30).status_code == 401
        assert browser.get(f"{address}/?token=wrong", timeout=30).status_code == 401
        assert browser.post(f"{address}/enter", data={"token": "wrong"}, timeout=30).status_code == 401
        assert not browser.cookies
        entered = browser.post(f"{address}/enter", data={"token": token}, timeout=30)
        assert entered.status_code == 200
        assert "token" not in entered.url
        assert browser.get(address, timeout=30).status_code == 200
        assert requests.get(f"{address}/?token={token}", timeout=30, allow_redirects=False).status_code == 303
    monkeypatch.delenv(server.TOKEN_VARIABLE, raising=False)
    assert server._token("127.0.0.1") == server._token("localhost") == server._token("::1") == ""
    assert len(server._token("0.0.0.0")) >= 32
    monkeypatch.setenv(server.TOKEN_VARIABLE, "short")
    with pytest.raises(CardiumError, match="too short"):
        server._token("127.0.0.1")


def test_a_port_that_is_taken_is_one_line(page: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CardiumError, match="give another --port"):
        server._bound("127.0.0.1", taken.getsockname()[1])


def test_a_tiff_is_read_as_its_pixels_and_what_is_not_read_is_named(drawn: np.ndarray) -> None:
    reads = Reads("ecg4", "traces", Render(16, 96), Serve(), Sides())
    target = io.BytesIO()
    Image.fromarray(drawn).save(target, "TIFF")
    seen = see_any(target.getvalue(), [reads])
    assert seen.rendered is not None
    same = see(png(drawn), reads).rendered
    assert same is not None
    np.testing.assert_array_equal(seen.rendered.array, same.array)
    heic = b"\0\0\0\x18ftypheic"
    for data, reason in ((b"%PDF-1.7", PDF), (heic, HEIC), (target.getvalue()[:2000], "damaged TIFF file")):
        with pytest.raises(Undecodable, match=re.escape(reason)):
            see_any(data, [reads])


def test_an_image_is_shown_with_the_pixels_that_its_model_takes(drawn: np.ndarray) -> None:
    """Print on it cannot be read; and what is no sheet goes to the dataset that reads images."""
    known = [Reads(name, kind, size, Serve(), Sides()) for name, kind, size in
             (("ecg4", "traces", Render(16, 96)), ("cmri", "image", Render(16, 16)))]  # fmt: skip
    fine = np.repeat(np.indices((200, 300)).sum(axis=0)[..., None] % 2 * 255, 3, axis=2).astype(np.uint8)
    seen = see_any(png(fine), known)
    assert seen.dataset == "cmri"
    pixels = np.asarray(Image.open(io.BytesIO(seen.picture)).convert("L")).astype(int)
    assert pixels.shape[1] > pixels.shape[0] >= 300
    # The checkerboard of single pixels is gone.
    assert np.ptp(pixels) < 30
    assert see_any(png(drawn), known).dataset == "ecg4"


def test_which_regions_influenced_an_answer_comes_with_the_tests_of_the_method(answering: Answering, tmp_path: Path) -> None:
    settings = make_project(tmp_path)
    champion = answering.champions["ecg4"]
    run = champion.classifier.run
    overlay = Overlay(np.full((20, 30), 200, np.uint8), np.eye(20, 30, dtype=np.float32), True, [(0, 0, "V1")])
    looker = Looker(settings)
    assert looker._tests(run, "gradcam") == {}
    folder = tmp_path / "reports" / "ecg4" / "explanations" / run.name / "gradcam"
    folder.mkdir(parents=True)
    measured = {"gradcam": {"deletion": 0.2, "insertion": 0.3}, "random": {"deletion": 0.4, "insertion": 0.5}}
    (folder / "faithfulness.json").write_text(json.dumps({"methods": measured}))
    (folder / "explanations.json").write_text(json.dumps({"run_id": "another training"}))
    assert looker._tests(run, "gradcam") == {}
    (folder / "explanations.json").write_text(json.dumps({"run_id": run.id}))
    looked = LookedAt("gradcam", "Normal", "Where it looked.", *_drawn(overlay), True, **looker._tests(run, "gradcam"))
    assert looked.tested
    assert not looked.passed  # Places at random are as good when they alone are shown.
    seen = Seen("ecg4", Rendered(np.zeros((16, 96), np.uint8)))
    [row] = champion.classifier.classify([b""], lambda _: [seen.rendered])
    text = answers(Language("en"), [Answer("a.png", row, champion, seen, looked=looked)], 0.1)
    for expected in ("0.20", "0.40", "0.30", "0.50", Language("en").word("looked_failed"), "Blue speaks against it"):
        assert expected in text
    [shown] = attached(text, "image/png")
    pixels = np.asarray(Image.open(io.BytesIO(shown))).astype(int)
    on, beside = pixels[315, 315], pixels[315, 615]
    assert on[0] > on[2] + 50
    assert beside.tolist() == [200, 200, 200]


def test_what_to_expect_is_by_patient_where_patients_are_known() -> None:
    expected = Expected(Interval(0.7, 0.6, 0.75), Interval(0.9, 0.8, 0.95), 3)
    assert _score("cmri", expected, 2) == Score(0.9, 0.8, 0.95, "patient", 0.5)
    # The groups of sheets are copies of one file, no patients.
    assert _score("ecg4", expected, 4) == Score(0.7, 0.6, 0.75, "record", 0.25)
    assert Score(0.6, 0.51, 0.7, "patient", 0.5).above_chance
    assert not Score(0.6, 0.5, 0.7, "patient", 0.5).above_chance


def test_every_text_is_there_in_every_language() -> None:
    languages = list(catalogue()["languages"])
    assert languages == ["en", "de", "es"]
    for name, texts in catalogue()["words"].items():
        assert list(texts) == languages, name
        places = {lang: {part[1] for part in string.Formatter().parse(text) if part[1]} for lang, text in texts.items()}
        assert places["en"] == places["de"] == places["es"], name
    for text, texts in catalogue()["sentences"].items():
        assert list(texts) == languages[1:], text
    used = set()
    for template in (_APP / "templates").glob("*.j2"):
        used |= set(re.findall(r'word\("(\w+)"[,)]', template.read_text()))
    assert used <= catalogue()["words"].keys()
    said = {sheet.NOTHING, sheet.UNKNOWN, sheet.UNSURE, sheet.PART, sheet.UPSIDE_DOWN, sheet.SIDEWAYS}
    said |= {heart.FEW_SLICES, heart.NOT_SURE, heart.NO_RING, heart.NO_MOTION, heart.NEGATIVE, trace_format.UNREADABLE}
    said |= {ALONE, NO_SHEET, NO_READER, PDF, HEIC}
    assert said <= catalogue()["sentences"].keys()
    assert Language("de").sentence("too many pixels: 9 x 9, limit 3") == "zu viele Pixel: 9 x 9, limit 3"
    assert language_of("xx", "es-MX,es;q=0.9") == "es"


@pytest.mark.skipif(chromium.EXECUTABLE is None, reason="no Chromium on this machine")
def test_in_a_browser_by_keyboard_on_a_phone_without_scripts(page: str, sheet_file: bytes, tmp_path: Path) -> None:
    """The whole way in Chromium: a file is chosen, Enter sends it, the answer fits the screen; with scripts, and without."""
    file = tmp_path / "sheet.png"
    file.write_bytes(sheet_file)
    downloads = tmp_path / "downloads"
    browser = chromium.Chromium(tmp_path / "profile")
    try:
        browser.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
        browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        for scripts in (True, False):
            browser.call("Emulation.setScriptExecutionDisabled", value=not scripts)
            browser.open(f"{page}/?lang=de")
            assert not browser.run(_OVERFLOWS)
            browser.choose("#files", [file])
            browser.run("document.querySelector('button[type=submit]').focus()")
            browser.press("Enter", 13, "\r")
            browser.wait_for("Page.loadEventFired")
            assert browser.run("document.querySelector('h1').textContent") == "Antworten"
            said = browser.run("document.querySelector('article .verdict strong').textContent")
            assert said in (CLASSES[0], Language("de").word("unsure_among", classes=" oder ".join(CLASSES)))
            assert browser.run("document.querySelector('figure img').naturalWidth") > 600
            assert not browser.run(_OVERFLOWS)
            # The style was taken: the answer's frame has its colour.
            assert browser.run("getComputedStyle(document.querySelector('article .verdict')).borderLeftStyle") == "solid"
            assert browser.run("document.querySelector('#print').hidden") is not scripts
            browser.run("document.querySelector('a[download$=json]').click()")
            browser.wait_for("Page.downloadWillBegin")
            logged = [one["params"]["entry"]["text"] for one in browser.events if one.get("method") == "Log.entryAdded"]
            assert not logged, "the browser refused something"
    finally:
        browser.close()


# Whether the page is wider than the screen.
_OVERFLOWS = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
