"""The bank: a frozen backbone's last feature maps of all records, computed once and shared by all heads, folds and trials.

For volumes it holds one vector per slice (`<backbone>_frames`), the slice's last map averaged over places; padding is zero.

    bank.json      what it was made from (its key), its shape, and how much of each view is done
    view0.npy      (N, h, w, C), for volumes (N, T, C), float16: the plain image of every record
    view1..V.npy   augmented views, training records only (other rows stay zero; the file is sparse)
    calibration.npz    batch norm statistics, for random weights only

Files are memory-mapped and filled in order. A killed run continues after its last finished chunk.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cardium import atomic
from cardium.data.rendering import read_rows
from cardium.errors import CardiumError
from cardium.imaging.augment import augment_batch
from cardium.imaging.spec import Augment
from cardium.models.weights import WeightsUsed
from cardium.progress import progress
from cardium.provenance import made_by, said_anew
from cardium.training.engine import Forward, compile_forward

if TYPE_CHECKING:
    import keras

# Batches between two notes of how far a view has come.
_CHUNK = 8
# Images that measure the batch norm statistics of a backbone with random weights.
_CALIBRATION_IMAGES = 64
# The code and the libraries that decide what a bank holds, beside the backbone's own.
_CODE = ("training/bank.py", "training/engine.py", "models/weights.py", "imaging/augment.py", "data/rendering.py")
_LIBRARIES = ("keras", "numpy", "openvino", "tensorflow")
# The words for parts of a plan; the others are settings.
_WORDS = dict.fromkeys(("manifest_sha256", "pixels_sha256", "training_records"), "data") | {
    "architecture": "architecture", "weights_used": "weights", "weights_sha256": "weights",
}  # fmt: skip


@dataclass(frozen=True)
class BankPlan:
    """Everything that determines a bank's content.

    training_records: `hash_records` of the records that get augmented views. architecture: `graph_digest` of the backbone.
    made_by: the code and the libraries.
    """

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
    training_records: str
    architecture: str = ""
    made_by: dict[str, str] = field(default_factory=lambda: made_by(*_CODE, libraries=_LIBRARIES))

    def key(self) -> str:
        """Hashes the plan. Banks of different plans have different keys."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class FrozenBackbone:
    """The backbone that fills a bank.

    model: pixels 0-255 -> last feature map; for volumes, of one slice. batch: images per forward pass. engine: as
    `engine.compile_forward` takes it.
    """

    model: keras.Model
    weights: WeightsUsed
    batch: int
    engine: str


@dataclass(frozen=True)
class Bank:
    """An existing bank. info: the content of its bank.json."""

    folder: Path
    info: dict[str, Any]

    @property
    def key(self) -> str:
        """The hash of its plan."""
        return str(self.info["key"])

    @property
    def map_shape(self) -> tuple[int, ...]:
        """The shape of a record's features: (h, w, C), for volumes (T, C)."""
        return tuple(self.info["map_shape"])

    @property
    def views(self) -> int:
        """The number of augmented views."""
        return int(self.info["plan"]["views"])

    @property
    def records(self) -> int:
        """The number of records."""
        return int(self.info["records"])

    @property
    def weights(self) -> WeightsUsed:
        """The weights of its backbone."""
        return WeightsUsed(**self.info["weights"])

    @property
    def engine(self) -> str:
        """The software that computed it: name, version, precision."""
        return str(self.info["engine"])

    @property
    def seconds(self) -> float:
        """The time it took to compute, without interruptions."""
        return float(self.info["seconds"])

    def view(self, number: int) -> np.ndarray:
        """Maps one view into memory, read-only: float16 (N, *map_shape). View 0 is the plain one."""
        return np.load(self.folder / f"view{number}.npy", mmap_mode="r")


