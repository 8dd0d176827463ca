"""Temperature scaling: fitted on validation, in the weights of the last layer, the same in scoring and in the saved model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardium.evaluation.metrics import score
from cardium.models import create_model, load_model
from cardium.models.trained import set_trained, trained_weights
from cardium.runs.temperature import calibrate, fit_temperature, tempered


def overconfident(seed: int, classes: int, true: float, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities whose logits are `true` times too large, and labels drawn from the right ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (count, classes))
    right = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(classes, p=row) for row in right])
    return tempered(right, 1 / true), labels


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(classes: int, true: float) -> None:
    p, labels = overconfident(0, classes, true)
    assert fit_temperature(p, labels, np.arange(len(labels))) == pytest.approx(true, rel=0.1)


def test_it_is_the_minimum_of_scipys_search() -> None:
    from scipy.optimize import minimize_scalar

    p, labels = overconfident(1, 3, 2.0, 300)
    groups = np.arange(300) // 3
    right = 101 / 102

    def cross_entropy(log_temperature: float) -> float:
        log = np.log(tempered(p, np.exp(log_temperature)))
        own = log[np.arange(300), labels]
        return -float((right * own + (1 - right) / 2 * (log.sum(axis=1) - own)).mean())

    found = minimize_scalar(cross_entropy, bounds=(-3, 3), method="bounded", options={"xatol": 1e-8})
    assert np.log(fit_temperature(p, labels, groups)) == pytest.approx(found.x, abs=1e-4)


def test_held_out_records_are_better_calibrated() -> None:
    p, labels = overconfident(2, 4, 2.5)
    half = len(labels) // 2
    temperature = fit_temperature(p[:half], labels[:half], np.arange(half))
    before, after = (score(labels[half:], q)["calibration_error"] for q in (p[half:], tempered(p[half:], temperature)))
    assert after < 0.04 < 0.15 < before


def test_few_patients_all_right_do_not_make_a_model_sure() -> None:
    p = np.tile([0.1, 0.9], (60, 1))
    labels = np.ones(60, dtype=int)
    few = tempered(p, fit_temperature(p, labels, np.arange(60) // 12))[0, 1]
    many = tempered(p, fit_temperature(p, labels, np.arange(60)))[0, 1]
    assert few == pytest.approx(6 / 7, abs=1e-3), "the rule of succession: five patients right, then one more"
    assert many == pytest.approx(61 / 62, abs=1e-3)


@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_decisions_and_sums_stay_and_the_inverse_gives_back(seed: int, temperature: float) -> None:
    p = np.random.default_rng(seed).dirichlet(np.ones(3), 20)
    scaled = tempered(p, temperature)
    np.testing.assert_array_equal(scaled.argmax(axis=1), p.argmax(axis=1))
    np.testing.assert_allclose(scaled.sum(axis=1), 1)
    np.testing.assert_allclose(tempered(scaled, 1 / temperature), p, atol=1e-9)


@pytest.mark.parametrize(("model", "classes"), [("cnn_baseline", 2), ("cnn_baseline", 4)])
def test_the_saved_model_holds_it_without_another_layer(model: str, classes: int, tmp_path: Path) -> None:
    whole = create_model(model, classes=classes, height=32, width=32)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype(np.float32)
    before = np.asarray(whole(pixels), np.float64)
    layers = len(whole.layers)
    labels = np.arange(6) % classes
    scaled = calibrate(trained_weights(whole), before, labels, np.arange(6))
    assert scaled.temperature != pytest.approx(1.0)
    set_trained(whole, scaled.weights)
    whole.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert len(loaded.layers) == layers
    after = np.asarray(loaded(pixels))
    np.testing.assert_allclose(after, scaled.probabilities, atol=1e-6)
    np.testing.assert_array_equal(after, np.asarray(whole(pixels)), "bit for bit through saving")
