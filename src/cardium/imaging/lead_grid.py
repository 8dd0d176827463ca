"""A lead map -> the rows and columns of leads: how many, how they lie, and how sure that is.

Columns first: the edges between leads are straight lines that lean a little, regularly (a camera's perspective), so all of them
together have five numbers: place, distance, change of the distance, lean, change of the lean. They are fitted to the map's
edges, from the begin and end that it shows best. Then rows: along each column the baselines are lines of one slope; the lead
rows are those that the map sees as parts of a row, the strips those that it sees as whole rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardium.imaging.lead_map import LeadMap

Array = NDArray[np.float64]
Plane = NDArray[np.float32]

# Rows of leads by columns.
_ROWS = {4: 3, 2: 6, 1: 12}
_LEANS = np.arange(-0.5, 0.501, 0.05)
_SLOPES = np.arange(-0.26, 0.261, 0.02)
# How many columns the rows' parts would be of, were they not of these.
_OTHERS = {4: ("half",), 2: ("quarter",), 1: ("quarter", "half")}
# Between these shares of a map's edges a grid that has them as its own goes from worth nothing to worth all.
_APART, _ALL_APART = 0.45, 0.75
# How much a row of the map shows of an edge, in cells; how well the least of a grid's edges must be seen.
_EDGE, _SEEN = 2.0, 0.3
# Distance of the first and the last row, beside the usual one, below which they may be none.
_NEAR = 0.78
# A row is one if it is seen this well beside the best rows.
_REAL = 0.5
# How many steps a row's slope may differ from the usual one.
_PARALLEL = 3
# The share of what a map shows that a number of columns needs to be thought of.
_LEAST = 0.08
# By how much a part of the picture must be smaller than the whole to be worth a second look.
_CLOSER = 1.25
# Rows are followed through this many bands of the sheet's width.
BANDS = 4
# Mean probability along a baseline above which there is a row.
_ROW = 0.22


@dataclass(frozen=True)
class LeadGrid:
    """Rows and columns of leads, in pixels of the picture.

    columns: 1, 2 or 4. rows: of leads; strips: below them. baselines: float (rows + strips, BANDS, 2, 2): x and y of the begin
    and the end of each row's baseline in each quarter of its width. support: 0-1, how much of what must be there the map shows.
    spare: 0-1, how much the map shows that this grid does not explain. kind: 0-1, whether its leads look like parts of a row
    of this many rather than of another number, and its strips like whole rows. apart: 0-1, the share of the edges between
    leads in the map that are its own, less where one of its own is missing. rival: how sure the best grid of another number of
    columns is.
    """

    columns: int
    rows: int
    strips: int
    baselines: Array
    support: float
    spare: float
    kind: float
    apart: float
    rival: float = 0.0

    @property
    def sure(self) -> float:
        """How sure this grid is, 0-1: its support, less what it leaves unexplained, less a rival's that comes near."""
        own = self.support * (1 - min(1.0, 2 * self.spare)) * min(1.0, 0.4 + self.kind)
        own *= float(np.clip((self.apart - _APART) / (_ALL_APART - _APART), 0, 1))
        return own * (1 - 0.6 * float(np.clip((self.rival / max(own, 1e-6) - 0.75) / 0.25, 0, 1)))


def lit_part(found: LeadMap, height: int, width: int) -> tuple[int, int, int, int] | None:
    """The part of a picture in which leads are seen, with a margin; None where that is most of the picture, or nothing."""
    lit = np.maximum.reduce([found.channel(name) for name in ("quarter", "half", "full")]) > 0.3
    rows, columns = np.nonzero(lit.sum(axis=1) > 3)[0], np.nonzero(lit.any(axis=0))[0]
    if not rows.size:
        return None
    margin = 0.1 * (columns[-1] - columns[0] + 1) + 2
    left, right = max(0, int((columns[0] - margin) * found.scale)), min(width, int((columns[-1] + 1 + margin) * found.scale))
    top, bottom = max(0, int((rows[0] - margin) * found.scale)), min(height, int((rows[-1] + 1 + margin) * found.scale))
    return (left, top, right, bottom) if max(right - left, bottom - top) * _CLOSER < max(height, width) else None


