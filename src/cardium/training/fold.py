"""Trains one held-out fold of a run: a head on the bank, or the whole model on pixels. `train` and searches share it.

inputs = read_inputs(settings, spec, reads)
source = source_of(settings, spec, inputs, spec.train)
models = build_models(settings, spec, source)
for fold in folds:
    models.reset()
    trained = train_fold(source, models, read_parts(...), fold)

With `fine_tune: N` a second phase also trains the backbone's last N layers, from pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cardium.config import RunSpec, Settings, Train
from cardium.data.manifest import class_numbers, read_fingerprint, read_manifest
from cardium.data.rendering import read_pixels, read_rows
from cardium.data.splits import Parts
from cardium.data.units import unit_table
from cardium.errors import CardiumError
from cardium.imaging.augment import augment_batch
from cardium.imaging.spec import Augment, Render
from cardium.models import create_head, create_model
from cardium.models.fusion import create_fusion
from cardium.models.trained import set_trained, trained_weights
from cardium.models.weights import load_weights
from cardium.training.bank import Bank, open_bank, restore_calibration
from cardium.training.fit import Checkpoint, Examples, Fitted, Recipe, fit, predict, recipe_of
from cardium.training.schedule import schedule_of
from cardium.workspace import Workspace

if TYPE_CHECKING:
    import keras
    import pandas


@dataclass(frozen=True)
class Inputs:
    """The opened inputs of a run.

    manifest: its rows (data/units.py). size, rendered: of its rendering, and its render.json. labels: (N,) class indices.
    pixels: the rendering (N, ...), row = record.
    bank: None for end-to-end training.
    """

    size: Render
    manifest: pandas.DataFrame
    manifest_sha256: str
    classes: list[str]
    labels: np.ndarray
    pixels: np.ndarray
    rendered: dict[str, Any]
    bank: Bank | None


@dataclass(frozen=True)
class Source:
    """What every fold of a run trains on, and with which settings.

    bank: None for end-to-end training. labels: (N,) class indices. with_views: (N,) bool, the records that have augmented views
    in the bank; the others are always shown plain. None if all training records have them.
    """

    bank: Bank | None
    pixels: np.ndarray
    size: Render
    labels: np.ndarray
    classes: list[str]
    train: Train
    augment: Augment
    seed: int
    with_views: np.ndarray | None = None


@dataclass(frozen=True)
class FoldModels:
    """The models that a run's folds are trained with, one fold after the other, so that a graph is traced once.

    learner: the model that is trained first: the head if there is a bank, otherwise `whole`.
    whole: the model from pixels to probabilities; None if it is not needed.
    at_first: the initial weights of each model that training changes.
    """

    learner: keras.Model
    whole: keras.Model | None
    at_first: list[tuple[keras.Model, list[np.ndarray]]] = field(default_factory=list)

    def reset(self) -> None:
        """Restores the initial weights."""
        for model, weights in self.at_first:
            model.set_weights(weights)


@dataclass(frozen=True)
class TrainedFold:
    """The result of `train_fold`.

    phases: by name, in order. probabilities: (n, C) of the validation records. weights: as `models.trained` names them.
    """

    phases: dict[str, Fitted]
    probabilities: np.ndarray
    weights: dict[str, np.ndarray]


def read_inputs(settings: Settings, spec: RunSpec, reads: Path) -> Inputs:
    """Opens what a run trains from: the bank or rendering in the folder `reads`, and the manifest.

    Raises CardiumError if one of them is missing.
    """
    workspace = Workspace(settings.root)
    manifest = read_manifest(workspace.manifest(spec.dataset))
    fingerprint = read_fingerprint(workspace.manifest(spec.dataset))
    classes = list(fingerprint["classes"])
    manifest = unit_table(manifest, spec.rendering)
    pixels, rendered = read_pixels(workspace.rendering(spec.dataset, spec.rendering), manifest)
    return Inputs(
        size=settings.datasets[spec.dataset].render[spec.rendering],
        manifest=manifest,
        manifest_sha256=fingerprint["manifest_sha256"],
        classes=classes,
        labels=class_numbers(manifest, classes),
        pixels=pixels,
        rendered=rendered,
        bank=open_bank(reads, f"dvc repro features@{spec.bank_spec.name}") if spec.bank else None,
    )


def source_of(settings: Settings, spec: RunSpec, inputs: Inputs, train: Train, with_views: np.ndarray | None = None) -> Source:
    """Combines the inputs with the training settings `train`."""
    augment = settings.datasets[spec.dataset].augment
    return Source(
        inputs.bank, inputs.pixels, inputs.size, inputs.labels, inputs.classes, train, augment, settings.seed, with_views
    )


# ------------------------------------------------------------------------------------------------------------------- models


def build_models(settings: Settings, spec: RunSpec, source: Source, *, whole: bool = False) -> FoldModels:
    """Builds the models that folds are trained with. whole: also build the whole model if a bank is enough to train."""
    all_of_it = whole_model(settings, spec, source) if whole or source.train.fine_tune or source.bank is None else None
    learner = all_of_it if source.bank is None else new_head(spec, source, settings.seed)
    assert learner is not None
    changing = [learner]
    if source.train.fine_tune and all_of_it is not None and all_of_it is not learner:
        changing.append(all_of_it)
    return FoldModels(learner, all_of_it, [(model, model.get_weights()) for model in changing])


def whole_model(settings: Settings, spec: RunSpec, source: Source) -> keras.Model:
    """Builds the run's model from pixels on. Its backbone gets the weights that made the bank.

    Raises CardiumError if those weights are no longer available.
    """
    protocol, size = settings.protocols[spec.protocol], source.size
    model = create_model(
        spec.model,
        classes=len(source.classes),
        height=size.height,
        width=size.width,
        scaling=protocol.scaling,
        dropout=source.train.dropout,
        hidden=source.train.hidden,
        seed=settings.seed,
        frames=size.frames,
        rendering=spec.rendering,
        padding=protocol.padding,
    )
    bank = source.bank
    if bank is None:
        return model
    again = f"dvc repro -f features@{spec.bank_spec.name}"
    if bank.weights.used == "imagenet":
        found = load_weights(model, spec.bank, "imagenet", settings.root)
        if found.sha256 != bank.weights.sha256:
            raise CardiumError(
                f"The bank was made with other weights than {found.file} holds now: make it again with `{again}`."
            )
    elif not restore_calibration(model, bank.folder, bank.key):
        raise CardiumError(f"The bank's calibration.npz is missing: make it again with `{again}`.")
    return model


def new_head(spec: RunSpec, source: Source, seed: int) -> keras.Model:
    """Builds the head that the run trains on its bank."""
    assert source.bank is not None
    return create_head(
        spec.model,
        classes=len(source.classes),
        map_shape=source.bank.map_shape,
        dropout=source.train.dropout,
        hidden=source.train.hidden,
        seed=seed,
    )


def mean_of_folds(
    settings: Settings, spec: RunSpec, source: Source, fold_weights: Mapping[int, dict[str, np.ndarray]]
) -> keras.Model:
    """Builds one graph that averages the folds' probabilities. Together the folds have learned from every record."""
    models = []
    for weights in fold_weights.values():
        model = whole_model(settings, spec, source)
        set_trained(model, weights)
        models.append(model)
    names = [f"fold{fold}" for fold in fold_weights]
    return create_fusion(models, names=names, mode="average", classes=len(source.classes))


