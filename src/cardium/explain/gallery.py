"""Explains records with one method and writes what a reader sees: overlays, the gallery, explanations.json.

overlays/<name>.png    the input, its attribution with a colour bar, shares of leads or slices, attention
gallery.png            all of them, a row a group: right and wrong, most and least confident
explanations.json      of each record: label, decision, probability, where the model looked, the line of text
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cardium import atomic
from cardium.explain.attention_weights import Attention, attention_of
from cardium.explain.attribution import How, attribute, check_method
from cardium.explain.opened_model import Array, OpenedModel
from cardium.explain.opened_run import OpenedRun
from cardium.explain.overlays import overlay_of
from cardium.explain.places import Looked, attention_summary, text_line, where
from cardium.imaging.kinds import LEADS
from cardium.progress import progress
from cardium.reporting import plots

if TYPE_CHECKING:
    from cardium.reporting.plots import Overlay

NOTE = (
    "Where a model looked, by a method that has been tested on it (faithfulness.csv), and how sure it was. "
    "No finding in the patient is claimed, and none may be read from it."
)


@dataclass(frozen=True)
class Shown:
    """A record to explain. name: of its files; group: its row in the gallery. pixels: as rendered. explained: the class index
    that is explained, decided: the model's. label: the class's name, "" where unknown. boxes: of a sheet, its leads' places."""

    name: str
    group: str
    path: str
    pixels: NDArray[np.uint8]
    decided: int
    explained: int
    probabilities: NDArray[np.float64]
    label: str = ""
    warnings: tuple[str, ...] = ()
    boxes: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    record: int = -1


def write_explanations(
    folder: Path, opened: OpenedRun, method: str, how: How, shown: Sequence[Shown], more: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Explains `shown` and writes the files above into `folder`; returns the records of explanations.json.

    more: further entries of explanations.json. Raises CardiumError if the method does not apply to the model.
    """
    model, run, classes = opened.model, opened.name, opened.classes
    check_method(method, model)
    entries: list[dict[str, Any]] = []
    panels: dict[str, list[Overlay]] = {}
    explained = _explained(model, method, how, shown)
    for one, values, attentions in progress(explained, total=len(shown), desc=f"{method} of {run}", unit="record"):
        looked = where(model, values, one.boxes)
        attention = attention_summary(attentions)
        probability = float(one.probabilities[one.explained])
        text = text_line(method, classes[one.explained], probability, looked, attention)
        caption = _caption(one, classes)
        overlay = overlay_of(model, method, one.pixels, values, caption)
        panels.setdefault(one.group, []).append(overlay)
        file = f"overlays/{one.name}.png"
        plots.attribution(overlay, folder / file, title=_title(run, method, one, classes), bars=_bars(looked, attention))
        entries.append(
            {
                **({"record": one.record} if one.record >= 0 else {}),
                "path": one.path,
                "group": one.group,
                "label": one.label,
                "decided": classes[one.decided],
                "explained": classes[one.explained],
                "probability": round(probability, 6),
                "probabilities": {name: round(float(p), 6) for name, p in zip(classes, one.probabilities, strict=True)},
                "quality": "; ".join(one.warnings) or "ok",
                "text": text,
                **looked.as_dict(),
                **({"attention": attention} if attention else {}),
                **_strongest(attentions),
                "overlay": file,
            }
        )
    plots.attribution_gallery(list(panels.items()), folder / "gallery.png", title=f"{run}, {method}")
    made = {"method": method, "note": NOTE, "score": "log-odds of the class", "how": asdict(how), "records": entries}
    atomic.write_json(folder / "explanations.json", {**opened.summary(), **(more or {}), **made})
    return entries


def _explained(
    model: OpenedModel, method: str, how: How, shown: Sequence[Shown]
) -> Iterator[tuple[Shown, Array, list[Attention]]]:
    """Each record with its attribution (places) and its attention, of as many at once as fit."""
    for at in range(0, len(shown), model.at_once):
        some = shown[at : at + model.at_once]
        pixels = np.stack([one.pixels for one in some]).astype(np.float32)
        values = attribute(model, method, pixels, np.array([one.explained for one in some]), how)
        attentions = attention_of(model, pixels)
        for row, one in enumerate(some):
            yield one, values[row], [replace(attention, values=attention.values[row]) for attention in attentions]


def file_name(path: str) -> str:
    """A file's name made of a path's last letters: letters, digits and - only."""
    stem = re.sub(r"\.(nii\.gz|nii|jpe?g|png|dcm)$", "", path, flags=re.IGNORECASE)
    return re.sub(r"[^\w-]+", "-", stem).strip("-")[-48:].strip("-") or "record"


def _caption(one: Shown, classes: Sequence[str]) -> str:
    caption = f"{classes[one.explained]} {one.probabilities[one.explained]:.2f}"
    return f"{caption}, labelled {one.label}" if one.label else caption


def _title(run: str, method: str, one: Shown, classes: Sequence[str]) -> str:
    return f"{run}, {method}: what speaks for {classes[one.explained]} ({one.probabilities[one.explained]:.2f})"


def _bars(looked: Looked, attention: Mapping[str, list[float]]) -> list[tuple[str, list[str], list[float]]]:
    """(heading, names, shares) beside the picture."""
    bars: list[tuple[str, list[str], list[float]]] = []
    if looked.leads:
        bars.append(("share of each lead", list(looked.leads), list(looked.leads.values())))
    if looked.measurements.get("all"):
        bars.append(("share of measurements", list(looked.measurements), list(looked.measurements.values())))
    if looked.slices:
        bars.append(("share of each slice", [str(number) for number in range(len(looked.slices))], looked.slices))
    for of, weights in attention.items():
        names = list(LEADS) if of == "leads" else [str(number) for number in range(len(weights))]
        bars.append((f"the model's attention to {of}", names, list(weights)))
    return bars


def _strongest(attentions: Sequence[Attention]) -> dict[str, Any]:
    """The attention of one record that has no name in the picture, in a few numbers a layer; {} without any."""
    numbers_of: dict[str, Any] = {}
    for attention in attentions:
        weights = attention.values
        if attention.of in ("channels", "places", "rows"):
            numbers = {"least": weights.min(), "mean": weights.mean(), "most": weights.max()}
            numbers_of[f"{attention.layer}:{attention.of}"] = {key: round(float(value), 5) for key, value in numbers.items()}
        elif attention.of == "scales":
            numbers_of[f"{attention.layer}:scales"] = [round(float(weight), 5) for weight in weights]
    return {"attention_layers": numbers_of} if numbers_of else {}
