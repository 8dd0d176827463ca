"""settings: what each run takes of its published system and of what `cardium tune` found -> processed/settings/<run>.yaml.

A run's file changes only when its own settings do, so that DVC trains that run anew, and no other.
"""

from __future__ import annotations

import yaml

from cardium import atomic
from cardium.config import Settings


def run(settings: Settings, item: str) -> None:
    """Writes the files of all lines of params.yaml's table `item`, which is `runs`."""
    out = settings.root / "processed" / "settings"
    lines = getattr(settings, item)
    tuned = {name: settings.tuned_of(line) for name, line in lines.items()}
    with atomic.replacing_folder(out) as part:
        for name, line in lines.items():
            taken = {"system": settings.systems.get(line.system, {}), "tuned": tuned[name]}
            (part / f"{name}.yaml").write_text(yaml.safe_dump(taken), encoding="utf-8")
    names = [name for name, values in tuned.items() if values]
    print(f"{len(names)} of {len(tuned)} runs take over what a search found{': ' if names else ''}{', '.join(names)}.")
