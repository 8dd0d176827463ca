"""Prediction sets hold what they promise: against crepes' way of counting, and where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardium.runs.prediction_sets import PredictionSets, least_groups


def by_p_values(own: np.ndarray, new: np.ndarray, alpha: float) -> np.ndarray:
    """Mondrian conformal p-values as crepes 0.7 computes them without smoothing, for records that are each a group."""
    return np.array([(np.sum(own <= p) + 1) / (len(own) + 1) > alpha + 1e-9 for p in new])


@given(st.integers(0, 10_000), st.sampled_from([0.8, 0.9, 0.95]), st.integers(20, 60))
def test_of_single_records_it_is_mondrian_conformal_prediction(seed: int, coverage: float, count: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    p, new = rng.dirichlet(np.ones(3), count), rng.dirichlet(np.ones(3), 40)
    sets = PredictionSets.fitted(p, labels, np.arange(count), ["a", "b", "c"], coverage)
    for c in range(3):
        expected = by_p_values(p[labels == c, c], new[:, c], 1 - coverage)
        np.testing.assert_array_equal(sets.contain(new)[:, c], expected)


@pytest.mark.parametrize(("coverage", "least"), [(0.9, 9), (0.95, 19), (0.8, 4), (0.5, 1)])
def test_too_few_patients_put_a_class_into_every_set_and_are_named(coverage: float, least: int) -> None:
    assert least_groups(coverage) == least
    rng = np.random.default_rng(0)
    counts = (least - 1, least)
    groups = np.repeat(np.arange(sum(counts)), 5)
    labels = (groups >= counts[0]).astype(int)
    sets = PredictionSets.fitted(rng.dirichlet([1, 1], len(labels)), labels, groups, ["few", "enough"], coverage)
    assert sets.too_few == ["few"]
    assert list(sets.groups) == list(counts)
    assert sets.floors[0] == 0 < sets.floors[1]
    assert "few" in sets.names(np.array([0.0, 1.0]))


def test_a_patient_counts_once_however_many_records_it_has() -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet([1, 1], 40)
    labels, groups = np.repeat([0, 1], 20), np.arange(40)
    plain = PredictionSets.fitted(p, labels, groups, ["a", "b"], 0.9)
    again = np.concatenate([np.arange(40), np.repeat([3, 25], 50)])
    more = PredictionSets.fitted(p[again], labels[again], groups[again], ["a", "b"], 0.9)
    np.testing.assert_array_equal(plain.floors, more.floors)


def test_new_patients_are_covered_class_by_class() -> None:
    """Patients differ more than their records do: 30 and 15 of them to calibrate on, many new ones, over 200 draws."""
    rng = np.random.default_rng(2)
    covered = np.zeros((200, 2))
    for draw in range(200):
        p, labels, groups = patients(rng, (30, 15))
        new, truth, _ = patients(rng, (200, 200), each=1)
        sets = PredictionSets.fitted(p, labels, groups, ["a", "b"], 0.9)
        inside = sets.contain(new)[np.arange(len(truth)), truth]
        covered[draw] = [inside[truth == c].mean() for c in (0, 1)]
    mean, error = covered.mean(axis=0), covered.std(axis=0) / np.sqrt(len(covered))
    assert (mean > 0.9 - 3 * error).all(), mean
    assert (mean < 0.9 + 1 / 16 + 3 * error).all(), "no more than one patient in excess"


def patients(rng: np.random.Generator, counts: tuple[int, int], each: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of two classes, labels, groups: a patient's own level and little about it."""
    groups = np.repeat(np.arange(sum(counts)), each)
    labels = np.repeat([0, 1], counts)[groups]
    logit = (2 * labels - 1) * 1.0 + 1.5 * rng.normal(size=sum(counts))[groups] + 0.3 * rng.normal(size=len(groups))
    positive = 1 / (1 + np.exp(-logit))
    return np.stack([1 - positive, positive], axis=1), labels, groups
