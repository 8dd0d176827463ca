"""The gain of the best of many trials over the run's own settings, with a bound that allows for having picked the best.

The best of n equal trials looks better than the first one by chance, and an interval of that one pair knows nothing of the
others. So the bound is of all trials at once: in every resample of whole groups each trial's difference is compared with its
own in the data, and the largest excess counts (White 2000, Econometrica 68:1097; Romano and Wolf 2005, Econometrica 73:1237).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cardium.evaluation.metrics import GroupBootstrap, balanced_accuracy_under, paired_difference


def gain_of_best(
    labels: np.ndarray,
    groups: np.ndarray,
    own: np.ndarray,
    trials: Sequence[np.ndarray],
    best: int,
    bootstrap: GroupBootstrap,
    *,
    threshold: float,
    interval: float,
    challengers: int = 0,
) -> dict[str, float]:
    """Balanced accuracy of `trials[best]` less that of `own` on the same records: difference, low, high, probability_better.

    labels: (n,). groups: (n,). own, trials: (n, C) probabilities. challengers: how many trials the best was picked from, with
    those whose predictions are not at hand (cut short, or on another machine); these are taken to be like the others. low: of
    equal trials, at most a share of (1 - interval) / 2 of searches has a best one with a low above 0. high and
    probability_better are of the pair alone, so optimistic.
    """
    pair = paired_difference(labels, groups, trials[best], own, bootstrap, threshold, interval)
    value, draws = balanced_accuracy_under(labels, own, groups, bootstrap, threshold)
    excess = np.full(len(draws), -np.inf)
    for trial in trials:
        found, under = balanced_accuracy_under(labels, trial, groups, bootstrap, threshold)
        np.maximum(excess, (under - draws) - (found - value), out=excess)
    # Bonferroni for the trials that are not here: the share that is left to those that are.
    known = len(trials) / max(challengers, len(trials))
    largest = float(np.quantile(excess, 1 - known * (1 - interval) / 2))
    return {**pair, "low": pair["difference"] - max(0.0, largest)}
