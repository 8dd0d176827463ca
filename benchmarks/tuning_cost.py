"""What a trial of a search costs on the bank and from images: the same trial, folds, epochs and batches, in one run.

bank      the bank once (the plain view and V augmented ones of every image), then a head a trial, as `cardium tune` does it
images    no bank: in every epoch of every fold of every trial the images are augmented anew and go through the frozen backbone

    python benchmarks/tuning_cost.py                                    # 240 demo images, mobilenetv2_se, 3 trials, 5 epochs
    python benchmarks/tuning_cost.py --images 900 --epochs 20 --trials 10
    python benchmarks/tuning_cost.py --model mobilenetv2_spatial        # a head that needs the whole maps
    python benchmarks/tuning_cost.py --weights FOLDER                   # pretrained weight files; random where there is none

Both ways run the trials of one search: the run as it is, then what the sampler draws. Early stopping is off and none is cut
short, so that both do all epochs. Preparing the images counts for neither, importing TensorFlow neither.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
DATASET = "cmri"


def main() -> int:
    options = _options()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if options.weights:
        os.environ["CARDIUM_WEIGHTS"] = str(Path(options.weights).resolve())
    from cardium.tensorflow_import import import_tensorflow

    import_tensorflow()
    with tempfile.TemporaryDirectory(prefix="tuning-cost-", dir=options.scratch) as folder:
        results = measure(Path(folder), options)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(table(results))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times a search's trials on the bank and from images, in one run.")
    parser.add_argument("--model", default="mobilenetv2_se", help="a backbone, with a block or without")
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--side", type=int, default=128, help="pixels of an image's side")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--trials", type=int, default=3, help="measured both ways")
    parser.add_argument("--folds", type=int, default=4, help="one is held out, the others are validated on in turn")
    parser.add_argument("--weights", default="", help="a folder with pretrained weight files")
    parser.add_argument("--scratch", default=None, help="a folder for what is written on the way")
    parser.add_argument("--json", default="", help="write the measurements to this file too")
    return parser.parse_args()


def measure(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of both ways, trial by trial."""
    from cardium.config import Bank, Run
    from cardium.models import bank_of
    from cardium.stages import features, tune
    from cardium.tuning import queue

    settings = lay_out(root, options)
    backbone = bank_of(options.model)
    reads = root / "features" / DATASET / "honest" / backbone
    line = Run(DATASET, options.model, "honest", f"features/{DATASET}/honest/{backbone}")
    began = time.perf_counter()
    features.make_bank(settings, Bank(DATASET, backbone, "honest", "image"), reads)
    bank_seconds = time.perf_counter() - began
    plan = tune.plan_search(settings, line, reads)
    study = queue.open_study(queue.open_storage("", root / "s.journal"), "s", plan.space.defaults, 1, options.trials)
    trials = []
    for _ in range(options.trials):
        trial = study.ask()
        model, train = plan.space.applied(plan.space.suggest(trial))
        study.tell(trial, 0.5)
        trials.append((model, dataclasses.replace(train, keep="last")))
    measured: dict[str, list[float]] = {"bank": [], "images": []}
    for model, train in trials:
        began = time.perf_counter()
        for _ in tune.validate_folds(plan, model, train):
            pass
        measured["bank"].append(time.perf_counter() - began)
        began = time.perf_counter()
        from_images(plan, model, train)
        measured["images"].append(time.perf_counter() - began)
        print(f"{model}: {measured['bank'][-1]:.1f} s on the bank, {measured['images'][-1]:.1f} s from images", flush=True)
    return {
        "model": options.model,
        "images": len(plan.inputs.labels),
        "side": options.side,
        "epochs": options.epochs,
        "folds": len(plan.folds),
        "views": plan.inputs.bank.views if plan.inputs.bank else 0,
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "bank_seconds": bank_seconds,
        "trials": [model for model, _ in trials],
        "seconds": measured,
    }


def from_images(plan: Any, model: str, train: Any) -> None:
    """One trial without a bank: the whole model, its backbone frozen, on images that are augmented in every epoch."""
    import keras

    from cardium.stages.train import source_of, train_fold, whole_model

    keras.utils.clear_session()
    line = dataclasses.replace(plan.line, model=model)
    source = source_of(plan.settings, line, plan.inputs, train)
    whole = whole_model(plan.settings, line, source, plan.inputs.size)
    pristine = whole.get_weights()
    pixels = dataclasses.replace(source, bank=None, train=dataclasses.replace(train, augmented=True))
    for fold, parts in plan.folds.items():
        whole.set_weights(pristine)
        train_fold(pixels, parts, fold, whole, whole, None, "", show=lambda _: None)


def lay_out(root: Path, options: argparse.Namespace) -> Any:
    """A project in `root` with demo images of hearts, split and rendered, and its settings."""
    import yaml
    from PIL import Image

    from cardium import config
    from cardium.stages import ingest, prepare, split

    raw = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    raw["datasets"] = [DATASET]
    for name, lines in raw["lines"]["demo"].items():
        raw[name] = {key: line for key, line in lines.items() if key.startswith(DATASET)}
    side = {"height": options.side, "width": options.side}
    demo = raw["profiles"]["demo"]
    demo[DATASET] = {
        "render": {"image": side},
        "augment": {},
        "train": {
            "epochs": options.epochs,
            "batch": 32,
            "learning_rate": 1e-3,
            "stop_patience": 10_000,
            "weights": "auto" if options.weights else "none",
        },
    }
    demo["split"], demo["evaluate"] = {"folds": options.folds}, {"test_folds": "all"}
    (root / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    settings = config.load(root)
    rng = np.random.default_rng(0)
    # What is in the images does not change what a trial costs: noise with a bright disc, as large as the class says.
    rows, columns = np.mgrid[: options.side, : options.side] / options.side - 0.5
    for number in range(options.images):
        label = ("Normal", "Sick")[number % 2]
        disc = rows**2 + columns**2 < (0.08 if label == "Sick" else 0.05)
        pixels = np.clip(rng.normal(60, 20, disc.shape) + 90 * disc, 0, 255).astype(np.uint8)
        place = root / "data" / DATASET / label / f"Directory_{number // 4 * 2 + number % 2 + 1}" / "series"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"IM{number:05d}.png")
    ingest.run(settings, DATASET)
    split.run(settings, DATASET)
    prepare.run(settings, f"{DATASET}-image")
    return settings


def table(results: dict[str, Any]) -> str:
    """The measurements as a Markdown table."""
    bank, images = (np.array(results["seconds"][way]) for way in ("bank", "images"))
    once = results["bank_seconds"]
    lines = [
        f"{results['model']}, {results['images']} images of {results['side']}x{results['side']}, {results['folds']} folds, "
        f"{results['epochs']} epochs, {results['views']} augmented views, {results['cores']} cores",
        "",
        "| | on the bank | from images | ratio |",
        "|---|---|---|---|",
        f"| a trial, s, mean of {len(bank)} | {bank.mean():.1f} | {images.mean():.1f} | {images.mean() / bank.mean():.0f} |",
        f"| the bank, once, s | {once:.1f} | | |",
    ]
    for trials in (10, 30, 100):
        ours, theirs = once + trials * bank.mean(), trials * images.mean()
        lines.append(f"| {trials} trials, bank included, s | {ours:.0f} | {theirs:.0f} | {theirs / ours:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
