"""`cardium read` on a drawn sheet whose voltages are known."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from cardium.cli import main
from cardium.demo.ecg_sheet import SheetStyle, draw_sheet
from cardium.demo.ecg_signal import RATE as TRUE_RATE
from cardium.demo.ecg_signal import record
from cardium.imaging.kinds import LEADS
from cardium.imaging.traces import RATE
from cardium.serving.read_sheet import TURNED, read_sheet, reading_files

_RECORDING = record("Normal", 4, 1)


@pytest.fixture(scope="module")
def sheet() -> np.ndarray:
    return draw_sheet(_RECORDING, SheetStyle("report", "A", 3.94, 90), 1, 1)[0]


def correlation(lead: np.ndarray, true: np.ndarray) -> float:
    """Of what is seen of a lead, mV at RATE, with the true one at TRUE_RATE."""
    seen = np.nonzero(~np.isnan(lead))[0]
    at = np.clip((seen * TRUE_RATE) // RATE, 0, len(true) - 1)
    return float(np.corrcoef(lead[seen], true[at])[0, 1])


def test_the_files_say_what_the_sheet_shows(sheet, tmp_path, capsys):
    path = tmp_path / "my sheet.png"
    Image.fromarray(sheet).save(path)
    assert main(["read", str(path)]) == 0
    assert "3x4+1" in capsys.readouterr().out
    folder = tmp_path / "my_sheet-read"
    assert sorted(file.suffix for file in folder.iterdir()) == [".csv", ".dat", ".hea", ".json", ".png"]
    facts = json.loads((folder / "my_sheet.json").read_text())
    assert facts["layout"] == "3x4+1"
    assert abs(facts["heart_rate"] - _RECORDING.rate) <= 2
    assert facts["doubts"] == []
    rows = list(csv.reader(io.StringIO((folder / "my_sheet.csv").read_text())))
    assert rows[0] == ["seconds", *LEADS]
    table = np.array([[float(cell) if cell else np.nan for cell in row] for row in rows[1:]])
    for number, lead in enumerate(LEADS[:12]):
        assert correlation(table[:, 1 + number], _RECORDING.leads[number]) > 0.9, lead
    samples = np.frombuffer((folder / "my_sheet.dat").read_bytes(), "<i2").reshape(-1, 13)
    np.testing.assert_allclose(np.where(samples == -32768, np.nan, samples / 1000), table[:, 1:], atol=0.0011)
    assert Image.open(folder / "my_sheet.png").size == (sheet.shape[1], sheet.shape[0])


def test_a_sheet_on_its_side_is_turned(sheet):
    reading = read_sheet(np.ascontiguousarray(np.rot90(sheet)))
    assert reading.doubts[0] == TURNED
    assert reading.sheet.layout == "3x4+1"
    assert correlation(reading.leads[1], _RECORDING.leads[1]) > 0.9
    assert reading.pixels.shape == sheet.shape
    assert set(reading_files("a", reading)) == {"a.csv", "a.hea", "a.dat", "a.png", "a.json"}


def test_what_is_no_sheet_is_one_line(tmp_path, capsys):
    Image.fromarray(np.full((200, 300, 3), 255, np.uint8)).save(tmp_path / "white.png")
    (tmp_path / "text.png").write_text("no picture")
    files = [str(tmp_path / name) for name in ("white.png", "text.png", "missing.png")]
    assert main(["read", *files]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "no ECG grid or traces found" in lines[0]
    assert not list(tmp_path.glob("*-read"))
