"""manifest + data/<dataset> -> processed/<dataset>/<rendering>/pixels.npy: every record rendered once, in row order.

pixels.npy is uint8 (N, H, W, 3), to be memory-mapped by its readers. It is written as a stream (header, then chunk after
chunk), not through a memory map, whose dirty pages would count as this process' memory: the stage's size does not depend on N.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cardium import atomic
from cardium.errors import CardiumError
from cardium.imaging.decode import Undecodable, decode
from cardium.imaging.render import render_image
from cardium.manifest import manifest_sha256, read_manifest
from cardium.parallel import in_chunks
from cardium.params import Settings
from cardium.progress import progress
from cardium.workspace import Workspace

_CHUNK = 32
_AGAIN = "run `cardium ingest --dataset"

# (path below data/<dataset>, sha256)
Record = tuple[str, str]


def run(settings: Settings, item: str) -> None:
    """Renders dataset `item` as its `render` settings say; CardiumError where a file is not the one that ingest hashed."""
    workspace = Workspace(settings.root)
    manifest = read_manifest(workspace.manifest(item))
    render = settings.datasets[item].render
    shape = (len(manifest), render.height, render.width, 3)
    records = list(zip(manifest["path"], manifest["sha256"], strict=True))
    limits = settings.ingest
    work = functools.partial(
        render_chunk, item, workspace.data(item), (render.height, render.width), limits.max_pixels, limits.max_bytes
    )

    out = workspace.rendering(item, render.kind)
    with atomic.replacing_folder(out) as part:
        with (part / "pixels.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for _ in progress(
                _written(file, in_chunks(work, records, _CHUNK)), total=len(records), desc="prepare", unit="image"
            ):
                pass
        about = {"kind": render.kind, "height": render.height, "width": render.width}
        atomic.write_json(part / "render.json", {**about, "manifest_sha256": manifest_sha256(manifest)})
    print(f"rendered {len(records)} images as {render.height} x {render.width}")
    print(f"wrote {out.relative_to(settings.root).as_posix()}")


def _written(file: BinaryIO, chunks: Iterator[tuple[Sequence[Record], bytes]]) -> Iterator[Record]:
    """Writes each chunk's pixels and then yields its records."""
    for records, pixels in chunks:
        file.write(pixels)
        yield from records


def render_chunk(
    dataset: str, folder: Path, size: tuple[int, int], max_pixels: int, max_bytes: int, records: Sequence[Record]
) -> bytes:
    """The rendered pixels of some records, one after the other. Runs in a worker process."""
    return b"".join(_render(dataset, folder, size, max_pixels, max_bytes, record) for record in records)


def _render(dataset: str, folder: Path, size: tuple[int, int], max_pixels: int, max_bytes: int, record: Record) -> bytes:
    path, sha256 = record
    try:
        data = (folder / path).read_bytes()
    except OSError as error:
        raise CardiumError(f"data/{dataset}/{path} cannot be read ({error.strerror}): {_AGAIN} {dataset}`.") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CardiumError(f"data/{dataset}/{path} has changed since ingest: {_AGAIN} {dataset}`.")
    try:
        pixels = decode(data, max_pixels, max_bytes).pixels
    except Undecodable as error:  # The limits in params.yaml were lowered since ingest.
        raise CardiumError(f"data/{dataset}/{path}: {error}: {_AGAIN} {dataset}`.") from None
    return render_image(pixels, *size).tobytes()
