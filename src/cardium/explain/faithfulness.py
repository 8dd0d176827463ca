"""Whether attributions are true of the model that they explain: tests that a method can fail, and a row of numbers a method.

completeness       |sum of the attribution - (score of input - score of baseline)|, all records' as a share of all these
                   differences (integrated gradients promises 0)
deletion           area under the class's probability while places are emptied, those of most attribution first: low is good
insertion          the same while they are filled in over the baseline: high is good (Petsiuk, Das, Saenko: RISE, BMVC 2018,
                   arXiv:1806.07421)
randomised_last    rank correlation of the attribution with that of the same model whose last layer is shuffled;
randomised_all     whose layers all are, from the last to the first: about 0 is good, a method that stays at 1 shows the input
                   and not the model (Adebayo et al.: Sanity Checks for Saliency Maps, NeurIPS 2018, arXiv:1810.03292)
inside_<mask>      the share of positive attribution inside a true mask, area_<mask> the mask's share of all places, and
pointing_<mask>    how often the place of most attribution is inside (Zhang et al.: the pointing game, arXiv:1608.00507)

The row `random` is a random attribution: the baseline that a method must beat.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardium.explain.attribution import How, Targets, attribute
from cardium.explain.opened_model import Array, OpenedModel
from cardium.progress import progress

Mask = NDArray[np.bool_]
RANDOM = "random"
# Sides of a volume's attribution are averaged down to this before ranks are compared: 52 million places say no more.
_RANKED_SIDE = 64
# The methods that promise to add up to a difference of scores.
_COMPLETE = ("integrated_gradients",)


@dataclass(frozen=True)
class Curves:
    """The class's probability while places are emptied and filled in: shares of places (p,), mean over records (p,) each."""

    shares: NDArray[np.float64]
    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]


@dataclass(frozen=True)
class Tested:
    """What a method came to: `row` for the table, by the names above, what was not tested left out; `curves` for the figure;
    `cascade`: (share of layers shuffled, rank correlation) from the last layer on."""

    method: str
    row: dict[str, float]
    curves: Curves
    cascade: list[tuple[float, float]]


def assess(
    model: OpenedModel,
    methods: Sequence[str],
    pixels: Array,
    target: Targets,
    how: How,
    *,
    points: int = 20,
    stages: int = 4,
    masks: Sequence[Mapping[str, Mask]] = (),
) -> list[Tested]:
    """Tests `methods` on some records (n, ...), then the random baseline, in this order.

    points: steps of the curves. stages: how many times layers are shuffled on the way from the last to the first. masks: of
    each record its true masks by name, bool of the attribution's shape; a name may be missing from some records.
    """
    explained = {
        method: attribute(model, method, pixels, target, how)
        for method in progress(methods, total=len(methods), desc="explain", unit="method")
    }
    rng = np.random.default_rng(how.seed)
    explained[RANDOM] = rng.random((len(pixels), *model.places), np.float32) * model.filled(pixels)
    cascades = _cascades(model, methods, explained, pixels, target, how, stages)
    tested = []
    for method in progress(explained, total=len(explained), desc="deletion and insertion", unit="method"):
        values = explained[method]
        curves = deletion_and_insertion(model, values, pixels, target, points)
        row: dict[str, float] = {}
        if method in _COMPLETE:
            row["completeness"] = completeness_error(model, values, pixels, target)
        row["deletion"], row["insertion"] = (_area(curves.shares, curve) for curve in (curves.deletion, curves.insertion))
        if method in cascades:
            row["randomised_last"], row["randomised_all"] = cascades[method][0][1], cascades[method][-1][1]
        row |= inside(values, masks)
        tested.append(Tested(method, row, curves, cascades.get(method, [])))
    return tested


def completeness_error(model: OpenedModel, values: Array, pixels: Array, target: Targets) -> float:
    """How far the sums of attributions are from the differences of scores of inputs and baselines, as a share of these."""
    difference = model.scores(pixels, target) - model.scores(model.baseline(pixels), target)
    sums = values.reshape(len(values), -1).sum(axis=1, dtype=np.float64)
    # Over all records: where a record says no more than its baseline does, a share of its own would be of nothing.
    return float(np.abs(sums - difference).sum() / max(float(np.abs(difference).sum()), 1e-9))


def deletion_and_insertion(model: OpenedModel, values: Array, pixels: Array, target: Targets, points: int) -> Curves:
    """The mean curves over the records; see `Curves`. Equal attributions are taken in an order drawn once, not from the top."""
    shares = np.linspace(0, 1, points + 1)
    curves = np.zeros((2, points + 1))
    start, filled = model.baseline(pixels), model.filled(pixels)
    for row in range(len(pixels)):
        there = np.flatnonzero(filled[row])
        # A stable order of shuffled places: ties fall as the shuffle has them.
        shuffled = np.random.default_rng(0).permutation(there)
        order = shuffled[np.argsort(-values[row].ravel()[shuffled], kind="stable")]
        removed = np.zeros(values[row].size, np.bool_)
        ends = np.rint(shares * len(order)).astype(np.int64)
        pieces: list[list[Array]] = [[], []]
        measured: list[list[NDArray[np.float64]]] = [[], []]
        begin = 0
        for point, end in enumerate(ends):
            removed[order[begin:end]] = True
            begin = end
            gone = removed.reshape(model.places)
            gone = gone[..., None] if model.form == "image" else gone
            pieces[0].append(np.where(gone, start[row], pixels[row]))
            pieces[1].append(np.where(gone, pixels[row], start[row]))
            if len(pieces[0]) >= model.at_once or point == points:
                for kind in (0, 1):
                    measured[kind].append(model.probabilities(np.stack(pieces[kind]))[:, target[row]])
                    pieces[kind] = []
        curves += np.stack([np.concatenate(one) for one in measured])
    curves /= len(pixels)
    return Curves(shares, curves[0], curves[1])


