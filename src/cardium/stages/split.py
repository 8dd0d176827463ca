"""manifest -> split: honest.csv (group, label, fold), published.csv (record, part) and split.json (their counts and hash).

Reads the split that is there, too: its groups keep their folds (`persist: true` in dvc.yaml).
"""

from __future__ import annotations

from cardium.config import Settings
from cardium.data.make_split import EarlierSplit, make_split, write_split
from cardium.data.manifest import read_fingerprint, read_manifest
from cardium.errors import CardiumError
from cardium.workspace import Workspace


def run(settings: Settings, item: str) -> None:
    """Splits dataset `item` both ways. Raises CardiumError if it has too few groups of a class for `split.folds`."""
    workspace = Workspace(settings.root)
    manifest = read_manifest(workspace.manifest(item))
    fingerprint = read_fingerprint(workspace.manifest(item))
    out = workspace.split(item)
    earlier = EarlierSplit.read(out, settings.split.folds, settings.split.seed)
    try:
        split = make_split(manifest, fingerprint, settings.split.folds, settings.split.seed, earlier)
    except CardiumError as error:
        raise CardiumError(f"{item}: {error}") from None
    facts = write_split(out, item, split, int(manifest["conflict"].sum()))

    print(f"{item}: {len(split.fold_of)} groups with {len(split.distinct)} distinct records in {split.folds} folds")
    if earlier and facts["sha256"] != earlier.sha256:
        old = earlier.fold_of.keys() & split.fold_of.keys()
        moved = sum(split.fold_of[group] != earlier.fold_of[group] for group in old)
        print(f"{item}: {len(old) - moved} of {len(old)} groups keep their fold, {len(split.fold_of) - len(old)} are new")
    for line in facts["honest"]:
        counts = [f"{label} {line['groups'][label]} groups, {line['records'][label]} records" for label in split.classes]
        print(f"  fold {line['fold']}: {', '.join(counts)}")
    print(
        f"{item}: the published split holds out {len(split.held_out)} of {len(split.taken) - len(split.left_out)} records;"
        f" {facts['published']['groups_on_both_sides']} groups are on both sides of it"
    )
    if len(split.left_out):
        print(f"{item}: {len(split.left_out)} records are not the original's: they take no part in the published split")
    if facts["conflicts"]:
        print(f"{item}: {facts['conflicts']} records whose image stands under two classes take part in neither")
    print(f"wrote {out.relative_to(settings.root).as_posix()}")
