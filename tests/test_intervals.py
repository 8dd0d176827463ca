"""Intervals against independent implementations, by what must not change them, and against simulated truth."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cardium.evaluation.intervals import groups_per_class, mid_p, score_with_intervals, wilson
from cardium.evaluation.metrics import score
from cardium.evaluation.nested import Candidate, choose_by_fold


def cohort(seed: int, groups: tuple[int, ...], each: int, alike: float = 0.4, shift: float = 1.2):
    """Labels, probabilities and groups: `groups` patients of each class with about `each` records, alike within a patient."""
    rng = np.random.default_rng(seed)
    of_group = np.repeat(np.arange(len(groups)), groups)
    group = np.repeat(np.arange(len(of_group)), rng.integers(1, 2 * each, len(of_group)) if each > 1 else 1)
    labels = of_group[group]
    logits = shift * np.eye(len(groups))[labels] + np.sqrt(alike) * rng.normal(size=(len(of_group), len(groups)))[group]
    logits += np.sqrt(1 - alike) * rng.normal(size=logits.shape)
    p = np.exp(logits)
    return labels, p / p.sum(axis=1, keepdims=True), group


def design_effect(scores: np.ndarray, groups: np.ndarray) -> float:
    """By scipy's analysis of variance of the ranks, with its mean squares."""
    ranks = stats.rankdata(scores)
    of_group = [ranks[groups == group] for group in np.unique(groups)]
    n, g, sizes = len(scores), len(of_group), [len(own) for own in of_group]
    if g == n:
        return 1.0
    within = sum(((own - own.mean()) ** 2).sum() for own in of_group) / (n - g)
    between = stats.f_oneway(*of_group).statistic * within
    mean_size = (n - sum(size**2 for size in sizes) / n) / (g - 1)
    correlation = max(0.0, (between - within) / (between + (mean_size - 1) * within))
    return 1 + (sum(size**2 for size in sizes) / n - 1) * correlation


@given(st.integers(1, 300), st.data())
def test_a_shares_interval_is_that_of_scipy(size, data):
    hits = data.draw(st.integers(0, size))
    theirs = stats.binomtest(hits, size).proportion_ci(0.95, "wilson")
    assert wilson(hits / size, size, stats.norm.ppf(0.975)) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize(("hits", "size"), [(0, 7), (7, 7), (6, 7), (1, 1), (25, 29), (140, 142)])
def test_mid_p_ends_are_where_half_the_tail_is_left(hits, size):
    low, high = mid_p(hits, size, 0.95)
    assert 0 <= low <= hits / size <= high <= 1
    if hits:
        assert stats.binom.sf(hits, size, low) + stats.binom.pmf(hits, size, low) / 2 == pytest.approx(0.025, abs=1e-6)
    if hits < size:
        assert stats.binom.cdf(hits - 1, size, high) + stats.binom.pmf(hits, size, high) / 2 == pytest.approx(0.025, abs=1e-6)
    exact = stats.binomtest(hits, size).proportion_ci(0.95, "exact")
    assert exact.low <= low + 1e-9
    assert high - 1e-9 <= exact.high


def test_one_record_a_patient_is_two_binomials_combined():
    labels, p, groups = cohort(3, (7, 29), 1)
    found = score_with_intervals(labels, p, groups)
    parts = [mid_p(int((p.argmax(1) == labels)[labels == c].sum()), int((labels == c).sum()), 0.95) for c in (0, 1)]
    recalls = [found[f"recall_{c}"] for c in (0, 1)]
    assert [(one["low"], one["high"]) for one in recalls] == [pytest.approx(part) for part in parts]
    below = sum((one["value"] - one["low"]) ** 2 for one in recalls) ** 0.5 / 2
    balanced = found["balanced_accuracy"]
    assert balanced["low"] == pytest.approx(balanced["value"] - below)
    shares = [(labels == c).mean() for c in (0, 1)]
    above = sum((w * (one["high"] - one["value"])) ** 2 for w, one in zip(shares, recalls, strict=True)) ** 0.5
    assert found["accuracy"]["high"] == pytest.approx(found["accuracy"]["value"] + above)


def test_a_share_of_clustered_records_is_wilson_with_the_sample_size_of_korn_and_graubard():
    labels, p, groups = cohort(5, (8, 9), 6)
    found = score_with_intervals(labels, p, groups)["recall_1"]
    right, means, sizes = p.argmax(1) == labels, [], []
    for group in np.unique(groups[labels == 1]):
        means.append(right[groups == group].mean())
        sizes.append((groups == group).sum())
    share, n, g = np.average(means, weights=sizes), sum(sizes), len(sizes)
    variance = g / (g - 1) * sum((size * (mean - share) / n) ** 2 for size, mean in zip(sizes, means, strict=True))
    effect = max(1, variance * n / (share * (1 - share)))
    size = n / max(effect, effect ** (2 / 3) * design_effect(p[labels == 1, 1], groups[labels == 1]) ** (1 / 3))
    assert (found["low"], found["high"]) == pytest.approx(wilson(share, size, stats.t.ppf(0.975, 9 / 4 * (g - 1))))


