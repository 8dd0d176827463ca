"""The gain that a search announces, where the truth is known: benchmarks/honesty/search_gain.py, a few searches of it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cardium.evaluation.metrics import GroupBootstrap, paired_difference
from cardium.tuning.gain import gain_of_best

SIMULATION = Path(__file__).resolve().parents[1] / "benchmarks" / "honesty" / "search_gain.py"


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("search_gain", SIMULATION)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Its dataclass looks there for its own annotations.
    spec.loader.exec_module(module)
    return module


def test_equal_settings_are_seldom_announced_as_a_gain(simulation: ModuleType) -> None:
    rng = np.random.default_rng(5)
    patients = simulation.Collection("", (20, 20), 4, 0.75)
    found = [simulation.announced(patients, 10, 0.0, rng, 300) for _ in range(80)]
    pair, bound = np.mean(found, axis=0)
    assert bound <= 0.05 < pair, "the pair alone is what picks the best and then trusts it"


def test_a_much_better_setting_is_announced(simulation: ModuleType) -> None:
    rng = np.random.default_rng(6)
    sheets = simulation.Collection("", (30, 86, 142), 1, 0.75)
    assert np.mean([simulation.announced(sheets, 10, 0.2, rng, 300)[1] for _ in range(10)]) >= 0.9


def made() -> tuple[np.ndarray, np.ndarray, list[np.ndarray], GroupBootstrap]:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 30)
    groups = np.arange(60) // 2
    trials = []
    for skill in (0.7, 0.9, 0.7, 0.6):
        p = np.where(rng.random(60) < skill, 0.9, 0.1)
        trials.append(np.where(labels[:, None] == [0, 1], p[:, None], 1 - p[:, None]))
    return labels, groups, trials, GroupBootstrap(groups, labels, 1000, 1)


def bound(trials: list[np.ndarray], challengers: int = 0) -> dict[str, float]:
    labels, groups, (own, *_), bootstrap = made()
    return gain_of_best(labels, groups, own, trials, 0, bootstrap, threshold=0.5, interval=0.95, challengers=challengers)


def test_the_lower_end_falls_with_every_trial_and_the_rest_is_the_pairs() -> None:
    labels, groups, (own, best, third, fourth), bootstrap = made()
    pair = paired_difference(labels, groups, best, own, bootstrap)
    alone, several = bound([best]), bound([best, third, fourth])
    assert several["low"] < alone["low"] <= pair["difference"]
    assert alone["low"] == pytest.approx(pair["low"], abs=0.05), "of one trial it is the pair's own interval, reflected"
    assert {name: several[name] for name in ("difference", "high", "probability_better")} == {
        name: pair[name] for name in ("difference", "high", "probability_better")
    }


def test_trials_whose_predictions_are_elsewhere_count_too() -> None:
    best = made()[2][1]
    assert bound([best], challengers=20)["low"] < bound([best])["low"]
