"""Whether reading and augmenting keeps up with training, for models that are trained end to end.

    python benchmarks/input_pipeline.py [--records 256]

Per model, in records a second: the input alone (random views made ahead, as training does), the forward pass alone, a training
step alone (the same batch again and again), and an epoch with both together. `kept` is the epoch over the slower of input and
step: 1.0 means that nothing is lost by waiting. All four are timed in one process, one after the other, on generated records.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from cardium.imaging.augment import augment_batch
from cardium.imaging.render import shape_of
from cardium.params import load
from cardium.tensorflow_import import import_tensorflow
from cardium.training import Examples, _batches

MODELS = ("cnn_baseline", "cnn_custom", "cnn2d", "attention_lstm", "time_distributed_cnn", "attention_vgg")
BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=256)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    arguments = parser.parse_args()
    import_tensorflow()
    import keras

    from cardium.models import create_model, rendering_of

    dataset = load(Path(__file__).resolve().parents[1]).datasets["ecg4"]
    sizes = {"image": (224, 224), "leads": (64, 64)}
    print(f"{'model':<22}{'input/s':>10}{'forward/s':>11}{'step/s':>9}{'epoch/s':>9}{'kept':>7}")
    for name in arguments.models:
        kind = rendering_of(name)
        size = type(dataset.render[kind])(*sizes[kind])
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (arguments.records, *shape_of(kind, size)), dtype=np.uint8)
        labels = rng.integers(0, 4, arguments.records)

        def inputs(epoch: int, at: np.ndarray, pixels: np.ndarray = pixels) -> np.ndarray:
            return augment_batch(pixels[at], at, dataset.augment, 0, 1 + max(epoch, 0)).astype(np.float32)

        examples = Examples(inputs, labels)
        order = np.arange(arguments.records)
        model = create_model(name, classes=4, height=size.height, width=size.width)
        model.compile(keras.optimizers.Adam(1e-4), keras.losses.SparseCategoricalCrossentropy())
        batch = pixels[:BATCH].astype(np.float32)
        model.train_on_batch(batch, labels[:BATCH])  # Traced before it is timed.
        model.predict_on_batch(batch)
        steps = max(4, arguments.records // BATCH // 2)

        def rate(work: object, count: int) -> float:
            began = time.perf_counter()
            work()  # type: ignore[operator]
            return count / (time.perf_counter() - began)

        reading = rate(lambda: [None for _ in _batches(examples, 1, order, BATCH)], len(order))
        forward = rate(lambda: [model.predict_on_batch(batch) for _ in range(steps)], steps * BATCH)
        step = rate(lambda: [model.train_on_batch(batch, labels[:BATCH]) for _ in range(steps)], steps * BATCH)
        epoch = rate(lambda: [model.train_on_batch(x, labels[at]) for at, x in _batches(examples, 2, order, BATCH)], len(order))
        kept = epoch / min(reading, step)
        print(f"{name:<22}{reading:>10.0f}{forward:>11.0f}{step:>9.0f}{epoch:>9.0f}{kept:>7.2f}", flush=True)
        keras.backend.clear_session()


if __name__ == "__main__":
    main()
