"""Temperature scaling: one number per trained model that makes its probabilities mean what they say (Guo et al. 2017,
arXiv:1706.04599).

The logits are divided by the temperature, which is fitted on validation records. Dividing the last dense layer's weights says
the same, so the scaling is in every saved model and in `folds/<t>.npz`, without a layer of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cardium.models.classifier import with_temperature

# At most twice as sure as it was: a few validation patients must not make a model of no skill certain. Behind 20 are even odds.
_COLDEST, _HOTTEST = 0.5, 20.0
_HALVINGS = 60
# The least probability that float32 holds: of two classes one may have none.
_LEAST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Calibrated:
    """A fold's model after scaling. weights: as `models.trained` names them. probabilities: (n, C) of validation.

    temperature: None where the protocol's method is `none`, and all is as it was.
    """

    temperature: float | None
    weights: dict[str, np.ndarray]
    probabilities: np.ndarray


def calibrate(
    weights: Mapping[str, np.ndarray],
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    method: Literal["temperature", "none"] = "temperature",
) -> Calibrated:
    """Fits the temperature on validation, and scales the model's weights and its validation probabilities (n, C) by it.

    method: `calibration` of the protocol.
    """
    if method == "none":
        return Calibrated(None, dict(weights), probabilities)
    temperature = fit_temperature(probabilities, labels, groups)
    return Calibrated(temperature, with_temperature(weights, temperature), tempered(probabilities, temperature))


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """Finds the temperature of the least cross-entropy on probabilities (n, C) with labels (n,) of groups (n,).

    The cross-entropy is of Platt's targets (1999), not of 0 and 1: with G groups the label counts (G + 1) / (G + 2), since G
    groups that were all classified right do not show that the next one will be. Between 0.5 and 20.
    """
    count, classes = probabilities.shape
    distinct = len(np.unique(groups))
    right = (distinct + 1) / (distinct + 2)
    targets = np.full((count, classes), (1 - right) / (classes - 1))
    targets[np.arange(count), labels] = right
    logits = _logits(probabilities)

    def slope(temperature: float) -> float:
        """Of the mean cross-entropy over 1 / temperature, in which it is convex."""
        return float(((tempered(probabilities, temperature) - targets) * logits).sum(axis=1).mean())

    low, high = np.log(_COLDEST), np.log(_HOTTEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(float(np.exp(middle))) > 0 else (low, middle)
    return float(np.exp((low + high) / 2))


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divides the logits behind probabilities (n, C) by the temperature: float64 (n, C)."""
    logits = _logits(probabilities) / temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _logits(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities -> logits, up to a constant. A 0 is one that float32 could not hold: it counts as the least that it can."""
    p = np.asarray(probabilities, np.float64)
    return np.log(np.where(p > 0, p, _LEAST))