@dataclass(frozen=True)
class _Edges:
    """Edge b stands at x = place + step b + bow b (b - n) + (y - middle) (lean + spread b), in cells."""

    count: int
    place: float
    step: float
    bow: float
    lean: float
    spread: float
    middle: float

    def x(self, b: Any, y: Any) -> Any:
        return self.place + self.step * b + self.bow * b * (b - self.count) + (y - self.middle) * (self.lean + self.spread * b)


def find_grid(found: LeadMap) -> LeadGrid | None:
    """The grid of leads that explains the map best; None where it shows none."""
    quarter, half, full = (found.channel(name) for name in ("quarter", "half", "full"))
    mass = np.array([float((plane**2).sum()) for plane in (quarter, half, full)])
    if mass.sum() < 4:
        return None
    grids = []
    for columns, plane in ((4, mass[0]), (2, mass[1]), (1, mass[2])):
        # Strips are whole rows too: without parts of rows, they are leads.
        if plane < _LEAST * mass.sum() or (columns == 1 and plane < 0.6 * mass.sum()):
            continue
        between = [_rows_between(found, edges) for edges in _candidate_edges(found, columns)]
        grids += [max((grid for grid in between if grid is not None), key=lambda grid: grid.sure, default=None)]
    ranked = sorted((grid for grid in grids if grid is not None), key=lambda grid: -grid.sure)
    if not ranked:
        return None
    return replace(ranked[0], rival=ranked[1].sure if len(ranked) > 1 else 0.0)


def _candidate_edges(found: LeadMap, columns: int) -> list[_Edges]:
    planes = np.stack([found.channel(name) for name in ("begin", "between", "end")])
    begin, end = planes[0], planes[2]
    height, width = begin.shape
    middle = height / 2
    first, last = _lines(begin), _lines(end)
    # A picture cut off at the first or the last lead.
    ridge = np.maximum.reduce([found.channel(name) for name in ("quarter", "half", "full")])
    lit = np.nonzero((ridge > 0.4).sum(axis=0) >= 2)[0]
    if lit.size:
        first.append((0.3, float(lit[0]), 0.0))
        last.append((0.3, float(lit[-1] + 1), 0.0))
    ranked = []
    for (_, p, p_lean), (_, q, q_lean) in product(first, last):
        step = (q - p) / columns
        if step * columns < 0.25 * width:
            continue
        for bow in (0.0, *((-0.04 * step, 0.04 * step) if columns > 1 else ())):
            edges = _Edges(columns, p, step, bow, p_lean, (q_lean - p_lean) / columns, middle)
            ranked.append((_fit(edges, planes), edges))
    ranked.sort(key=lambda item: -item[0])
    return [_refined(edges, planes) for _, edges in ranked[:2]]


def _lines(plane: Plane) -> list[tuple[float, float, float]]:
    """The three best lines down a map: (strength, x half-way down, lean)."""
    height, width = plane.shape
    rows = np.arange(height) - height / 2
    best = []
    for lean in _LEANS:
        source = np.arange(width)[None, :] + np.rint(lean * rows)[:, None].astype(np.int64)
        inside = (source >= 0) & (source < width)
        sums = np.where(inside, np.take_along_axis(plane, np.clip(source, 0, width - 1), axis=1), 0).sum(axis=0)
        # A little for upright: equal lines of different leans are many.
        sums = sums * (1 - 0.1 * abs(lean))
        for x in np.argsort(sums)[-4:]:
            best.append((float(sums[x]), float(x) + 0.5, float(lean)))
    best.sort(reverse=True)
    kept: list[tuple[float, float, float]] = []
    for line in best:
        if line[0] > 1.0 and all(abs(line[1] - other[1]) > 3 for other in kept):
            kept.append(line)
    return kept[:3]


def _fit(edges: _Edges, planes: Plane) -> float:
    """How much of the map's edges lies on these edges. planes: begin, between, end, float32 (3, rows, columns)."""
    _, height, width = planes.shape
    b = np.arange(edges.count + 1)[:, None]
    y = np.arange(height)[None, :]
    kind = np.where(b == 0, 0, np.where(b == edges.count, 2, 1))
    x = edges.x(b, y + 0.5) - 0.5
    low = np.floor(x).astype(np.int64)
    inside = (low >= 0) & (low < width - 1)
    at = np.clip(low, 0, width - 2)
    part = x - low
    return float((inside * (planes[kind, y, at] * (1 - part) + planes[kind, y, at + 1] * part)).sum())


