"""The trained runs that an ensemble or a fused model is made of: read, checked against each other, summed up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cardium.errors import CardiumError
from cardium.workspace import run_name

# What all members must share; of other data or folds, a mean would score what a member was trained on.
_SHARED = ("data", "protocol", "classes", "test_folds", "rendering")


def read_members(folders: Sequence[Path], dataset: str, protocol: str) -> list[dict[str, Any]]:
    """The run.json of each run folder.

    Raises CardiumError when one is missing, or comes from other data, another split, other folds or another rendering.
    """
    members = []
    for folder in folders:
        try:
            members.append(dict(json.loads((folder / "run.json").read_text(encoding="utf-8"))))
        except FileNotFoundError:
            run = run_name(dataset, folder.name, protocol)
            raise CardiumError(f"The member {run} is not trained: train it with `dvc repro train@{run}`.") from None
    first = members[0]
    for member in members[1:]:
        for what in _SHARED:
            if member[what] != first[what]:
                raise CardiumError(
                    f"{member['run']} and {first['run']} differ in {what}: members must come from the same split; "
                    f"train them again with `dvc repro train@{member['run']} train@{first['run']}`."
                )
    return members


def common_info(members: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What run.json says of a model made of `members` because it says so of them."""
    first = members[0]
    return {
        "dataset": first["dataset"],
        "protocol": first["protocol"],
        "members": [member["run"] for member in members],
        "member_ids": [member["id"] for member in members],
        "classes": first["classes"],
        "rendering": first["rendering"],
        "weights": common_weights(members),
        "test_folds": first["test_folds"],
        "folds": first["folds"],
        "data": first["data"],
        "warnings": sorted({warning for member in members for warning in member["warnings"]}),
    }


def common_settings(members: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all members were trained with: beside theirs in a comparison, nothing is missing and nothing is new."""
    first = members[0]["settings"]
    return {key: value for key, value in first.items() if all(member["settings"].get(key) == value for member in members)}


def common_weights(members: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The members' pretrained weights in one word: `imagenet`, or `imagenet+random` where they differ."""
    used = sorted({member["weights"]["used"] for member in members})
    return {"asked": members[0]["weights"]["asked"], "used": "+".join(used), "file": "", "sha256": ""}
