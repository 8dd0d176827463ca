"""Whether reading and augmenting keeps up with training, for models that are trained end to end.

    python benchmarks/input_pipeline.py [--records 256]

Per model, in records a second: the input alone (random views made ahead, as training does), the forward pass alone, a training
step alone (the same batch again and again), and an epoch with both together. `kept` is the epoch over the slower of input and
step: 1.0 means that nothing is lost by waiting. All four are timed in one process, one after the other, on generated records.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cardium.config import Dataset, load
from cardium.imaging.augment import augment_batch
from cardium.imaging.render import shape_of
from cardium.imaging.spec import Render
from cardium.tensorflow_import import import_tensorflow
from cardium.training.fit import Examples, batches

MODELS = ("traces_net", "cnn_baseline", "cnn_custom", "cnn2d", "attention_lstm", "time_distributed_cnn", "attention_vgg")
BATCH = 16
SIZES = {"image": (224, 224), "leads": (64, 64), "traces": (16, 96)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=256)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    arguments = parser.parse_args()
    import_tensorflow()
    dataset = load(Path(__file__).resolve().parents[1]).datasets["ecg4"]
    print(f"{'model':<22}{'input/s':>10}{'forward/s':>11}{'step/s':>9}{'epoch/s':>9}{'kept':>7}")
    for name in arguments.models:
        rates = measure(name, dataset, arguments.records)
        kept = rates["epoch"] / min(rates["input"], rates["step"])
        widths = {"input": 10, "forward": 11, "step": 9, "epoch": 9}
        shown = "".join(f"{rates[what]:>{width}.0f}" for what, width in widths.items())
        print(f"{name:<22}{shown}{kept:>7.2f}", flush=True)


def measure(name: str, dataset: Dataset, records: int) -> dict[str, float]:
    """Records a second of a model's input, forward pass, training step, and of an epoch of both."""
    import keras

    from cardium.models import create_model, rendering_of

    kind = rendering_of(name)
    size = Render(*SIZES[kind])
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (records, *shape_of(kind, size)), dtype=np.uint8)
    labels = rng.integers(0, 4, records)

    def inputs(epoch: int, at: np.ndarray) -> np.ndarray:
        return augment_batch(pixels[at], at, dataset.augment, 0, 1 + max(epoch, 0)).astype(np.float32)

    examples = Examples(inputs, labels)
    order = np.arange(records)
    model = create_model(name, classes=4, height=size.height, width=size.width)
    model.compile(keras.optimizers.Adam(1e-4), keras.losses.SparseCategoricalCrossentropy())
    batch = pixels[:BATCH].astype(np.float32)
    model.train_on_batch(batch, labels[:BATCH])  # Traced before it is timed.
    model.predict_on_batch(batch)
    steps = max(4, records // BATCH // 2)

    def rate(work: Callable[[], object], count: int) -> float:
        began = time.perf_counter()
        work()
        return count / (time.perf_counter() - began)

    def learn() -> None:
        for at, inputs_of_batch in batches(examples, 2, order, BATCH):
            model.train_on_batch(inputs_of_batch, labels[at])

    return {
        "input": rate(lambda: [None for _ in batches(examples, 1, order, BATCH)], len(order)),
        "forward": rate(lambda: [model.predict_on_batch(batch) for _ in range(steps)], steps * BATCH),
        "step": rate(lambda: [model.train_on_batch(batch, labels[:BATCH]) for _ in range(steps)], steps * BATCH),
        "epoch": rate(learn, len(order)),
    }


if __name__ == "__main__":
    main()
