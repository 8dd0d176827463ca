"""The pool of processes that read files: what takes too long, or ends its process, is refused, and the others are read."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cardium.imaging.decode import Undecodable
from cardium.serving.render_pool import FILE, RenderPool, Request
from cardium.serving.request import Refusal


def read(data: bytes) -> Any:
    """Stands for a decoder: what it does is written in the file."""
    what, _, value = data.decode().partition(" ")
    if what == "spin":
        while True:
            pass
    if what == "sleep":
        time.sleep(float(value))
    if what == "die":
        os._exit(1)
    if what == "fill":
        return len(bytes(int(value)))
    if what == "bad":
        raise Undecodable("damaged PNG file")
    if what == "fault":
        raise RuntimeError(f"secret {value}")
    return what.upper()


@pytest.fixture(scope="module")
def pool() -> Iterator[RenderPool]:
    made = RenderPool({FILE: read, "length": len}, 0.4, 500_000_000, b"example", 2, 1)
    yield made
    made.close()


def answers(pool: RenderPool, *files: bytes | Refusal, seconds: float = 60) -> list[Any]:
    return list(pool.render(Request(time.monotonic() + seconds), files))


def test_every_file_has_its_answer_in_order(pool: RenderPool) -> None:
    refused = Refusal("no base64")
    assert answers(pool, b"a", refused, b"bad", b"b", b"fault here", b"c") == [
        "A",
        refused,
        Refusal("damaged PNG file"),
        "B",
        Refusal("it cannot be read"),
        "C",
    ]
    assert pool.call(Request(time.monotonic() + 60), "length", b"four") == 4


def test_a_file_that_takes_too_long_or_kills_its_reader_is_refused_alone(pool: RenderPool) -> None:
    found = answers(pool, b"spin", b"a", b"die", b"b", b"fill 2000000000", b"fill 1000")
    assert found == [
        Refusal("it takes too long to read"),
        "A",
        Refusal("it cannot be read"),
        "B",
        Refusal("it needs too much memory"),
        1000,
    ]


def test_what_a_request_has_no_time_left_for_is_refused_and_stopped(pool: RenderPool) -> None:
    late = Refusal("there was no time left for this file: send fewer at once")
    assert answers(pool, *[b"sleep 600"] * 5, seconds=0.5) == [late] * 5
    # The two that slept are ended, and what waited behind them was dropped.
    assert answers(pool, b"a", b"b", b"c") == ["A", "B", "C"]


def test_a_single_file_does_not_wait_for_the_whole_batch_before_it(pool: RenderPool) -> None:
    batch = Request(time.monotonic() + 600)
    slow = pool.render(batch, [b"a", *[b"sleep 300"] * 3])
    assert next(slow) == "A"  # The batch is on its way.
    assert answers(pool, b"single", b"b") == ["SINGLE", "B"]
    assert len(batch.jobs) >= 2
    batch.cancelled = True
    assert answers(pool, b"next") == ["NEXT"]


def test_whoever_waits_for_what_was_cancelled_is_told(pool: RenderPool) -> None:
    batch = Request(time.monotonic() + 600)
    waits = [pool.begin(batch, FILE, b"sleep 600") for _ in range(4)]
    batch.cancelled = True
    assert [type(wait()) for wait in waits] == [Refusal] * 4
    assert pool.begin(batch, FILE, b"a")() == Refusal("reading was stopped")
    assert answers(pool, b"b") == ["B"]
