"""Progress of long work: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def progress(
    items: Iterable[Item], *, total: int, desc: str, unit: str = "it", note: Callable[[], str] | None = None
) -> Iterator[Item]:
    """Yields `items`, showing on stderr how far of `total` they have come; work under two seconds shows nothing.

    note: what stands at the bar's end, asked for after every item.
    """
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    bar = tqdm(
        items,
        total=total,
        desc=desc,
        unit=unit,
        delay=2,
        mininterval=0.2 if terminal else 10,
        ascii=not terminal,
        leave=terminal,
        dynamic_ncols=terminal,
        file=sys.stderr,
    )
    for item in bar:
        if note is not None:
            bar.set_postfix_str(note(), refresh=False)
        yield item
