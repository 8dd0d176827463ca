"""Shortcuts in which files of a patient exist, from the manifest alone: frames that stand alone, series, sizes, numbers.

Where experts chose the frames, their choice may follow the diagnosis: in the Sunnybrook data a slice with one frame, where
others have two, is Normal more often than not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# Frames a position at most; how often, and as which share of all, a distance must occur to be that of positions.
_MOST_FRAMES, _OFTEN, _REGULAR = 8, 4, 0.65
# Names and sizes whose share of a patient's files is looked at, at most, each of several patients.
_MIXED, _SEVERAL = 12, 2


def lone_frames(numbers: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """How many frames each series lacks that its other positions have: (series,).

    numbers: of each series its frames' numbers. Positions are found in all series together: if most frames lie d after the
    k-th before them, a position has k frames and d numbers. A series' frames are told apart by their place in a position.
    """
    rising = [np.unique(own[own >= 0]) for own in numbers]
    for frames in range(1, _MOST_FRAMES + 1):
        apart = Counter(int(step) for own in rising for step in own[frames:] - own[:-frames])
        length, times = apart.most_common(1)[0] if apart else (0, 0)
        if times >= max(_OFTEN, _REGULAR * apart.total()):
            return np.array([_lacking(own, length, frames) for own in rising], dtype=np.int64)
    return np.zeros(len(rising), np.int64)


def _lacking(numbers: NDArray[np.int64], length: int, frames: int) -> int:
    """Frames that some of a series' positions lack. length: numbers of a position; frames: of a whole position."""
    if len(numbers) <= frames:
        return 0
    if frames == 1:
        return max(0, round((int(numbers[-1]) - int(numbers[0])) / length) + 1 - len(numbers))
    place = np.sort(numbers % length)
    # Places lie on a circle: it is cut where they are farthest apart.
    gaps = np.diff(np.append(place, place[0] + length))
    cuts = np.sort(np.argsort(-gaps, kind="stable")[:frames])
    counts = np.diff(np.append(cuts, cuts[0] + len(place)))
    return int((counts.max() - counts).sum())


def has_lone_frames(manifest: pd.DataFrame) -> NDArray[np.float32]:
    """(N, 1): whether each record's group has lone frames: 1 or 0."""
    series = [(group, own) for (group, _), own in manifest.groupby(["group", "series"])["frame"]]
    lacking = lone_frames([own.to_numpy(dtype=np.int64) for _, own in series])
    of_group = pd.Series(lacking).groupby([group for group, _ in series]).sum()
    return np.asarray(manifest["group"].map(of_group) > 0, dtype=np.float32)[:, None]


def acquisition_of_groups(manifest: pd.DataFrame) -> NDArray[np.float32]:
    """(N, d): of each record's group how many series it has and of how many files, their numbers, and the mix of its views.

    A view is known here by the series' name and by the picture's size: the shares that each has of the group's files.
    """
    by_group = manifest.groupby("group")
    files = manifest.groupby(["group", "series"]).size().groupby("group")
    numbered = manifest[manifest["frame"] >= 0].groupby("group")["frame"]
    size = manifest["width"].astype(str) + "x" + manifest["height"].astype(str)
    of_group = pd.DataFrame(
        {
            "series": by_group["series"].nunique(),
            "fewest": files.min(),
            "middle": files.median(),
            "most": files.max(),
            "first": numbered.min(),
            "last": numbered.max(),
            "sizes": size.groupby(manifest["group"]).nunique(),
        }
    ).fillna(-1)
    mixes = [_mix(manifest["group"], names) for names in (manifest["series"].str.lower(), size)]
    return pd.concat([of_group, *mixes], axis=1).loc[manifest["group"]].to_numpy(dtype=np.float32)


def _mix(group: pd.Series, names: pd.Series) -> pd.DataFrame:
    """The share of each group's records under each name that several groups have; the most frequent names only."""
    shares = pd.crosstab(group, names, normalize="index")
    having = (shares > 0).sum().sort_values(ascending=False, kind="stable")
    return shares[having[having >= _SEVERAL].index[:_MIXED]]
