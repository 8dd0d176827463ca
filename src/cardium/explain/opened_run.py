"""Opens a trained run for explanation: its model, and what run.json says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardium.config import Settings
from cardium.data.rendering import read_rows
from cardium.errors import CardiumError, unknown
from cardium.explain.attribution import How
from cardium.explain.opened_model import OpenedModel
from cardium.imaging.kinds import family
from cardium.imaging.spec import Render
from cardium.models import load_model
from cardium.runs.trained_run import NotTrainedError, TrainedRun
from cardium.workspace import RunId


@dataclass(frozen=True)
class OpenedRun:
    """A trained run with one of its models: the first held-out fold's, or the one that answers requests."""

    model: OpenedModel
    trained: TrainedRun

    @property
    def name(self) -> str:
        """The run's name."""
        return self.trained.name

    @property
    def classes(self) -> list[str]:
        """The classes, in the order of the probabilities."""
        return self.trained.classes

    @property
    def threshold(self) -> float:
        """The probability above which the second of two classes is decided."""
        return self.trained.threshold

    @property
    def kind(self) -> str:
        """The kind of rendering that the model reads."""
        return self.trained.rendering

    @property
    def size(self) -> Render:
        """The size of that rendering."""
        return self.trained.size

    def probabilities(self, pixels: NDArray[np.uint8], records: NDArray[np.int64]) -> NDArray[np.float64]:
        """Predicts rows `records` (n,) of a rendering (N, ...): float64 (n, C)."""
        size = self.model.at_once
        parts = [
            self.model.probabilities(read_rows(pixels, records[at : at + size]).astype(np.float32))
            for at in range(0, len(records), size)
        ]
        return np.concatenate(parts)

    def summary(self) -> dict[str, Any]:
        """Returns what explanations.json says of the run."""
        run = self.trained
        return {
            "run": run.name,
            **asdict(run.run),
            "classes": run.classes,
            "run_id": run.id,
            "rendering": {"kind": run.rendering, **run.size.as_dict()},
            "data": asdict(run.data),
        }


def open_run(settings: Settings, run: RunId, *, served: bool = False) -> OpenedRun:
    """Opens a trained run of the pipeline, or an ensemble or fused model.

    served: open the model that answers requests; otherwise that of the first held-out fold, which has never seen its test
    records.
    Raises CardiumError that names the command to train it.
    """
    try:
        trained = TrainedRun.read(settings.root / run.folder)
    except NotTrainedError:
        raise CardiumError(f"{run} is not trained yet: train it with `{_how_to_train(settings, run)}`.") from None
    file = trained.served_file if served else trained.model_file
    if not file.is_file():
        raise CardiumError(f"{run}: there is no {file.name} in its folder: train the run again.")
    return OpenedRun(OpenedModel(load_model(file), trained.rendering, trained.size.area), trained)


def _how_to_train(settings: Settings, run: RunId) -> str:
    if run.name in settings.plan.joints:
        return f"dvc repro {settings.plan.verb_of(run)}@{run}"
    published = " --protocol published" if run.protocol == "published" else ""
    return f"cardium train --dataset {run.dataset} --model {run.model}{published}"


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
