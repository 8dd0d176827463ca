"""Trains one model on one fold, epoch by epoch; an interrupted training continues where it stopped.

The order of examples, the dropout masks and the learning rate of an epoch are functions of (seed, epoch, history). A run that
was killed and restarted therefore ends with the same weights as an unbroken one.
"""

from __future__ import annotations

import itertools
import json
import time
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cardium import atomic
from cardium.errors import CardiumError
from cardium.models.graph import graph_digest
from cardium.parallel import cores
from cardium.provenance import made_by, said_anew
from cardium.training.schedule import Schedule, schedule_of, step_after

if TYPE_CHECKING:
    import keras

    from cardium.config import Train


# Batches read ahead at once: augmentation runs outside of Python's lock, and a GPU outruns one thread of it.
_READERS = min(8, cores())
# The code whose every word decides what an epoch leaves behind. A model's own is in the hash of its graph.
_CODE = ("training", "imaging/augment.py", "data/rendering.py")


@dataclass(frozen=True)
class Examples:
    """Training examples by position. inputs(epoch, positions) -> float array (n, ...); labels: (N,) class indices."""

    inputs: Callable[[int, np.ndarray], np.ndarray]
    labels: np.ndarray


@dataclass(frozen=True)
class Optimization:
    """Optimizer settings, named as in params.yaml.

    weight_decay: decoupled (arXiv:1711.05101). clip_norm: over all gradients together, 0 for none. keep: `best` or `last`
    epoch's weights. accumulate: batches whose gradients are averaged into one step.
    """

    optimizer: str = "adam"
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    label_smoothing: float = 0.0
    keep: str = "best"
    accumulate: int = 1


def optimization_of(train: Train) -> Optimization:
    """Takes the optimizer settings from a run's training settings."""
    return Optimization(
        train.optimizer, train.weight_decay, train.clip_norm, train.label_smoothing, train.keep, train.accumulate
    )


@dataclass(frozen=True)
class Recipe:
    """How `fit` trains a model.

    epochs: at most. class_weights: (C,), for the training loss; the validation loss is unweighted. seed: with the epoch, it
    determines the order of examples and the dropout masks.
    """

    schedule: Schedule
    epochs: int
    batch: int
    class_weights: np.ndarray
    seed: int
    optimization: Optimization = Optimization()


def recipe_of(train: Train, labels: np.ndarray, classes: int, seed: int) -> Recipe:
    """Builds the recipe from a run's training settings, for training examples with labels (N,)."""
    weights = class_weights(labels, classes) if train.class_weights == "balanced" else np.ones(classes)
    return Recipe(schedule_of(train, train.learning_rate), train.epochs, train.batch, weights, seed, optimization_of(train))


@dataclass(frozen=True)
class Checkpoint:
    """Where the state after each epoch is stored.

    key: of the settings and the data. A stored state is used only if its key, the model's graph, cardium's code and the
    libraries are the same.
    """

    folder: Path
    key: str

    def below(self, name: str) -> Checkpoint:
        """Returns the checkpoint of a part of the training, in a subfolder."""
        return Checkpoint(self.folder / name, self.key)


