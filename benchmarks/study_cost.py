"""What system 000's study costs the published way and ours: the same images, split, weights, models and epochs, in one run.

published   each model anew, as the original notebook does: ImageDataGenerator over the files (decoded and augmented again in
            every epoch), fit() through the frozen base, one model after the other
ours        one bank a backbone (the plain view and V augmented ones), then a head on it for each model, as `dvc repro` does it;
            reading, splitting and rendering the images is counted once, for all backbones

    python benchmarks/study_cost.py                                     # demo phantoms, all eight models, 10 epochs: long
    python benchmarks/study_cost.py --data FOLDER --images 640          # a folder laid out as the CAD collection is
    python benchmarks/study_cost.py --weights FOLDER                    # pretrained weight files; random where there is none
    python benchmarks/study_cost.py --epochs-published 2                # times 2 epochs of the published way, extrapolates

Every measurement is a process of its own, whose peak resident memory is its own; importing TensorFlow counts for neither way,
and early stopping for neither, so both do all epochs. Both keep the weights of the lowest validation loss; the original also
wrote a checkpoint at every improvement, which is not timed. Differences of balanced accuracy come with a 95% interval from a
bootstrap of whole patients.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from cardium.config import Settings

PROJECT = Path(__file__).resolve().parents[1]
DATASET = "cmri"
BACKBONES = ["mobilenetv2", "resnet152v2", "densenet201", "inceptionv3"]
BLOCKS = ["", "_spatial"]


@dataclass(frozen=True)
class Study:
    """What both ways are given; passed on to the processes that measure."""

    root: str
    epochs: int
    epochs_published: int
    views: int
    batch: int
    learning_rate: float
    protocol: str
    # Backbone -> imagenet | none.
    weights: dict[str, str] = field(default_factory=dict)

    def settings(self, backbone: str) -> Settings:
        """The project's own settings of the profile `study`, with what the command line changed."""
        import yaml

        from cardium.config import resolve

        raw = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
        raw["profile"] = "study"
        train = f"{DATASET}.train"
        return resolve(
            raw,
            Path(self.root),
            {
                f"{train}.epochs": self.epochs,
                f"{train}.views": self.views,
                f"{train}.batch": self.batch,
                f"{train}.learning_rate": self.learning_rate,
                f"{train}.stop_patience": self.epochs + 1,
                f"{train}.weights": self.weights.get(backbone, "none"),
                "evaluate.test_folds": "0",
            },
        )


def main() -> int:
    options = _options()
    if options.child:
        way, backbone, study_file, out = options.child
        study = Study(**json.loads(Path(study_file).read_text(encoding="utf-8")))
        result = {"prepare": prepare, "ours": ours, "published": published}[way](study, backbone, Path(out).parent)
        # Linux tells kilobytes, macOS bytes.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        Path(out).write_text(json.dumps({**result, "peak_bytes": peak}), encoding="utf-8")
        return 0

    with tempfile.TemporaryDirectory(prefix="study-cost-", dir=options.scratch) as folder:
        root = Path(folder)
        if options.weights:
            os.environ["CARDIUM_WEIGHTS"] = str(Path(options.weights).resolve())
        images = lay_out(root / "data" / DATASET, options.data, options.images)
        study = Study(
            str(root),
            options.epochs,
            options.epochs_published or options.epochs,
            options.views,
            options.batch,
            options.learning_rate,
            options.protocol,
            {backbone: _weights(backbone, root) for backbone in options.backbones},
        )
        print(f"{images} images, {study.epochs} epochs, {study.views} views, batch {study.batch}, protocol {study.protocol}")
        results: dict[str, Any] = {"study": asdict(study), "images": images, "machine": machine()}
        results["prepare"] = _measure("prepare", "", study, root)
        results["backbones"] = {}
        for backbone in options.backbones:
            # Ours first: it leaves the backbone's weights for the other to use.
            results["backbones"][backbone] = {way: _measure(way, backbone, study, root) for way in ("ours", "published")}
        results["scores"] = compare(study, root, options.backbones)
        results["study"].pop("root")
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(table(results))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times the published way of system 000's study and ours, in one run.")
    parser.add_argument("--data", type=Path, help="a folder laid out as the CAD collection is (default: demo phantoms)")
    parser.add_argument("--images", type=int, default=0, help="as many of them, evenly over patients (default: all)")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument(
        "--epochs-published", type=int, default=0, metavar="K", help="time K epochs of the published way and extrapolate"
    )
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument(
        "--protocol", choices=["published", "honest"], default="published", help="split and input scaling of both ways"
    )
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=BACKBONES)
    parser.add_argument("--weights", help="folder of ImageNet weight files")
    parser.add_argument("--scratch", help="where the copies and banks go meanwhile (default: the system's temporary folder)")
    parser.add_argument("--json", help="also write all figures to this file")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.epochs_published > options.epochs:
        parser.error("--epochs-published is more than --epochs")
    if options.epochs_published == 1 and options.epochs > 1:
        parser.error("--epochs-published needs at least 2 epochs: the first one also traces the graph, and would count for all")
    return options


