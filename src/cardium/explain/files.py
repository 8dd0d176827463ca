"""Explains files that somebody has: rendered and decided as `cardium predict` does, then explained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cardium import atomic
from cardium.config import Settings
from cardium.data.studies import given_studies
from cardium.errors import CardiumError, harmless, system_reason
from cardium.evaluation.metrics import decide
from cardium.explain.attribution import check_method, default_method
from cardium.explain.gallery import Shown, file_name, write_explanations
from cardium.explain.opened_run import OpenedRun, class_number, how_of, open_run, sheet_boxes
from cardium.imaging.decode import Undecodable
from cardium.imaging.kinds import Rendered, of_patients, of_volumes
from cardium.imaging.render import render_file
from cardium.imaging.study import render_study
from cardium.workspace import RunId, Workspace

# What a model takes, by whether it reads volumes.
_GIVEN = {False: "JPEG, PNG or DICOM files", True: "NIfTI files"}


def _rendered(settings: Settings, opened: OpenedRun, files: Sequence[str]) -> Iterator[tuple[str, Rendered | None, bytes, str]]:
    """(name, rendering, bytes, error) of each file or, of a model of whole patients, of each patient in them."""
    if of_patients(opened.kind):
        for study in given_studies([Path(file) for file in files], settings.serve):
            try:
                rendered = (
                    None if study.error else render_study(study.files, settings.serve.of_file("image", settings.validate.sides))
                )
                yield study.name, rendered, b"", study.error
            except Undecodable as error:
                yield study.name, None, b"", str(error)
        return
    for file in files:
        try:
            data = Path(file).read_bytes()
            yield (
                file,
                render_file(data, opened.kind, opened.size, settings.serve.of_file(opened.kind, settings.validate.sides)),
                data,
                "",
            )
        except OSError as error:
            yield file, None, b"", system_reason(error)
        except Undecodable as error:
            yield file, None, b"", str(error)


def explain_files(
    settings: Settings, run: RunId, method: str, files: Sequence[str], of_class: str = ""
) -> list[dict[str, Any]]:
    """Writes reports/<dataset>/explanations/<run>/files/<method>/ and returns a row a file: `file` and `text`, or `error`.

    method: "" for the default one. of_class: the class to explain, the model's decision by default. It is the model that
    answers requests that is explained (`served.keras`, where there is one). Raises CardiumError if the run is not trained, and
    if no file can be read.
    """
    if method:
        check_method(method)
    opened = open_run(settings, run, served=True)
    method = method or default_method(opened.model)
    check_method(method, opened.model)
    chosen = class_number(opened.classes, of_class)
    rows: list[dict[str, Any]] = []
    shown: list[Shown] = []
    for number, (file, rendered, data, error) in enumerate(_rendered(settings, opened, files)):
        if rendered is None:
            rows.append({"file": file, "error": error})
            continue
        probabilities = opened.model.probabilities(rendered.array[None].astype(np.float32))
        decided = int(decide(probabilities, opened.threshold)[0])
        boxes = sheet_boxes(data, opened.kind, opened.size)
        target = decided if chosen is None else chosen
        shown.append(
            Shown(
                name=f"{number + 1:03d}-{file_name(harmless(Path(file).name))}",
                group="files",
                path=harmless(file),
                pixels=rendered.array,
                decided=decided,
                explained=target,
                probabilities=probabilities[0],
                warnings=rendered.warnings,
                boxes=boxes,
            )
        )
        rows.append({"file": file, "number": len(shown) - 1})
    if not shown:
        reasons = "; ".join(f"{row['file']}: {row['error']}" for row in rows)
        raise CardiumError(f"None of the files can be explained ({reasons}): give {_GIVEN[of_volumes(opened.kind)]}.")
    how = how_of(settings)
    out = Workspace(settings.root).explanations(run.dataset, run.name) / "files" / method
    with atomic.replacing_folder(out) as part:
        entries = write_explanations(part, opened, method, how, shown)
    for row in rows:
        if "number" in row:
            entry = entries[row.pop("number")]
            row |= {"text": entry["text"], "quality": entry["quality"], "overlay": str(out / entry["overlay"])}
    print(f"Wrote {out.relative_to(settings.root)}/. Next: open {out.relative_to(settings.root) / 'gallery.png'}")
    return rows