def unfreeze(model: keras.Model, head: keras.Model, last: int) -> None:
    """Makes the backbone's last `last` layers trainable, except batch norm. Layers of `head` are not part of the backbone."""
    import keras

    behind = {layer.name for layer in head.layers}
    backbone = [layer for layer in model.layers if layer.name not in behind and not isinstance(layer, keras.layers.InputLayer)]
    for layer in backbone[-last:]:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)


# --------------------------------------------------------------------------------------------------------------------- fold


def train_fold(
    source: Source,
    models: FoldModels,
    parts: Parts,
    fold: int,
    checkpoint: Checkpoint | None = None,
    show: Callable[[str], None] = print,
    replayed: Mapping[str, tuple[float, ...]] | None = None,
) -> TrainedFold:
    """Trains `models` with one fold held out. `fold` is also part of the seed.

    checkpoint: each phase stores its state in a subfolder of it. show: called with one line per epoch. replayed: by phase, the
    learning rates of all its epochs, where validation is to decide nothing.
    """
    train, labels = source.train, source.labels[parts.train]
    seen = _Shown(source, source.seed + fold)
    recipe = recipe_of(train, labels, len(source.classes), source.seed + fold)

    def phase(
        name: str, model: keras.Model, inputs: Callable[[np.ndarray, int], np.ndarray], recipe: Recipe
    ) -> tuple[Fitted, np.ndarray]:
        validation = Examples(lambda _, at: inputs(parts.validation[at], -1), source.labels[parts.validation])
        examples = Examples(lambda epoch, at: inputs(parts.train[at], epoch), labels)
        state = checkpoint.below(f"fold{fold}-{name}") if checkpoint else None
        if replayed:
            schedule = dataclasses.replace(recipe.schedule, replayed=replayed[name])
            last = dataclasses.replace(recipe.optimization, keep="last")
            recipe = dataclasses.replace(recipe, schedule=schedule, epochs=len(replayed[name]), optimization=last)
        fitted = fit(model, examples, validation, recipe=recipe, checkpoint=state, show=show)
        return fitted, predict(model, validation, train.batch)

    learner, whole = models.learner, models.whole
    if source.bank is None:
        fitted, probabilities = phase("whole", learner, seen.images, recipe)
        return TrainedFold({"whole": fitted}, probabilities, trained_weights(learner))
    fitted, probabilities = phase("head", learner, seen.maps, recipe)
    trained = trained_weights(learner)
    if not train.fine_tune:
        return TrainedFold({"head": fitted}, probabilities, trained)
    assert whole is not None
    set_trained(whole, trained)
    unfreeze(whole, learner, train.fine_tune)
    schedule = schedule_of(train, train.fine_tune_learning_rate)
    slower = dataclasses.replace(recipe, schedule=schedule, epochs=train.fine_tune_epochs)
    tuned, probabilities = phase("fine_tune", whole, seen.images, slower)
    return TrainedFold({"head": fitted, "fine_tune": tuned}, probabilities, trained_weights(whole))


