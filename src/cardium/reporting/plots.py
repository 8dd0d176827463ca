"""Figures from files and plain arrays, each a PNG of about 1,000 pixels width, written whole or not at all.

No global state of matplotlib is touched and no time is written into the files: same input, same bytes. Colours are those of
Okabe & Ito (2008), which readers of all colour visions tell apart; what matters is also told by line, marker or text.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from cardium.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, SKY, PURPLE, YELLOW = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442"
CYCLE = [BLUE, RED, GREEN, ORANGE, PURPLE, SKY, "#000000"]
LINES = ["-", "--", "-.", ":"]
GREY, PALE = "#555555", "#DDDDDD"
DPI = 100


def learning_curves(history: Path, out: Path, title: str = "") -> None:
    """history.csv -> loss and accuracy by epoch, training and validation, one colour a test fold.

    A second phase (fine-tuning) follows the first on the same axis, after a marked line. A dot marks the epoch of the lowest
    validation loss in each fold's last phase: the one whose weights are kept.
    """
    from matplotlib.ticker import MaxNLocator

    with history.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    folds = sorted({row["test_fold"] for row in rows}, key=lambda fold: (len(fold), fold))
    figure, (left, right) = _figure(10, 4.6, columns=2)
    seams: dict[float, str] = {}
    longest = 1
    for i, fold in enumerate(folds):
        own = [row for row in rows if row["test_fold"] == fold]
        epochs = np.arange(1, len(own) + 1)
        longest = max(longest, len(own))
        colour = CYCLE[i % len(CYCLE)]
        for axes, name in ((left, "loss"), (right, "accuracy")):
            training, validation = _column(own, name), _column(own, f"val_{name}")
            # One epoch is a point, and a line through one point is nothing.
            axes.plot(epochs, training, "--", color=colour, linewidth=1.4, alpha=0.75, marker="." if len(own) == 1 else "")
            axes.plot(epochs, validation, "-", color=colour, linewidth=2.2, marker="." if len(own) == 1 else "")
            last = [j for j, row in enumerate(own) if row["phase"] == own[-1]["phase"]]
            losses = _column(own, "val_loss")[last]
            if np.isfinite(losses).any():
                best = last[int(np.nanargmin(losses))]
                axes.plot(epochs[best], validation[best], "o", color=colour, markersize=8, markeredgecolor="white", zorder=4)
        for j in range(1, len(own)):
            if own[j]["phase"] != own[j - 1]["phase"]:
                seams[j + 0.5] = own[j]["phase"]
    for axes, name in ((left, "loss (cross-entropy)"), (right, "accuracy")):
        for place in seams:
            axes.axvline(place, color=GREY, linewidth=1, linestyle=":")
        if seams:
            first = min(seams)
            label = " " + seams[first].replace("_", " ").replace("-", " ")
            axes.text(first, 1.0, label, transform=axes.get_xaxis_transform(), color=GREY, fontsize=10, va="bottom")
        axes.set_xlabel("epoch")
        axes.set_title(name, loc="left", pad=18 if seams else 6)
        axes.set_xlim(0.5, longest + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _quiet(axes)
    handles: list[Any] = [
        _line(GREY, "-", "validation", width=2.2),
        _line(GREY, "--", "training", width=1.4),
        _line(GREY, "", "kept weights", marker="o"),
    ]
    lines = [handles]
    if len(folds) > 1:
        named = [_line(CYCLE[i % len(CYCLE)], "-", f"test fold {fold}", width=3) for i, fold in enumerate(folds)]
        lines += [named[i : i + 5] for i in range(0, len(named), 5)]
    _legend_below(figure, lines)
    _save(figure, out, title)


def confusion_matrix(matrices: Sequence[tuple[str, ArrayLike]], classes: Sequence[str], out: Path, title: str = "") -> None:
    """(heading, (C, C) counts; row = label, column = decision) pairs, side by side: each cell's count and share of its row."""
    count = len(classes)
    width, height = (6.5, 5.4) if len(matrices) == 1 else (10, 4.6)
    figure, panels = _figure(width, height, columns=len(matrices))
    # Cells of a dozen classes still hold two lines of text.
    size = max(7.0, min(15.0, 70 / count / max(1, len(matrices) ** 0.5)))
    for axes, (heading, matrix) in zip(panels, matrices, strict=True):
        counts = np.asarray(matrix, dtype=np.float64)
        total = counts.sum(axis=1, keepdims=True)
        share = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for i in range(count):
            for j in range(count):
                text = f"{counts[i, j]:,.0f}\n{share[i, j]:.0%}"
                colour, weight = ("white" if share[i, j] > 0.55 else "black"), ("bold" if i == j else "normal")
                axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=size, fontweight=weight)
        # Numbers of records stand with the class, so that 100% of two patients is seen for what it is.
        rows = [f"{name}\n({n:,.0f})" for name, n in zip(classes, total[:, 0], strict=True)]
        axes.set_xticks(range(count), list(classes), rotation=0 if count <= 4 else 45, ha="center" if count <= 4 else "right")
        axes.set_yticks(range(count), rows)
        axes.set_xlabel("decided")
        axes.set_ylabel("labelled")
        axes.set_title(heading, loc="left")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    _save(figure, out, title)


