"""Leads in millivolts -> the two plain files of a WFDB record: a header of text and samples of 16 bits.

WFDB is PhysioNet's format (Moody and Mark; header(5) and signal(5) of the WFDB applications). Format 16: whole numbers, two
bytes each, low byte first, one sample of every signal after the other; -32768 where there is no value.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Steps of a millivolt: a paper's line is about 0.02 mV thick.
GAIN = 1000
_NO_VALUE = -32768


def wfdb_files(
    name: str, leads: NDArray[np.float32], names: Sequence[str], rate: int, comments: Sequence[str]
) -> tuple[str, bytes]:
    """The text of `<name>.hea` and the bytes of `<name>.dat`.

    leads: mV, float32 (signals, samples); NaN where there is no value. rate: samples a second. comments: lines for a reader.
    Raises ValueError for a name with other signs than letters, digits, - and _.
    """
    if not name or not all(sign.isascii() and (sign.isalnum() or sign in "-_") for sign in name):
        raise ValueError(f"a WFDB record's name has letters, digits, - and _ alone; got {name}")
    seen = ~np.isnan(leads)
    steps = np.clip(np.rint(np.nan_to_num(leads) * GAIN), -32767, 32767).astype(np.int64)
    samples = np.where(seen, steps, _NO_VALUE).astype("<i2")
    lines = [f"{name} {len(names)} {rate} {leads.shape[1]}"]
    for signal, row in zip(names, samples, strict=True):
        total = int(row.astype(np.int64).sum())
        checksum = (total + 32768) % 65536 - 32768
        lines.append(f"{name}.dat 16 {GAIN}(0)/mV 16 0 {int(row[0])} {checksum} 0 {signal}")
    lines += [f"# {line}" for line in comments]
    return "\n".join(lines) + "\n", samples.T.tobytes()
