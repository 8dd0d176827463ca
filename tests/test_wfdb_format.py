"""WFDB records, read back by a reader that knows the format's description alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cardium.imaging.wfdb_format import GAIN, wfdb_files


def read_back(header: str, data: bytes) -> tuple[dict[str, np.ndarray], int]:
    """Signals in mV by name and the rate, as header(5) and signal(5) of the WFDB applications describe them."""
    lines = [line for line in header.splitlines() if not line.startswith("#")]
    _, count, rate, length = lines[0].split()
    samples = [[] for _ in range(int(count))]
    for place in range(0, len(data), 2):
        value = data[place] + 256 * data[place + 1]
        samples[place // 2 % int(count)].append(value - 65536 if value >= 32768 else value)
    signals = {}
    for line, values in zip(lines[1:], samples, strict=True):
        _, form, scale, bits, zero, first, checksum, block, name = line.split()
        assert (form, bits, zero, block) == ("16", "16", "0", "0")
        gain, unit = scale.split("(0)/")
        assert unit == "mV"
        assert len(values) == int(length)
        assert values[0] == int(first)
        assert sum(values) % 65536 == int(checksum) % 65536
        signals[name] = np.array([np.nan if v == -32768 else v / float(gain) for v in values])
    return signals, int(rate)


@settings(max_examples=40, deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 30)), elements=st.floats(-30, 30, width=32)), st.data())
def test_what_is_written_is_read(leads, data):
    hidden = data.draw(arrays(np.bool_, leads.shape))
    leads = np.where(hidden, np.nan, leads).astype(np.float32)
    names = [f"V{k}" for k in range(leads.shape[0])]
    header, samples = wfdb_files("sheet-1", leads, names, 100, ["layout 3x4+1"])
    signals, rate = read_back(header, samples)
    assert rate == 100
    assert list(signals) == names
    np.testing.assert_allclose(np.array(list(signals.values())), leads, atol=0.51 / GAIN)
    assert header.endswith("# layout 3x4+1\n")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "é"])
def test_a_name_that_wfdb_does_not_take(name):
    with pytest.raises(ValueError, match="name"):
        wfdb_files(name, np.zeros((1, 2), np.float32), ["I"], 100, [])
