"""Where the time of the demo goes: importing, working, showing to MLflow, for every stage; with and without the fork server.

    python benchmarks/startup.py                     # the whole demo, twice: a quarter of an hour on two cores
    python benchmarks/startup.py --targets train@ecg5-cnn2d evaluate@chd
    python benchmarks/startup.py --jobs 1

Each way runs `cardium repro` in a clone of its own, made from the committed state; the demo data are made before the clock
starts. Processor seconds are those of the stages' own processes and their workers; "between" is what DVC, `cardium repro` and
the fork server take beside them. One way follows the other, so both see the same machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

PROJECT = Path(__file__).resolve().parents[1]
PARTS = ("imports", "work", "mlflow")
# `cardium repro` whose stages start as ever.
_ALONE = """
import contextlib, sys
from cardium.cli import main
from cardium.pipeline import dvc
dvc.fork_server = lambda root, env, *_: contextlib.nullcontext(dict(env))
sys.exit(main(sys.argv[1:]))
"""


def used() -> float:
    """Processor seconds of all children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def measure(folder: Path, command: list[str], arguments: list[str]) -> tuple[pd.DataFrame, float, float]:
    """Runs `cardium repro` in a fresh clone below `folder`: a row a stage and part, seconds of the clock, processor seconds."""
    clone = folder / "cardium"
    subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(clone)], check=True)
    times = folder / "times.jsonl"
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "CARDIUM_"))}
    env |= {"PYTHONPATH": str(clone / "src"), "CARDIUM_STAGE_TIMES": str(times)}
    made = "from pathlib import Path; from cardium.pipeline.dvc import ensure_data; ensure_data(Path('.').resolve())"
    subprocess.run([sys.executable, "-c", made], cwd=clone, env=env, check=True, stdout=subprocess.DEVNULL)
    started, before = time.monotonic(), used()
    subprocess.run([*command, "repro", *arguments], cwd=clone, env=env, check=True, stdout=subprocess.DEVNULL)
    clock, processor = time.monotonic() - started, used() - before
    rows = [json.loads(line) for line in times.read_text().splitlines()]
    table = pd.DataFrame([{"stage": row["stage"], "part": part, **row[part]} for row in rows for part in PARTS])
    return table, clock, processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="*", default=[], help="DVC targets (default: all)")
    parser.add_argument("--jobs", type=int, default=0, help="stages at once (default: one a core)")
    given = parser.parse_args()
    arguments = [*given.targets, *(["--jobs", str(given.jobs)] if given.jobs else [])]
    ways = {"each alone": [sys.executable, "-c", _ALONE], "fork server": [sys.executable, "-m", "cardium"]}
    totals = []
    for way, command in ways.items():
        with tempfile.TemporaryDirectory(prefix="cardium-startup-") as folder:
            table, clock, processor = measure(Path(folder), command, arguments)
        shown = table.pivot_table(index="stage", columns="part", values="processor_seconds", aggfunc="sum", sort=False)[
            list(PARTS)
        ]
        shown.insert(0, "runs", table[table["part"] == "work"].groupby("stage").size())
        shown["all"] = shown[list(PARTS)].sum(axis=1)
        shown.loc["sum"] = shown.sum()
        print(f"\n{way}: processor seconds\n{shown.round(1).to_string()}", flush=True)
        stages = float(shown.loc["sum", "all"])
        totals.append({"way": way, "clock s": clock, "processor s": processor, "stages": stages, "between": processor - stages})
    table = pd.DataFrame(totals).set_index("way")
    print(f"\n{table.round(0).to_string()}")
    print(f"clock, fork server / alone: {table['clock s'].iloc[1] / table['clock s'].iloc[0]:.2f}")


if __name__ == "__main__":
    main()