def roc(curves: Sequence[tuple[str, ArrayLike, ArrayLike, float]], out: Path, title: str = "") -> None:
    """(name, false positive rates, true positive rates, area) per run, on one square; the legend is sorted by area."""
    figure, (axes, names) = _figure(10, 6.8, columns=2, width_ratios=[1.5, 1])
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (1, 3)))
    ordered = sorted(curves, key=lambda curve: -curve[3])
    for i, (name, false, true, area) in enumerate(ordered):
        style = LINES[(i // len(CYCLE)) % len(LINES)] if len(curves) > len(CYCLE) else "-"
        colour, label, above = CYCLE[i % len(CYCLE)], f"{area:.3f}  {name}", len(curves) - i + 2
        axes.plot(false, true, color=colour, linestyle=style, linewidth=2, label=label, zorder=above)
    axes.set_box_aspect(1)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_xlabel("false positive rate (1 - specificity)")
    axes.set_ylabel("true positive rate (sensitivity)")
    _quiet(axes)
    handles, texts = axes.get_legend_handles_labels()
    names.axis("off")
    names.legend(
        handles,
        texts,
        loc="upper left",
        borderaxespad=0,
        frameon=False,
        title="area under the curve",
        alignment="left",
        fontsize=10,
    )
    _save(figure, out, title)


def reliability(confidence: ArrayLike, accuracy: ArrayLike, count: ArrayLike, error: float, out: Path, title: str = "") -> None:
    """Bins of `cardium.metrics.calibration_curve`: accuracy against the probability that the model gave its decision.

    Below them, how many records each bin holds. `error` is the expected calibration error.
    """
    from matplotlib.ticker import MaxNLocator

    p, a, n = (np.asarray(values, dtype=np.float64) for values in (confidence, accuracy, count))
    figure, (axes, below) = _figure(10, 7.2, rows=2, height_ratios=[4, 1])
    low = min(0.5, float(p.min()), 1 / 3 if p.min() < 0.5 else 0.5) - 0.02
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1.2, linestyle="--", label="perfectly calibrated")
    axes.vlines(p, np.minimum(p, a), np.maximum(p, a), color=ORANGE, linewidth=5, alpha=0.6, label="gap")
    axes.plot(p, a, "-o", color=BLUE, linewidth=1.4, label="bins; the size is their share of the records")
    # A bin's area is its share of the records, with a floor so that a bin of one record is still seen.
    axes.scatter(p, a, s=30 + 500 * n / n.sum(), color=BLUE, edgecolor="white", zorder=3)
    axes.set_xlim(low, 1.02)
    axes.set_ylim(-0.04, 1.06)
    axes.set_ylabel("accuracy")
    axes.set_title(f"expected calibration error {error:.3f}: mean gap, weighted by records", loc="left")
    axes.legend(loc="lower right", frameon=False, fontsize=11)
    axes.tick_params(labelbottom=False)
    below.bar(p, n, width=0.018, color=SKY)
    below.set_xlim(low, 1.02)
    below.set_ylabel("records")
    below.set_xlabel("probability of the decided class")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    for one in (axes, below):
        _quiet(one)
    _save(figure, out, title)


@dataclass(frozen=True)
class Row:
    """A line of the leaderboard figure: balanced accuracy and its interval; `reference` is a published score."""

    name: str
    group: str
    value: float
    low: float | None
    high: float | None
    note: str = ""
    weak: bool = False  # random weights: the marker is hollow
    naive: bool = False
    reference: float | None = None


def coverage(curves: Sequence[tuple[str, ArrayLike, ArrayLike]], out: Path, title: str = "") -> None:
    """(name, shares of records answered, accuracy on them) per run: what abstaining on the least sure brings."""
    figure, (axes,) = _figure(10, 4.8)
    for i, (name, answered, accuracy) in enumerate(curves):
        axes.plot(answered, accuracy, color=CYCLE[i % len(CYCLE)], linestyle=LINES[i % len(LINES)], linewidth=2, label=name)
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.01)
    axes.set_xlabel("share of records that are answered, the surest first")
    axes.set_ylabel("accuracy on them")
    # Beside the curves: they may be anywhere from 0 to 1.
    axes.legend(frameon=False, fontsize=10, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    _quiet(axes)
    _save(figure, out, title)


def leaderboard(rows: Sequence[Row], out: Path, title: str = "", interval: float = 0.95) -> None:
    """A forest plot: a line a run in the order given, a block a group (protocol), the naive score a line through its block."""
    groups = list(dict.fromkeys(row.group for row in rows))
    places: list[float] = []
    headings: list[tuple[float, str]] = []
    at = 0.0
    for group in groups:
        headings.append((at, group))
        at += 1.0
        for _ in [row for row in rows if row.group == group]:
            places.append(at)
            at += 1.0
        at += 0.5
    ordered = [row for group in groups for row in rows if row.group == group]
    figure, (axes,) = _figure(10, 1.6 + 0.36 * at)
    for place, row in zip(places, ordered, strict=True):
        colour = GREY if row.naive else BLUE
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [place, place], color=colour, linewidth=2.4, solid_capstyle="butt", zorder=2)
        face = "white" if row.weak else colour
        axes.plot(row.value, place, "s" if row.naive else "o", color=colour, markerfacecolor=face, markersize=8, zorder=3)
        if row.reference is not None:
            axes.plot(row.reference, place, "D", color=RED, markerfacecolor="none", markersize=7, markeredgewidth=1.6, zorder=4)
        text = f"{row.value:.3f}"
        if row.low is not None and row.high is not None:
            text += f"  [{row.low:.3f}, {row.high:.3f}]"
        axes.text(1.02, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=11, family="monospace")
    for group in groups:
        own = [place for place, row in zip(places, ordered, strict=True) if row.group == group]
        for row in ordered:
            if row.naive and row.group == group:
                axes.vlines(row.value, min(own) - 0.5, max(own) + 0.5, color=GREY, linewidth=1, linestyle=":", zorder=1)
    for place, heading in headings:
        where = axes.get_yaxis_transform()
        axes.text(0.0, place, heading, transform=where, va="center", fontsize=11, color=GREY, style="italic")
    labels = [f"{row.name} {row.note}".strip() for row in ordered]
    axes.set_yticks(places, labels)
    axes.set_ylim(at - 0.7, -0.8)
    ends = [v for row in ordered for v in (row.value, row.low, row.high, row.reference) if v is not None]
    axes.set_xlim(max(-0.02, min([*ends, 0.5]) - 0.04), min(1.02, max([*ends, 0.6]) + 0.04))
    axes.set_xlabel("balanced accuracy")
    _quiet(axes)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    handles: list[Any] = [_line(BLUE, "-", f"score and {interval:.0%} interval", marker="o", width=2.4)]
    if any(row.weak for row in ordered):
        handles.append(_line(BLUE, "", "random weights", marker="o", face="white"))
    if any(row.naive for row in ordered):
        handles.append(_line(GREY, ":", "naive: class shares", marker="s", width=1))
    if any(row.reference is not None for row in ordered):
        handles.append(_line(RED, "", "published (its own split)", marker="D", face="none"))
    _legend_below(figure, [handles])
    _save(figure, out, title)