@pytest.mark.parametrize("each", [1, 5])
def test_the_area_has_newcombes_interval_with_the_variance_of_delong_or_obuchowski(each):
    labels, p, groups = cohort(7, (11, 14), each)
    found = score_with_intervals(labels, p, groups)["roc_auc"]
    above, below = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    m, n = len(above), len(below)
    pairs = (p[above, 1][:, None] > p[below, 1]) + 0.5 * (p[above, 1][:, None] == p[below, 1])
    area = pairs.mean()
    # DeLong's structural components, added up by group.
    totals: dict[int, float] = {}
    for record, placed in [
        *zip(above, (pairs.mean(1) - area) / m, strict=True),
        *zip(below, (pairs.mean(0) - area) / n, strict=True),
    ]:
        totals[groups[record]] = totals.get(groups[record], 0.0) + placed
    parts = [np.array([totals[g] for g in np.unique(groups[side])]) for side in (above, below)]
    variances = [len(part) * part.var(ddof=1) for part in parts]
    freedom = sum(variances) ** 2 / sum(v**2 / (len(part) - 1) for v, part in zip(variances, parts, strict=True))
    quantile = stats.norm.ppf(0.975) if each == 1 else stats.t.ppf(0.975, freedom)

    def hanley_mcneil(a: float) -> float:
        more = (m + n) / 2 - 1
        return a * (1 - a) / (m * n) * (1 + more * (1 - a) / (2 - a) + more * a / (1 + a))

    m, n = (len(side) / design_effect(p[side, 1], groups[side]) for side in (above, below))
    expected = hanley_mcneil(area)
    m, n = len(above), len(below)
    scale = sum(variances) ** (2 / 3) * expected ** (1 / 3) / hanley_mcneil(area)
    for end in (found["low"], found["high"]):
        assert abs(end - area) == pytest.approx(quantile * (scale * hanley_mcneil(end)) ** 0.5, rel=1e-6)
    assert found["low"] < area < found["high"] < 1


def test_perfect_predictions_of_few_patients_are_no_point():
    labels = np.repeat([0, 0, 1, 1, 1, 1, 1, 1], 16)
    p = np.stack([1 - labels * 0.8 - 0.1, labels * 0.8 + 0.1], axis=1)
    found = score_with_intervals(labels, p, np.arange(len(labels)) // 16)
    for name in ("balanced_accuracy", "accuracy", "roc_auc", "f1_macro", "recall_0"):
        assert found[name]["value"] == found[name]["high"] == 1
        assert found[name]["low"] < 0.75, "two patients of one class, six of the other"


def test_a_share_of_one_is_of_as_many_records_as_their_scores_are_independent():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 10)
    labels = (groups >= 10).astype(int)
    alike, apart = rng.normal(size=20)[groups], rng.normal(size=200)
    lows = []
    for noise in (alike, apart, np.zeros(200)):
        p = 1 / (1 + np.exp(-(2 * labels - 1) * (3 + np.clip(noise, -2.5, 2.5))))
        found = score_with_intervals(labels, np.stack([1 - p, p], axis=1), groups)["recall_1"]
        assert found["value"] == 1
        lows.append(found["low"])
    # Ten records of a patient that are all alike are one; equal scores could be.
    assert lows[0] == pytest.approx(lows[2], abs=0.02)
    assert lows[0] == pytest.approx(wilson(1.0, 10, stats.t.ppf(0.975, 9 / 4 * 9))[0], abs=0.02)
    assert lows[1] > lows[0] + 0.2


