"""data + manifest -> reports/<dataset>/audit/: how much of a score on this dataset is real, asked before anyone trains.

audit.json             every figure: copies, leaks, optimism, shortcuts, label issues, the verdict
audit.html             the same as one page, self-contained
figures/scores.png     the probe with files at random and with groups apart, and every shortcut, against chance
figures/copies.png, label_issues.png    galleries, if there is something to show
"""

from __future__ import annotations

from cardium.atomic import replacing_folder, write_json, write_text
from cardium.audit import verdict
from cardium.audit.page import draw, page
from cardium.audit.report import audit_dataset
from cardium.config import Settings
from cardium.errors import harmless
from cardium.workspace import Workspace


def run(settings: Settings, item: str) -> None:
    """Audits dataset `item`. A leak is no error here: `cardium audit --strict` makes one of it."""
    report, picture = audit_dataset(settings, item)
    out = Workspace(settings.root).audit(item)
    with replacing_folder(out) as folder:
        write_json(folder / "audit.json", report)
        write_text(folder / "audit.html", page(report, picture))
        draw(folder / "figures", report, picture)
    print(harmless(verdict.text(report)))
    print(f"wrote {out.relative_to(settings.root).as_posix()}: open audit.html. Next: cardium train --dataset {item}")
