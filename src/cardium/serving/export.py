"""`cardium export`: a trained run -> exports/<run>/<format>/, which appears only if it says what the run says.

The exported model is compared with the model that answers requests, on renderings of the dataset's own records; the folder
(exported.py) is written beside its place and renamed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cardium import __version__, atomic
from cardium.config import Settings
from cardium.errors import CardiumError, first_line, unknown
from cardium.evaluation.metrics import decide
from cardium.imaging.render import shape_of
from cardium.runs.input_kind import FILE as KIND
from cardium.runs.predictions import VALIDATION
from cardium.runs.trained_run import FILE as RUN
from cardium.runs.trained_run import TrainedRun
from cardium.serving.classifier import Classifier
from cardium.serving.exported import FILE, FORMATS, Forward, format_of, open_exported
from cardium.serving.predict import find_model
from cardium.workspace import Workspace

# The largest difference of a probability: float32 sums in another order.
TOLERANCE = 1e-4
_COMPARED = 32
# Formats that are asked for and are not there, and why (docs/export.md).
_MISSING = {"onnx": "its converter is no dependency of cardium's", "tflite": "its converter's models answer NaN"}


@dataclass(frozen=True)
class Exported:
    """folder: that was written. difference: the largest of a probability, over `records`."""

    folder: Path
    format: str
    records: int
    difference: float

    @property
    def text(self) -> str:
        """The lines that the command ends with."""
        return (
            f"{self.records} records: probabilities differ by {self.difference:.1e} at most, no decision differs.\n"
            f"Wrote {self.folder}. Next: cardium predict --model {self.folder} FILE"
        )


def export_run(settings: Settings, model: str, form: str, out: Path | None = None) -> Exported:
    """Exports a run, found as `find_model` finds it. out: the folder; None for exports/<run>/<format>.

    Raises CardiumError for an unknown format, an export, a run without renderings to compare on, a model that the format cannot
    hold, and where the exported model says something else; nothing is written then.
    """
    if form in _MISSING:
        raise CardiumError(f"--to {form} is not there yet ({_MISSING[form]}): take one of {', '.join(FORMATS)}.")
    if form not in FORMATS:
        raise unknown("format", form, list(FORMATS))
    folder, version = find_model(settings, model)
    if format_of(folder):
        raise CardiumError(f"{folder} is an export itself: give the run that it was made of.")
    classifier = Classifier(folder, version, settings.serve, settings.validate.sides)
    run = classifier.run
    pixels = _renderings(settings, run)
    place = out or settings.root / "exports" / run.name / form
    if place.exists() and not format_of(place):
        raise CardiumError(f"--out: {place} is there and is no export: give another folder.")
    with atomic.replacing_folder(place) as part:
        _convert(run, form, part)
        difference = _compare(run, classifier.probabilities(pixels), _opened(part, form)(pixels.astype(np.float32)))
        _write_about(part, run, form, len(pixels), difference)
    return Exported(_shown(place, settings.root), form, len(pixels), difference)


def _renderings(settings: Settings, run: TrainedRun) -> np.ndarray:
    """uint8 (n, ...): some of the dataset's renderings, evenly spread. Raises CardiumError where there are none."""
    place = Workspace(settings.root).rendering(run.run.dataset, run.rendering) / "pixels.npy"
    if not place.is_file():
        raise CardiumError(
            f"{run.name} cannot be compared: there is no {place.relative_to(settings.root).as_posix()}: run `cardium prepare "
            f"--dataset {run.run.dataset}`."
        )
    stored = np.load(place, mmap_mode="r")
    which = np.unique(np.linspace(0, len(stored) - 1, _COMPARED).round().astype(int))
    return np.array(stored[which])


def _convert(run: TrainedRun, form: str, part: Path) -> None:
    from cardium.models import load_model

    target = part / FORMATS[form]
    if form == "keras":
        shutil.copy2(run.served_file, target)
        return
    import tensorflow as tf

    network = load_model(run.served_file)
    signature = [tf.TensorSpec([None, *network.input_shape[1:]], tf.float32, name="pixels")]
    forward = tf.function(lambda pixels: {"probabilities": network(pixels, training=False)}, input_signature=signature)
    try:
        if form == "saved_model":
            tf.saved_model.save(network, str(target), signatures=forward.get_concrete_function())
        else:
            _save_openvino(network, forward, target)
    except Exception as error:
        raise CardiumError(
            f"{run.name} cannot be written as {form} ({first_line(error)[:120]}): take another format."
        ) from None


