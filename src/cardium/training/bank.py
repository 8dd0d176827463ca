"""The bank: a frozen backbone's last feature maps of all records, computed once, shared by every head, fold and trial.

Of volumes it holds one vector a slice (`<backbone>_frames`), the average of the slice's last map; padding has zeros.

    bank.json      what it was made from (its key), shape, how far each view has come
    view0.npy      (N, h, w, C), of volumes (N, T, C), float16: the plain image of every record
    view1..V.npy   augmented views, training records only (other rows stay zero; the file is sparse)
    calibration.npz    batch norm statistics, for random weights only

Files are memory-mapped and filled in order; a killed run goes on where the last finished chunk ended.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cardium import atomic
from cardium.data.rendering import read_rows
from cardium.errors import CardiumError
from cardium.imaging.augment import augment_batch
from cardium.imaging.spec import Augment
from cardium.progress import progress

if TYPE_CHECKING:
    import keras

# Batches between two notes of how far a view has come.
_CHUNK = 8
# Images that measure the batch norm statistics of a backbone with random weights.
_CALIBRATION_IMAGES = 64


@dataclass(frozen=True)
class BankPlan:
    """All that determines a bank's content."""

    manifest_sha256: str
    pixels_sha256: str
    backbone: str
    scaling: str
    height: int
    width: int
    weights_used: str
    weights_sha256: str
    seed: int
    views: int
    augment: dict[str, Any]
    training_records: str  # hash of the record numbers that get augmented views

    def key(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Bank:
    """An opened bank; `view(v)` maps a view read-only."""

    folder: Path
    info: dict[str, Any]

    @property
    def map_shape(self) -> tuple[int, ...]:
        return tuple(self.info["map_shape"])

    @property
    def views(self) -> int:
        return int(self.info["plan"]["views"])

    def view(self, number: int) -> np.ndarray:
        return np.load(self.folder / f"view{number}.npy", mmap_mode="r")


def open_bank(folder: Path, command: str) -> Bank:
    """Opens a finished bank. Raises CardiumError that names `command` when it is missing or unfinished."""
    try:
        info = json.loads((folder / "bank.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CardiumError(f"There is no bank in {folder.name}: make it with `{command}`.") from None
    if not info["complete"]:
        raise CardiumError(f"The bank {folder.name} is unfinished: go on with `{command}`.")
    return Bank(folder, info)


def average_places(bank: Bank, folder: Path) -> Bank:
    """`bank` with every map averaged over its places, (N, 1, 1, C) float32, in `folder`; made there if it is missing.

    To a head that does not tell places apart both say the same, and this one is as many times smaller as there are places.
    """
    if not (folder / "bank.json").is_file():
        with atomic.replacing_folder(folder) as part:
            for number in range(bank.views + 1):
                view = bank.view(number)
                shape = (len(view), 1, 1, view.shape[-1])
                averages = np.lib.format.open_memmap(part / f"view{number}.npy", mode="w+", dtype=np.float32, shape=shape)
                for start in range(0, len(view), _CHUNK * 16):
                    some = slice(start, start + _CHUNK * 16)
                    averages[some] = view[some].mean(axis=(1, 2), keepdims=True, dtype=np.float32)
                averages.flush()
            atomic.write_json(part / "bank.json", {**bank.info, "map_shape": [1, 1, bank.map_shape[-1]]})
    return Bank(folder, json.loads((folder / "bank.json").read_text(encoding="utf-8")))


def hash_records(records: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(records, dtype="<i8").tobytes()).hexdigest()


def fill_bank(
    folder: Path,
    plan: BankPlan,
    weights: dict[str, str],
    model: keras.Model,
    pixels: np.ndarray,
    training_records: np.ndarray,
    batch: int,
    engine: str,
    seed_of_views: int,
) -> Bank:
    """Computes what is missing of the bank in `folder`; nothing when it is there and was made by the same plan.

    model: the backbone, pixels 0-255 -> last map; of slices, of one slice. pixels: (N, H, W, 3) uint8, row = record, or
    slices (N, T, H, W). batch: images that the backbone sees at once.
    training_records: the record numbers that get augmented views.
    """
    frames = pixels.shape[1:2] if of_slices(pixels) else ()
    info_path = folder / "bank.json"
    info: dict[str, Any] = {}
    if info_path.is_file():
        info = json.loads(info_path.read_text(encoding="utf-8"))
    if info.get("key") != plan.key():
        # Another plan's features are of no use; the first note written is that this bank is unfinished.
        for old in folder.glob("*.npy"):
            old.unlink()
        info = {
            "key": plan.key(),
            "plan": asdict(plan),
            "weights": weights,
            "records": len(pixels),
            "map_shape": [*frames, *model.output_shape[1:]],
            "done": {},
            "seconds": 0.0,
            "complete": False,
        }
        atomic.write_json(info_path, info)
    if info["complete"]:
        print(f"The bank is up to date: {info['records']} records, {plan.views} augmented views.")
        return Bank(folder, info)

    forward, info["engine"] = compile_forward(model, batch, engine)
    if frames:
        forward, batch = _each_frame(forward, batch), 1
    everything = np.arange(len(pixels))
    for view in range(plan.views + 1):
        records = everything if view == 0 else training_records
        augment = Augment(**plan.augment) if view else None
        _fill_view(folder, info, view, records, pixels, forward, batch, augment, seed_of_views)
    info["complete"] = True
    atomic.write_json(info_path, info)
    return Bank(folder, info)


def of_slices(pixels: np.ndarray) -> bool:
    """Whether a rendering (N, ...) holds slices (N, T, H, W) and not images (N, H, W, 3)."""
    return pixels.ndim == 4 and pixels.shape[-1] != 3


def _each_frame(forward: Callable[[np.ndarray], np.ndarray], batch: int) -> Callable[[np.ndarray], np.ndarray]:
    """`forward` of images -> of slices: uint8 (n, T, H, W) -> (n, T, C); slices without content are not looked at."""

    def of_frames(volumes: np.ndarray) -> np.ndarray:
        frames = volumes.reshape(-1, *volumes.shape[2:])
        filled = np.flatnonzero(frames.any(axis=(1, 2)))
        vectors: np.ndarray | None = None
        for start in range(0, len(filled), batch):
            some = filled[start : start + batch]
            found = forward(np.repeat(frames[some][..., None], 3, axis=-1))
            if vectors is None:
                vectors = np.zeros((len(frames), found.shape[-1]), np.float32)
            vectors[some] = found
        if vectors is None:
            raise CardiumError(
                "A rendering has no slice with anything in it: run `cardium ingest` and `cardium prepare` again."
            )
        return vectors.reshape(*volumes.shape[:2], -1)

    return of_frames


def _fill_view(
    folder: Path,
    info: dict[str, Any],
    view: int,
    records: np.ndarray,
    pixels: np.ndarray,
    forward: Callable[[np.ndarray], np.ndarray],
    batch: int,
    augment: Augment | None,
    seed: int,
) -> None:
    path = folder / f"view{view}.npy"
    done = info["done"].get(str(view), 0) if path.is_file() else 0
    shape = (info["records"], *info["map_shape"])
    mode = "r+" if path.is_file() and done else "w+"
    features = np.lib.format.open_memmap(path, mode=mode, dtype=np.float16, shape=None if mode == "r+" else shape)
    starts = list(range(done, len(records), batch))
    began = time.perf_counter()
    name = "plain" if view == 0 else f"view {view}"
    for number, start in enumerate(progress(starts, total=len(starts), desc=f"features, {name}", unit="batch"), start=1):
        rows = records[start : start + batch]
        images = read_rows(pixels, rows)
        if augment is not None:
            images = augment_batch(images, rows, augment, seed, view)
        maps = forward(images)
        if not np.isfinite(maps).all() or np.abs(maps).max(initial=0) > np.finfo(np.float16).max:
            raise CardiumError(
                f"{info['plan']['backbone']} gives features beyond float16 on record {rows[0]} and after: check its weights."
            )
        features[rows] = maps.astype(np.float16)
        if number % _CHUNK == 0 or number == len(starts):
            features.flush()
            info["done"][str(view)] = start + len(rows)
            info["seconds"] += time.perf_counter() - began
            began = time.perf_counter()
            atomic.write_json(folder / "bank.json", info)


def calibrate(model: keras.Model, pixels: np.ndarray, training_records: np.ndarray, folder: Path, key: str) -> None:
    """Measures batch norm statistics of a backbone with random weights on training records, and keeps them in the bank.

    The bank's `key` stands in the file: statistics of another plan are measured anew.
    """
    from cardium.models import weights

    if restore_calibration(model, folder, key):
        return
    spread = np.linspace(0, len(training_records) - 1, min(_CALIBRATION_IMAGES, len(training_records))).astype(int)
    records = training_records[spread]
    images = np.stack([_middle_slice(pixels[record]) for record in records]) if of_slices(pixels) else pixels[records]
    weights.calibrate_batch_norm(model, images)
    statistics: dict[str, Any] = {f"s{i}": array for i, array in enumerate(weights.batch_norm_statistics(model))}
    with atomic.replacing(folder / "calibration.npz") as part:
        np.savez(part, key=np.array(key), **statistics)


def _middle_slice(slices: np.ndarray) -> np.ndarray:
    """The middle one of those that hold anything, which come first: (T, H, W) -> (H, W, 3)."""
    filled = int(slices.any(axis=(1, 2)).sum())
    return np.repeat(slices[filled // 2][..., None], 3, axis=-1)


def restore_calibration(model: keras.Model, folder: Path, key: str) -> bool:
    """Puts the bank's batch norm statistics into `model`; False when there are none of this key."""
    from cardium.models import weights

    path = folder / "calibration.npz"
    if not path.is_file():
        return False
    with np.load(path) as stored:
        if str(stored["key"]) != key:
            return False
        weights.set_batch_norm_statistics(model, [stored[f"s{i}"] for i in range(len(stored.files) - 1)])
    return True


def compile_forward(model: keras.Model, batch: int, engine: str) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """The backbone as a fast function: uint8 pixels (n <= batch, H, W, 3) -> float32 maps (n, h, w, C); and what runs it.

    `auto` takes TensorFlow on a GPU and OpenVINO on a CPU where it is installed: it folds batch norm into the convolutions.
    Both compute in float32, as the served model does: what is scored is what is served. `openvino_bfloat16` is faster on CPUs
    that multiply bfloat16, and its features differ by about a percent. Raises CardiumError for an engine that is not there.
    """
    import importlib.util

    import tensorflow as tf

    gpu = bool(tf.config.list_physical_devices("GPU"))
    installed = importlib.util.find_spec("openvino") is not None
    if engine.startswith("openvino") and not installed:
        raise CardiumError("params.yaml, features.engine: openvino is not installed here: set `auto` or `tensorflow`.")
    if engine.startswith("openvino") or (engine == "auto" and installed and not gpu):
        return _openvino(model, batch, "bf16" if engine == "openvino_bfloat16" else "f32")
    return _tensorflow(model, batch)


def _padded(images: np.ndarray, batch: int) -> np.ndarray:
    """A short last batch filled up, so that every call has the one shape that was compiled."""
    if len(images) == batch:
        return images
    return np.concatenate([images, np.zeros((batch - len(images), *images.shape[1:]), images.dtype)])


def _openvino(model: keras.Model, batch: int, precision: str) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    import contextlib
    import io
    import os

    # OpenVINO's converter would report its use over the network.
    os.environ.setdefault("OPENVINO_TELEMETRY_OPT_OUT", "1")
    import openvino
    import tensorflow as tf

    signature = [tf.TensorSpec([batch, *model.input_shape[1:]], tf.float32, name="pixels")]
    traced = tf.function(lambda pixels: model(pixels, training=False), input_signature=signature)
    with contextlib.redirect_stdout(io.StringIO()):
        converted = openvino.convert_model(traced)
    core = openvino.Core()
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(converted, "CPU", hints)
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()

    def forward(images: np.ndarray) -> np.ndarray:
        maps = compiled(_padded(images, batch).astype(np.float32))[0]
        return np.array(maps[: len(images)])

    return forward, f"openvino {openvino.__version__.split('-')[0]} {precision}"


def _tensorflow(model: keras.Model, batch: int) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    import tensorflow as tf

    gpu = bool(tf.config.list_physical_devices("GPU"))
    signature = [tf.TensorSpec([batch, *model.input_shape[1:]], tf.float32)]
    traced = tf.function(lambda pixels: model(pixels, training=False), input_signature=signature)

    def forward(images: np.ndarray) -> np.ndarray:
        return traced(tf.constant(_padded(images, batch), dtype=tf.float32)).numpy()[: len(images)]

    return forward, f"tensorflow {tf.__version__} {'gpu ' if gpu else ''}float32"
