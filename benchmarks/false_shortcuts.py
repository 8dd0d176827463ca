"""How often the audit calls chance a shortcut: `python benchmarks/false_shortcuts.py --dataset cmri|ecg4 [--times 100]`.

To be run in a project whose data are ingested. The labels are exchanged between groups, so that nothing tells them, and the
shortcuts that need no backbone are tested as `cardium audit` does: all but the border, header and footer. Printed is how often
at least one is called clear (5 % are allowed), then how often each; and what the true labels give.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from cardium.audit.shortcuts import known_of_files, measure_shortcuts
from cardium.audit.survey import SurveyJob, sheet_shortcuts, survey_files
from cardium.config import load
from cardium.data.manifest import read_fingerprint, read_manifest
from cardium.workspace import Workspace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--times", type=int, default=100)
    given = parser.parse_args()
    settings = load(Path.cwd())
    places = Workspace(settings.root)
    fingerprint = read_fingerprint(places.manifest(given.dataset))
    manifest = read_manifest(places.manifest(given.dataset))
    classes = fingerprint["classes"]
    once = (~manifest["conflict"] & (manifest["copy_of"] == -1)).to_numpy()
    sheets = fingerprint["kind"] != "volume" and settings.datasets[given.dataset].render["image"].area == "paper"
    job = SurveyJob(
        given.dataset, "ingest again", places.data(given.dataset), fingerprint["kind"], sheets, settings.ingest.limits, 64, 64
    )
    surveyed = dict(zip(manifest["path"][once], survey_files(job, [(p, sheets) for p in manifest["path"][once]]), strict=True))
    encoding = np.zeros((len(manifest), len(next(iter(surveyed.values())).encoding)), np.float32)
    encoding[once] = [one.encoding for one in surveyed.values()]
    patients = bool(manifest["patient"].any())
    shortcuts = [one.of_rows(once) for one in known_of_files(manifest, encoding, fingerprint["kind"] == "volume", patients)]
    if sheets:
        shortcuts += sheet_shortcuts([one.layout for one in surveyed.values()], [one.rate for one in surveyed.values()])
    labels = manifest["label"][once].map({name: number for number, name in enumerate(classes)}).to_numpy(dtype=np.int64)
    groups = manifest["group"][once].tolist()
    _, first, index = np.unique(groups, return_index=True, return_inverse=True)
    interval, resamples = settings.evaluate.interval, settings.evaluate.bootstrap
    kept = (classes, settings.audit.folds, settings.audit.repeats, resamples)
    for one in measure_shortcuts(shortcuts, labels, groups, *kept, settings.seed, interval):
        print(
            one.shortcut.title, one.score.as_dict(interval) if one.score else "the same for all", "clear" if one.clear else ""
        )
    found: Counter[str] = Counter()
    alarms = 0
    for time in range(given.times):
        exchanged = np.random.default_rng(time).permutation(labels[first])[index]
        clear = [
            one.shortcut.title for one in measure_shortcuts(shortcuts, exchanged, groups, *kept, time, interval) if one.clear
        ]
        alarms += bool(clear)
        found.update(clear)
        print(f"{time + 1} exchanges: {alarms} with an alarm; {dict(found)}", flush=True)


if __name__ == "__main__":
    main()
