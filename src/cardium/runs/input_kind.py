"""Whether a picture is of the kind that a model was trained on at all: statistics of its pixels against the collection's.

A network answers noise, a screenshot or another examination as surely as a picture of its own kind. A dozen statistics of grey
levels, colour, edges and neighbourhood, which tell no class, describe the kind. A picture's distance is Mahalanobis', by the
collection's mean and shrunk covariance. The limit is measured on the collection itself: each patient's pictures are judged by
statistics of the others, and above the limit lies the share of false alarms that is asked for. A patient counts once.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardium import atomic

FILE = "input_kind.json"
# Pictures that the statistics are taken of at most, drawn in turn from every patient.
_MOST = 2000
# Parts that the patients are dealt into; how much of the covariance is its diagonal; shares whose limits are kept.
_PARTS, _SHRINK = 5, 0.1
_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
_TINY = 1e-6

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class InputKind:
    """The kind of picture of a collection.

    mean: (d,) of the statistics. whitening: (d, d), by which a difference to the mean becomes a distance. limits: share of
    false alarms -> the distance above which such a share of the collection's own pictures lies. pictures, groups: taken of.
    """

    mean: list[float]
    whitening: list[list[float]]
    limits: dict[str, float]
    pictures: int
    groups: int

    def distances(self, pixels: NDArray[np.uint8]) -> Floats:
        """uint8 (n, H, W, 3) as rendered -> (n,) distances from the collection's pictures."""
        return _distances(statistics(pixels), np.array(self.mean), np.array(self.whitening))

    def limit(self, false_alarms: float) -> float:
        """The distance for a share of false alarms, between those that are kept as a straight line."""
        shares = sorted(map(float, self.limits))
        return float(np.interp(false_alarms, shares, [self.limits[str(share)] for share in shares]))

    def doubts(self, pixels: NDArray[np.uint8], false_alarms: float) -> list[str]:
        """For each of uint8 (n, H, W, 3) what makes it none of the collection's kind; "" where nothing does. 0: never asked."""
        if not false_alarms:
            return [""] * len(pixels)
        limit = self.limit(false_alarms)
        return [
            f"unlike the pictures that the model was trained on (distance {one:.1f}, limit {limit:.1f})" if one > limit else ""
            for one in self.distances(pixels)
        ]

    def write(self, folder: Path) -> None:
        """Writes input_kind.json into a run folder."""
        atomic.write_json(folder / FILE, asdict(self))


def read_input_kind(folder: Path) -> InputKind | None:
    """The kind of a run folder; None where it has none: of volumes, signals and patients, and of runs of older versions."""
    try:
        table: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return InputKind(**table)
    except (FileNotFoundError, ValueError, TypeError):
        return None


def fit_input_kind(pixels: NDArray[np.uint8], groups: NDArray[np.str_], seed: int = 0) -> InputKind | None:
    """Describes a collection's pictures, uint8 (N, H, W, 3), of `groups` (N,); None with fewer groups than parts.

    False alarms are counted on pictures of patients that the statistics were not taken of.
    """
    names = np.unique(groups)
    if len(names) < _PARTS:
        return None
    rng = np.random.default_rng(seed)
    chosen = _in_turn(groups, rng)
    found = np.concatenate([statistics(np.asarray(pixels[chosen[i : i + 64]])) for i in range(0, len(chosen), 64)])
    of = groups[chosen]
    _, index, counts = np.unique(of, return_inverse=True, return_counts=True)
    weights = 1 / counts[index] / len(counts)
    part = dict(zip(rng.permutation(names), np.arange(len(names)) % _PARTS, strict=True))
    parts = np.array([part[name] for name in of])
    distances = np.empty(len(of))
    for number in range(_PARTS):
        held = parts == number
        distances[held] = _distances(found[held], *_described(found[~held], weights[~held]))
    limits = {str(share): _above(distances, weights, share) for share in _SHARES}
    mean, whitening = _described(found, weights)
    return InputKind(mean.tolist(), whitening.tolist(), limits, len(of), len(counts))


def statistics(pixels: NDArray[np.uint8]) -> Floats:
    """uint8 (n, H, W, 3) -> (n, 13): grey levels, colour, edges, neighbours, the border against the middle; of any size."""
    colours = pixels.astype(np.float64) / 255
    grey = colours.mean(axis=-1)
    n = len(grey)
    flat = grey.reshape(n, -1)
    mean, std = flat.mean(axis=1), flat.std(axis=1)
    scale = std + _TINY
    across, down = np.diff(grey, axis=2), np.diff(grey, axis=1)
    curved = grey[:, 1:-1, 1:-1] * 4 - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    rows, columns = max(1, grey.shape[1] // 8), max(1, grey.shape[2] // 8)
    middle = grey[:, rows:-rows, columns:-columns].reshape(n, -1).mean(axis=1)
    histogram = np.stack([np.histogram(one, bins=32, range=(0, 1))[0] for one in flat]) / flat.shape[1]
    entropy = -(histogram * np.log2(histogram + _TINY)).sum(axis=1)
    return np.stack(
        [
            mean,
            std,
            (flat < 0.06).mean(axis=1),
            (flat > 0.9).mean(axis=1),
            np.log(np.abs(colours - grey[..., None]).mean(axis=(1, 2, 3)) + 1e-3),
            np.log(across.std(axis=(1, 2)) / scale + _TINY),
            np.log(down.std(axis=(1, 2)) / scale + _TINY),
            np.log(curved.std(axis=(1, 2)) / scale + _TINY),
            np.log(np.abs(across).mean(axis=(1, 2)) / (across.std(axis=(1, 2)) + _TINY) + 1e-2),
            middle - mean,
            entropy,
            ((flat - mean[:, None]) ** 3).mean(axis=1) / scale**3,
            np.quantile(flat, 0.75, axis=1) - np.quantile(flat, 0.25, axis=1),
        ],
        axis=1,
    )


def _described(found: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Statistics (n, d), weights (n,) -> their mean and whitening, of the covariance shrunk towards its diagonal."""
    mean = np.average(found, axis=0, weights=weights)
    covariance = np.cov(found.T, aweights=weights)
    shrunk = (1 - _SHRINK) * covariance + _SHRINK * np.diag(np.diag(covariance)) + _TINY * np.eye(len(mean))
    values, vectors = np.linalg.eigh(shrunk)
    return mean, vectors / np.sqrt(values)


def _distances(found: Floats, mean: Floats, whitening: Floats) -> Floats:
    return np.asarray(np.linalg.norm((found - mean) @ whitening, axis=1))


def _above(distances: Floats, weights: Floats, share: float) -> float:
    """The smallest distance above which no more than `share` of the weight lies."""
    order = np.argsort(distances)[::-1]
    more = np.cumsum(weights[order]) > share
    return float(distances[order[np.argmax(more)]])


def _in_turn(groups: NDArray[np.str_], rng: np.random.Generator) -> NDArray[np.int64]:
    """Records (n,), sorted, at most `_MOST`: one of every group, then another of every group, drawn at random."""
    shuffled = rng.permutation(len(groups))
    seen: dict[str, int] = {}
    turn = np.empty(len(groups), np.int64)
    for record in shuffled:
        turn[record] = seen.get(groups[record], 0)
        seen[groups[record]] = turn[record] + 1
    return np.sort(shuffled[np.argsort(turn[shuffled], kind="stable")][:_MOST])
