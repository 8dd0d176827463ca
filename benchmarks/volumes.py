"""What a volume costs: preparing one of the published size (512 x 512 x 300), and one epoch of cnn_lstm at the published size.

    python benchmarks/volumes.py [--slices 300] [--volumes 57] [--train 45] [--frames 200] [--side 512]

Each part runs in a process of its own, which tells its time and its peak memory (resident set, VmHWM); pages of the rendering
that are mapped count in it. The voxels are noise about a thorax' values, which compresses worse than a real scan.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def peak_megabytes() -> float:
    """The most that this process has held in memory, in MB (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def write_volume(path: Path, slices: int) -> None:
    import nibabel
    import numpy as np

    rng = np.random.default_rng(0)
    image = nibabel.Nifti1Image(np.zeros((1, 1, 1), np.int16), np.diag([0.4, 0.4, 0.5, 1]))
    ball = np.add.outer(np.square(np.linspace(-1, 1, 512)), np.square(np.linspace(-1, 1, 512))) < 0.7
    voxels = np.empty((512, 512, slices), np.int16)
    for number in range(slices):
        voxels[..., number] = np.where(ball, 60, -1000) + rng.integers(-30, 31, (512, 512), dtype=np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), path)


def prepare(path: Path, frames: int, side: int) -> None:
    """Reads and renders one volume as `prepare` does."""
    from cardium.imaging.render import render_file
    from cardium.imaging.spec import Limits, Render

    base = peak_megabytes()
    data = path.read_bytes()
    began = time.perf_counter()
    size = Render(side, side, frames=frames, window=[-200.0, 600.0])
    render_file(data, "slices", size, Limits(1, 1, 400_000_000, 1_000_000_000))
    took = time.perf_counter() - began
    what = f"prepare one volume, {len(data) / 1e6:.0f} MB of .nii.gz"
    print(f"| {what} | {took:.1f} s | {peak_megabytes():.0f} MB ({base:.0f} before) |")


def epoch(folder: Path, volumes: int, train: int, frames: int, side: int) -> None:
    """One epoch of `cnn_lstm`, batch 1, from a rendering on disk, as `train` runs it."""
    import numpy as np

    from cardium.tensorflow_import import import_tensorflow

    path = folder / "pixels.npy"
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(volumes, frames, side, side))
    rng = np.random.default_rng(0)
    for number in range(volumes):
        pixels[number] = rng.integers(1, 256, (frames, side, side), dtype=np.uint8)
    del pixels
    import_tensorflow()
    from cardium.data.rendering import read_rows
    from cardium.models import create_model
    from cardium.training.fit import Checkpoint, Examples, Recipe, fit
    from cardium.training.schedule import Schedule

    base = peak_megabytes()
    slices = np.load(path, mmap_mode="r")
    labels = np.arange(volumes) % 3
    model = create_model("cnn_lstm", classes=3, height=side, width=side, frames=frames)

    def part(first: int, last: int) -> Examples:
        return Examples(lambda _, at: read_rows(slices, first + at).astype(np.float32), labels[first:last])

    began = time.perf_counter()
    recipe = Recipe(Schedule(1e-3, 1000, 1000, 0.5, 1e-6), epochs=1, batch=1, class_weights=np.ones(3), seed=0)
    state = Checkpoint(folder / "state", "")
    fit(model, part(0, train), part(train, volumes), recipe=recipe, checkpoint=state, show=lambda _: None)
    took = time.perf_counter() - began
    print(
        f"| one epoch of cnn_lstm, {train} volumes, and {volumes - train} to validate, {frames} x {side} x {side} "
        f"| {took:.0f} s | {peak_megabytes():.0f} MB ({base:.0f} before) |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("slices", 300), ("volumes", 57), ("train", 45), ("frames", 200), ("side", 512)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--part", choices=["prepare", "epoch"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part == "prepare":
        prepare(asked.folder / "volume.nii.gz", asked.frames, asked.side)
    elif asked.part == "epoch":
        epoch(asked.folder, asked.volumes, asked.train, asked.frames, asked.side)
    else:
        with tempfile.TemporaryDirectory() as folder:
            write_volume(Path(folder) / "volume.nii.gz", asked.slices)
            print("| what | time | peak memory |\n|---|---|---|", flush=True)
            for part in ("prepare", "epoch"):
                subprocess.run([sys.executable, __file__, *sys.argv[1:], "--part", part, "--folder", folder], check=True)


if __name__ == "__main__":
    main()
