"""audit.json's content -> audit.html and the figures, with pictures of the records that they name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardium.audit.survey import some_slices
from cardium.imaging.decode import decode
from cardium.imaging.spec import Limits
from cardium.reporting import plots
from cardium.reporting.page import embedded_photograph, render

# Pairs and records that the page shows; audit.json names more.
_SHOWN = 8
# Longest side of a picture on the page, in pixels.
_THUMBNAIL = 320

Pictures = NDArray[np.uint8]
Picture = Callable[[str], Pictures]


class RecordPicture:
    """Gives a record's picture by its path: the file's own, or a volume's middle slice; uint8 (h, w, 3), a thumbnail.

    paths: of all records, row = record. slices: the rendering of volumes, uint8 (N, T, H, W); None for images.
    """

    def __init__(self, folder: Path, limits: Limits, paths: Sequence[str], slices: Pictures | None) -> None:
        self._folder, self._limits, self._slices = folder, limits, slices
        self._record = {path: record for record, path in enumerate(paths)}

    def __call__(self, path: str) -> Pictures:
        if self._slices is not None:
            slices = some_slices(self._slices[self._record[path]])
            pixels = np.repeat(slices[len(slices) // 2][..., None], 3, axis=-1)
        else:
            pixels = decode((self._folder / path).read_bytes(), self._limits.max_pixels, self._limits.max_bytes).pixels
        image = Image.fromarray(pixels)
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        return np.asarray(image)


def page(report: Mapping[str, Any], picture: Picture) -> str:
    """The report as one HTML page. picture: gives the picture of a path."""
    return render("audit.html.j2", report=report, picture=lambda path: embedded_photograph(picture(path)), shown=_SHOWN)


def draw(folder: Path, report: Mapping[str, Any], picture: Picture) -> None:
    """Draws the figures into `folder`: scores.png; copies.png and label_issues.png if there are any."""
    _draw_scores(folder / "scores.png", report)
    item = report["dataset"]
    pairs = report["copies"]["pairs"][:_SHOWN]
    if pairs:
        pictures = []
        for pair in pairs:
            how = "identical" if pair["how"] == "bytes" else pair["how"]
            for end, label in zip(("copy", "of"), pair["classes"], strict=True):
                pictures.append((f"{label}, {how} {pair['similarity']:.2f}\n{_end(pair[end])}", picture(pair[end])))
        plots.gallery(pictures, folder / "copies.png", f"{item}: copies, two by two", columns=4)
    issues = report["label_issues"]["records"][:_SHOWN]
    if issues:
        pictures = [
            (
                f"label {one['label']} {one['probability_of_label']:.2f}\n"
                f"probe {one['suggested']} {one['probability_of_suggested']:.2f}\n{_end(one['path'])}",
                picture(one["path"]),
            )
            for one in issues
        ]
        plots.gallery(pictures, folder / "label_issues.png", f"{item}: labels that are probably wrong", columns=4)


def _draw_scores(out: Path, report: Mapping[str, Any]) -> None:
    """The probe's scores and those of the shortcuts, against chance."""
    rows = []

    def add(group: str, name: str, score: Mapping[str, float], note: str = "") -> None:
        rows.append(plots.Row(name, group, score["value"], score["low"], score["high"], note))

    if report["optimism"]:
        for name, title in (("random", "files at random"), ("grouped", "groups kept apart")):
            add("the same probe", title, report["optimism"][name])
    for one in report["shortcuts"]:
        if one["score"]:
            add("one cue alone", one["title"], one["score"], "!" if one["clear"] else "")
    for group in list(dict.fromkeys(row.group for row in rows)):
        rows.append(plots.Row("chance", group, report["chance"], None, None, naive=True))
    if rows:
        plots.leaderboard(rows, out, f"{report['dataset']}: what a score is made of", report["probe"]["interval"])


def _end(path: str, most: int = 30) -> str:
    return path if len(path) <= most else f"...{path[-most:]}"
