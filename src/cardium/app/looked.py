"""Which regions influenced an answer: the default method of `cardium explain` on one file, with what its tests found of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cardium.config import Settings
from cardium.runs.trained_run import TrainedRun
from cardium.workspace import Workspace

if TYPE_CHECKING:
    from cardium.explain.opened_model import OpenedModel
    from cardium.reporting.plots import Overlay

# Pixels: the least longer side of the picture.
_LONGEST = 900
# How strongly the strongest attribution covers what is below it; what speaks for the class, and what against it.
_OPACITY, _FOR, _AGAINST = 0.75, (200, 40, 30), (40, 90, 200)


@dataclass(frozen=True)
class LookedAt:
    """An explanation of one answer.

    text: a line in plain English. picture: PNG, b"" where nothing can be pointed at; signed: whether it also shows what speaks
    against the class. deletion, insertion: the mean probability
    while what the method points at is emptied, and while that alone is shown, each beside places at random; None where the
    method was not tested on this run.
    """

    method: str
    of_class: str
    text: str
    picture: bytes = b""
    width: int = 0
    height: int = 0
    signed: bool = False
    deletion: tuple[float, float] | None = None
    insertion: tuple[float, float] | None = None

    @property
    def tested(self) -> bool:
        """Whether the method was tested on this run."""
        return self.deletion is not None and self.insertion is not None

    @property
    def passed(self) -> bool:
        """Whether the method is better than random places in both tests."""
        return _passed(self.deletion, self.insertion)


class Looker:
    """Explains answers; each run's model is opened at its first explanation. May be called from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened: dict[str, OpenedModel] = {}
        self._turn = threading.Lock()

    def look(self, run: TrainedRun, array: NDArray[np.uint8], decided: int) -> LookedAt:
        """Explains the class `decided` (its index) of one rendering."""
        from cardium.explain.attribution import attribute
        from cardium.explain.opened_run import how_of
        from cardium.explain.overlays import overlay_of
        from cardium.explain.places import text_line, where

        with self._turn:
            model = self._model(run)
            method = self._method(run, model)
            pixels = array[None].astype(np.float32)
            values = attribute(model, method, pixels, np.array([decided]), how_of(self._settings))[0]
            probability = float(model.probabilities(pixels)[0, decided])
        looked = where(model, values)
        text = text_line(method, run.classes[decided], probability, looked, {})
        picture, width, height = b"", 0, 0
        overlay = overlay_of(model, method, array, values)
        if overlay.heat.any():
            picture, width, height = _drawn(overlay)
        return LookedAt(method, run.classes[decided], text, picture, width, height, overlay.signed, **self._tests(run, method))

    def _model(self, run: TrainedRun) -> OpenedModel:
        from cardium.explain.opened_model import OpenedModel
        from cardium.models import load_model

        if run.id not in self._opened:
            self._opened[run.id] = OpenedModel(load_model(run.served_file), run.rendering, run.size.area)
        return self._opened[run.id]

    def _method(self, run: TrainedRun, model: OpenedModel) -> str:
        """The first method that passed its tests on this run, otherwise the first tested one, otherwise the default."""
        from cardium.explain.attribution import applicable, default_method

        first = default_method(model)
        ordered = [first, *(name for name in applicable(model) if name != first)]
        tested = {name: tests for name in ordered if (tests := self._tests(run, name))}
        passed = [name for name, tests in tested.items() if _passed(**tests)]
        return next(iter([*passed, *tested]), first)

    def _tests(self, run: TrainedRun, method: str) -> dict[str, tuple[float, float]]:
        """`deletion` and `insertion` of the method and of random places, where they were measured on this very run."""
        folder = Workspace(self._settings.root).explanations(run.run.dataset, run.name) / method
        if _json(folder / "explanations.json").get("run_id") != run.id:
            return {}
        methods = _json(folder / "faithfulness.json").get("methods", {})
        own, chance = methods.get(method, {}), methods.get("random", {})
        names = ("deletion", "insertion")
        return {name: (float(own[name]), float(chance[name])) for name in names if name in own and name in chance}


def _passed(deletion: tuple[float, float] | None = None, insertion: tuple[float, float] | None = None) -> bool:
    return bool(deletion and insertion and deletion[0] < deletion[1] and insertion[0] > insertion[1])


def _json(path: Any) -> Mapping[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _drawn(overlay: Overlay) -> tuple[bytes, int, int]:
    """The picture under its attribution, red for the class and blue against it: PNG, its width and height."""
    from PIL import Image, ImageDraw, ImageFont

    picture = overlay.picture if overlay.picture.ndim == 3 else np.repeat(overlay.picture[..., None], 3, axis=2)
    strength = _OPACITY * np.clip(np.abs(overlay.heat), 0, 1)[..., None] ** 0.7
    colour = np.where(overlay.heat[..., None] >= 0, np.array(_FOR), np.array(_AGAINST))
    mixed = np.rint(picture * (1 - strength) + colour * strength).astype(np.uint8)
    scale = max(1.0, _LONGEST / max(mixed.shape[:2]))
    width, height = round(mixed.shape[1] * scale), round(mixed.shape[0] * scale)
    image = Image.fromarray(mixed).resize((width, height), Image.Resampling.BILINEAR)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    for x, y, name in overlay.labels:
        place = (x * scale + 4, y * scale + 2)
        pen.rectangle(pen.textbbox(place, name, font=font), fill=(255, 255, 255))
        pen.text(place, name, fill=(20, 20, 20), font=font)
    target = BytesIO()
    image.save(target, "PNG")
    return target.getvalue(), width, height
