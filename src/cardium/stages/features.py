"""features: makes the bank of one frozen backbone from the rendered pixels."""

from __future__ import annotations

from cardium.config import Settings
from cardium.errors import unknown
from cardium.training.make_bank import make_bank
from cardium.workspace import Workspace


def run(settings: Settings, item: str) -> None:
    """Makes or completes the bank `item` of the plan."""
    if item not in settings.plan.banks:
        raise unknown("bank", item, list(settings.plan.banks))
    spec = settings.plan.banks[item]
    folder = Workspace(settings.root).bank(spec.dataset, spec.backbone, spec.protocol)
    make_bank(settings, spec, folder)
    print(f"Wrote {folder.relative_to(settings.root)}/. Next: cardium train --dataset {spec.dataset} --model {spec.backbone}")