def test_loss_allows_for_errors_that_few_records_do_not_show():
    """A calibrated model that errs in 3 of 100: of 2 x 5 patients without an error, as most are, the loss says too little."""
    rng, held = np.random.default_rng(0), 0
    truth = -np.log(1 / (1 + np.exp(-(x := 3.54 + 2.66 * rng.normal(size=200_000))))).mean()
    labels = np.repeat([0, 1], 5)
    for _ in range(150):
        x = (2 * labels - 1) * (3.54 + 2.66 * rng.normal(size=10))
        p = 1 / (1 + np.exp(-x))
        found = score_with_intervals(labels, np.stack([1 - p, p], axis=1), np.arange(10))["loss"]
        held += found["low"] <= truth <= found["high"]
    assert held >= 0.9 * 150


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(2, 60), st.integers(1, 20))
def test_every_interval_holds_its_score_and_is_json(seed, classes, n, groups):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    p = np.round(rng.dirichlet(np.ones(classes), n), 2) + 1e-9
    p /= p.sum(axis=1, keepdims=True)
    group = rng.integers(0, groups, n)
    found, values = score_with_intervals(labels, p, group), score(labels, p)
    assert json.dumps(found, allow_nan=False)
    assert {name for name, one in found.items() if one["value"] is not None} == set(values)
    for name, one in found.items():
        assert one["value"] == (pytest.approx(values[name]) if name in values else None)
        if one["low"] is not None:
            assert 0 <= one["low"] <= one["value"] + 1e-9, name
            assert one["value"] - 1e-9 <= one["high"] <= (np.inf if name in ("loss", "brier") else 1), name
    order = rng.permutation(n)
    again = score_with_intervals(labels[order], p[order], group[order])
    for name, one in found.items():
        assert again[name] == {key: value if value is None else pytest.approx(value, abs=1e-9) for key, value in one.items()}


def test_copies_of_a_patients_images_tell_nothing_new():
    labels, p, groups = cohort(11, (12, 15), 5, alike=0.6, shift=0.5)
    once = score_with_intervals(labels, p, groups)
    twice = score_with_intervals(np.tile(labels, 2), np.tile(p, (2, 1)), np.tile(groups, 2))
    for name in ("loss", "brier"):
        assert twice[name] == pytest.approx(once[name]), name
    for name in ("recall_0", "balanced_accuracy", "f1_1", "roc_auc"):
        length = [one[name]["high"] - one[name]["low"] for one in (once, twice)]
        assert length[1] >= 0.98 * length[0], name
    apart = score_with_intervals(labels, p, np.arange(len(labels)))
    lengths = [one["balanced_accuracy"]["high"] - one["balanced_accuracy"]["low"] for one in (once, apart)]
    assert lengths[0] > 1.2 * lengths[1]


def test_the_groups_of_a_class_are_counted():
    assert groups_per_class([0, 0, 1, 1, 1], ["a", "a", "b", "c", "c"]) == {0: 1, 1: 2}
    with pytest.raises(ValueError, match="2 groups for 1 labels"):
        score_with_intervals([0], [[0.5, 0.5]], ["a", "b"])


@pytest.mark.parametrize(("groups", "each", "shift"), [((7, 29), 1, 2.4), ((7, 28), 12, 2.0), ((10, 10), 6, 1.2)])
def test_intervals_hold_the_truth(groups, each, shift):
    """The bootstrap of whole patients held it in 68 to 90 % of these."""
    many = cohort(0, (20_000, 20_000), 1, shift=shift)
    # Balanced accuracy and area do not depend on the classes' shares.
    truth = score(many[0], many[1])
    held = {"balanced_accuracy": 0, "roc_auc": 0}
    for seed in range(120):
        found = score_with_intervals(*cohort(seed + 1, groups, each, shift=shift))
        for name in held:
            held[name] += found[name]["low"] <= truth[name] <= found[name]["high"]
    assert min(held.values()) >= 0.9 * 120, held


def test_the_nested_choice_is_not_too_high_where_the_best_of_all_is():
    """Twelve runs that guess, on 20 patients: what validation over all records chooses looks better than guessing."""
    import pandas as pd

    rng = np.random.default_rng(0)
    fold = np.arange(20) // 2 % 5
    best_of_all, nested = [], []
    for _ in range(25):
        candidates = []
        for run in range(12):
            p = rng.random(20)
            table = pd.DataFrame({"record": np.arange(20), "group": np.arange(20), "label": np.arange(20) % 2})
            table = table.assign(p_a=1 - p, p_b=p)
            # What the model of fold t says of fold t + 1 resembles what the model of t + 1's says of it.
            validation = table.assign(test_fold=(fold - 1) % 5)
            candidates.append(Candidate(f"run{run}", 1, validation, table.assign(test_fold=fold)))
        scores = [
            score(one.test["label"].to_numpy(), one.test[["p_a", "p_b"]].to_numpy())["balanced_accuracy"] for one in candidates
        ]
        best_of_all.append(max(scores))
        chosen, choices = choose_by_fold(candidates, ["a", "b"], 0.5)
        assert sorted(chosen["record"]) == list(range(20))
        assert list(choices) == list(range(5))
        nested.append(score(chosen["label"].to_numpy(), chosen[["p_a", "p_b"]].to_numpy())["balanced_accuracy"])
    assert np.mean(best_of_all) > 0.62
    assert np.mean(nested) == pytest.approx(0.5, abs=0.06)