def _area(shares: NDArray[np.float64], curve: NDArray[np.float64]) -> float:
    return float(np.trapezoid(curve, shares))


# ------------------------------------------------------------------------------------------------ shuffled weights


def _cascades(
    model: OpenedModel,
    methods: Sequence[str],
    explained: Mapping[str, Array],
    pixels: Array,
    target: Targets,
    how: How,
    stages: int,
) -> dict[str, list[tuple[float, float]]]:
    """method -> (share of layers shuffled, mean rank correlation over records), stage by stage."""
    found: dict[str, list[tuple[float, float]]] = {method: [] for method in methods}
    if not methods:
        return found
    # Integrated gradients with as many points before as after: a shuffled network asks for far more.
    how = replace(how, most_steps=how.steps)
    before = {
        method: _ranked(attribute(model, method, pixels, target, how) if method in _COMPLETE else explained[method])
        for method in methods
    }
    with shuffled_from_the_top(model, stages, how.seed) as shares:
        for share in progress(shares, total=stages, desc="shuffled weights", unit="stage"):
            for method in methods:
                after = _ranked(attribute(model, method, pixels, target, how))
                pairs = [_correlation(a, b) for a, b in zip(before[method], after, strict=True)]
                found[method].append((share, float(np.mean(pairs))))
    return found


@contextmanager
def shuffled_from_the_top(model: OpenedModel, stages: int, seed: int) -> Iterator[Iterator[float]]:
    """Yields an iterator that shuffles more and more layers and gives their share of all: first the last one, at the end all.

    Each array of weights is shuffled in itself: it keeps its values, and so the size of the signal, and loses what it has
    learnt. The weights are as they were when the block ends.
    """
    layers = [layer for layer in model.model.layers if layer.weights][::-1]
    kept = [layer.get_weights() for layer in layers]
    rng = np.random.default_rng(seed)

    def go() -> Iterator[float]:
        done = 0
        for stage in range(stages):
            # From one layer to all of them in equal steps.
            upto = len(layers) if stage == stages - 1 else 1 + round(stage * (len(layers) - 1) / max(1, stages - 1))
            for layer in layers[done:upto]:
                arrays = [_shuffled(array, rng) for array in layer.get_weights()]
                layer.set_weights(arrays)
            done = max(done, upto)
            yield done / len(layers)

    try:
        yield go()
    finally:
        for layer, arrays in zip(layers, kept, strict=True):
            layer.set_weights(arrays)


def _shuffled(array: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    return np.asarray(rng.permutation(array.ravel()).reshape(array.shape))


def _ranked(values: Array) -> NDArray[np.float64]:
    """The ranks of each record's magnitudes, (n, places), large volumes averaged down first."""
    from scipy.stats import rankdata

    small = np.abs(values)
    for axis in range(1, small.ndim):
        small = _averaged_down(small, axis, math.ceil(small.shape[axis] / _RANKED_SIDE)) if small.ndim > 3 else small
    return np.asarray(rankdata(small.reshape(len(small), -1), axis=1), np.float64)


def _averaged_down(values: Array, axis: int, by: int) -> Array:
    """Means of `by` neighbours along an axis, what is left over at its end dropped."""
    if by <= 1:
        return values
    count = values.shape[axis] // by
    kept = np.take(values, np.arange(count * by), axis=axis)
    return np.asarray(kept.reshape(*kept.shape[:axis], count, by, *kept.shape[axis + 1 :]).mean(axis=axis + 1))


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Pearson's of two rows of ranks, which is Spearman's; 0 where one of them is the same everywhere."""
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / scale) if scale > 0 else 0.0


# ------------------------------------------------------------------------------------------------ true masks


def inside(values: Array, masks: Sequence[Mapping[str, Mask]]) -> dict[str, float]:
    """inside_<mask>, area_<mask> and pointing_<mask>, each the mean over the records that have such a mask; {} without any.

    A record without positive attribution points nowhere: 0.
    """
    row: dict[str, float] = {}
    for name in sorted({name for of_record in masks for name in of_record}):
        pairs = [(value, of_record[name]) for value, of_record in zip(values, masks, strict=True) if name in of_record]
        means = np.array([_inside_one(value, mask) for value, mask in pairs])
        row |= dict(zip((f"inside_{name}", f"area_{name}", f"pointing_{name}"), means.mean(axis=0).tolist(), strict=True))
    return row


def _inside_one(values: Array, mask: Mask) -> tuple[float, float, float]:
    positive = np.maximum(values, 0)
    total = float(positive.sum(dtype=np.float64))
    share = float(positive[mask].sum(dtype=np.float64)) / total if total > 0 else 0.0
    # Of several places of most attribution, their share inside.
    at_most = positive == positive.max()
    return share, float(mask.mean()), float(mask[at_most].mean()) if total > 0 else 0.0