@dataclass(frozen=True)
class Fitted:
    """The result of `fit`.

    history: one row per epoch. best_epoch: from 0; the epoch whose weights the model has. seconds: without interruptions.
    """

    history: list[dict[str, float]]
    best_epoch: int
    seconds: float

    def summary(self) -> dict[str, Any]:
        """Summarises the training as run.json's `phases` store it: epochs, best_epoch, val_loss."""
        val_loss = self.history[self.best_epoch]["val_loss"]
        return {"epochs": len(self.history), "best_epoch": self.best_epoch, "val_loss": val_loss}


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Computes n / (C n_c) for each class, so that all classes weigh the same in the loss; 0 for an absent class."""
    counts = np.bincount(labels, minlength=classes)
    return np.divide(len(labels), classes * counts, out=np.zeros(classes), where=counts > 0)


def fit(
    model: keras.Model,
    train: Examples,
    validation: Examples,
    *,
    recipe: Recipe,
    checkpoint: Checkpoint | None = None,
    show: Callable[[str], None] = print,
) -> Fitted:
    """Trains `model` in place and leaves the weights of the best epoch (lowest validation loss) or of the last one in it.

    model: inputs -> probabilities (n, C). Its trainable weights are trained on the class-weighted cross-entropy.
    checkpoint: None for none; an interrupted training then starts again. show: called with one line per epoch.
    Raises CardiumError if the loss is no longer finite.
    """
    schedule, how = recipe.schedule, recipe.optimization
    _prepare(model, schedule, how)
    history: list[dict[str, float]] = []
    best: list[np.ndarray] | None = None
    seconds = 0.0
    made = _parts_of_key(model, checkpoint)
    found = _stored(checkpoint)
    if found is not None and (changed := [part for part in made if found[0].get(part) != made[part]]):
        show(f"  {said_anew('the state of an earlier training', changed)}")
        found = None
    if found is not None:
        history, best, seconds = _restore(model, *found)
        show(f"  goes on after epoch {len(history)}")
    while True:
        step = step_after([row["val_loss"] for row in history], schedule)
        if step.stop or len(history) >= recipe.epochs:
            break
        began = time.perf_counter()
        row = _epoch(model, train, validation, recipe, len(history), step.learning_rate)
        took = time.perf_counter() - began
        seconds += took
        if not np.isfinite(row["val_loss"]):
            raise CardiumError(
                f"Training diverged in epoch {len(history) + 1} (the loss is no number): set a lower learning rate."
            )
        history.append({**row, "seconds": round(took, 3)})
        after = step_after([r["val_loss"] for r in history], schedule)
        if after.best_epoch == len(history) - 1:
            best = [variable.numpy() for variable in learned_variables(model)]
        if checkpoint is not None:
            _save(model, checkpoint, made, history, best, seconds)
        mark = " *" if after.best_epoch == len(history) - 1 else ""
        show(
            f"  epoch {len(history)}/{recipe.epochs}: loss {row['loss']:.4f}, accuracy {row['accuracy']:.3f}, "
            f"val_loss {row['val_loss']:.4f}, val_accuracy {row['val_accuracy']:.3f}, {took:.1f} s{mark}"
        )
    assert best is not None  # at least one epoch has run
    if how.keep == "last":
        return Fitted(history, len(history) - 1, seconds)
    for variable, value in zip(learned_variables(model), best, strict=True):
        variable.assign(value)
    return Fitted(history, step.best_epoch, seconds)


def _prepare(model: keras.Model, schedule: Schedule, how: Optimization) -> None:
    """Compiles `model`, or resets its optimizer if an earlier fold compiled it: tracing a graph takes longer than an epoch."""
    import keras

    if getattr(model, "optimizer", None) is None:
        smoothed = how.label_smoothing > 0
        model.compile(
            optimizer=_optimizer(schedule.learning_rate, how),
            # Keras smooths only labels that are given as one column a class.
            loss=keras.losses.CategoricalCrossentropy(label_smoothing=how.label_smoothing)
            if smoothed
            else keras.losses.SparseCategoricalCrossentropy(),
            metrics=[
                keras.metrics.CategoricalAccuracy(name="accuracy")
                if smoothed
                else keras.metrics.SparseCategoricalAccuracy(name="accuracy")
            ],
        )
        model.optimizer.build(model.trainable_variables)
    else:
        for variable in model.optimizer.variables:
            variable.assign(np.zeros(variable.shape, dtype=variable.dtype))


def _optimizer(learning_rate: float, how: Optimization) -> keras.optimizers.Optimizer:
    import keras

    common: dict[str, float | None] = {"learning_rate": learning_rate}
    common["weight_decay"] = how.weight_decay or None
    common["global_clipnorm"] = how.clip_norm or None
    common["gradient_accumulation_steps"] = how.accumulate if how.accumulate > 1 else None
    if how.optimizer == "sgd":
        return keras.optimizers.SGD(momentum=0.9, **common)
    kinds = {"adam": keras.optimizers.Adam, "adamax": keras.optimizers.Adamax, "adamw": keras.optimizers.AdamW}
    if how.optimizer == "adamw" and not how.weight_decay:
        common["weight_decay"] = 0.0  # None is not taken.
    return kinds[how.optimizer](**common)


def _epoch(
    model: keras.Model, train: Examples, validation: Examples, recipe: Recipe, epoch: int, learning_rate: float
) -> dict[str, float]:
    """Trains epoch `epoch` (from 0) and returns its row of the history, without the seconds."""
    weights, smoothed = recipe.class_weights, recipe.optimization.label_smoothing > 0
    _seed_layers(model, recipe.seed, epoch)
    model.optimizer.learning_rate.assign(learning_rate)
    order = np.random.default_rng([recipe.seed, epoch]).permutation(len(train.labels))
    loss = accuracy = 0.0
    one_hot = np.eye(len(weights), dtype=np.float32)
    for positions, inputs in batches(train, epoch, order, recipe.batch):
        labels = train.labels[positions]
        targets = one_hot[labels] if smoothed else labels
        # train_on_batch reports one batch alone; the epoch's figures are the means over its examples, as fit() gives them.
        logs = model.train_on_batch(inputs, targets, sample_weight=weights[labels], return_dict=True)
        loss += float(logs["loss"]) * len(positions) / len(order)
        accuracy += float(logs["accuracy"]) * len(positions) / len(order)
    probabilities = predict(model, validation, recipe.batch)
    taken = probabilities[np.arange(len(probabilities)), validation.labels]
    return {
        "epoch": epoch,
        "loss": loss,
        "accuracy": accuracy,
        # Clipped as Keras' own cross-entropy clips.
        "val_loss": float(-np.log(np.clip(taken, 1e-7, 1 - 1e-7)).mean()),
        "val_accuracy": float((probabilities.argmax(axis=1) == validation.labels).mean()),
        "learning_rate": learning_rate,
    }


def predict(model: keras.Model, examples: Examples, batch: int) -> np.ndarray:
    """Predicts all examples in order, without augmentation or dropout: float64 (N, C)."""
    order = np.arange(len(examples.labels))
    parts = [np.asarray(model.predict_on_batch(inputs)) for _, inputs in batches(examples, -1, order, batch)]
    return np.concatenate(parts).astype(np.float64)


def batches(examples: Examples, epoch: int, order: np.ndarray, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (positions, inputs) of one epoch. Batches are read and augmented ahead, in threads."""
    starts = iter(range(0, len(order), batch))
    with ThreadPoolExecutor(_READERS) as readers:
        ahead: deque[tuple[np.ndarray, Future[np.ndarray]]] = deque()
        for start in itertools.chain(starts, itertools.repeat(-1)):
            if start >= 0:
                positions = order[start : start + batch]
                ahead.append((positions, readers.submit(examples.inputs, epoch, positions)))
                if len(ahead) <= _READERS:
                    continue
            if not ahead:
                return
            ready, inputs = ahead.popleft()
            yield ready, inputs.result()


