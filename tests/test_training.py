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

from cardium.errors import CardiumError
from cardium.models import create_head
from cardium.models.graph import graph_digest
from cardium.provenance import code_digest, made_by
from cardium.training import fit as fit_module
from cardium.training.fit import Checkpoint, Examples, Optimization, Recipe, class_weights, fit, learned_variables, predict
from cardium.training.schedule import Schedule


class Twice(keras.layers.Layer):
    """A layer whose configuration does not say what it does."""

    def call(self, inputs: Any) -> Any:
        return 2 * inputs


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
    name = changes.pop("model", "mobilenetv2_spatial")
    head = create_head(name, classes=2, map_shape=(2, 2, 8), dropout=0.5, seed=seed)

    def show(line: str) -> None:
        print(line, flush=True)
        time.sleep(pause)

    fitted = fit(
        head,
        examples(slice(0, 45), True),
        examples(slice(45, 60), False),
        recipe=Recipe(SCHEDULE, epochs, 7, np.array([0.8, 1.3]), seed),
        checkpoint=Checkpoint(state, changes.pop("key", "key")),
        show=show,
        **changes,
    )
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
    recipe = Recipe(SCHEDULE, 1, 60, weights, 1)
    fitted = fit(ours, data, data, recipe=recipe, checkpoint=Checkpoint(tmp_path, "k"), show=lambda _: None)
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


