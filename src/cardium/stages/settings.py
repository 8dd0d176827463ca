"""settings: what each run takes over of what `cardium tune` found -> processed/settings/<run>.yaml, {} for most.

A run's file changes only when its own settings do, so that DVC trains that run anew, and no other.
"""

from __future__ import annotations

import yaml

from cardium import atomic
from cardium.params import Settings


def run(settings: Settings, item: str) -> None:
    """Writes the files of all lines of params.yaml's table `item`, which is `runs`."""
    out = settings.root / "processed" / "settings"
    taken = {name: settings.tuned_of(line) for name, line in getattr(settings, item).items()}
    with atomic.replacing_folder(out) as part:
        for name, values in taken.items():
            (part / f"{name}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    names = [name for name, values in taken.items() if values]
    print(f"{len(names)} of {len(taken)} runs take over what a search found{': ' if names else ''}{', '.join(names)}.")
