"""The measurements of a rendering that a reader of the page knows: of a heart's contours, and of an ECG's median heartbeats."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cardium.imaging.heart_format import MEASURES, measures_of
from cardium.imaging.kinds import LEADS, family, of_patients
from cardium.imaging.trace_format import LEVELS, MIDDLE, UNITS, was_read

# Shown of a heart; all of them are in the answer as JSON.
_OF_HEARTS = ("ejection_fraction", "wall_to_pool", "wall_to_radius", "thickening", "shortening")
# Shown of an ECG: the name in trace_format.py, the name here, the unit.
_OF_ECGS = (
    ("rate", "heart_rate", "/min"),
    ("QRS_ms", "qrs_duration", "ms"),
    ("QT_ms", "qt", "ms"),
    ("QT_corrected", "qt_corrected", "ms"),
)
_NORMAL = {measure.name: measure.normal for measure in MEASURES}


@dataclass(frozen=True)
class Measured:
    """A measurement. name: of the catalogue of words. unit: "" for a ratio. normal: a healthy adult's; None if unsaid."""

    name: str
    value: float
    unit: str = ""
    normal: float | None = None

    @property
    def text(self) -> str:
        """The value with its unit, to the step at which it is known."""
        return f"{self.value:.0f} {self.unit}" if self.unit else f"{self.value:.2f}"

    @property
    def normal_text(self) -> str:
        """The healthy adult's value, "" if unsaid."""
        return "" if self.normal is None else f"{self.normal:.2f}"


def measured_of(array: NDArray[np.uint8], kind: str) -> tuple[Measured, ...]:
    """What is shown of a rendering of this kind; () where nothing was measured."""
    if of_patients(kind):
        found = measures_of(array)
        return tuple(Measured(name, found[name], normal=_NORMAL[name]) for name in _OF_HEARTS) if found else ()
    if family(kind) == "traces" and was_read(array):
        values = _of_traces(array)
        return tuple(Measured(name, values[own], unit) for own, name, unit in _OF_ECGS)
    return ()


def _of_traces(array: NDArray[np.uint8]) -> dict[str, float]:
    """The measurements of an array (16, 96) by their names in trace_format.py, to the step of its levels."""
    cells = array[len(LEADS) :].ravel()[: len(UNITS)].astype(np.float64)
    values = {
        name: float(middle + unit * (cell - MIDDLE) / LEVELS) for (name, middle, unit), cell in zip(UNITS, cells, strict=True)
    }
    return {**values, "rate": math.exp(values["rate"])}
