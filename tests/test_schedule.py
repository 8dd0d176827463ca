"""The schedule is Keras' EarlyStopping, ReduceLROnPlateau and best checkpoint, as a function of the history."""

from __future__ import annotations

import keras
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cardium.training.schedule import Schedule, step_after


def keras_steps(losses: list[float], schedule: Schedule) -> tuple[list[float], int, int]:
    """What Keras' own callbacks do: each epoch's rate, the number of epochs run, and the best epoch."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(schedule.learning_rate), "mse")
    stop = keras.callbacks.EarlyStopping("val_loss", patience=schedule.stop_patience, restore_best_weights=True)
    plateau = keras.callbacks.ReduceLROnPlateau(
        "val_loss", factor=schedule.plateau_factor, patience=schedule.plateau_patience, min_lr=schedule.min_learning_rate
    )
    for callback in (stop, plateau):
        callback.set_model(model)
        callback.on_train_begin()
    rates = []
    model.stop_training = False
    for epoch, loss in enumerate(losses):
        rates.append(float(model.optimizer.learning_rate))
        for callback in (stop, plateau):
            callback.on_epoch_end(epoch, {"val_loss": loss})
        if model.stop_training:
            break
    return rates, len(rates), int(stop.best_epoch)


@given(
    # Keras compares in float32.
    losses=st.lists(st.floats(0.125, 2.0, width=32), min_size=1, max_size=25),
    stop=st.integers(1, 6),
    plateau=st.integers(1, 4),
    factor=st.sampled_from([0.5, 0.1]),
)
def test_it_does_what_the_callbacks_do(losses: list[float], stop: int, plateau: int, factor: float) -> None:
    schedule = Schedule(1e-3, stop, plateau, factor, 1e-4)
    rates, epochs, best = keras_steps(losses, schedule)
    ours = []
    history: list[float] = []
    for loss in losses:
        step = step_after(history, schedule)
        if step.stop:
            break
        ours.append(step.learning_rate)
        history.append(loss)
    assert len(ours) == epochs
    np.testing.assert_allclose(ours, rates, rtol=1e-6)
    assert step_after(history, schedule).best_epoch == best


def test_a_history_that_only_falls_changes_nothing() -> None:
    step = step_after([1.0, 0.9, 0.8, 0.7], Schedule(1e-4, 5, 3, 0.5, 1e-6))
    assert (step.learning_rate, step.stop, step.best_epoch) == (1e-4, False, 3)


def test_steps_come_before_their_epochs_whatever_the_losses_are() -> None:
    schedule = Schedule(1e-3, 1000, 1000, 0.5, 1e-9, step_epochs=(10, 15), step_factor=0.5)
    rates = [step_after([1.0] * epoch, schedule).learning_rate for epoch in range(20)]
    assert rates == [1e-3] * 10 + [5e-4] * 5 + [2.5e-4] * 5, "system 003's"
