"""A trained run, opened for explanation: its model, what it reads, and what run.json says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardium.config import Settings
from cardium.errors import CardiumError, unknown
from cardium.explain.attribution import How
from cardium.explain.opened_model import OpenedModel
from cardium.imaging.kinds import family
from cardium.imaging.spec import Render
from cardium.models import load_model
from cardium.workspace import MODEL, RunId, Workspace, run_name, served_file


@dataclass(frozen=True)
class OpenedRun:
    """info: run.json. kind, size: the rendering that its model reads."""

    model: OpenedModel
    info: dict[str, Any]
    kind: str
    size: Render

    @property
    def classes(self) -> list[str]:
        return [str(name) for name in self.info["classes"]]

    @property
    def threshold(self) -> float:
        return float(self.info.get("settings", {}).get("evaluate.threshold", 0.5))

    def summary(self) -> dict[str, Any]:
        """What explanations.json says of the run."""
        told = {key: self.info[key] for key in ("run", "dataset", "model", "protocol", "classes")}
        return {**told, "run_id": self.info["id"], "rendering": self.info["rendering"], "data": self.info["data"]}


def open_run(settings: Settings, dataset: str, model: str, protocol: str, *, served: bool = False) -> OpenedRun:
    """The trained run of params.yaml's models/, or an ensemble or fused model made of such.

    served: the model that answers requests; otherwise that of the first held-out fold, which has never seen its test records.
    Raises CardiumError that names the command to train it.
    """
    folder = Workspace(settings.root).run(RunId(dataset, model, protocol))
    name = run_name(dataset, model, protocol)
    try:
        info = dict(json.loads((folder / "run.json").read_text(encoding="utf-8")))
        rendering = dict(info["rendering"])
        kind = str(rendering.pop("kind"))
        size = Render(**rendering)
    except FileNotFoundError:
        raise CardiumError(
            f"{name} is not trained yet: train it with `{_how_to_train(settings, dataset, model, name)}`."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise CardiumError(f"{name}: run.json is not one that `cardium train` wrote: train the run again.") from None
    file = served_file(folder) if served else folder / MODEL
    if not file.is_file():
        raise CardiumError(f"{name}: there is no {file.name} in its folder: train the run again.")
    return OpenedRun(OpenedModel(load_model(file), kind, size.area), info, kind, size)


def _how_to_train(settings: Settings, dataset: str, model: str, name: str) -> str:
    if name in settings.plan.joints:
        return f"dvc repro {settings.plan.joints[name].kind}@{name}"
    published = " --protocol published" if name.endswith("-published") else ""
    return f"cardium train --dataset {dataset} --model {model}{published}"


def how_of(settings: Settings) -> How:
    """What the methods are asked, as params.yaml says."""
    asked = settings.explain
    return How(asked.steps, asked.most_steps, asked.samples, asked.noise, asked.window, settings.seed)


def class_number(classes: Sequence[str], name: str) -> int | None:
    """The index of the class called `name`, None for "". Raises CardiumError that lists the classes."""
    if not name:
        return None
    if name not in classes:
        raise unknown("class", name, list(classes))
    return list(classes).index(name)


def sheet_boxes(data: bytes, kind: str, size: Render) -> Mapping[str, NDArray[np.bool_]]:
    """Where the leads lie in the rendering of a sheet's file: bool (height, width) by name; {} of anything else."""
    if family(kind) != "image" or size.area != "paper":
        return {}
    from cardium.explain.places import lead_boxes
    from cardium.imaging.decode import Undecodable, decode
    from cardium.imaging.sheet import find_sheet

    try:
        pixels = decode(data, 1 << 30, 1 << 30).pixels
    except Undecodable:
        return {}
    return lead_boxes(find_sheet(pixels), (pixels.shape[0], pixels.shape[1]), size)


def sheet_boxes_of(path: Path, kind: str, size: Render) -> Mapping[str, NDArray[np.bool_]]:
    """As `sheet_boxes`, of a file that may be away."""
    try:
        return sheet_boxes(path.read_bytes(), kind, size) if family(kind) == "image" and size.area == "paper" else {}
    except OSError:
        return {}
