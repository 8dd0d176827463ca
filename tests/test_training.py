"""Training is a function of its seed: unbroken, resumed or killed by the system, it ends with the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from cardium.models import create_head
from cardium.schedule import Schedule
from cardium.training import Examples, class_weights, fit, predict

SCHEDULE = Schedule(1e-2, 5, 3, 0.5, 1e-6)
MAPS = np.random.default_rng(0).normal(size=(3, 60, 2, 2, 8)).astype("float32")
LABELS = (MAPS[0, :, :, :, 0].mean(axis=(1, 2)) + 0.3 * MAPS[0, :, 0, 0, 1] > 0).astype(np.int64)


def examples(rows: slice, training: bool) -> Examples:
    labels = LABELS[rows]

    def inputs(epoch: int, positions: np.ndarray) -> np.ndarray:
        view = 1 + epoch % 2 if training and epoch >= 0 else 0
        return MAPS[view][rows][positions] * 0.2 + MAPS[0][rows][positions]

    return Examples(inputs, labels)


def train(state: Path, epochs: int = 6, seed: int = 3, pause: float = 0.0, **changes: Any) -> tuple[list[np.ndarray], Any]:
    head = create_head("mobilenetv2_spatial", classes=2, map_shape=(2, 2, 8), dropout=0.5, seed=seed)

    def show(line: str) -> None:
        print(line, flush=True)
        time.sleep(pause)

    fitted = fit(
        head,
        examples(slice(0, 45), True),
        examples(slice(45, 60), False),
        **{
            "schedule": SCHEDULE, "epochs": epochs, "batch": 7, "weights": np.array([0.8, 1.3]), "seed": seed,
            "state_folder": state, "key": "key", "show": show, **changes,
        },
    )  # fmt: skip
    return [w.numpy() for w in head.trainable_weights], fitted


def same(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path: Path) -> None:
    first, fitted = train(tmp_path / "a")
    again, _ = train(tmp_path / "b")
    other, _ = train(tmp_path / "c", seed=4)
    assert same(first, again)
    assert not same(first, other)
    assert [row["epoch"] for row in fitted.history] == list(range(len(fitted.history)))


def test_it_learns_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    weights, fitted = train(tmp_path, epochs=30)
    losses = [row["val_loss"] for row in fitted.history]
    assert losses[fitted.best_epoch] == min(losses) < losses[0]
    # What is left in the model is the best epoch's weights, not the last one's.
    head = create_head("mobilenetv2_spatial", classes=2, map_shape=(2, 2, 8), dropout=0.5, seed=0)
    head.set_weights([*weights, *[w.numpy() for w in head.weights[len(weights) :]]])
    validation = examples(slice(45, 60), False)
    probabilities = predict(head, validation, 4)
    expected = keras.losses.SparseCategoricalCrossentropy()(validation.labels, probabilities)
    assert min(losses) == pytest.approx(float(expected), abs=1e-6)


def test_an_epochs_loss_and_accuracy_are_means_over_all_its_examples(tmp_path: Path) -> None:
    """Against keras' own fit, on one epoch with nothing random in it: no dropout, one batch."""
    ours = create_head("mobilenetv2", classes=2, map_shape=(2, 2, 8), dropout=0.0, seed=1)
    theirs = create_head("mobilenetv2", classes=2, map_shape=(2, 2, 8), dropout=0.0, seed=1)
    data = Examples(lambda _, at: MAPS[0][at], LABELS)
    weights = np.array([0.5, 2.0])
    fitted = fit(
        ours, data, data, schedule=SCHEDULE, epochs=1, batch=60, weights=weights, seed=1, state_folder=tmp_path, key="k",
        show=lambda _: None,
    )  # fmt: skip
    theirs.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = theirs.fit(
        MAPS[0], LABELS, batch_size=60, class_weight={0: 0.5, 1: 2.0}, validation_data=(MAPS[0], LABELS), verbose=0
    ).history
    row = fitted.history[0]
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert row[name] == pytest.approx(history[name][0], abs=1e-5), name


def test_a_run_cut_in_two_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    whole, fitted = train(tmp_path / "whole", epochs=6)
    train(tmp_path / "cut", epochs=2)
    resumed, after = train(tmp_path / "cut", epochs=6)
    assert same(whole, resumed)
    for name in ("loss", "val_loss", "learning_rate"):
        assert [row[name] for row in fitted.history] == [row[name] for row in after.history]


def test_the_state_of_another_training_is_not_taken(tmp_path: Path) -> None:
    fresh, _ = train(tmp_path / "fresh", epochs=3)
    train(tmp_path / "state", epochs=2, key="something else")
    assert same(fresh, train(tmp_path / "state", epochs=3)[0])


def test_a_damaged_state_is_begun_again(tmp_path: Path) -> None:
    fresh, _ = train(tmp_path / "fresh", epochs=3)
    train(tmp_path / "state", epochs=2)
    file = tmp_path / "state" / "state.npz"
    file.write_bytes(file.read_bytes()[:100])
    assert same(fresh, train(tmp_path / "state", epochs=3)[0])


def test_killed_by_the_system_and_started_again_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    here = Path(__file__).resolve().parent
    code = "import sys; from pathlib import Path; import test_training as t; t.train(Path(sys.argv[1]), epochs=6, pause=0.3)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent / "src")])}
    command = [sys.executable, "-c", code, str(tmp_path / "killed")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "epoch 3/6" in line:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    resumed, after = train(tmp_path / "killed", epochs=6)
    whole, _ = train(tmp_path / "whole", epochs=6)
    assert len(after.history) == 6
    assert same(whole, resumed)


def test_class_weights_are_scikit_learns_balanced_ones() -> None:
    labels = np.array([0] * 37564 + [1] * 25861)
    ours = class_weights(labels, 2)
    np.testing.assert_allclose(ours, compute_class_weight("balanced", classes=np.array([0, 1]), y=labels))
    # System 000's own figures.
    np.testing.assert_allclose(ours, [0.8442, 1.2263], atol=1e-4)
    assert class_weights(np.array([0, 0]), 2)[1] == 0