def montage(rows: Sequence[tuple[str, np.ndarray]], out: Path, title: str = "", columns: int = 6) -> None:
    """Slices side by side, a row a volume: (name, uint8 (T, h, w)). Frames of zeros, which are padding, are left out."""
    figure, axes = _figure(1.65 * columns, 1.75 * len(rows) + 0.5, len(rows), columns)
    for number, (name, slices) in enumerate(rows):
        filled = np.flatnonzero(slices.any(axis=(1, 2)))
        spread = (2 * np.arange(columns) + 1) * len(filled) // (2 * columns)
        places = filled[spread] if len(filled) else filled
        for column in range(columns):
            one = axes[number * columns + column]
            one.set_xticks([])
            one.set_yticks([])
            if column < len(places):
                one.imshow(slices[places[column]], cmap="gray", vmin=0, vmax=255)
                one.set_xlabel(f"frame {places[column]}", fontsize=9)
        axes[number * columns].set_ylabel(name, fontsize=10)
    _save(figure, out, title)


def hearts(rows: Sequence[tuple[str, np.ndarray]], out: Path, title: str = "end-diastole above, end-systole below") -> None:
    """Slices of hearts with their contours, a row a patient: (name, uint8 (h, w, 3))."""
    widest = max(picture.shape[1] for _, picture in rows)
    figure, axes = _figure(10.0, 2.9 * len(rows) + 0.5, len(rows), 1)
    for one, (name, picture) in zip(axes, rows, strict=True):
        one.set_xticks([])
        one.set_yticks([])
        one.imshow(np.pad(picture, ((0, 0), (0, widest - picture.shape[1]), (0, 0)), constant_values=255))
        one.set_ylabel(name, fontsize=9)
    _save(figure, out, title)