def _refined(edges: _Edges, planes: Plane) -> _Edges:
    """The best edges nearby, one number after the other, in ever smaller steps."""
    names = ("place", "step", "bow", "lean", "spread") if edges.count > 1 else ("place", "step", "lean", "spread")
    value = _fit(edges, planes)
    sizes = {"place": 2.0, "step": 1.0, "bow": 0.5, "lean": 0.08, "spread": 0.04}
    for _ in range(5):
        for name in (*names, *names):
            for way in (-1, 1):
                while True:
                    other = _Edges(**{**edges.__dict__, name: getattr(edges, name) + way * sizes[name]})
                    if name == "place":
                        # Either all edges move, or the first one alone.
                        alone = _Edges(**{**other.__dict__, "step": edges.step - way * sizes[name] / edges.count})
                        other = max(other, alone, key=lambda e: _fit(e, planes))
                    better = _fit(other, planes)
                    if better <= value + 1e-6:
                        break
                    edges, value = other, better
        sizes = {name: size / 2 for name, size in sizes.items()}
    return edges


def _rows_between(found: LeadMap, edges: _Edges) -> LeadGrid | None:
    """The best rows between these edges."""
    part = found.channel({4: "quarter", 2: "half", 1: "full"}[edges.count])
    full = found.channel("full")
    wrong = np.maximum.reduce([found.channel(name) for name in _OTHERS[edges.count]])
    seen = [_band_rows((part, full, wrong), edges, band) for band in range(BANDS)]
    counts = [len(rows) for rows in seen]
    most = max(set(counts), key=lambda n: (counts.count(n), n))
    if most < 2:
        return None
    start = max((c for c in range(BANDS) if counts[c] == most), key=lambda c: float(seen[c][:, 2:].max(axis=1).sum()))
    rows = _followed(seen, edges, start)
    return _laid_out(found, edges, rows, part, full)


def _band_rows(planes: tuple[Plane, Plane, Plane], edges: _Edges, band: int) -> Array:
    """The rows of one band, float (n, 5): y at its middle, slope; mean probability as a part, a whole row, another part."""
    parts, fulls, wrongs, profiles = _profiles(planes, edges, band)
    # Rows are about parallel: steeper lines through a narrow sheet would run from one row to the next.
    usual = int((profiles**2).sum(axis=1).argmax())
    steps = slice(max(0, usual - _PARALLEL), usual + _PARALLEL + 1)
    slopes = _SLOPES[steps]
    parts, fulls, wrongs, profiles = parts[steps], fulls[steps], wrongs[steps], profiles[steps]
    rough = profiles.max(axis=0)
    rows = []
    for y in _peaks(rough):
        low, high = max(0, int(y) - 1), int(y) + 2
        slope = int(profiles[:, low:high].max(axis=1).argmax())
        rows.append((y, float(slopes[slope]), *(seen[slope, low:high].max() for seen in (parts, fulls, wrongs))))
    out = np.array(rows).reshape(-1, 5)
    if len(out) > 2:
        # Two lines closer than a third of the usual distance are one.
        near = 0.34 * float(np.median(np.diff(out[:, 0])))
        order = np.argsort(-out[:, 2:].max(axis=1))
        kept: list[int] = []
        for k in order.tolist():
            if all(abs(out[k, 0] - out[other, 0]) >= near for other in kept):
                kept.append(k)
        out = out[sorted(kept)]
    return out


def _followed(seen: list[Array], edges: _Edges, start: int) -> Array:
    """Rows followed from band `start` to both sides, float (rows, BANDS, 5)."""
    out = np.zeros((len(seen[start]), BANDS, 5))
    out[:, start] = seen[start]
    pitch = float(np.diff(seen[start][:, 0]).min()) if len(seen[start]) > 1 else 8.0
    for band in [*range(start + 1, BANDS), *range(start - 1, -1, -1)]:
        before = band - 1 if band > start else band + 1
        here = seen[band]
        y, slope = out[:, before, 0], out[:, before, 1]
        way = edges.x(_across(edges, band), y) - edges.x(_across(edges, before), y)
        out[:, band, 0], out[:, band, 1] = y + way * slope, slope
        # Where the rows meet the line between the two bands; each seen row is the next one of one row alone.
        away = np.abs((y + way / 2 * slope)[:, None] - (here[None, :, 0] - way[:, None] / 2 * here[None, :, 1]))
        for flat in np.argsort(away, axis=None):
            row, place = np.unravel_index(flat, away.shape)
            if away[row, place] < 0.48 * pitch:
                out[row, band] = here[place]
                away[row, :], away[:, place] = np.inf, np.inf
    return out


