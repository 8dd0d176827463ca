"""What `cardium score` takes on each engine, beside the network's forward pass alone on renderings that are there already.

    python benchmarks/batch_scoring.py                                   # 2,000 pictures, the local engine
    python benchmarks/batch_scoring.py --engines local spark ray         # with requirements-spark.lock, requirements-ray.lock
    python benchmarks/batch_scoring.py --model models/ecg4/honest/traces_net --files FOLDER

Without --model it makes mobilenetv2, 128 x 128, of random weights, without --files noise, JPEG 512 x 512. A command is a
process of its own, timed from its start to its end: the start of Java, TensorFlow and the workers is in it, and is given beside
it by a second command on four of the files.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
_FEW, _PIECE = 4, 32


def main() -> int:
    options = _options()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory(prefix="batch-scoring-") as scratch:
        place = Path(scratch)
        model = Path(options.model).resolve() if options.model else make_model(place / "model")
        folder = Path(options.files).resolve() if options.files else make_pictures(place / "pictures", options.count)
        few = place / "few"
        few.mkdir()
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        for path in paths[:_FEW]:
            (few / path.name).write_bytes(path.read_bytes())
        print(f"{len(paths)} files, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        print(f"forward pass alone: {forward(model, len(paths)):.1f} s")
        for engine in options.engines:
            start = command(few, place / f"few-{engine}.parquet", model, engine)
            whole = command(folder, place / f"{engine}.parquet", model, engine)
            rate = (len(paths) - _FEW) / max(whole - start, 1e-9)
            print(f"{engine}: {whole:.1f} s, of which {start:.1f} s to start; {rate:.0f} files a second", flush=True)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times `cardium score` on its engines.")
    parser.add_argument("--engines", nargs="+", default=["local"], choices=["local", "spark", "ray"])
    parser.add_argument("--model", default="", help="a run folder")
    parser.add_argument("--files", default="", help="a folder of files of the model's kind")
    parser.add_argument("--count", type=int, default=2000, help="pictures to make where no folder is given")
    return parser.parse_args()


def command(folder: Path, out: Path, model: Path, engine: str) -> float:
    """Seconds of one command."""
    begun = time.perf_counter()
    verb = [sys.executable, "-m", "cardium", "score", str(folder), "--out", str(out), "--model", str(model), "--engine", engine]
    subprocess.run(verb, cwd=PROJECT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def forward(model: Path, count: int) -> float:
    """Seconds that the network takes for so many renderings, in pieces as they are served."""
    from cardium.serving import Classifier
    from cardium.tensorflow_import import import_tensorflow

    import_tensorflow()
    classifier = Classifier(model)
    pixels = np.random.default_rng(0).integers(0, 255, (_PIECE, *classifier.shape), dtype=np.uint8)
    classifier.probabilities(pixels)
    begun = time.perf_counter()
    for _ in range(count // _PIECE):
        classifier.probabilities(pixels)
    return time.perf_counter() - begun


def make_model(folder: Path) -> Path:
    """A run folder with mobilenetv2 of random weights."""
    from cardium.tensorflow_import import import_tensorflow

    import_tensorflow()
    from cardium import create_model
    from cardium.imaging.spec import Render
    from cardium.provenance import Provenance
    from cardium.runs.data_version import DataVersion
    from cardium.runs.trained_run import TrainedRun
    from cardium.workspace import MODEL, RunId

    folder.mkdir()
    create_model("mobilenetv2", classes=2, height=128, width=128).save(folder / MODEL)
    none = Provenance("", False, {}, "2026-01-01T00:00:00+00:00")
    run = RunId("cmri", "mobilenetv2")
    size, data, classes = Render(128, 128), DataVersion("", "", ""), ["Normal", "Sick"]
    TrainedRun("benchmark", run, "train", classes, "image", size, [0], data, folder, provenance=none).write(folder)
    return folder


def make_pictures(folder: Path, count: int) -> Path:
    """JPEG files of coarse noise."""
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        coarse.resize((512, 512), Image.Resampling.BICUBIC).save(folder / f"{number:06d}.jpg", quality=90)
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
