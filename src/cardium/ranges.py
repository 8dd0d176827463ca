"""Types of numbers with their ranges, as settings state them: `epochs: Count`, `dropout: Share`.

`Annotated[int, Range(low=1)]` is an int to Python. What reads params.yaml checks the range, and the JSON schema states it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Range:
    """low, high: the least and the greatest value allowed; None: any. above: the value must be greater than this."""

    low: float | None = None
    high: float | None = None
    above: float | None = None

    def fault(self, value: float) -> str:
        """What is wrong with `value`, as the end of a sentence; "" if it lies in the range."""
        if self.low is not None and self.high is not None:
            return "" if self.low <= value <= self.high else f"is not between {self.low:.12g} and {self.high:.12g}"
        if self.low is not None and value < self.low:
            return f"is too small; the least is {self.low:g}"
        if self.above is not None and not value > self.above:
            return f"is not above {self.above:g}"
        return ""


Count = Annotated[int, Range(low=1)]
CountOrZero = Annotated[int, Range(low=0)]
AtLeastTwo = Annotated[int, Range(low=2)]
AtLeastThree = Annotated[int, Range(low=3)]
AtLeastTen = Annotated[int, Range(low=10)]
AtLeastHundred = Annotated[int, Range(low=100)]
# What NumPy, Python and TensorFlow all take.
Seed = Annotated[int, Range(low=0, high=2**32 - 1)]
Side = Annotated[int, Range(low=8)]
Share = Annotated[float, Range(low=0, high=1)]
# Of prediction sets: one that leaves nobody out holds every class.
Coverage = Annotated[float, Range(low=0.5, high=0.99)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(low=0)]
