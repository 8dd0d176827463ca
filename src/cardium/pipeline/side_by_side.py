"""Runs chains of stages in several processes at once, each as soon as those that it waits for have ended."""

from __future__ import annotations

import queue
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from cardium.parallel import cores
from cardium.pipeline.graph import Chain
from cardium.pipeline.process_group import end_groups, start_group
from cardium.pipeline.stages import BEGINS

# What a stage that trains may take, with TensorFlow's own part: about 1 GB is usual.
_BYTES_A_JOB = 3_000_000_000


def default_jobs() -> int:
    """How many stages may run at once: one a core, as memory allows; one on a GPU, whose memory TensorFlow takes whole."""
    import psutil

    if Path("/dev/nvidia0").exists():
        return 1
    return max(1, min(cores(), psutil.virtual_memory().available // _BYTES_A_JOB))


def run_chains(
    waits: Mapping[Chain, set[Chain]],
    command: Callable[[Chain], list[str]],
    root: Path,
    env: Mapping[str, str],
    jobs: int,
) -> bool:
    """Runs `command(chain)` for every chain after those that it waits for, `jobs` at once; returns whether all went well.

    Chains that many others wait for come first. Each line that they print is passed on, with the stage that it is of before it.
    After a failure nothing new is begun, and what is running is waited for. An interruption ends all of them.
    """
    height = _heights(waits)
    waiting = {chain: set(before) for chain, before in waits.items()}
    ended: queue.Queue[tuple[Chain, int]] = queue.Queue()
    running: dict[Chain, subprocess.Popen[str]] = {}
    failed = False
    try:
        while running or (waiting and not failed):
            ready = sorted(
                (chain for chain, before in waiting.items() if not before), key=lambda chain: (-height[chain], chain)
            )
            for chain in [] if failed else ready[: jobs - len(running)]:
                del waiting[chain]
                running[chain] = start_group(command(chain), root, {**env, "PYTHONUNBUFFERED": "1"}, piped=True)
                threading.Thread(target=_pass_on, args=(running[chain], chain, ended), daemon=True).start()
            chain, code = ended.get()
            del running[chain]
            for before in waiting.values():
                before.discard(chain)
            if code and running and not failed:
                still = f"{len(running)} that {'is' if len(running) == 1 else 'are'} running"
                print(f"A stage failed: nothing new is begun; waiting for {still}.", flush=True)
            failed = failed or code != 0
    except BaseException:
        end_groups(*running.values())
        raise
    return not failed


def _heights(waits: Mapping[Chain, set[Chain]]) -> dict[Chain, int]:
    """How many stages still come after each chain's beginning, on the longest way."""
    followers: dict[Chain, list[Chain]] = {chain: [] for chain in waits}
    for chain, before in waits.items():
        for first in before:
            followers[first].append(chain)
    heights: dict[Chain, int] = {}

    def height(chain: Chain) -> int:
        if chain not in heights:
            heights[chain] = len(chain) + max((height(after) for after in followers[chain]), default=0)
        return heights[chain]

    return {chain: height(chain) for chain in waits}


def _pass_on(process: subprocess.Popen[str], chain: Chain, ended: queue.Queue[tuple[Chain, int]]) -> None:
    """Prints what a process says, line by line, then puts its exit code into the queue."""
    assert process.stdout is not None
    _, _, item = chain[0].partition("@")
    with process.stdout:
        for line in process.stdout:
            if line.startswith(BEGINS):
                item = line.split()[-1]
                print(line, end="", flush=True)
            elif line.strip():
                print(f"{item} | {line}", end="", flush=True)
    ended.put((chain, process.wait()))