def _across(edges: _Edges, bands: float) -> float:
    """The middle of a band, counted in edges."""
    return (bands + 0.5) * edges.count / BANDS


def _laid_out(found: LeadMap, edges: _Edges, rows: Array, part: Plane, full: Plane) -> LeadGrid | None:
    """The rows that make a layout: lead rows first, then strips; other rows are header, footer or what is wrong."""
    columns, wanted = edges.count, _ROWS[edges.count]
    as_part, as_full = rows[:, :, 2].mean(axis=1), rows[:, :, 3].mean(axis=1)
    if columns == 1:
        keep = np.nonzero(as_full > _ROW)[0]
        first, leads, strips = (int(keep[0]), len(keep), 0) if keep.size else (0, 0, 0)
        chosen = keep
    else:
        # A row counts by how well it is seen beside the best ones.
        strength = rows[:, :, 2:].max(axis=2).mean(axis=1)
        real = strength / np.sort(strength)[-min(wanted, len(rows)) :].mean() - _REAL
        whole = as_full - as_part
        gaps = np.diff(rows[:, :, 0].mean(axis=1))
        best = (-np.inf, 0, 0)
        for first in range(len(rows)):
            for last in range(first + 1, len(rows) + 1):
                n = last - first
                leads = first + min(n, wanted)
                value = float(real[first:last].sum()) - float(np.maximum(np.delete(real, np.s_[first:last]), 0).sum())
                value += 0.15 * float(whole[leads:last].sum() - whole[first:leads].sum())
                value -= 1.0 * (n < wanted) + 1.0 * max(0, n - wanted - (3 if columns == 4 else 1))
                if n > 2:
                    inner = np.maximum(gaps[first : last - 1], 0.5)
                    value -= 0.5 * float((np.abs(np.log(inner / np.median(inner))) > 0.65).sum())
                best = max(best, (value, first, last))
        _, first, last = best
        leads, strips = min(last - first, wanted), max(0, last - first - wanted)
        chosen = np.arange(first, last)
    if not len(chosen):
        return None
    rows = rows[chosen]
    baselines = np.empty((len(rows), BANDS, 2, 2))
    for k, row in enumerate(rows):
        slope = _slope(row, edges)
        for band in range(BANDS):
            y = row[band, 0]
            middle = edges.x(_across(edges, band), y)
            for side in (0, 1):
                across = _across(edges, band + side - 0.5)
                at = y + slope * (edges.x(across, y) - middle)
                baselines[k, band, side] = edges.x(across, at), at
    support = float(np.minimum(rows[:, :, 2:].max(axis=2) / 0.5, 1).mean())
    support *= _evenness(np.diff(rows[:, :, 0].mean(axis=1)))
    parts = rows[:leads, :, 2 if columns > 1 else 3].mean()
    kind = float(parts / max(parts + rows[:leads, :, 4].mean(), 1e-6))
    if strips:
        below = rows[leads:, :, 3].mean()
        kind = min(kind, 0.1 + float(below / max(below + rows[leads:, :, 2].mean(), 1e-6)))
    support *= 0.5 + 0.5 * _edge_support(found, edges, baselines, leads)
    lit = np.maximum(part, full)
    spare = _unexplained(lit, baselines)
    return LeadGrid(
        columns, leads, strips, baselines * found.scale, support, spare, kind, _apart(found, edges, baselines[:leads])
    )


def _evenness(gaps: Array) -> float:
    """Less than 1 where the first or the last row is nearer than the others are: it may be a rule, a header, a footer."""
    if len(gaps) < 3:
        return 1.0
    near = gaps[[0, -1]] / np.median(gaps) < _NEAR
    return float(0.8 ** near.sum())


def _slope(row: Array, edges: _Edges) -> float:
    """The slope of a row over all its bands."""
    x = np.array([edges.x(_across(edges, band), row[band, 0]) for band in range(BANDS)])
    weight = row[:, 2:].max(axis=1) + 0.05
    x = x - np.average(x, weights=weight)
    y = row[:, 0] - np.average(row[:, 0], weights=weight)
    return float((weight * x * y).sum() / max((weight * x * x).sum(), 1e-6))