def typical_rates(fitted: Sequence[Fitted]) -> tuple[float, ...]:
    """The learning rates that led to the best epoch of the fold whose best epoch is the median one (the lower of two)."""
    median = sorted(fitted, key=lambda one: one.best_epoch)[(len(fitted) - 1) // 2]
    return tuple(row["learning_rate"] for row in median.history[: median.best_epoch + 1])


class _Shown:
    """Gives the inputs of records, float32 (n, ...), as a function of seed, epoch and record. Epoch -1 is not augmented."""

    def __init__(self, source: Source, seed: int) -> None:
        self._source, self._seed = source, seed
        bank = source.bank
        self._views = [bank.view(number) for number in range(bank.views + 1)] if bank else []

    def maps(self, records: np.ndarray, epoch: int) -> np.ndarray:
        """Reads features from the bank; each epoch reads one augmented view."""
        views, with_views = self._views, self._source.with_views
        if epoch < 0:
            return views[0][records].astype(np.float32)
        shown = views[1 + epoch % (len(views) - 1)][records].astype(np.float32)
        plain = ~self._augmented(records, epoch)
        if with_views is not None:
            plain |= ~with_views[records]
        if plain.any():
            shown[plain] = views[0][records[plain]]
        return shown

    def images(self, records: np.ndarray, epoch: int) -> np.ndarray:
        """Reads pixels, 0-255, and augments them anew in every epoch if the settings say so."""
        source, train = self._source, self._source.train
        plain = read_rows(source.pixels, records)
        if epoch < 0 or not (source.bank or train.augmented):
            return plain.astype(np.float32)
        # A second phase's views go on where the bank's end.
        shown = augment_batch(plain, records, source.augment, self._seed, len(self._views) + epoch).astype(np.float32)
        if train.augment_share < 1:
            left = ~self._augmented(records, epoch)
            shown[left] = plain[left]
        return shown

    def _augmented(self, records: np.ndarray, epoch: int) -> np.ndarray:
        """Draws which of the records are augmented in an epoch: bool (n,)."""
        share = self._source.train.augment_share
        if share >= 1:
            return np.ones(len(records), dtype=bool)
        return np.random.default_rng([self._seed, epoch, 1]).random(len(self._source.labels))[records] < share
