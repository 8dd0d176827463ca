"""Reads the trained runs that an ensemble or a fused model is made of, and derives what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cardium.errors import CardiumError
from cardium.models.weights import WeightsUsed
from cardium.provenance import Provenance, new_id
from cardium.runs.trained_run import NotTrainedError, RunKind, Seconds, TrainedRun
from cardium.workspace import RunId


def read_members(root: Path, members: Sequence[RunId]) -> list[TrainedRun]:
    """Reads the members' runs from the project in `root`.

    Raises CardiumError if one is not trained, or if they differ in data, split, folds, classes or rendering.
    """
    runs = []
    for member in members:
        try:
            runs.append(TrainedRun.read(root / member.folder))
        except NotTrainedError:
            raise CardiumError(f"The member {member} is not trained: train it with `dvc repro train@{member}`.") from None
    first = runs[0]
    for run in runs[1:]:
        for what, value in _shared(run).items():
            if value != _shared(first)[what]:
                raise CardiumError(
                    f"{run.name} and {first.name} differ in {what}: members must come from the same split; "
                    f"train them again with `dvc repro train@{run.name} train@{first.name}`."
                )
    return runs


def _shared(run: TrainedRun) -> dict[str, Any]:
    """Returns what all members must agree in. With other data or folds, a mean would score records that a member trained on."""
    return {
        "data": run.data,
        "protocol": run.run.protocol,
        "classes": run.classes,
        "test_folds": run.test_folds,
        "rendering": (run.rendering, run.size),
    }


def joint_run(root: Path, run: RunId, kind: RunKind, members: Sequence[TrainedRun]) -> TrainedRun:
    """Builds the run made of `members` as far as it follows from them: what they share, and their summed cost.

    The caller fills in what depends on the joint model.
    """
    first = members[0]
    provenance = Provenance.now(root)
    return TrainedRun(
        id=new_id(),
        run=run,
        kind=kind,
        classes=first.classes,
        rendering=first.rendering,
        size=first.size,
        test_folds=first.test_folds,
        data=first.data,
        folder=root / run.folder,
        folds=first.folds,
        weights=common_weights(members),
        settings=common_settings(members),
        trainable_parameters=sum(member.trainable_parameters for member in members),
        seconds=Seconds(
            round(sum(member.seconds.features for member in members), 1),
            round(sum(member.seconds.train for member in members), 1),
        ),
        warnings=sorted({warning for member in members for warning in member.warnings} | {*provenance.warnings}),
        members=[member.name for member in members],
        member_ids=[member.id for member in members],
        provenance=provenance,
    )


def common_settings(members: Sequence[TrainedRun]) -> dict[str, Any]:
    """Returns the settings that all members share; others would be missing or contradicted in a comparison."""
    first = members[0].settings
    return {key: value for key, value in first.items() if all(member.settings.get(key) == value for member in members)}


def common_weights(members: Sequence[TrainedRun]) -> WeightsUsed:
    """Sums up the members' pretrained weights in one word: `imagenet`, or `imagenet+random` if they differ."""
    used = sorted({member.weights.used for member in members})
    return WeightsUsed(members[0].weights.asked, "+".join(used))
