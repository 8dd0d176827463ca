"""What follows after an epoch, as a pure function of the validation losses so far.

These are the rules of Keras' EarlyStopping (restore best), ReduceLROnPlateau and ModelCheckpoint (save best only) on
`val_loss`, without hidden counters: an interrupted run that knows its history continues exactly as an unbroken one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cardium.config import Train

# ReduceLROnPlateau's default: a smaller gain counts as none.
_PLATEAU_MIN_DELTA = 1e-4


@dataclass(frozen=True)
class Schedule:
    """Settings of the rules.

    learning_rate: of the first epoch. step_epochs: epochs (from 0) before which the rate is multiplied by `step_factor`,
    whatever the losses are. replayed: another training's rates, an epoch each; with them the losses decide nothing.
    """

    learning_rate: float
    stop_patience: int
    plateau_patience: int
    plateau_factor: float
    min_learning_rate: float
    step_epochs: tuple[int, ...] = ()
    step_factor: float = 1.0
    replayed: tuple[float, ...] = ()


def schedule_of(train: Train, learning_rate: float) -> Schedule:
    """Takes the schedule from a run's training settings. learning_rate: the phase's first one."""
    return Schedule(
        learning_rate,
        train.stop_patience,
        train.plateau_patience,
        train.plateau_factor,
        train.min_learning_rate,
        tuple(train.step_epochs),
        train.step_factor,
    )


@dataclass(frozen=True)
class Step:
    """What comes next: the next epoch's learning rate, whether to stop, and the best epoch so far (-1 for none)."""

    learning_rate: float
    stop: bool
    best_epoch: int


def step_after(val_losses: Sequence[float], schedule: Schedule) -> Step:
    """Computes the next step from the validation losses of all epochs so far."""
    rate = schedule.learning_rate
    best, best_epoch, stop_wait, stop = float("inf"), -1, 0, False
    plateau_best, plateau_wait = float("inf"), 0
    for epoch, loss in enumerate(val_losses):
        if loss < best:
            best, best_epoch, stop_wait = loss, epoch, 0
        else:
            stop_wait += 1
            stop = stop or (stop_wait >= schedule.stop_patience and epoch > 0)
        if loss < plateau_best - _PLATEAU_MIN_DELTA:
            plateau_best, plateau_wait = loss, 0
        else:
            plateau_wait += 1
            if plateau_wait >= schedule.plateau_patience and rate > schedule.min_learning_rate:
                rate = max(rate * schedule.plateau_factor, schedule.min_learning_rate)
                plateau_wait = 0
    if schedule.replayed:
        done = len(val_losses)
        return Step(schedule.replayed[min(done, len(schedule.replayed) - 1)], done >= len(schedule.replayed), best_epoch)
    steps = sum(len(val_losses) >= epoch for epoch in schedule.step_epochs)
    return Step(rate * schedule.step_factor**steps, stop, best_epoch)
