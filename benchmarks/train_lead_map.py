"""Teaches the network of imaging/lead_map.py on drawn printouts: `python benchmarks/train_lead_map.py FOLDER`.

FOLDER gets the drawn pictures as arrays (once) and `lead_map.npz`, the weights as half floats; what ships is
src/cardium/imaging/lead_map.npz. Nothing but demo/sheet_printer.py teaches it: no real sheet, no downloaded weight. The same
seed draws the same pictures in the same order; the last bits of the weights depend on the machine.

The shipped weights: 2,100 steps on 1,625 whole sheets, then 712 at a third of the learning rate with 1,375 more pictures that
have rules and frames, a fifth of which are parts of sheets.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardium.demo.draws import RandomStream
from cardium.demo.ecg_signal import CLASSES, record
from cardium.demo.sheet_printer import PrintTruth, draw_style, print_sheet, print_something_else
from cardium.imaging.lead_map import CELL, CHANNELS, NO_SHEET, darkness

# Width and height of the pictures, and how many of eight have this size.
SIZES = (((640, 448), 3), ((640, 320), 4), ((512, 640), 1))
PATIENTS = 160
TURNED, CUT, NOTHING = 0.14, 0.22, 0.04
BATCH = 4
# What a cell on a line weighs more than an empty one; what a channel's error weighs.
ON_LINE = 6.0
WEIGHTS = (1, 1, 1, 1, 1.5, 1, 0.5) + 12 * (0.5,)


def dense(points: NDArray[Any], step: float = 4.0) -> NDArray[Any]:
    """Points every `step` pixels along a line."""
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    at = np.linspace(0, along[-1], max(2, int(along[-1] / step)))
    return np.stack([np.interp(at, along, points[:, 0]), np.interp(at, along, points[:, 1])], axis=1)


def splat(plane: NDArray[np.float32], points: NDArray[Any], sigma: float) -> None:
    """Lays a bell of height 1 over each point (pixels); the highest counts."""
    height, width = plane.shape
    reach = int(np.ceil(2.2 * sigma))
    place = points / CELL - 0.5
    nearest = np.rint(place).astype(int)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            cell = nearest + np.array([dx, dy])
            value = np.exp(-((cell - place) ** 2).sum(axis=1) / (2 * sigma * sigma))
            inside = (cell[:, 0] >= 0) & (cell[:, 0] < width) & (cell[:, 1] >= 0) & (cell[:, 1] < height)
            np.maximum.at(plane, (cell[inside, 1], cell[inside, 0]), value[inside])


def target(truth: PrintTruth | None, size: tuple[int, int]) -> NDArray[np.float32]:
    """What the lead map of an upright picture should be, float32 (channels, rows, columns); nothing for any other."""
    width, height = size
    out = np.zeros((len(CHANNELS), height // CELL, width // CELL), np.float32)
    if truth is None or truth.turned:
        return out
    for _, columns, points in truth.baselines:
        splat(out[{4: 0, 2: 1, 1: 2}[columns]], dense(points), 0.8)
    for kind, points in truth.edges:
        splat(out[CHANNELS.index(kind)], dense(points), 0.8)
    for points in truth.pulses:
        splat(out[CHANNELS.index("pulse")], dense(points), 1.2)
    for name, point in truth.names:
        if name in CHANNELS:
            splat(out[CHANNELS.index(name)], point, 1.0)
    return out


def draw(folder: Path, pictures: int, seed: int) -> list[tuple[Any, Any, Any]]:
    """Draws the pictures of each size: darkness, targets x 255, and how each is turned (NO_SHEET: no sheet)."""
    patients = [record(CLASSES[k % 5], 1 + k // 5, 7).leads for k in range(PATIENTS)]
    pools = []
    for place, ((width, height), share) in enumerate(SIZES):
        count = pictures * share // 8
        shapes = {
            "seen": (count, height, width, 2),
            "target": (count, len(CHANNELS), height // CELL, width // CELL),
            "turned": (count,),
        }
        paths = {name: folder / f"{name}-{place}.npy" for name in shapes}
        if not paths["turned"].exists():
            arrays = {name: np.lib.format.open_memmap(paths[name], "w+", np.uint8, shape) for name, shape in shapes.items()}
            for number in range(count):
                rng = RandomStream(seed, place, number)
                if rng.between(0, 1) < NOTHING:
                    pixels, truth = print_something_else((width, height), rng), None
                else:
                    style = draw_style(rng, TURNED, CUT)
                    size = (height, width) if style.turned % 2 else (width, height)
                    pixels, truth = print_sheet(patients[rng.below(PATIENTS)], style, size, rng)
                arrays["seen"][number] = darkness(pixels)
                arrays["target"][number] = np.rint(255 * target(truth, (width, height)))
                arrays["turned"][number] = NO_SHEET if truth is None else truth.turned
        pools.append(tuple(np.load(paths[name], mmap_mode="r") for name in shapes))
    return pools


def network() -> Any:
    """The network that lead_map._forward computes, in Keras, with batch norm and logits."""
    import keras
    from keras import layers

    def block(x: Any, count: int, name: str, stride: int = 1, size: int = 3) -> Any:
        x = layers.Conv2D(count, size, strides=stride, padding="same", use_bias=False, name=name)(x)
        return layers.ReLU()(layers.BatchNormalization(momentum=0.97, name=f"{name}_bn")(x))

    def joined(x: Any, other: Any) -> Any:
        return layers.Concatenate()([layers.UpSampling2D(2)(x), other])

    image = layers.Input((None, None, 2))
    c = block(block(image, 24, "stem", 4, 6), 32, "c1", 2)
    d = block(block(c, 48, "d1", 2), 48, "d2")
    e = block(block(d, 64, "e1", 2), 64, "e2")
    f = block(block(e, 80, "f1", 2), 80, "f2")
    up = block(joined(block(f, 48, "fr", size=1), e), 64, "ue")
    up = block(joined(block(up, 32, "er", size=1), d), 48, "ud")
    up = block(joined(block(up, 24, "dr", size=1), block(c, 16, "cr", size=1)), 32, "uc")
    out = layers.Conv2D(len(CHANNELS), 1, name="out", bias_initializer=keras.initializers.Constant(-3.0))(up)
    return keras.Model(image, [out, layers.Dense(NO_SHEET + 1, name="turn")(layers.GlobalMaxPooling2D()(f))])


def folded(model: Any) -> dict[str, NDArray[np.float16]]:
    """The weights with batch norm folded into the convolutions, as lead_map.npz holds them."""
    from keras import layers

    out = {}
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D) and layer.name != "out":
            norm = model.get_layer(f"{layer.name}_bn")
            gamma, beta, mean, variance = (np.asarray(w) for w in norm.weights)
            scale = gamma / np.sqrt(variance + norm.epsilon)
            out[f"{layer.name}_w"], out[f"{layer.name}_b"] = np.asarray(layer.kernel) * scale, beta - mean * scale
        elif layer.name in ("out", "turn"):
            out[f"{layer.name}_w"], out[f"{layer.name}_b"] = np.asarray(layer.kernel), np.asarray(layer.bias)
    return {name: value.astype(np.float16) for name, value in out.items()}


def shifted(array: NDArray[Any], down: int, along: int, axes: tuple[int, int]) -> NDArray[Any]:
    """Moved by whole pixels or cells; zeros come in."""
    out = np.zeros_like(array)
    into, source = [slice(None)] * array.ndim, [slice(None)] * array.ndim
    for move, axis in zip((down, along), axes, strict=True):
        size = array.shape[axis]
        into[axis], source[axis] = slice(max(move, 0), size + min(move, 0)), slice(max(-move, 0), size + min(-move, 0))
    out[tuple(into)] = array[tuple(source)]
    return out


def train(pools: list[tuple[Any, Any, Any]], steps: int, seed: int, folder: Path) -> Any:
    """Adam with a cosine schedule; each batch has one size, is made lighter or darker, moved, or seen in one channel alone."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    model, optimizer = network(), keras.optimizers.Adam(3e-3)
    weights = tf.constant(WEIGHTS, tf.float32)

    @tf.function(reduce_retracing=True)
    def step(seen: Any, wanted: Any, turned: Any, upright: Any) -> Any:
        with tf.GradientTape() as tape:
            out, turn = model(tf.cast(seen, tf.float32) / 255.0, training=True)
            goal = tf.transpose(tf.cast(wanted, tf.float32) / 255.0, [0, 2, 3, 1])
            cells = tf.nn.sigmoid_cross_entropy_with_logits(labels=goal, logits=out) * (1 + ON_LINE * goal) * weights
            loss = 10 * tf.reduce_mean(tf.reduce_mean(cells, [1, 2, 3]) * upright)
            loss += 0.1 * tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=turned, logits=turn))
        optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True))
        return loss

    rng = np.random.default_rng(seed)
    shares = np.array([len(pool[2]) for pool in pools], float)
    losses: list[float] = []
    for number in range(steps):
        optimizer.learning_rate.assign(
            2e-5 + 3e-3 * (0.5 + 0.5 * np.cos(np.pi * number / steps)) * min(1.0, number / 60 + 0.05)
        )
        seen_pool, target_pool, turned_pool = pools[rng.choice(len(pools), p=shares / shares.sum())]
        at = np.sort(rng.choice(len(turned_pool), BATCH, replace=False))
        seen, wanted, turned = seen_pool[at], target_pool[at], turned_pool[at].astype(np.int32)
        if rng.random() < 0.5:
            seen = np.clip(seen * rng.uniform(0.6, 1.25), 0, 255).astype(np.uint8)
        if rng.random() < 0.3:
            seen = np.repeat(seen[..., rng.integers(2)][..., None], 2, axis=-1)
        if rng.random() < 0.6:
            down, along = int(rng.integers(-8, 9)), int(rng.integers(-12, 13))
            seen, wanted = shifted(seen, CELL * down, CELL * along, (1, 2)), shifted(wanted, down, along, (2, 3))
        upright = np.isin(turned, (0, NO_SHEET)).astype(np.float32)
        losses.append(float(step(*(tf.constant(value) for value in (seen, wanted, turned, upright)))))
        if number % 100 == 99:
            print(f"{number + 1} steps, loss {np.mean(losses[-100:]):.4f}", time.strftime("%X"), flush=True)
            np.savez_compressed(folder / "lead_map.npz", **folded(model))
    np.savez_compressed(folder / "lead_map.npz", **folded(model))
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=77)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    pools = draw(arguments.folder, arguments.pictures, arguments.seed)
    train(pools, arguments.steps, arguments.seed, arguments.folder)


if __name__ == "__main__":
    main()
