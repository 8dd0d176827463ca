"""The demo data are drawn with operations that have one right answer: the same bytes on every machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "src" / "cardium" / "demo"
# What each dataset's generator draws, into `total`.
DRAWINGS = {
    "cmri": """
from cardium.demo import phantom
for patient in phantom.cohort(4):
    for level in range(3):
        total.update(phantom.phantom(patient, level, 3)[0].tobytes())
""",
    "ecg": """
from cardium.demo import ecg_sheet
from cardium.demo import ecg_signal
for place, label in enumerate(ecg_signal.CLASSES):
    recording = ecg_signal.record(label, place + 1, 1)
    total.update(recording.leads.tobytes())
    for style in (ecg_sheet.STYLES["reports"][place + 4], ecg_sheet.STYLES["pages"][1]):
        total.update(ecg_sheet.draw_sheet(recording, style, place, 1)[0].tobytes())
""",
    "chd": """
from cardium.demo import thorax
for patient in thorax.cohort(2)[:3]:
    total.update(thorax.volume(patient).tobytes())
""",
}
# NumPy functions that round the same everywhere: sums over an axis, exp and matrix products do not.
EXACT = {
    "abs", "add", "arange", "argsort", "array", "asarray", "bool_", "concatenate", "cumsum", "flatnonzero", "float64", "floor",
    "full", "generic", "int16", "int32", "int64", "maximum", "mgrid", "minimum", "ndarray", "nonzero", "random", "sqrt",
    "uint64", "uint8", "zeros", "zeros_like",
}  # fmt: skip


@pytest.mark.parametrize("dataset", DRAWINGS)
def test_processor_features_do_not_change_a_bit(dataset: str) -> None:
    """NumPy with its vector units switched off, as on an old processor, draws the same; np.exp would not promise it."""
    from numpy._core import _multiarray_umath as core

    enabled = [name for name in core.__cpu_dispatch__ if core.__cpu_features__[name]]
    if not enabled:
        pytest.skip("this NumPy or processor has no vector units to switch off")
    code = f"import hashlib\ntotal = hashlib.sha256()\n{DRAWINGS[dataset]}\nprint(total.hexdigest())"
    plain = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    plain.pop("NPY_DISABLE_CPU_FEATURES", None)
    digests = set()
    for environment in (plain, {**plain, "NPY_DISABLE_CPU_FEATURES": " ".join(enabled)}):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        digests.add(done.stdout.strip())
    assert len(digests) == 1


@pytest.mark.parametrize("module", ["draws", "phantom", "thorax", "ecg_signal", "ecg_sheet"])
def test_only_operations_with_one_right_answer(module: str) -> None:
    source = (DEMO / f"{module}.py").read_text(encoding="utf-8").split('"""', 2)[2]
    assert set(re.findall(r"\bnp\.(\w+)", source)) <= EXACT
    assert set(re.findall(r"np\.random\.(\w+)", source)) <= {"PCG64"}
    # Scalars are raised to whole numbers in ecg_signal, by Python itself.
    assert "**" not in source.replace("{**", "{") or module == "ecg_signal"
    assert " @ " not in source, "no matrix products"
    assert not re.search(r"\.(resize|rotate|mean|sum|dot)\(", source)
