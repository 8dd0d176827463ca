"""tracked: asks whether data/ is what data.dvc says it is, and writes down which data that is.

It runs at every `dvc repro`, in a second. What reads data/ depends on its output instead of on data/ itself: a dependency
below data/ would make DVC rewrite data.dvc behind the user's back whenever data changed.
"""

from __future__ import annotations

from cardium import atomic
from cardium.config import Settings
from cardium.data.tracked import check_tracked


def run(settings: Settings, item: str) -> None:
    """Writes processed/data.md5; CardiumError where data/ differs from data.dvc. `item` is the folder's name, `data`."""
    md5 = check_tracked(settings.root)
    atomic.write_text(settings.root / "processed" / f"{item}.md5", md5 + "\n")
