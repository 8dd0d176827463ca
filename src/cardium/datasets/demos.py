"""The collections' look-alikes, by the collection's name: makes and recognises them, and gives the truth about a record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cardium.datasets import get_collection, list_collections
from cardium.errors import unknown

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from cardium.demo.make import Demo
    from cardium.imaging.spec import Render

# The hash by which data.dvc knows the demo data of all these collections; any other is that of a user's own data.
TRACKED_MD5 = "c2d72f9151d27af75689a98eb0f0ff63.dir"


def list_demos() -> list[str]:
    """The names of the collections that have a look-alike, in the order of `list_collections`."""
    return [name for name in list_collections() if get_collection(name).demo]


def get_demo(dataset: str) -> Demo:
    """The look-alike of `dataset`. Raises CardiumError, with the known names, if it has none."""
    demo = get_collection(dataset).load_demo() if dataset in list_demos() else None
    if demo is None:
        raise unknown("demo dataset", dataset, list_demos())
    return demo


def make_demo(root: Path, dataset: str = "cmri", count: int | None = None, seed: int | None = None) -> int:
    """Writes `root`/data/<dataset>; see demo.make.write_demo. Raises CardiumError for a dataset without a look-alike, too."""
    from cardium.demo.make import write_demo

    return write_demo(root, dataset, get_demo(dataset), count, seed)


def make_demos(root: Path) -> None:
    """Writes the demo data that data.dvc tracks: `root`/data/<dataset> of every dataset with a look-alike."""
    for dataset in list_demos():
        make_demo(root, dataset)


def is_demo(root: Path, dataset: str, manifest: pd.DataFrame) -> bool:
    """Whether `root`/data/<dataset> is the demo data that data.dvc tracks, byte by byte. manifest: the dataset's."""
    from cardium.demo.make import folder_digest

    if dataset not in list_demos():
        return False
    demo = get_demo(dataset)
    folder = root / "data" / dataset
    # A real collection is larger, and need not be read to see that.
    if len(manifest) > demo.total(demo.count) or not folder.is_dir():
        return False
    return folder_digest(folder) == demo.digest


def true_masks(data: Path, dataset: str, path: str, kind: str, size: Render) -> Mapping[str, NDArray[np.bool_]]:
    """Masks of the pixels that make a demo record's class, by name: bool of the attribution's shape; {} if none is known.

    data: the folder data/<dataset>; path: of the record below it; kind, size: of its rendering.
    """
    return get_demo(dataset).masks(data, path, kind, size)
