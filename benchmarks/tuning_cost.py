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
    from cardium.config import run_spec
    from cardium.training.make_bank import make_bank
    from cardium.tuning import queue
    from cardium.tuning.search import plan_search, validate_folds
    from cardium.workspace import RunId

    settings = lay_out(root, options)
    spec = run_spec(settings, RunId(DATASET, options.model))
    reads = root / spec.reads
    began = time.perf_counter()
    make_bank(settings, spec.bank_spec, reads)
    bank_seconds = time.perf_counter() - began
    search = plan_search(settings, spec, reads)
    study = queue.open_study(queue.open_storage("", root / "s.journal"), "s", search.space.defaults, 1, options.trials)
    trials = []
    for _ in range(options.trials):
        trial = study.ask()
        model, train = search.space.applied(search.space.suggest(trial))
        study.tell(trial, 0.5)
        trials.append((model, dataclasses.replace(train, keep="last")))
    measured: dict[str, list[float]] = {"bank": [], "images": []}
    for model, train in trials:
        began = time.perf_counter()
        for _ in validate_folds(search, model, train):
            pass
        measured["bank"].append(time.perf_counter() - began)
        began = time.perf_counter()
        from_images(search, model, train)
        measured["images"].append(time.perf_counter() - began)
        print(f"{model}: {measured['bank'][-1]:.1f} s on the bank, {measured['images'][-1]:.1f} s from images", flush=True)
    return {
        "model": options.model,
        "images": len(search.inputs.labels),
        "side": options.side,
        "epochs": options.epochs,
        "folds": len(search.folds),
        "views": search.inputs.bank.views if search.inputs.bank else 0,
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "bank_seconds": bank_seconds,
        "trials": [model for model, _ in trials],
        "seconds": measured,
    }


def from_images(search: Any, model: str, train: Any) -> None:
    """One trial without a bank: the whole model, its backbone frozen, on images that are augmented in every epoch."""
    import keras

    from cardium.training.fold import FoldModels, source_of, train_fold, whole_model

    keras.utils.clear_session()
    spec = dataclasses.replace(search.spec, id=dataclasses.replace(search.spec.id, model=model))
    source = source_of(search.settings, spec, search.inputs, train)
    whole = whole_model(search.settings, spec, source)
    models = FoldModels(whole, whole, [(whole, whole.get_weights())])
    pixels = dataclasses.replace(source, bank=None, train=dataclasses.replace(train, augmented=True))
    for fold, parts in search.folds.items():
        models.reset()
        train_fold(pixels, models, parts, fold, show=lambda _: None)


def lay_out(root: Path, options: argparse.Namespace) -> Any:
    """A project in `root` with demo images of hearts, split and rendered, and its settings."""
    import yaml
    from PIL import Image

    from cardium import config
    from cardium.stages import ingest, prepare, split

    raw = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    raw["datasets"] = [DATASET]
    raw["studies"]["demo"] = {DATASET: {"models": [options.model]}}
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
