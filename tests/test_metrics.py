"""Scores against scikit-learn and Keras, the bootstrap against a plain loop."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardium.evaluation import metrics
from cardium.evaluation.metrics import GroupBootstrap, balanced_accuracy_under, paired_difference, score


def sample(seed: int, n: int, classes: int, groups: int, coarse: bool = False):
    """Labels, probabilities and groups; `coarse` rounds probabilities so that many tie."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    scores = rng.normal(size=(n, classes)) + 1.0 * np.eye(classes)[labels]
    if coarse:
        scores = np.round(scores)
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return labels, p, np.array([f"p{g:03d}" for g in rng.integers(0, groups, n)])


def by_sklearn(labels, p, threshold=0.5, weight=None) -> dict[str, float]:
    from sklearn import metrics as sk

    classes = list(range(p.shape[1]))
    decided = (p[:, 1] > threshold).astype(int) if len(classes) == 2 else p.argmax(1)
    own: dict = {"labels": classes, "zero_division": 0, "sample_weight": weight}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        precision, recall, f1, _ = sk.precision_recall_fscore_support(labels, decided, average=None, **own)
        macro = sk.precision_recall_fscore_support(labels, decided, average="macro", **own)
        weighted = sk.precision_recall_fscore_support(labels, decided, average="weighted", **own)
        result = {
            "accuracy": sk.accuracy_score(labels, decided, sample_weight=weight),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, decided, sample_weight=weight),
            "loss": sk.log_loss(labels, np.clip(p, 1e-7, 1), labels=classes, sample_weight=weight),
            "brier": sk.brier_score_loss(
                labels, p[:, 1] if len(classes) == 2 else p, labels=classes, pos_label=1 if len(classes) == 2 else None,
                sample_weight=weight,
            ),
            "precision_macro": macro[0], "recall_macro": macro[1], "f1_macro": macro[2],
            "precision_weighted": weighted[0], "recall_weighted": weighted[1], "f1_weighted": weighted[2],
        }  # fmt: skip
        for c in classes:
            result |= {f"precision_{c}": precision[c], f"recall_{c}": recall[c], f"f1_{c}": f1[c]}
        used = labels if weight is None else labels[weight > 0]
        if len(np.unique(used)) == len(classes):
            areas = [
                sk.roc_auc_score(labels == c, p[:, c], sample_weight=weight) for c in (classes if len(classes) > 2 else [1])
            ]
            result["roc_auc"] = float(np.mean(areas))
    return result


def naive_calibration_error(labels, p, threshold=0.5, bins=15, weight=None) -> float:
    """Guo et al. 2017, equations 3 to 5, bin by bin."""
    weight = np.ones(len(labels)) if weight is None else weight
    decided = (p[:, 1] > threshold).astype(int) if p.shape[1] == 2 else p.argmax(1)
    confidence = p[np.arange(len(p)), decided]
    error = 0.0
    for m in range(bins):
        inside = (confidence > m / bins) & (confidence <= (m + 1) / bins)
        if weight[inside].sum() > 0:
            right = np.average(decided[inside] == labels[inside], weights=weight[inside])
            error += weight[inside].sum() / weight.sum() * abs(right - np.average(confidence[inside], weights=weight[inside]))
    return error


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
@pytest.mark.parametrize("coarse", [False, True])
def test_scores_agree_with_sklearn(classes, coarse):
    labels, p, _ = sample(classes, 400, classes, 20, coarse)
    ours, theirs = score(labels, p), by_sklearn(labels, p)
    assert set(ours) == set(theirs) | {"calibration_error"}
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-12), name
    assert ours["calibration_error"] == pytest.approx(naive_calibration_error(labels, p), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(4, 40), st.floats(0.05, 0.95))