@dataclass(frozen=True)
class Overlay:
    """An input laid out flat and its attribution: picture uint8 (h, w) or (h, w, 3), heat float32 (h, w), -1..1.

    signed: whether evidence against the class is shown too. labels: (x, y, text) of parts of the picture.
    """

    picture: np.ndarray
    heat: np.ndarray
    signed: bool
    labels: Sequence[tuple[float, float, str]] = ()
    caption: str = ""


def attribution(
    overlay: Overlay, out: Path, title: str = "", bars: Sequence[tuple[str, Sequence[str], Sequence[float]]] = ()
) -> None:
    """The input, the same under its attribution with a colour bar, and (heading, names, shares) as bars beside them."""
    shape = min(1.6, max(0.35, overlay.picture.shape[0] / overlay.picture.shape[1]))
    columns = 2 + bool(bars)
    ratios = [1.0, 1.12] + ([0.8] if bars else [])
    height = max(4.4 if bars else 3.4, 4.6 * shape + 0.9)
    figure, axes = _figure(13 if bars else 10, height, columns=columns, width_ratios=ratios)
    _show_picture(axes[0], overlay, heat=False)
    axes[0].set_title("input", loc="left", fontsize=11)
    shown = _show_picture(axes[1], overlay)
    axes[1].set_title(overlay.caption, loc="left", fontsize=11)
    _heat_bar(figure, shown, [axes[1]], overlay.signed)
    if bars:
        axes[2].axis("off")
        at, room = 0.0, 1.0 / len(bars)
        for heading, names, shares in bars:
            inner = axes[2].inset_axes((0.22, 1 - at - room + 0.05, 0.78, room - 0.13))
            places = np.arange(len(names))
            inner.barh(places, shares, color=BLUE, height=0.8)
            step = max(1, -(-len(names) // 26))
            inner.set_yticks(places[::step], [str(name) for name in names][::step], fontsize=8)
            inner.tick_params(axis="x", labelsize=8)
            inner.invert_yaxis()
            inner.set_title(heading, loc="left", fontsize=10)
            _quiet(inner)
            at += room
    _save(figure, out, title)


def attribution_gallery(rows: Sequence[tuple[str, Sequence[Overlay]]], out: Path, title: str = "") -> None:
    """Overlays, a row a group (heading, overlays), under one colour bar; each scaled to its own largest attribution."""
    columns = max(1, *(len(overlays) for _, overlays in rows))
    first = rows[0][1][0].picture
    side = 10.6 / max(3, columns)
    tall = side * min(1.4, max(0.4, first.shape[0] / first.shape[1])) + 0.75
    figure, axes = _figure(side * columns + 1.2, tall * len(rows) + 0.6, len(rows), columns)
    shown = None
    for number, (heading, overlays) in enumerate(rows):
        for place in range(columns):
            one = axes[number * columns + place]
            if place >= len(overlays):
                one.axis("off")
                continue
            shown = _show_picture(one, overlays[place], size=6)
            one.set_xlabel(overlays[place].caption, fontsize=9)
        axes[number * columns].set_title(heading, loc="left", fontsize=11, color=GREY, style="italic")
    signed = any(overlay.signed for _, overlays in rows for overlay in overlays)
    _heat_bar(figure, shown, axes, signed)
    _save(figure, out, title)


def _show_picture(axes: Axes, overlay: Overlay, heat: bool = True, size: float = 8) -> Any:
    """Draws the picture and, transparent where there is little of it, the heat over it; returns what a colour bar is of."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.imshow(overlay.picture, cmap="gray", vmin=0, vmax=255, aspect="equal")
    shown = None
    if heat:
        strength = np.clip(np.abs(overlay.heat), 0, 1)
        low, colours = (-1, "RdBu_r") if overlay.signed else (0, "YlOrRd")
        shown = axes.imshow(overlay.heat, cmap=colours, vmin=low, vmax=1, alpha=0.75 * strength**0.7, interpolation="nearest")
    for x, y, text in overlay.labels:
        box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.8}
        axes.text(x + 1, y + 1, text, fontsize=size, va="top", ha="left", bbox=box)
    return shown


def _heat_bar(figure: Figure, shown: Any, axes: Sequence[Axes], signed: bool) -> None:
    if shown is None:
        return
    from matplotlib.cm import ScalarMappable

    # The picture's own is transparent where it is weak; the bar is not.
    shrink = 0.85 if len(axes) == 1 else 0.4
    bar = figure.colorbar(ScalarMappable(shown.norm, shown.cmap), ax=list(axes), shrink=shrink, pad=0.02, aspect=28)
    bar.set_label("against       attribution       for" if signed else "attribution, share of the largest", fontsize=9)
    bar.ax.tick_params(labelsize=8)


def faithfulness(
    methods: Sequence[tuple[str, ArrayLike, ArrayLike, ArrayLike, Sequence[tuple[float, float]]]], out: Path, title: str = ""
) -> None:
    """(method, shares of places, deletion, insertion, cascade) each: the tests of attribution methods, side by side.

    cascade: (share of layers shuffled, rank correlation); empty of the method `random`, which is drawn in grey.
    """
    figure, (left, middle, right) = _figure(13, 5.2, columns=3)
    for i, (name, shares, deletion, insertion, cascade) in enumerate(methods):
        colour = GREY if not len(cascade) else CYCLE[i % len(CYCLE)]
        style = ":" if not len(cascade) else LINES[(i // len(CYCLE)) % len(LINES)]
        left.plot(shares, deletion, style, color=colour, linewidth=2)
        middle.plot(shares, insertion, style, color=colour, linewidth=2, label=name)
        if len(cascade):
            x, y = zip(*cascade, strict=True)
            right.plot([0, *x], [1, *y], style, marker="o", markersize=4, color=colour, linewidth=2)
    for axes, heading, x_name, y_name in (
        (left, "deletion: low is good", "share of places emptied", "probability of the class"),
        (middle, "insertion: high is good", "share of places filled in", "probability of the class"),
        (right, "shuffled weights: 0 is good", "share of layers shuffled, from the last", "rank correlation"),
    ):
        axes.set_title(heading, loc="left", fontsize=12)
        axes.set_xlabel(x_name)
        axes.set_ylabel(y_name)
        _quiet(axes)
    left.set_ylim(-0.03, 1.03)
    middle.set_ylim(-0.03, 1.03)
    handles, _ = middle.get_legend_handles_labels()
    _legend_below(figure, [list(handles[i : i + 4]) for i in range(0, len(handles), 4)])
    _save(figure, out, title)


def gallery(pictures: Sequence[tuple[str, np.ndarray]], out: Path, title: str = "", columns: int = 4) -> None:
    """(caption, picture) side by side, row by row; a picture is uint8 (h, w, 3)."""
    rows = -(-len(pictures) // columns)
    # A single tall picture is shown smaller rather than that all rows are as high.
    tallest = float(np.median([picture.shape[0] / picture.shape[1] for _, picture in pictures]))
    lines = max(caption.count("\n") + 1 for caption, _ in pictures)
    wide = 10 / columns
    figure, axes = _figure(10, rows * (wide * min(tallest, 1.3) + 0.17 * lines) + 0.4, rows, columns)
    for number, one in enumerate(axes):
        one.set_axis_off()
        if number < len(pictures):
            caption, picture = pictures[number]
            one.imshow(picture)
            one.set_title(caption, fontsize=8, loc="left")
    _save(figure, out, title)


def search_history(trials: Path, out: Path, title: str = "") -> None:
    """trials.csv of a search -> each trial's score in the order of the trials, and the best so far."""
    from matplotlib.ticker import MaxNLocator

    rows = [row for row in _rows_of(trials) if row["state"] in ("complete", "pruned") and row["score"]]
    figure, (axes,) = _figure(10, 4.6)
    for state, colour, face in (("complete", BLUE, BLUE), ("pruned", GREY, "none")):
        own = [row for row in rows if row["state"] == state]
        axes.plot(
            [int(row["trial"]) for row in own], _column(own, "score"), "o", color=colour, markerfacecolor=face, markersize=7
        )
    best: list[tuple[int, float]] = []
    for row in rows:
        if row["state"] == "complete" and (not best or float(row["score"]) > best[-1][1]):
            best.append((int(row["trial"]), float(row["score"])))
    if best:
        ends = [*best, (max(int(row["trial"]) for row in rows), best[-1][1])]
        axes.step([x for x, _ in ends], [y for _, y in ends], where="post", color=RED, linewidth=2)
    for row in rows:
        if row["defaults"] == "True" and row["state"] == "complete":
            axes.axhline(float(row["score"]), color=GREY, linewidth=1, linestyle=":")
    axes.set_xlabel("trial")
    axes.set_ylabel("validation balanced accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _quiet(axes)
    handles = [
        _line(BLUE, "", "completed", marker="o"),
        _line(GREY, "", "cut short", marker="o", face="none"),
        _line(RED, "-", "best so far"),
        _line(GREY, ":", "the run as it is", width=1),
    ]
    _legend_below(figure, [handles])
    _save(figure, out, title)


def search_importance(importance: dict[str, float], out: Path, title: str = "") -> None:
    """Setting -> share of the scores' variance that it explains, as bars; {} says that there were too few trials."""
    names = sorted(importance, key=lambda name: importance[name])
    figure, (axes,) = _figure(8, 1.4 + 0.42 * max(1, len(names)))
    axes.barh(range(len(names)), [importance[name] for name in names], color=BLUE, height=0.65)
    for place, name in enumerate(names):
        axes.text(importance[name], place, f" {importance[name]:.2f}", va="center", fontsize=11, color=GREY)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set_xlim(0, 1.12 * max([*importance.values(), 0.1]))
    axes.set_xlabel("share of the variance of the scores" if names else "too few completed trials to tell")
    _quiet(axes)
    _save(figure, out, title)


def search_slices(trials: Path, dimensions: dict[str, dict[str, Any]], out: Path, title: str = "") -> None:
    """trials.csv of a search -> a panel a setting: each trial's score over what it set; later trials are darker.

    dimensions: setting -> {"choices": [...]} or {"low", "high", "log"}, as study.json has them.
    """
    rows = [row for row in _rows_of(trials) if row["state"] in ("complete", "pruned") and row["score"]]
    columns = min(4, max(1, len(dimensions)))
    lines = -(-len(dimensions) // columns)
    figure, panels = _figure(3.1 * columns, 2.7 * lines + 0.5, lines, columns)
    latest = max([int(row["trial"]) for row in rows], default=1) or 1
    for axes, (name, dimension) in zip(panels, dimensions.items(), strict=False):
        own = [row for row in rows if f"set.{name}" in row]
        scores, shades = _column(own, "score"), [0.25 + 0.75 * int(row["trial"]) / latest for row in own]
        faces = [BLUE if row["state"] == "complete" else "none" for row in own]
        if "choices" in dimension:
            labels = [str(choice) for choice in dimension["choices"]]
            places: Any = [_place(row[f"set.{name}"], labels) for row in own]
            axes.set_xticks(range(len(labels)), [label or "none" for label in labels], rotation=20, fontsize=9)
            axes.set_xlim(-0.5, len(labels) - 0.5)
        else:
            places = _column(own, f"set.{name}")
            axes.set_xscale("log" if dimension["log"] else "linear")
        for x, y, face, shade in zip(places, scores, faces, shades, strict=True):
            axes.plot(x, y, "o", color=BLUE if face == BLUE else GREY, markerfacecolor=face, alpha=shade, markersize=6)
        axes.set_title(name.replace("_", " "), loc="left", fontsize=12)
        axes.tick_params(labelsize=9)
        _quiet(axes)
    for axes in panels[len(dimensions) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel("balanced accuracy", fontsize=10)
    _save(figure, out, title)


def _place(value: str, labels: list[str]) -> float:
    """Where a value of a CSV file stands among the labels: 32 may be written 32.0 there."""
    if value in labels:
        return labels.index(value)
    for place, label in enumerate(labels):
        try:
            if float(value) == float(label):
                return place
        except ValueError:
            continue
    return float("nan")


def _rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _figure(width: float, height: float, rows: int = 1, columns: int = 1, **layout: Any) -> tuple[Figure, list[Axes]]:
    import matplotlib
    from matplotlib.figure import Figure

    # A user's matplotlibrc is for the user's own figures.
    matplotlib.rcdefaults()
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=layout or None)
    for one in axes.ravel():
        one.tick_params(labelsize=11)
        one.xaxis.label.set_size(12)
        one.yaxis.label.set_size(12)
    return figure, list(axes.ravel())


def _quiet(axes: Axes) -> None:
    axes.grid(visible=True, color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _line(colour: str, style: Any, label: str, marker: str = "", width: float = 2.0, face: str | None = None) -> Any:
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], color=colour, linestyle=style or "none", marker=marker or None, label=label, linewidth=width, markersize=8,
        markerfacecolor=face or colour,
    )  # fmt: skip


def _legend_below(figure: Figure, lines: list[list[Any]]) -> None:
    """A legend under everything, one list a line. matplotlib fills legends by column: the lines are padded and transposed."""
    columns = max(len(line) for line in lines)
    padded = [line + [_line("none", "", "")] * (columns - len(line)) for line in lines]
    handles = [line[i] for i in range(columns) for line in padded]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=11)


def _column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row.get(name) or "nan") for row in rows])


def _save(figure: Figure, out: Path, title: str) -> None:
    if title:
        figure.suptitle(title, fontsize=14, x=0.01, ha="left")
    with replacing(out) as part:
        figure.savefig(part, format="png", metadata={"Software": None})
