"""report: evaluation, promotion and run folders -> reports/<dataset>/report/, one self-contained page for people."""

from __future__ import annotations

from cardium import atomic
from cardium.config import Settings
from cardium.reporting.report import index_page, write_page
from cardium.workspace import Workspace


def run(settings: Settings, item: str) -> None:
    """Writes the page of dataset `item` and rewrites the index of all pages."""
    out = Workspace(settings.root).report(item)
    with atomic.replacing_folder(out) as part:
        write_page(settings, item, part)
    import filelock

    index = settings.root / "reports" / "index.html"
    # Reports of other datasets may be written side by side; who comes last knows of all.
    with filelock.FileLock(Workspace(settings.root).scratch() / "index.lock"):
        atomic.write_text(index, index_page(settings))
    print(f"wrote {out.relative_to(settings.root).as_posix()}/index.html and reports/index.html: open it in a browser")
