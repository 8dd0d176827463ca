"""tracked: asks whether data/ is what data.dvc says and plan.yaml what params.yaml comes to; writes down which data it is.

It runs at every `dvc repro`, in a second. What reads data/ depends on its output instead of on data/ itself: a dependency
below data/ would make DVC rewrite data.dvc behind the user's back whenever data changed.
"""

from __future__ import annotations

from cardium import atomic
from cardium.config import Settings, check_plan
from cardium.data.tracked import check_tracked


def run(settings: Settings, item: str) -> None:
    """Writes processed/data.md5; CardiumError where data/ differs from data.dvc or plan.yaml from params.yaml.

    item: the folder's name, `data`.
    """
    check_plan(settings)
    md5 = check_tracked(settings.root)
    atomic.write_text(settings.root / "processed" / f"{item}.md5", md5 + "\n")
