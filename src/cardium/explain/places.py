"""Attributions in words: which lead, which slice, which part of the picture they lie in, and one line of text for a reader.

The line says where the model looked and how sure it was. It claims no finding: system 001's names ST segments that it never
measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cardium.imaging.heart_format import CELLS
from cardium.imaging.kinds import LEADS
from cardium.imaging.paper import fit_to_paper

if TYPE_CHECKING:
    from cardium.explain.attention_weights import Attention
    from cardium.explain.opened_model import Array, OpenedModel
    from cardium.imaging.sheet import Sheet
    from cardium.imaging.spec import Render

Mask = NDArray[np.bool_]

_ROWS, _COLUMNS = ("upper", "middle", "lower"), ("left", "centre", "right")
# Measurements that are shown for one record.
_TOLD = 5


@dataclass(frozen=True)
class Looked:
    """Where one attribution lies. Shares are of its positive part, 0-1; all empty where nothing speaks for the class.

    region: the ninth of the picture with the largest share (of volumes: of the slices' plane), and that share. leads: by name,
    {} where the method cannot tell leads apart. slices: one share a frame, [] of what has none. measurements: of traces, the
    largest shares by name.
    """

    region: str = ""
    region_share: float = 0.0
    leads: dict[str, float] = field(default_factory=dict)
    slices: list[float] = field(default_factory=list)
    measurements: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For explanations.json, rounded."""
        table: dict[str, Any] = {}
        if self.region:
            table |= {"region": self.region, "region_share": round(self.region_share, 4)}
        for name in ("leads", "measurements"):
            if shares := getattr(self, name):
                table[name] = {key: round(value, 4) for key, value in shares.items()}
        if self.slices:
            table["slices"] = [round(value, 4) for value in self.slices]
        return table


def where(model: OpenedModel, values: Array, boxes: Mapping[str, Mask] | None = None) -> Looked:
    """Where the attribution (places) of one record lies. boxes: of a whole sheet, each lead's place in it, by name."""
    positive = np.maximum(values, 0).astype(np.float64)
    total = float(positive.sum())
    if total <= 0:
        return Looked()
    shares = positive / total
    if model.form == "traces":
        return _in_traces(shares)
    if model.form == "heart":
        return Looked(measurements={"all": 1.0, **_largest_of({name: float(shares[0, cell]) for name, cell in CELLS.items()})})
    if model.form == "leads":
        apart = float(np.ptp(shares, axis=0).max()) > 0
        leads = dict(zip(LEADS, shares.sum(axis=(1, 2)).tolist(), strict=True)) if apart else {}
        return Looked(*_ninth(shares.sum(axis=0)), leads=leads)
    if model.form in ("slices", "volume"):
        return Looked(*_ninth(shares.sum(axis=0)), slices=shares.sum(axis=(1, 2)).tolist())
    leads = {name: float(shares[mask].sum()) for name, mask in (boxes or {}).items()}
    return Looked(*_ninth(shares), leads=leads)


def _in_traces(shares: NDArray[np.float64]) -> Looked:
    from cardium.imaging.trace_format import MEASUREMENTS

    leads = dict(zip(LEADS, shares[: len(LEADS)].sum(axis=1).tolist(), strict=True))
    cells = shares[len(LEADS) :].ravel()[: len(MEASUREMENTS)]
    named = _largest_of(dict(zip(MEASUREMENTS, cells.tolist(), strict=True)))
    return Looked(leads=leads, measurements={"all": float(shares[len(LEADS) :].sum()), **named})


def _largest_of(shares: Mapping[str, float]) -> dict[str, float]:
    """The largest shares that are above zero."""
    return {name: share for name, share in sorted(shares.items(), key=lambda item: -item[1])[:_TOLD] if share > 0}


def _ninth(shares: NDArray[np.float64]) -> tuple[str, float]:
    """The ninth of a plane (h, w) with the largest share, in words, and the share."""
    rows, columns = (np.arange(size) * 3 // size for size in shares.shape)
    sums = np.zeros((3, 3))
    np.add.at(sums, (rows[:, None], columns[None, :]), shares)
    row, column = np.unravel_index(int(sums.argmax()), sums.shape)
    words = "centre" if row == column == 1 else f"{_ROWS[row]} {_COLUMNS[column]}"
    return words, float(sums[row, column])


def text_line(
    method: str, decided: str, probability: float, looked: Looked, attentions: Mapping[str, list[float]] | None = None
) -> str:
    """One line: what was decided, how sure the model was, where what speaks for it lies by this method; no clinical finding.

    attentions: weights by what they are of (`frames`, `leads`), as `attention_summary` gives them.
    """
    parts = []
    if looked.leads:
        parts.append("leads " + _largest(looked.leads))
    if looked.measurements.get("all", 0) > 0:
        named = {name: share for name, share in looked.measurements.items() if name != "all"}
        parts.append(f"measurements {looked.measurements['all']:.0%} ({_largest(named)})")
    if looked.slices:
        parts.append("slices " + _largest({str(number): share for number, share in enumerate(looked.slices)}))
    if looked.region:
        parts.append(f"the {looked.region} ninth of the picture ({looked.region_share:.0%})")
    place = ", ".join(parts) if parts else "nowhere (nothing speaks for it)"
    line = f"{decided}, probability {probability:.2f}. Looked at, by {method}: {place}."
    for of, weights in (attentions or {}).items():
        names = LEADS if of == "leads" else [str(number) for number in range(len(weights))]
        line += f" Its own attention to {of}: {_largest(dict(zip(names, weights, strict=True)))}."
    return line + " No clinical finding."


def _largest(shares: Mapping[str, float], count: int = 3) -> str:
    ordered = sorted(shares.items(), key=lambda item: -item[1])[:count]
    return ", ".join(f"{name} ({share:.0%})" for name, share in ordered if share > 0)


def attention_summary(attentions: Sequence[Attention]) -> dict[str, list[float]]:
    """The weights of one record that have a name in the picture: `frames`, `leads`; of several members the mean."""
    found: dict[str, list[NDArray[Any]]] = {}
    for attention in attentions:
        if attention.of in ("frames", "leads"):
            found.setdefault(attention.of, []).append(attention.values)
    return {of: np.mean(values, axis=0).astype(np.float64).round(5).tolist() for of, values in found.items()}


# ---------------------------------------------------------------------------------------------------- leads on a sheet


def lead_boxes(sheet: Sheet, shape: tuple[int, int], size: Render) -> dict[str, Mask]:
    """Where each lead of a found sheet lies in its rendering `image`: bool (height, width) by name; {} of an unrecognised one.

    shape: height and width of the picture.
    """
    if sheet.layout == "grid":
        return {}
    found = {}
    for name, (left, top, right, bottom) in zip(LEADS, sheet.leads, strict=True):
        mask = np.zeros(shape, np.bool_)
        mask[top:bottom, left:right] = True
        found[name] = fit_to_paper(mask, sheet, size)
    return found