def _save_openvino(network: Any, forward: Any, target: Path) -> None:
    os.environ.setdefault("OPENVINO_TELEMETRY_OPT_OUT", "1")
    import openvino
    import tensorflow as tf

    with contextlib.redirect_stdout(io.StringIO()):
        try:
            converted = openvino.convert_model(forward)
        except Exception:  # Recurrent layers: from a SavedModel their loops are read.
            between = target.with_name("between")
            tf.saved_model.save(network, str(between), signatures=forward.get_concrete_function())
            converted = openvino.convert_model(str(between))
            shutil.rmtree(between)
    openvino.save_model(converted, target, compress_to_fp16=False)


def _opened(part: Path, form: str) -> Forward:
    if form != "keras":
        return open_exported(part, form)
    from cardium.models import load_model

    network = load_model(part / FORMATS[form])
    return lambda pixels: np.asarray(network(pixels, training=False))


def _compare(run: TrainedRun, own: np.ndarray, exported: np.ndarray) -> float:
    """The largest difference. Raises CardiumError where it is too large, or a decision differs."""
    difference = float(np.abs(own - exported).max()) if own.shape == exported.shape else float("inf")
    decisions = int((decide(own, run.threshold) != decide(exported, run.threshold)).sum()) if np.isfinite(difference) else 0
    if not difference <= TOLERANCE or decisions:
        raise CardiumError(
            f"{run.name}: the exported model says something else: of {len(own)} records a probability differs by up to "
            f"{difference:.1e} ({decisions} decided otherwise): nothing was written; take another format."
        )
    return difference


def _write_about(part: Path, run: TrainedRun, form: str, records: int, difference: float) -> None:
    import pandas as pd

    for name in (RUN, KIND):
        if (run.folder / name).is_file():
            shutil.copy2(run.folder / name, part / name)
    if (run.folder / VALIDATION).is_file():
        table = pd.read_parquet(run.folder / VALIDATION)
        numbers = pd.factorize(table["group"])[0]
        table.assign(group=[f"{number:06d}" for number in numbers]).to_parquet(part / VALIDATION, index=False)
    parity = {"records": records, "difference": difference, "tolerance": TOLERANCE}
    about = {"format": form, "file": FORMATS[form], "cardium": __version__, "run": run.name, "id": run.id, "parity": parity}
    atomic.write_json(part / FILE, about)
    (part / "README.md").write_text(card(run, form, records, difference), encoding="utf-8")


def card(run: TrainedRun, form: str, records: int, difference: float) -> str:
    """The model card: Hugging Face's form, a header of YAML and a page."""
    size = json.dumps({"kind": run.rendering, **run.size.as_dict()})
    shape = "(n, " + ", ".join(map(str, shape_of(run.rendering, run.size))) + ")"
    data = f"generated demo data in the form of {run.run.dataset}" if run.data.generated else run.run.dataset
    named = {name: run.validation[name] for name in ("balanced_accuracy", "roc_auc", "loss") if name in run.validation}
    scores = ", ".join(f"{name} {value:.3f}" for name, value in named.items())
    return f"""---
library_name: {"keras" if form == "keras" else "tf-keras" if form == "saved_model" else "openvino"}
pipeline_tag: image-classification
tags: [cardiology, medical-imaging, cardium]
---

# {run.name}

`{run.run.model}`, trained on {data} under the protocol `{run.run.protocol}`. Not for diagnosis.

| | |
|---|---|
| classes, in order | {", ".join(run.classes)} |
| input | float32 {shape}, 0-255, the rendering {size} |
| output | float32 (n, {len(run.classes)}), probabilities |
| threshold of the second of two classes | {run.threshold:g} |
| validation scores, not the score to expect | {scores or "-"} |
| format | {form}; on {records} records within {difference:.1e} of the run's own probabilities |
| commit, data | {run.provenance.commit or "-"}, {run.data.dvc_md5 or "-"} |

The rendering is cardium's: scaling to the network's range is inside of the network; decoding, layout and resizing come before.
`cardium predict --model FOLDER FILE` does all of it. What to expect of a model is in its dataset's report, with intervals.
"""


def _shown(place: Path, root: Path) -> Path:
    return place.relative_to(root) if place.is_relative_to(root) else place