def open_bank(folder: Path, command: str) -> Bank:
    """Opens a finished bank. Raises CardiumError that names `command` if it is missing or unfinished."""
    try:
        info = json.loads((folder / "bank.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CardiumError(f"There is no bank in {folder.name}: make it with `{command}`.") from None
    if not info["complete"]:
        raise CardiumError(f"The bank {folder.name} is unfinished: go on with `{command}`.")
    return Bank(folder, info)


def average_places(bank: Bank, folder: Path) -> Bank:
    """Averages every map of `bank` over its places and returns the smaller bank in `folder`, made if it is missing.

    Features are (N, 1, 1, C) float32. A head that is not spatial (`models.is_spatial`) learns the same from both banks.
    """
    if not (folder / "bank.json").is_file():
        with atomic.replacing_folder(folder) as part:
            for number in range(bank.views + 1):
                view = bank.view(number)
                shape = (len(view), 1, 1, view.shape[-1])
                averages = np.lib.format.open_memmap(part / f"view{number}.npy", mode="w+", dtype=np.float32, shape=shape)
                atomic.preallocated(part / f"view{number}.npy")
                for start in range(0, len(view), _CHUNK * 16):
                    some = slice(start, start + _CHUNK * 16)
                    averages[some] = view[some].mean(axis=(1, 2), keepdims=True, dtype=np.float32)
                averages.flush()
            atomic.write_json(part / "bank.json", {**bank.info, "map_shape": [1, 1, bank.map_shape[-1]]})
    return Bank(folder, json.loads((folder / "bank.json").read_text(encoding="utf-8")))


def hash_records(records: np.ndarray) -> str:
    """Hashes record numbers (n,), in their order."""
    return hashlib.sha256(np.ascontiguousarray(records, dtype="<i8").tobytes()).hexdigest()


def fill_bank(folder: Path, plan: BankPlan, backbone: FrozenBackbone, pixels: np.ndarray, training_records: np.ndarray) -> Bank:
    """Computes the missing part of the bank in `folder`. A finished bank of the same plan is left as it is.

    pixels: uint8 (N, H, W, 3), row = record, or slices (N, T, H, W). training_records: record numbers (n,) that get augmented
    views. Raises CardiumError for features that do not fit into float16.
    """
    frames = pixels.shape[1:2] if of_slices(pixels) else ()
    info_path = folder / "bank.json"
    info: dict[str, Any] = {}
    if info_path.is_file():
        info = json.loads(info_path.read_text(encoding="utf-8"))
    if info.get("key") != plan.key():
        if "plan" in info:
            print(said_anew(f"The bank {folder.name}", _changed(info["plan"], asdict(plan))))
        # Another plan's features are of no use; the first note written is that this bank is unfinished.
        for old in folder.glob("*.npy"):
            old.unlink()
        info = {
            "key": plan.key(),
            "plan": asdict(plan),
            "weights": backbone.weights.as_dict(),
            "records": len(pixels),
            "map_shape": [*frames, *backbone.model.output_shape[1:]],
            "done": {},
            "seconds": 0.0,
            "complete": False,
        }
        atomic.write_json(info_path, info)
    if info["complete"]:
        print(f"The bank is up to date: {info['records']} records, {plan.views} augmented views.")
        return Bank(folder, info)

    forward, engine = compile_forward(backbone.model, backbone.batch, backbone.engine)
    if info["done"] and info["engine"] != engine:
        print(said_anew(f"The bank {folder.name}", ["engine"]))
        info |= {"done": {}, "seconds": 0.0}
    info["engine"] = engine
    batch = backbone.batch
    if frames:
        forward, batch = _each_frame(forward, batch), 1
    everything = np.arange(len(pixels))
    for number in range(plan.views + 1):
        view = _View(number, training_records if number else everything, Augment(**plan.augment) if number else None, plan.seed)
        _fill_view(Bank(folder, info), view, pixels, forward, batch)
    info["complete"] = True
    atomic.write_json(info_path, info)
    return Bank(folder, info)


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The words for what differs between two plans."""
    made, makes = before.get("made_by", {}), now["made_by"]
    parts = [_WORDS.get(name, "settings") for name, value in now.items() if name != "made_by" and before.get(name) != value]
    return parts + [name for name in makes if made.get(name) != makes[name]]


def of_slices(pixels: np.ndarray) -> bool:
    """Returns whether a rendering (N, ...) holds slices (N, T, H, W) rather than images (N, H, W, 3)."""
    return pixels.ndim == 4 and pixels.shape[-1] != 3


def _each_frame(forward: Forward, batch: int) -> Forward:
    """Applies `forward` to every slice: uint8 (n, T, H, W) -> (n, T, C). Empty slices are skipped and get zeros."""

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


@dataclass(frozen=True)
class _View:
    """A view to fill with `records` (n,). augment: None for the plain view."""

    number: int
    records: np.ndarray
    augment: Augment | None
    seed: int


def _fill_view(bank: Bank, view: _View, pixels: np.ndarray, forward: Forward, batch: int) -> None:
    """Fills the missing rows of a view, and records its progress in bank.json."""
    info, records = bank.info, view.records
    path = bank.folder / f"view{view.number}.npy"
    done = info["done"].get(str(view.number), 0) if path.is_file() else 0
    shape = (bank.records, *bank.map_shape)
    mode = "r+" if path.is_file() and done else "w+"
    features = np.lib.format.open_memmap(path, mode=mode, dtype=np.float16, shape=None if mode == "r+" else shape)
    if mode == "w+":
        _keep_room(path, features, records)
    starts = list(range(done, len(records), batch))
    began = time.perf_counter()
    name = f"view {view.number}" if view.augment else "plain"
    for number, start in enumerate(progress(starts, total=len(starts), desc=f"features, {name}", unit="batch"), start=1):
        rows = records[start : start + batch]
        images = read_rows(pixels, rows)
        if view.augment is not None:
            images = augment_batch(images, rows, view.augment, view.seed, view.number)
        maps = forward(images)
        if not np.isfinite(maps).all() or np.abs(maps).max(initial=0) > np.finfo(np.float16).max:
            raise CardiumError(
                f"{info['plan']['backbone']} gives features beyond float16 on record {rows[0]} and after: check its weights."
            )
        features[rows] = maps.astype(np.float16)
        if number % _CHUNK == 0 or number == len(starts):
            features.flush()
            info["done"][str(view.number)] = start + len(rows)
            info["seconds"] += time.perf_counter() - began
            began = time.perf_counter()
            atomic.write_json(bank.folder / "bank.json", info)


def _keep_room(path: Path, features: np.memmap, records: np.ndarray) -> None:
    """Has the disk keep room for the rows that will be filled; the others stay a hole. Raises CardiumError on a full disk."""
    row = features.nbytes // max(1, len(features))
    runs = np.split(records, np.flatnonzero(np.diff(records) != 1) + 1)
    try:
        for run in runs:
            if len(run):
                atomic.preallocated(path, features.offset + int(run[0]) * row, len(run) * row)
    except CardiumError:
        path.unlink()
        raise


def calibrate(model: keras.Model, pixels: np.ndarray, training_records: np.ndarray, folder: Path, key: str) -> None:
    """Measures the batch norm statistics of a backbone with random weights and stores them in the bank's folder.

    They are measured on training records, again for every `key` of a plan.
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
    """Returns the middle one of a volume's filled slices, which come first: (T, H, W) -> (H, W, 3)."""
    filled = int(slices.any(axis=(1, 2)).sum())
    return np.repeat(slices[filled // 2][..., None], 3, axis=-1)


def restore_calibration(model: keras.Model, folder: Path, key: str) -> bool:
    """Loads the bank's batch norm statistics into `model`. Returns False if there are none with this key."""
    from cardium.models import weights

    path = folder / "calibration.npz"
    if not path.is_file():
        return False
    with np.load(path) as stored:
        if str(stored["key"]) != key:
            return False
        weights.set_batch_norm_statistics(model, [stored[f"s{i}"] for i in range(len(stored.files) - 1)])
    return True
