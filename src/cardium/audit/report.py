"""Audits a dataset: asks this room's questions one after the other and composes what audit.json holds.

It looks at all records, those of the test fold too: it scores data, by a probe that is thrown away, and chooses no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cardium.audit import verdict
from cardium.audit.copies import audit_copies
from cardium.audit.encoder import Encoder, open_encoder
from cardium.audit.label_issues import Issue, able_from, find_label_issues
from cardium.audit.optimism import Optimism, measure_optimism
from cardium.audit.page import RecordPicture
from cardium.audit.shortcuts import Shortcut, Tested, known_of_files, measure_shortcuts
from cardium.audit.survey import Survey, SurveyJob, survey_dataset
from cardium.config import Settings
from cardium.data.manifest import read_fingerprint, read_manifest
from cardium.workspace import Workspace

# Records with a doubtful label that audit.json names at most.
_NAMED = 500


def audit_dataset(settings: Settings, dataset: str) -> tuple[dict[str, Any], RecordPicture]:
    """Audits `dataset`. Returns what audit.json holds, and what gives the pictures of its records.

    Raises CardiumError for a file that cannot be read or has changed since ingest.
    """
    workspace = Workspace(settings.root)
    manifest = read_manifest(workspace.manifest(dataset))
    fingerprint = read_fingerprint(workspace.manifest(dataset))
    volumes = fingerprint["kind"] == "volume"
    sheets = not volumes and settings.datasets[dataset].render["image"].area == "paper"
    classes: list[str] = fingerprint["classes"]

    encoder = open_encoder(settings, dataset, manifest, volumes)
    probed = choose_records(manifest, settings.audit.records, settings.seed)
    once = probed & ~manifest["sha256"].where(pd.Series(probed)).duplicated().to_numpy()
    job = SurveyJob(
        where=f"data/{dataset}",
        again=f"run `cardium ingest --dataset {dataset}`",
        folder=workspace.data(dataset),
        kind=fingerprint["kind"],
        sheets=sheets,
        limits=settings.limits,
        height=encoder.size.height,
        width=encoder.size.width,
    )
    survey = survey_dataset(job, manifest, once, encoder)
    copies = audit_copies(manifest, survey, encoder, sheets)

    labels = manifest["label"].map({name: number for number, name in enumerate(classes)}).to_numpy(dtype=np.int64)
    optimism = _optimism(settings, manifest, labels, classes, encoder, probed, once)
    tested = _shortcuts(settings, manifest, labels, classes, survey, once, volumes, copies["patients"])
    able = optimism is not None and optimism.grouped.value >= able_from(len(classes))
    issues = find_label_issues(labels[probed], optimism.probabilities) if optimism and able else []

    share = settings.evaluate.interval
    report: dict[str, Any] = {
        "dataset": dataset,
        "kind": fingerprint["kind"],
        "manifest_sha256": fingerprint["manifest_sha256"],
        "classes": classes,
        "chance": round(1 / len(classes), 4),
        "groups": int(manifest["group"].nunique()),
        "probe": {
            "backbone": encoder.backbone,
            "weights": encoder.weights,
            "rendering": encoder.rendering,
            "sheets": sheets,
            "records": int(probed.sum()),
            "of": len(manifest),
            "folds": optimism.folds if optimism else 0,
            "repeats": settings.audit.repeats,
            "resamples": settings.evaluate.bootstrap,
            "interval": share,
        },
        "copies": copies,
        "optimism": optimism.as_dict(share) if optimism else None,
        "shortcuts": [_shortcut_entry(one, share) for one in tested],
        "label_issues": _label_issues(manifest, np.flatnonzero(probed), classes, optimism, able, issues),
    }
    report["leaks"] = verdict.find_leaks(copies)
    report["verdict"] = verdict.judge(report)
    pictures = encoder.pixels if volumes else None
    return report, RecordPicture(workspace.data(dataset), settings.limits, manifest["path"].tolist(), pictures)


def choose_records(manifest: pd.DataFrame, most: int, seed: int) -> NDArray[np.bool_]:
    """Which records are probed, bool (N,): all without a conflict, or `most` of them, drawn in turn from every group."""
    taken = ~manifest["conflict"].to_numpy(dtype=bool)
    if taken.sum() <= most:
        return taken
    shuffled = manifest[taken].sample(frac=1, random_state=seed)
    turn = shuffled.groupby("group").cumcount()
    chosen = shuffled.assign(turn=turn).sort_values("turn", kind="stable")["record"].to_numpy()[:most]
    return np.isin(manifest["record"].to_numpy(), chosen)


def _optimism(
    settings: Settings,
    manifest: pd.DataFrame,
    labels: NDArray[np.integer[Any]],
    classes: Sequence[str],
    encoder: Encoder,
    probed: NDArray[np.bool_],
    once: NDArray[np.bool_],
) -> Optimism | None:
    return measure_optimism(
        encoder.vectors[probed],
        labels[probed],
        manifest["group"][probed].tolist(),
        once[probed],
        classes,
        settings.audit.folds,
        settings.audit.repeats,
        settings.evaluate.bootstrap,
        settings.seed,
    )


def _shortcuts(
    settings: Settings,
    manifest: pd.DataFrame,
    labels: NDArray[np.integer[Any]],
    classes: Sequence[str],
    survey: Survey,
    once: NDArray[np.bool_],
    volumes: bool,
    patients: bool,
) -> list[Tested]:
    encoding = np.array([survey.encoding[name] for name in manifest["sha256"]], dtype=np.float32)
    of_files = [shortcut.of_rows(once) for shortcut in known_of_files(manifest, encoding, volumes, patients)]
    return measure_shortcuts(
        of_files + survey.pictured,
        labels[once],
        manifest["group"][once].tolist(),
        classes,
        settings.audit.folds,
        settings.audit.repeats,
        settings.evaluate.bootstrap,
        settings.seed,
        settings.evaluate.interval,
    )


def _shortcut_entry(tested: Tested, share: float) -> dict[str, Any]:
    shortcut: Shortcut = tested.shortcut
    return {
        "name": shortcut.name,
        "title": shortcut.title,
        "meaning": shortcut.meaning,
        "score": tested.score.as_dict(share) if tested.score else None,
        "clear": tested.clear,
    }


def _label_issues(
    manifest: pd.DataFrame,
    probed: NDArray[np.int64],
    classes: Sequence[str],
    optimism: Optimism | None,
    able: bool,
    issues: Sequence[Issue],
) -> dict[str, Any]:
    """The part `label_issues`. probed: the records that the rows of the issues refer to."""
    paths, groups, labels = (manifest[name].tolist() for name in ("path", "group", "label"))
    # A patient that the probe takes for another class would fill the list with every slice: the strongest of each group first.
    seen: set[str] = set()
    first: list[Issue] = []
    later: list[Issue] = []
    for issue in issues:
        group = groups[probed[issue.row]]
        (later if group in seen else first).append(issue)
        seen.add(group)
    return {
        "conflicts": int(manifest["conflict"].sum()),
        "able": able,
        "judged": int(np.isfinite(optimism.probabilities).all(axis=1).sum()) if optimism and able else 0,
        "count": len(issues),
        "groups": len(first),
        "records": [
            {
                "path": paths[probed[issue.row]],
                "group": groups[probed[issue.row]],
                "label": labels[probed[issue.row]],
                "suggested": classes[issue.suggested],
                "probability_of_label": round(issue.given, 4),
                "probability_of_suggested": round(issue.instead, 4),
                "probability_wrong": round(issue.wrong, 4),
            }
            for issue in (first + later)[:_NAMED]
        ],
    }