def _seed_layers(model: keras.Model, seed: int, epoch: int) -> None:
    """Sets dropout's random state at the start of an epoch from (seed, epoch, layer); checkpoints do not hold it."""
    for number, layer in enumerate(model._flatten_layers(include_self=False)):
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            drawn = np.random.default_rng([seed, epoch, number]).integers(0, 2**31, 2)
            generator.state.assign(drawn.astype("uint32"))


def learned_variables(model: keras.Model) -> list[Any]:
    """Returns what training changes: the trainable variables and the statistics of the trained batch norm layers."""
    import keras

    statistics = [
        variable
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        for variable in layer.non_trainable_variables
    ]
    return [*model.trainable_variables, *statistics]


def _variables(model: keras.Model) -> list[Any]:
    return [*learned_variables(model), *model.optimizer.variables]


def _parts_of_key(model: keras.Model, checkpoint: Checkpoint | None) -> dict[str, str]:
    """All that a stored state and the training that takes it up must agree in, by the words for it."""
    if checkpoint is None:
        return {}
    return {"settings or data": checkpoint.key, "architecture": graph_digest(model), **made_by(*_CODE)}


def _save(
    model: keras.Model,
    checkpoint: Checkpoint,
    made: dict[str, str],
    history: list[dict[str, float]],
    best: list[np.ndarray] | None,
    seconds: float,
) -> None:
    checkpoint.folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"v{i}": variable.numpy() for i, variable in enumerate(_variables(model))}
    arrays |= {f"best{i}": value for i, value in enumerate(best or [])}
    # History and weights in one file: one rename is what makes an epoch done.
    note = json.dumps({**made, "history": history, "seconds": seconds})
    with atomic.replacing(checkpoint.folder / "state.npz") as part:
        np.savez(part, note=np.array(note), **arrays)


def _stored(checkpoint: Checkpoint | None) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """Loads the note and the arrays of a stored state; None if there is none or it is damaged."""
    if checkpoint is None:
        return None
    try:
        with np.load(checkpoint.folder / "state.npz") as stored:
            arrays = {name: stored[name] for name in stored.files}
        note = json.loads(str(arrays.pop("note")))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return note, arrays


def _restore(
    model: keras.Model, note: dict[str, Any], arrays: dict[str, np.ndarray]
) -> tuple[list[dict[str, float]], list[np.ndarray], float]:
    """Puts a stored state into `model`. Returns its history, the best epoch's weights so far, and its seconds."""
    for i, variable in enumerate(_variables(model)):
        variable.assign(arrays[f"v{i}"])
    best = [arrays[f"best{i}"] for i in range(sum(name.startswith("best") for name in arrays))]
    return note["history"], best, note["seconds"]