@pytest.mark.parametrize("changed", ["architecture", "libraries"])
def test_a_state_that_was_made_otherwise_is_told_and_not_taken(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh, _ = train(tmp_path / "fresh", epochs=2)
    with monkeypatch.context() as before:
        if changed == "libraries":
            before.setattr(fit_module, "made_by", lambda *code: {**made_by(*code), "libraries": "keras 3.14.0"})
        # Weights of other shapes: taken up, they would be an error.
        train(tmp_path / "state", epochs=1, model="mobilenetv2_" + ("se" if changed == "architecture" else "spatial"))
    capsys.readouterr()
    assert same(fresh, train(tmp_path / "state", epochs=2)[0])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"  the state of an earlier training was made with other {changed}: starting anew."
    train(tmp_path / "state", epochs=3)
    assert capsys.readouterr().out.splitlines()[0] == "  goes on after epoch 2"


def test_a_graphs_hash_is_of_what_it_computes_and_not_of_names_or_comments(tmp_path: Path) -> None:
    def model(units: int = 4, activation: str = "relu", own: bool = False) -> keras.Model:
        inputs = keras.Input((2, 2, 8))
        hidden = keras.layers.Dense(units, activation=activation)(inputs)
        return keras.Model(inputs, keras.layers.Softmax()(Twice()(hidden) if own else hidden))

    first = graph_digest(model())
    assert graph_digest(model()) == first  # Keras has counted its layers' names on.
    frozen = model()
    frozen.layers[1].trainable = False
    others = [graph_digest(other) for other in (model(5), model(activation="tanh"), model(own=True), frozen)]
    assert len({first, *others}) == 5
    files = [tmp_path / f"{number}.py" for number in range(3)]
    files[0].write_text('def f(x):\n    """Doubles."""\n    return 2 * x  # twice\n')
    files[1].write_text("def f(x): return (2 *\n  x)\n")
    files[2].write_text("def f(x): return 3 * x\n")
    one, same_code, other = map(code_digest, files)
    assert one == same_code != other


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
    # On a busy machine two processes may share their sums out to threads otherwise: the last bit of a weight may differ.
    for ours, theirs in zip(whole, resumed, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def normed(seed: int = 0, dropout: float = 0.3) -> keras.Model:
    """A small model with batch norm and dropout that is trained as a whole."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((2, 2, 8)),
            keras.layers.Conv2D(4, 1),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )


def train_normed(state: Path, epochs: int, how: Optimization, **changes: Any) -> tuple[keras.Model, Any]:
    model = normed(dropout=changes.pop("dropout", 0.3))
    recipe = Recipe(changes.get("schedule", SCHEDULE), epochs, changes.get("batch", 7), np.ones(2), 3, how)
    training, validation = examples(slice(0, 45), True), examples(slice(45, 60), False)
    fitted = fit(model, training, validation, recipe=recipe, checkpoint=Checkpoint(state, "key"))
    return model, fitted


def test_the_statistics_of_batch_norm_are_learned_kept_and_resumed(tmp_path: Path) -> None:
    whole, fitted = train_normed(tmp_path / "whole", 6, Optimization())
    train_normed(tmp_path / "cut", 2, Optimization())
    resumed, _ = train_normed(tmp_path / "cut", 6, Optimization())
    for one, other in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    # The best epoch's statistics belong to its weights: its validation loss comes out again.
    validation = examples(slice(45, 60), False)
    taken = predict(whole, validation, 7)[np.arange(15), validation.labels]
    assert -np.log(taken).mean() == pytest.approx(fitted.history[fitted.best_epoch]["val_loss"], rel=1e-6)
    whole.layers[1].trainable = False
    assert len(learned_variables(whole)) == 4, "frozen batch norm learns nothing"


def test_the_last_epoch_is_kept_where_asked_for(tmp_path: Path) -> None:
    wild = Schedule(0.5, 100, 100, 0.5, 1e-6)  # A rate at which the loss jumps: the best epoch is not the last.
    best, _ = train_normed(tmp_path / "best", 12, Optimization(), schedule=wild)
    last, fitted = train_normed(tmp_path / "last", 12, Optimization(keep="last"), schedule=wild)
    losses = [row["val_loss"] for row in fitted.history]
    assert fitted.best_epoch == 11
    assert min(losses) < losses[-1], "otherwise this test shows nothing"
    validation = examples(slice(45, 60), False)
    for model, loss in ((best, min(losses)), (last, losses[-1])):
        taken = np.clip(predict(model, validation, 7)[np.arange(15), validation.labels], 1e-7, 1 - 1e-7)
        assert -np.log(taken).mean() == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize(
    ("how", "optimizer"),
    [
        (Optimization(), keras.optimizers.Adam(1e-2)),
        (Optimization("adamax", clip_norm=0.01), keras.optimizers.Adamax(1e-2, global_clipnorm=0.01)),
        (Optimization("adamw", weight_decay=0.1), keras.optimizers.AdamW(1e-2, weight_decay=0.1)),
        (Optimization("sgd", label_smoothing=0.2), keras.optimizers.SGD(1e-2, momentum=0.9)),
    ],
    ids=["adam", "adamax clipped", "adamw", "sgd smoothed"],
)
def test_a_step_is_the_one_that_keras_takes(tmp_path: Path, how: Optimization, optimizer: Any) -> None:
    model, _ = train_normed(tmp_path, 1, Optimization(**{**how.__dict__, "keep": "last"}), batch=45, dropout=0.0)
    reference = normed(dropout=0.0)
    reference.compile(optimizer, keras.losses.CategoricalCrossentropy(label_smoothing=how.label_smoothing))
    order = np.random.default_rng([3, 0]).permutation(45)
    train = examples(slice(0, 45), True)
    reference.train_on_batch(train.inputs(0, order), np.eye(2)[train.labels[order]])
    for one, other in zip(model.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_training_that_diverges_says_so(tmp_path: Path) -> None:
    with pytest.raises(CardiumError, match=r"diverged in epoch 1 .*: set a lower learning rate"):
        train_normed(tmp_path, 3, Optimization("sgd"), schedule=Schedule(1e30, 5, 3, 0.5, 1e-6))


def test_class_weights_are_scikit_learns_balanced_ones() -> None:
    labels = np.array([0] * 37564 + [1] * 25861)
    ours = class_weights(labels, 2)
    np.testing.assert_allclose(ours, compute_class_weight("balanced", classes=np.array([0, 1]), y=labels))
    # System 000's own figures.
    np.testing.assert_allclose(ours, [0.8442, 1.2263], atol=1e-4)
    assert class_weights(np.array([0, 0]), 2)[1] == 0