def test_scores_agree_with_sklearn_on_anything(seed, classes, n, threshold):
    """Small samples: absent classes, classes never decided, ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, rng.integers(1, classes + 1), n)
    p = np.round(rng.dirichlet(np.ones(classes), n), int(rng.integers(1, 4)))
    p = np.where(p.sum(axis=1, keepdims=True) > 0, p, 1.0)
    p /= p.sum(axis=1, keepdims=True)
    ours, theirs = score(labels, p, threshold), by_sklearn(labels, p, threshold)
    assert ("roc_auc" in ours) == ("roc_auc" in theirs)
    for name, value in theirs.items():
        # Probabilities of exactly 0 are clipped, in sklearn's case before its rows are rescaled.
        assert ours[name] == pytest.approx(value, abs=1e-6 if name == "loss" else 1e-9), name
    assert json.dumps(ours, allow_nan=False)


def test_confusion_agrees_with_sklearn():
    from sklearn.metrics import confusion_matrix

    labels, p, _ = sample(3, 300, 4, 10)
    assert metrics.confusion(labels, p).tolist() == confusion_matrix(labels, p.argmax(1)).tolist()


def test_loss_is_that_of_keras():
    keras = pytest.importorskip("keras")
    labels = np.array([0, 1, 1, 0, 1])
    p1 = np.array([0.2, 0.7, 0.0, 1.0, 1.0])  # the third and the fourth are certain and wrong: only the clip keeps them finite
    theirs = float(keras.losses.BinaryCrossentropy()(labels[:, None].astype("float32"), p1[:, None].astype("float32")))
    assert score(labels, np.stack([1 - p1, p1], axis=1))["loss"] == pytest.approx(theirs, rel=1e-2)
    q = np.array([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
    theirs = float(keras.losses.SparseCategoricalCrossentropy()(np.array([1, 0, 2]), q))
    assert score(np.array([1, 0, 2]), q)["loss"] == pytest.approx(theirs, rel=1e-6)


def test_binary_decision_is_strictly_above_the_threshold():
    p = np.array([[0.5, 0.5], [0.4, 0.6], [0.39, 0.61]])
    assert metrics.decide(p).tolist() == [0, 1, 1]
    assert metrics.decide(p, 0.6).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("labels", "p", "says"),
    [
        ([0, 1], [[0.5, 0.5]], "expected"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], "from 0 to 1"),
        ([0, 1], [[0.5, np.nan], [0.5, 0.5]], "1 of 2 records"),
        ([], np.zeros((0, 2)), "n >= 1"),
        ([0.0, 1.0], [[0.5, 0.5], [0.5, 0.5]], "whole numbers"),
    ],
)
def test_wrong_input_is_refused(labels, p, says):
    with pytest.raises(ValueError, match=says):
        score(np.array(labels), np.array(p))


@pytest.mark.parametrize(("classes", "coarse"), [(2, False), (4, True)])
def test_bootstrap_is_that_of_a_plain_loop(classes, coarse):
    labels, p, groups = sample(7, 240, classes, 12, coarse)
    bootstrap = GroupBootstrap(groups, labels, resamples=60, seed=3)
    value, draws = balanced_accuracy_under(labels, p, groups, bootstrap)
    assert value == pytest.approx(score(labels, p)["balanced_accuracy"])
    loop = [
        by_sklearn(labels, p, weight=weights[bootstrap.index(groups)])["balanced_accuracy"] for weights in bootstrap.weights
    ]
    assert draws == pytest.approx(loop)


def test_resampling_an_integer_weight_is_repeating_the_group():
    """Weights mean copies: a group drawn three times scores like three copies of its records."""
    labels, p, groups = sample(5, 60, 2, 6)
    bootstrap = GroupBootstrap(groups, labels, resamples=1, seed=0)
    bootstrap.weights = np.array([[3.0, 0, 1, 2, 1, 0]])
    copies = np.repeat(np.arange(len(labels)), bootstrap.weights[0][bootstrap.index(groups)].astype(int))
    _, draws = balanced_accuracy_under(labels, p, groups, bootstrap)
    assert draws == pytest.approx([score(labels[copies], p[copies])["balanced_accuracy"]])


def test_bootstrap_is_drawn_once_and_keeps_every_class():
    labels, _, groups = sample(2, 90, 3, 9)
    labels = np.array([int(g[1:]) % 3 for g in groups])
    a, b = GroupBootstrap(groups, labels, 500, seed=1), GroupBootstrap(groups[::-1], labels[::-1], 500, seed=1)
    assert np.array_equal(a.weights, b.weights), "the order of the records must not matter"
    assert not np.array_equal(a.weights, GroupBootstrap(groups, labels, 500, seed=2).weights)
    stratum = np.array([int(g[1:]) % 3 for g in a.names])
    for c in range(3):
        members = a.weights[:, stratum == c]
        assert np.allclose(members.sum(axis=1), members.shape[1])
    with pytest.raises(ValueError, match="`new`"):
        a.index(["p001", "new"])


def test_a_group_of_two_labels_counts_once_a_label():
    labels = np.array([0, 0, 1, 1, 1])
    p = np.array([[0.8, 0.2], [0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    y, means, names = metrics.per_group(labels, p, np.array(["b", "b", "b", "a", "a"]))
    assert names.tolist() == ["a", "b", "b"]
    assert y.tolist() == [1, 0, 1]
    assert means == pytest.approx(np.array([[0.3, 0.7], [0.7, 0.3], [0.9, 0.1]]))


def test_paired_difference_uses_the_same_resamples():
    labels, p, groups = sample(9, 600, 2, 20)
    bootstrap = GroupBootstrap(groups, labels, 800, 4)
    better = np.clip(p + 0.15 * (np.eye(2)[labels] - 0.5), 0.001, 0.999)
    result = paired_difference(labels, groups, better, p, bootstrap)
    a, b = score(labels, better)["balanced_accuracy"], score(labels, p)["balanced_accuracy"]
    assert result["difference"] == pytest.approx(a - b)
    assert result["low"] <= result["difference"] <= result["high"]
    assert result["probability_better"] > 0.99
    # Paired: far narrower than two independent intervals put together.
    low, high = np.quantile(balanced_accuracy_under(labels, p, groups, bootstrap)[1], [0.025, 0.975])
    assert result["high"] - result["low"] < 0.7 * (high - low) * 2**0.5
    swapped = paired_difference(labels, groups, p, better, bootstrap)
    assert swapped["probability_better"] == pytest.approx(1 - result["probability_better"])
    loop = []
    for weights in bootstrap.weights[:50]:
        weight = weights[bootstrap.index(groups)]
        loop.append(
            by_sklearn(labels, better, weight=weight)["balanced_accuracy"]
            - by_sklearn(labels, p, weight=weight)["balanced_accuracy"]
        )
    bootstrap.weights = bootstrap.weights[:50]
    assert paired_difference(labels, groups, better, p, bootstrap)["low"] == pytest.approx(np.quantile(loop, 0.025))


def test_ties_count_one_half():
    labels, p, groups = sample(11, 200, 3, 10)
    bootstrap = GroupBootstrap(groups, labels, 100, 0)
    same = paired_difference(labels, groups, p, p, bootstrap)
    assert same == {"difference": 0.0, "low": 0.0, "high": 0.0, "probability_better": 0.5}


def test_roc_points_are_those_of_sklearn():
    from sklearn.metrics import auc, roc_curve

    labels, p, _ = sample(13, 300, 2, 5, coarse=True)
    false, true = metrics.roc_points(labels, p)
    theirs = roc_curve(labels, p[:, 1], drop_intermediate=False)
    assert false == pytest.approx(theirs[0])
    assert true == pytest.approx(theirs[1])
    labels, p, _ = sample(13, 900, 4, 5)
    false, true = metrics.roc_points(labels, p)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert (np.diff(true) >= 0).all()
    assert auc(false, true) == pytest.approx(score(labels, p)["roc_auc"], abs=0.01)
    with pytest.raises(ValueError, match="every class"):
        metrics.roc_points(np.zeros(3, dtype=int), np.tile([0.5, 0.5], (3, 1)))


def test_calibration_curve_is_what_the_error_averages():
    labels, p, _ = sample(17, 500, 3, 5)
    confidence, accuracy, count = metrics.calibration_curve(labels, p)
    assert count.sum() == 500
    assert (count * abs(accuracy - confidence)).sum() / 500 == pytest.approx(score(labels, p)["calibration_error"])


@given(seed=st.integers(0, 10_000), n=st.integers(5, 60), classes=st.integers(2, 4), coarse=st.booleans())
def test_coverage_is_the_accuracy_of_the_surest(seed, n, classes, coarse):
    labels, p, _ = sample(seed, n, classes, 3, coarse)
    decided = metrics.decide(p, 0.5)
    sure = p[np.arange(n), decided]
    answered, accuracy = metrics.coverage_curve(labels, p)
    right = decided == labels
    wanted = [(np.mean(sure >= level), np.mean(right[sure >= level])) for level in sorted(set(sure), reverse=True)]
    np.testing.assert_allclose(np.column_stack([answered, accuracy]), wanted)
    assert answered[-1] == 1
    assert accuracy[-1] == pytest.approx(score(labels, p)["accuracy"])