def lay_out(folder: Path, data: Path | None, images: int) -> int:
    """Copies `images` files (0: all) of `data`, or generated phantoms, to `folder`, and returns how many there are."""
    from cardium.datasets import Found, get_collection

    if data is None:
        from cardium.demo.cmri import DEMO, PATIENTS, SEED

        # More phantoms than the demo's are more patients.
        patients = max(PATIENTS, -(-images // DEMO.files_per_patient // 2) * 2)
        for name, content in DEMO.files(patients, SEED):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        data, keep = folder, False
    else:
        keep = True
    found = sorted((entry for entry in get_collection(DATASET).scan(data) if isinstance(entry, Found)), key=lambda e: e.path)
    if not found:
        raise SystemExit(f"error: no image in {data}: it must hold {{Normal,Sick}}/Directory_<n>/<series>/<file>.")
    chosen = {entry.path for entry in _spread(found, images)}
    for entry in found:
        if keep and entry.path in chosen:
            (folder / entry.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data / entry.path, folder / entry.path)
        elif not keep and entry.path not in chosen:
            (folder / entry.path).unlink()
    return len(chosen)


def _spread(found: list[Any], images: int) -> list[Any]:
    """`images` entries, evenly over each class in order of path, classes in their own proportion."""
    if not images or images >= len(found):
        return found
    chosen = []
    for label in sorted({entry.label for entry in found}):
        of_class = [entry for entry in found if entry.label == label]
        count = max(1, round(images * len(of_class) / len(found)))
        chosen += [of_class[i] for i in np.unique(np.linspace(0, len(of_class) - 1, count).astype(int))]
    return chosen


def _weights(backbone: str, root: Path) -> str:
    """imagenet where a weight file is at hand; nothing is downloaded while the clock runs."""
    from cardium.models.weights import find_file

    return "imagenet" if find_file(backbone, root, 128) else "none"


def _measure(way: str, backbone: str, study: Study, root: Path) -> dict[str, Any]:
    """Runs one measurement in a process of its own."""
    print(f"{way} {backbone} ...".replace("  ", " "), file=sys.stderr, flush=True)
    study_file, out = root / "study.json", root / f"{way}-{backbone}.json"
    study_file.write_text(json.dumps(asdict(study)), encoding="utf-8")
    command = [sys.executable, __file__, "--child", way, backbone, str(study_file), str(out)]
    paths = os.pathsep.join(filter(None, [str(PROJECT / "src"), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"error: {way} {backbone} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    print(f"  {result['seconds']:.1f} s, {result['peak_bytes'] / 2**20:.0f} MiB", file=sys.stderr, flush=True)
    return result


def prepare(study: Study, _: str, __: Path) -> dict[str, Any]:
    """Files -> manifest, split, pixels: once for the whole study."""
    from cardium.stages import ingest, prepare, split

    settings = study.settings("")
    began = time.perf_counter()
    for stage, item in ((ingest, DATASET), (split, DATASET), (prepare, f"{DATASET}-image")):
        stage.run(settings, item)
    return {"seconds": time.perf_counter() - began}


def ours(study: Study, backbone: str, scratch: Path) -> dict[str, Any]:
    """The bank and its heads, through the stages' own code."""
    from cardium.tensorflow_import import import_tensorflow

    import_tensorflow()
    from cardium.config import run_spec
    from cardium.stages.train import train_run
    from cardium.training.make_bank import make_bank
    from cardium.workspace import RunId

    settings = study.settings(backbone)
    spec = run_spec(settings, RunId(DATASET, backbone, study.protocol))
    folder = settings.root / spec.reads
    began = time.perf_counter()
    bank = make_bank(settings, spec.bank_spec, folder)
    banked = time.perf_counter() - began
    heads = {}
    for block in BLOCKS:
        model = backbone + block
        start = time.perf_counter()
        run = RunId(DATASET, model, study.protocol)
        train_run(settings, run_spec(settings, run), folder, settings.root / run.folder)
        heads[model] = time.perf_counter() - start
    seconds = time.perf_counter() - began

    # Off the clock: the very weights, for the published way to use.
    from cardium.models.backbones import build_backbone, layers_of_backbone
    from cardium.models.weights import load_weights
    from cardium.training.bank import restore_calibration

    size, scaling = settings.datasets[DATASET].render["image"], settings.protocols[spec.protocol].scaling
    model = build_backbone(backbone, size.height, size.width, scaling, settings.seed)
    used = load_weights(model, backbone, study.weights[backbone], settings.root).used
    restore_calibration(model, folder, bank.key)
    arrays = [array for layer in layers_of_backbone(model) for array in layer.get_weights()]
    np.savez(scratch / f"{backbone}-weights.npz", **{f"w{i}": array for i, array in enumerate(arrays)})
    size = sum(file.stat().st_size for file in folder.glob("*.npy"))
    return {
        "seconds": seconds,
        "bank": banked,
        "heads": heads,
        "weights": used,
        "engine": bank.engine,
        "bank_bytes": size,
    }


def published(study: Study, backbone: str, scratch: Path) -> dict[str, Any]:
    """As the original: for each model a new network, two generators over the files, fit through the frozen base."""
    from cardium.tensorflow_import import import_tensorflow

    import_tensorflow()
    import keras

    settings = study.settings(backbone)
    records = _records(study, settings)
    with np.load(scratch / f"{backbone}-weights.npz") as stored:
        weights = [stored[f"w{i}"] for i in range(len(stored.files))]
    models = {}
    for block in BLOCKS:
        keras.utils.set_random_seed(settings.seed)
        began = time.perf_counter()
        train, validation = _generators(study, settings, backbone, records)
        model = _network(settings, backbone, bool(block), weights)
        counts = np.bincount(train.classes, minlength=2)
        clock = _EpochClock()
        model.compile(keras.optimizers.Adam(study.learning_rate), "binary_crossentropy", metrics=["accuracy"])
        model.fit(
            train,
            validation_data=validation,
            epochs=study.epochs_published,
            class_weight={c: len(train.classes) / (2 * counts[c]) for c in range(2)},
            callbacks=[
                keras.callbacks.EarlyStopping("val_loss", patience=study.epochs + 1, restore_best_weights=True),
                keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=3, min_lr=1e-6),
                clock.callback(),
            ],
            verbose=0,
        )
        sick = model.predict(validation, verbose=0)[:, 0]
        seconds = time.perf_counter() - began
        # What is left out of an extrapolated run is epochs like those after the first, which also traces the graph.
        missing = (study.epochs - study.epochs_published) * float(np.mean(clock.seconds[1:] or clock.seconds))
        models[backbone + block] = {"seconds": seconds + missing, "measured": seconds, "epochs": clock.seconds}
        record_of = dict(zip(records["path"], records["record"], strict=True))
        rows = [record_of[Path(name).as_posix()] for name in validation.filenames]
        np.savez(scratch / f"published-{backbone}{block}.npz", record=rows, sick=sick)
        keras.utils.clear_session()
    return {"seconds": sum(model["seconds"] for model in models.values()), "models": models}


class _EpochClock:
    """Seconds of each epoch of a fit, its validation included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def callback(self) -> Any:
        import keras

        def begin(epoch: int, logs: Any) -> None:  # noqa: ARG001
            self._began = time.perf_counter()

        def end(epoch: int, logs: Any) -> None:  # noqa: ARG001
            self.seconds.append(time.perf_counter() - self._began)

        return keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end)


def _records(study: Study, settings: Settings) -> pd.DataFrame:
    """The manifest with each record's part; what takes no part (copies, the test fold under honest) is left out."""
    from cardium.data.manifest import read_manifest
    from cardium.data.splits import read_parts
    from cardium.workspace import Workspace

    workspace = Workspace(settings.root)
    manifest = read_manifest(workspace.manifest(DATASET))
    parts = read_parts(workspace.split(DATASET), manifest, study.protocol, 0)
    part = np.full(len(manifest), "", dtype="<U10")
    part[parts.train], part[parts.validation] = "train", "validation"
    return manifest.assign(part=part)[part != ""]


def _generators(study: Study, settings: Settings, backbone: str, records: pd.DataFrame) -> tuple[Any, Any]:
    """(training, validation) generators over the files, augmented and plain."""
    import keras
    import tensorflow as tf

    from cardium.models.backbones import get_backbone

    dataset = settings.datasets[DATASET]
    augment, size = dataset.augment, dataset.render["image"]
    if settings.protocols[study.protocol].scaling == "unit":
        scaling: dict[str, Any] = {"rescale": 1 / 255}
    else:
        mode = get_backbone(backbone).scaling
        scaling = {"preprocessing_function": lambda x: keras.applications.imagenet_utils.preprocess_input(x, mode=mode)}
    generator = tf.keras.preprocessing.image.ImageDataGenerator
    augmented = generator(
        **scaling,
        rotation_range=augment.rotation,
        width_shift_range=augment.shift,
        height_shift_range=augment.shift,
        shear_range=augment.shear,
        zoom_range=augment.zoom,
        horizontal_flip=augment.flip,
        fill_mode="nearest",
        validation_split=0.2,
    )
    plain = generator(**scaling, validation_split=0.2)
    flow: dict[str, Any] = {
        "target_size": (size.height, size.width),
        "batch_size": study.batch,
        "class_mode": "binary",
        "seed": settings.seed,
    }
    folder = str(Path(study.root) / "data" / DATASET)
    if study.protocol == "published":
        return (
            augmented.flow_from_directory(folder, subset="training", **flow),
            plain.flow_from_directory(folder, subset="validation", shuffle=False, **flow),
        )
    by_part = {name: rows.rename(columns={"path": "filename", "label": "class"}) for name, rows in records.groupby("part")}
    classes = sorted(records["label"].unique())
    train = generator(**scaling, **_transforms(augmented))
    return (
        train.flow_from_dataframe(by_part["train"], folder, classes=classes, **flow),
        generator(**scaling).flow_from_dataframe(by_part["validation"], folder, classes=classes, shuffle=False, **flow),
    )


def _transforms(generator: Any) -> dict[str, Any]:
    names = (
        "rotation_range",
        "width_shift_range",
        "height_shift_range",
        "shear_range",
        "zoom_range",
        "horizontal_flip",
        "fill_mode",
    )
    return {name: getattr(generator, name) for name in names}


def _network(settings: Settings, backbone: str, attention: bool, weights: list[np.ndarray]) -> Any:
    """The original's model on a frozen base: [1x1 convolution, sigmoid -> multiply] -> average -> dropout 0.5 -> sigmoid."""
    import keras
    from keras import layers

    from cardium.models.backbones import get_backbone, layers_of_backbone

    size, train = settings.datasets[DATASET].render["image"], settings.datasets[DATASET].train
    application = getattr(keras.applications, get_backbone(backbone).application)
    base = application(include_top=False, weights=None, input_shape=(size.height, size.width, 3))
    left = iter(weights)
    for layer in layers_of_backbone(base):
        layer.set_weights([next(left) for _ in layer.weights])
    base.trainable = False
    images = keras.Input((size.height, size.width, 3))
    x = base(images, training=False)
    if attention:
        x = layers.Multiply()([x, layers.Conv2D(1, 1, activation="sigmoid")(x)])
    x = layers.Dropout(train.dropout)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(images, layers.Dense(1, activation="sigmoid")(x))


def compare(study: Study, root: Path, backbones: list[str]) -> dict[str, dict[str, float]]:
    """Per model: balanced accuracy of both ways on the same validation records, and ours less the other's with its interval."""
    import pandas as pd

    from cardium.data.manifest import read_manifest
    from cardium.evaluation.metrics import GroupBootstrap, paired_difference, score
    from cardium.workspace import RunId, Workspace

    workspace = Workspace(root)
    manifest = read_manifest(workspace.manifest(DATASET)).set_index("record")
    scores = {}
    for model in [backbone + block for backbone in backbones for block in BLOCKS]:
        ours_table = pd.read_parquet(workspace.run(RunId(DATASET, model, study.protocol)) / "validation.parquet").set_index(
            "record"
        )
        with np.load(root / f"published-{model}.npz") as stored:
            sick = pd.Series(stored["sick"].astype(np.float64), index=stored["record"])
        if set(sick.index) != set(ours_table.index):
            raise SystemExit(f"error: {model}: the two ways were not scored on the same records.")
        labels = ours_table["label"].to_numpy()
        a = ours_table[["p_Normal", "p_Sick"]].to_numpy()
        b = np.stack([1 - sick[ours_table.index], sick[ours_table.index]], axis=1)
        groups = manifest.loc[ours_table.index, "group"].to_numpy()
        difference = paired_difference(labels, groups, a, b, GroupBootstrap(groups, labels, 2000, 0))
        scores[model] = {
            "published": score(labels, b)["balanced_accuracy"],
            "ours": score(labels, a)["balanced_accuracy"],
            **difference,
        }
    return scores


def machine() -> str:
    """The processor, the cores this process may use, and the version that computes."""
    from importlib import metadata

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = "unknown processor"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, TensorFlow {metadata.version('tensorflow')}"


def table(results: dict[str, Any]) -> str:
    """The figures as text."""
    study, prepared = results["study"], results["prepare"]
    lines = ["", results["machine"], ""]
    head = f"{'backbone':<14}{'published s':>12}{'ours s':>9}{'bank':>8}{'heads':>8}{'ratio':>8}{'peak MiB':>18}{'weights':>10}"
    lines += [head, "-" * len(head)]
    total = {"published": 0.0, "ours": 0.0, "bank": 0.0, "heads": 0.0}
    for backbone, ways in results["backbones"].items():
        mine, theirs = ways["ours"], ways["published"]
        heads = sum(mine["heads"].values())
        for key, seconds in zip(total, (theirs["seconds"], mine["seconds"], mine["bank"], heads), strict=True):
            total[key] += seconds
        peak = f"{theirs['peak_bytes'] / 2**20:.0f} / {mine['peak_bytes'] / 2**20:.0f}"
        lines.append(
            f"{backbone:<14}{theirs['seconds']:>12.1f}{mine['seconds']:>9.1f}{mine['bank']:>8.1f}{heads:>8.1f}"
            f"{theirs['seconds'] / mine['seconds']:>8.1f}{peak:>18}{mine['weights']:>10}"
        )
    peak = f"- / {prepared['peak_bytes'] / 2**20:.0f}"
    lines.append(f"{'read, render':<14}{'':>12}{prepared['seconds']:>9.1f}{'':>24}{peak:>18}")
    everything = total["ours"] + prepared["seconds"]
    lines += [
        "-" * len(head),
        f"{'in all':<14}{total['published']:>12.1f}{everything:>9.1f}{total['bank']:>8.1f}{total['heads']:>8.1f}"
        f"{total['published'] / everything:>8.1f}",
        "",
    ]
    head = f"{'model':<24}{'balanced accuracy':>20}{'':>8}{'ours less published':>34}"
    lines += [head, f"{'':<24}{'published':>12}{'ours':>12}{'difference':>14}{'95% interval':>20}", "-" * 82]
    for model, row in results["scores"].items():
        interval = f"[{row['low']:+.3f}, {row['high']:+.3f}]"
        lines.append(f"{model:<24}{row['published']:>12.3f}{row['ours']:>12.3f}{row['difference']:>+14.3f}{interval:>20}")
    means = {
        key: float(np.mean([row[key] for row in results["scores"].values()])) for key in ("published", "ours", "difference")
    }
    lines.append(f"{'mean':<24}{means['published']:>12.3f}{means['ours']:>12.3f}{means['difference']:>+14.3f}")
    lines += [
        "",
        f"{results['images']} images, {study['epochs']} epochs, {study['views']} views, batch {study['batch']}, "
        f"protocol {study['protocol']}; peak memory: published / ours.",
    ]
    if study["epochs_published"] < study["epochs"]:
        lines.append(
            f"The published way ran {study['epochs_published']} of {study['epochs']} epochs: its seconds are extrapolated"
            " by those after the first, its scores are those after them."
        )
    if any(ways["ours"]["weights"] == "random" for ways in results["backbones"].values()):
        lines.append("Random weights (the same for both ways, batch norm measured on the data) tell speed, not quality.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
