"""What predicts the label without the heart's picture: a held-out balanced accuracy with an interval for each, groups apart.

A shortcut is *clear* if its interval is above chance, and if exchanging the groups' labels gives it as high a score in no more
than 5 % of all ways, divided by the number of shortcuts that differ between records (Bonferroni). With few patients the
interval alone calls noise a finding too often: it varies the patients that are tested, but not those that the classifier was
fitted to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cardium.audit.probe import Kind, Score, count_folds, held_out, score
from cardium.audit.series import acquisition_of_groups, has_lone_frames
from cardium.errors import CardiumError
from cardium.evaluation.metrics import GroupBootstrap, decide
from cardium.progress import progress

# Numbers of a picture that are kept; ways to exchange labels that are tried at least.
_DIMENSIONS = 32
_EXCHANGES = 200


@dataclass(frozen=True)
class Shortcut:
    """A property of a record other than its heart.

    title, meaning: a word and a line for the reader. values: (n, d), a row a record. of_groups: the values are those of the
    group, whose records then count as one.
    """

    name: str
    title: str
    meaning: str
    values: NDArray[np.float32]
    kind: Kind = "tree"
    of_groups: bool = False

    def of_rows(self, rows: NDArray[np.bool_]) -> Shortcut:
        """The same shortcut of some of the records. rows: bool (n,)."""
        return dataclasses.replace(self, values=self.values[rows])


@dataclass(frozen=True)
class Tested:
    """A shortcut's score; None if it is the same for every record. clear: see the module's docstring."""

    shortcut: Shortcut
    score: Score | None
    clear: bool


def known_of_files(manifest: pd.DataFrame, encoding: NDArray[np.float32], volumes: bool, patients: bool) -> list[Shortcut]:
    """The shortcuts that need no picture. manifest: of all records. encoding: (n, d), of each record's file."""
    what = "volume" if volumes else "picture"
    sides = manifest[["width", "height"]].to_numpy(dtype=np.float32)
    written = [encoding, *(_one_hot(manifest[name]) for name in ("mode", "format"))]
    groups = manifest["group"]
    size = groups.map(groups.value_counts()).to_numpy(dtype=np.float32)
    distinct = groups.map(manifest[manifest["copy_of"] == -1].groupby("group").size()).to_numpy(dtype=np.float32)
    series = groups.map(manifest.groupby("group")["series"].nunique()).to_numpy(dtype=np.float32)
    counted = "a patient" if patients else "a content"
    found = [
        Shortcut("file_size", "file size", "bytes of the file", manifest[["bytes"]].to_numpy(dtype=np.float32)),
        Shortcut("dimensions", "dimensions", f"width and height of the {what}", sides),
        Shortcut(
            "encoding", "encoding", "data type and packing" if volumes else "format, colour mode, compression settings",
            np.column_stack(written).astype(np.float32),
        ),
        Shortcut(
            "brightness", "mean brightness", f"the mean level of the {what}", manifest[["mean"]].to_numpy(dtype=np.float32)
        ),
    ]  # fmt: skip
    if volumes:
        depth = manifest[["depth"]].to_numpy(dtype=np.float32)
        found.append(Shortcut("slices", "slice count", "slices of the volume", depth))
    counts = np.column_stack([size, distinct, series]).astype(np.float32)
    if patients and not volumes:
        alone = "whether slices of a patient lack a frame that the others have"
        found.append(Shortcut("frames", "frames that exist", alone, has_lone_frames(manifest), of_groups=True))
        mix = "series, files of each, frame numbers, and the mix of series' names and picture sizes of a patient"
        found.append(Shortcut("acquisition", "acquisition", mix, acquisition_of_groups(manifest), of_groups=True))
    how_many = f"files, distinct files and series of {counted}" if patients else "how many identical files there are of it"
    found.append(Shortcut("files", "file count", how_many, counts, of_groups=True))
    return found


def measure_shortcuts(
    shortcuts: Sequence[Shortcut],
    labels: NDArray[np.integer[Any]],
    groups: Sequence[str],
    classes: Sequence[str],
    folds: int,
    repeats: int,
    resamples: int,
    seed: int,
    interval: float,
) -> list[Tested]:
    """Scores each shortcut on distinct records, the strongest first; None for the score if no folds can be made."""
    level = (1 - interval) / max(1, sum(bool((one.values != one.values[0]).any()) for one in shortcuts))
    own = np.asarray(groups).astype(str)
    tested: list[Tested] = []
    for shortcut in shortcuts:
        rows = np.arange(len(labels))
        if shortcut.of_groups:
            # One row a group and class: the size of a group of two classes predicts neither.
            pairs = np.char.add(own, [f"\n{label}" for label in labels])
            rows = np.unique(pairs, return_index=True)[1]
        values, label, group = shortcut.values[rows], labels[rows], own[rows].tolist()
        cut = count_folds(group, [classes[one] for one in label], classes, folds)
        if not cut or not (values != values[0]).any():
            tested.append(Tested(shortcut, None, False))
            continue
        settled: dict[str, Any] = {"classes": classes, "folds": cut, "seed": seed, "apart": True, "kind": shortcut.kind}
        if values.shape[1] > _DIMENSIONS:
            values = _reduced(values)
        repeated = held_out(values, label, group, **settled, repeats=repeats, what=shortcut.title)
        found = score(label, group, repeated, GroupBootstrap(group, label, resamples, seed))
        above = found.interval(interval)[0] > 1 / len(classes)
        tested.append(Tested(shortcut, found, above and _is_rare(found.value, level, values, label, group, settled)))
    return sorted(tested, key=lambda one: -one.score.value if one.score else 0.0)


def _is_rare(
    value: float,
    level: float,
    values: NDArray[np.float32],
    labels: NDArray[np.integer[Any]],
    groups: Sequence[str],
    settled: dict[str, Any],
) -> bool:
    """Whether at most the share `level` of all exchanges of labels between groups scores `value` or more.

    It tries `_EXCHANGES` exchanges, counts the true labelling as one, and ends as soon as too many score as high.
    """
    rng = np.random.default_rng(settled["seed"])
    _, first, index = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
    exchanges = max(_EXCHANGES, int(np.ceil(2 / level)))
    as_high = 1
    for number in progress(range(exchanges), total=exchanges, desc="exchanged labels", unit="time"):
        exchanged = rng.permutation(labels[first])[index]
        try:
            (held,) = held_out(values, exchanged, groups, **{**settled, "seed": settled["seed"] + number}, repeats=1)
        except CardiumError:  # A group of two classes: this exchange cannot be dealt into the folds.
            continue
        right = decide(held) == exchanged
        as_high += float(np.mean([right[exchanged == label].mean() for label in np.unique(exchanged)])) >= value
        if as_high > level * (exchanges + 1):
            return False
    return True


def _reduced(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, d) -> (n, at most 32), along the directions of largest variance: a few dozen groups do not support more."""
    from sklearn.decomposition import PCA

    dimensions = min(_DIMENSIONS, len(vectors) - 1)
    reduced = PCA(dimensions, svd_solver="randomized", random_state=0).fit_transform(vectors)
    return np.asarray(reduced, dtype=np.float32)


def _one_hot(column: pd.Series) -> NDArray[np.float32]:
    values = column.astype(str).to_numpy()
    return np.column_stack([values == name for name in np.unique(values)]).astype(np.float32)
