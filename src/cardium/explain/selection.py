"""Chooses the records of a fold that are explained, and those that the methods are tested on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# The rows of the gallery: whether right, whether the most confident come first.
_GROUPS = {
    "right, most confident": (True, True),
    "right, least confident": (True, False),
    "wrong, most confident": (False, True),
    "wrong, least confident": (False, False),
}


def pick(right: NDArray[np.bool_], confidence: NDArray[np.float64], groups: NDArray[Any], count: int) -> dict[str, list[int]]:
    """Chooses the records of each row of the gallery: at most `count` positions, none twice.

    right: (n,) bool. confidence: (n,) probability of the decision. groups: (n,); every patient comes once before any comes
    twice.
    """
    taken: set[int] = set()
    picked = {}
    for name, (is_right, most_first) in _GROUPS.items():
        order = np.argsort(-confidence if most_first else confidence, kind="stable")
        waiting = [int(at) for at in order if right[at] == is_right and int(at) not in taken]
        seen: set[Any] = set()
        # The frames of one patient are alike: the most confident dozen would all be theirs.
        first = [at for at in waiting if not (groups[at] in seen or seen.add(groups[at]))]  # type: ignore[func-returns-value]
        chosen = (first + [at for at in waiting if at not in set(first)])[:count]
        if chosen:
            picked[name] = chosen
            taken |= set(chosen)
    return picked


def pick_tested(right: NDArray[np.bool_], labels: NDArray[Any], groups: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Chooses at most `count` positions of records to test methods on.

    The classes take turns; correctly decided records and new patients come first.
    """
    waiting: dict[int, list[int]] = {}
    for label in sorted(set(labels.tolist())):
        own = np.flatnonzero(labels == label)
        counts: dict[Any, int] = {}
        turns = []
        for at in own:
            counts[groups[at]] = counts.get(groups[at], 0) + 1
            turns.append((not right[at], counts[groups[at]], int(at)))
        waiting[label] = [at for *_, at in sorted(turns)]
    picked: list[int] = []
    while len(picked) < count and any(waiting.values()):
        for own_waiting in waiting.values():
            if own_waiting and len(picked) < count:
                picked.append(own_waiting.pop(0))
    return np.array(sorted(picked), dtype=np.int64)


def spread(records: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Thins out `records` (n,) evenly to at most `count`."""
    if len(records) <= count:
        return records
    return records[np.linspace(0, len(records) - 1, count).round().astype(np.int64)]
