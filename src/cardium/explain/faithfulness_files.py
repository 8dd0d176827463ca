"""Writes the tests of the methods on a run: faithfulness.csv and .png, one row per method; .json, with the curves too."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cardium import atomic
from cardium.explain.faithfulness import Tested
from cardium.reporting import plots


def write_faithfulness(folder: Path, run: str, tested: Sequence[Tested], records: Sequence[int], seconds: float) -> None:
    """Writes faithfulness.csv, .json and .png into `folder`."""
    columns = list(dict.fromkeys(name for one in tested for name in one.row))
    with (folder / "faithfulness.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", *columns])
        for one in tested:
            writer.writerow([one.method, *(f"{one.row[name]:.4f}" if name in one.row else "" for name in columns)])
    table = {
        "run": run,
        "records": list(records),
        "seconds": seconds,
        "methods": {
            one.method: {
                **{name: round(value, 6) for name, value in one.row.items()},
                "curve": [[round(float(v), 5) for v in line] for line in zip(*_curves(one), strict=True)],
                "cascade": [[round(share, 5), round(correlation, 5)] for share, correlation in one.cascade],
            }
            for one in tested
        },
    }
    atomic.write_json(folder / "faithfulness.json", table)
    lines = [(one.method, *_curves(one), one.cascade) for one in tested]
    plots.faithfulness(lines, folder / "faithfulness.png", title=f"{run}: what is true of the explanations")


def _curves(one: Tested) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    return one.curves.shares, one.curves.deletion, one.curves.insertion


def faithfulness_text(tested: Sequence[Tested]) -> str:
    """Formats the table as text."""
    columns = list(dict.fromkeys(name for one in tested for name in one.row))
    width = max(len(one.method) for one in tested)
    lines = [" " * width + "".join(f"  {name:>{max(9, len(name))}}" for name in columns)]
    for one in tested:
        values = [f"{one.row[name]:.3f}" if name in one.row else "" for name in columns]
        lines.append(
            f"{one.method:<{width}}"
            + "".join(f"  {value:>{max(9, len(name))}}" for value, name in zip(values, columns, strict=True))
        )
    return "\n".join(lines)