def _edge_support(found: LeadMap, edges: _Edges, baselines: Array, leads: int) -> float:
    """How much of the edges at the lead rows the map shows, 0-1; an edge at the picture's border need not be shown."""
    begin, between, end = (found.channel(name) for name in ("begin", "between", "end"))
    height, width = begin.shape
    values = []
    for row in range(leads):
        for b in range(edges.count + 1):
            plane = begin if b == 0 else end if b == edges.count else between
            x, y = baselines[row, min(b * BANDS // edges.count, BANDS - 1), int(b == edges.count)]
            if not (1.5 < x < width - 1.5):
                continue
            x0, y0 = int(x), int(np.clip(y, 0, height - 1))
            window = plane[max(0, y0 - 2) : y0 + 3, max(0, x0 - 1) : x0 + 2]
            values.append(min(1.0, float(window.max(axis=1, initial=0).mean()) / 0.4))
    return float(np.mean(values)) if values else 0.0


def _apart(found: LeadMap, edges: _Edges, baselines: Array) -> float:
    """The share of the map's edges between leads, at the rows of leads, that these are; leads of a whole row have none."""
    between = found.channel("between")
    height, width = between.shape
    level = baselines[..., 1].mean(axis=(1, 2))
    first, last = max(0, int(level.min()) - 2), min(height, int(level.max()) + 3)
    seen = np.where(between[first:last] > 0.15, between[first:last], 0)
    y, x = np.arange(first, last)[:, None] + 0.5, np.arange(width)[None, :] + 0.5
    near = np.zeros_like(seen, dtype=np.bool_)
    for b in range(1, edges.count):
        near |= np.abs(x - edges.x(b, y)) < 2.5
    if edges.count == 1:
        return 1.0 - min(1.0, float(seen.sum()) / (_EDGE * len(seen)))
    # Of half a sheet some of the edges are there, at their places by chance.
    least = min(float(np.where(np.abs(x - edges.x(b, y)) < 1.5, seen, 0).max(axis=1).mean()) for b in range(1, edges.count))
    return float(seen[near].sum() / max(float(seen.sum()), 1e-6)) * min(1.0, least / _SEEN)


def _unexplained(lit: Plane, baselines: Array) -> float:
    """The share of what is lit that lies far from every baseline."""
    near = np.zeros_like(lit, dtype=np.bool_)
    for row in baselines:
        for (x0, y0), (x1, y1) in row:
            for t in np.linspace(0, 1, 2 * max(2, round(abs(x1 - x0)))):
                x, y = round(x0 + t * (x1 - x0) - 0.5), round(y0 + t * (y1 - y0) - 0.5)
                near[max(0, y - 3) : y + 4, max(0, x - 1) : x + 2] = True
    strong = np.where(lit > 0.3, lit, 0)
    return float(strong[~near].sum() / max(float(strong.sum()), 1e-6))


def _profiles(planes: tuple[Plane, Plane, Plane], edges: _Edges, band: int) -> tuple[Array, Array, Array, Array]:
    """For each slope and each row of the map: the mean along a line of this slope through the band's middle at that row.

    Arrays (slopes, rows): of each plane, and of the greatest one at each place.
    """
    height, width = planes[0].shape
    y0 = np.arange(height)[None, :, None] + 0.5
    u = (band + (np.arange(12)[None, None, :] + 0.5) / 12) * edges.count / BANDS
    x = edges.x(u, y0)
    y = y0 + _SLOPES[:, None, None] * (x - edges.x(_across(edges, band), y0))
    row, place = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    outside = (row < 0) | (row >= height) | (place < 0) | (place >= width)
    at = np.clip(row, 0, height - 1) * width + np.clip(place, 0, width - 1)
    values = [np.where(outside, 0, plane.reshape(-1)[at]) for plane in planes]
    one, other, third, most = (v.mean(axis=2).astype(np.float64) for v in (*values, np.maximum.reduce(values)))
    return one, other, third, most


def _peaks(profile: Array) -> list[float]:
    soft = np.convolve(profile, [0.25, 0.5, 0.25], mode="same")
    inner = np.concatenate([[0], soft, [0]])
    at = np.nonzero((inner[1:-1] >= inner[:-2]) & (inner[1:-1] > inner[2:]) & (soft > 0.6 * _ROW))[0]
    out = []
    for y in at.tolist():
        a, b, c = (inner[y], inner[y + 1], inner[y + 2])
        bend = a - 2 * b + c
        out.append(y + 0.5 + (0.5 * (a - c) / bend if bend < 0 else 0.0))
    return out
