"""A run folder as a classifier of image or volume files: bytes in; label, probabilities and the run behind them out.

classifier = Classifier(Path("models/cmri/honest/mobilenetv2"))
classifier.classify([Path("one.png").read_bytes()])

The same class answers `mlflow models serve` (served_model.py), `cardium predict` and tests. Bytes go through the decoder and
the renderer that training used, so a file gives the same pixels here as there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cardium.config import Serve
from cardium.data.studies import Study, render_archive
from cardium.errors import CardiumError
from cardium.evaluation.metrics import decide
from cardium.imaging.decode import Undecodable
from cardium.imaging.heart_format import measures_of
from cardium.imaging.kinds import Rendered, of_patients, of_volumes
from cardium.imaging.render import render_file, shape_of
from cardium.imaging.spec import Sides
from cardium.imaging.study import render_study
from cardium.parallel import cores
from cardium.runs.input_kind import read_input_kind
from cardium.runs.prediction_sets import served_sets
from cardium.runs.trained_run import NotTrainedError, TrainedRun
from cardium.serving.exported import format_of, open_exported
from cardium.serving.request import Refusal

# The label of a file that the model does not decide, where `serve.abstain` asks for it.
UNSURE = "unsure"
# What an answer names as the data of a model that was trained on a look-alike.
GENERATED = "generated demo data"
# Bytes that reading a picture may take: one of max_pixels takes 0.5 GB.
_MEMORY_OF_A_PICTURE = 2_000_000_000
# Images are run in pieces, so that memory does not grow with the batch; a piece of volumes is one.
_PIECE = 32

# Files, or what they were refused for, -> renderings, or what they are refused for, in order.
RenderAll = Callable[[Sequence[bytes | Refusal]], Iterable[Rendered | Refusal]]


class Classifier:
    """The model of a run folder, loaded once and warmed up; its methods may be called from many threads at once.

    model_version: of the registry, where it is known. limits: what a request may cost; sides: that a picture may have. file:
    another model of the folder than the one that answers requests.
    Raises CardiumError if the folder holds no whole run.
    """

    def __init__(
        self,
        run_folder: Path,
        model_version: str | None = None,
        limits: Serve | None = None,
        sides: Sides | None = None,
        file: Path | None = None,
    ) -> None:
        try:
            self.run = TrainedRun.read(run_folder)
        except NotTrainedError:
            raise CardiumError(
                f"{run_folder} holds no run.json: give a run folder such as models/cmri/honest/mobilenetv2."
            ) from None
        self.model_version = model_version
        self.limits = limits or Serve()
        self.sides = sides or Sides()
        self.shape = shape_of(self.run.rendering, self.run.size)
        self.sets = served_sets(self.run, self.limits.coverage)
        self.kind = read_input_kind(run_folder)
        self._piece = 1 if of_volumes(self.run.rendering) else _PIECE
        # As many at once as there are cores: more would only take memory.
        self._turns = threading.BoundedSemaphore(cores())
        form = "" if file else format_of(run_folder)
        exported = form not in ("", "keras")
        self._forward = open_exported(run_folder, form) if exported else _load(file or self.run.served_file, self.shape)
        self._forward(np.zeros((1, *self.shape), np.float32))

    @property
    def data(self) -> str:
        """What the model was trained on, in words."""
        dataset = self.run.run.dataset
        return f"{GENERATED} in the form of {dataset}" if self.run.data.generated else dataset

    @property
    def of_patients(self) -> bool:
        """Whether an answer is of a patient's files together (`classify_studies`), not of one file."""
        return of_patients(self.run.rendering)

    @property
    def max_rows(self) -> int:
        """How many files a request may hold."""
        return self.limits.rows(self.run.rendering, self.run.size.area)

    @property
    def max_bytes(self) -> int:
        """How many bytes one file may have."""
        return self.limits.of_file(self.run.rendering, self.sides).max_bytes

    @property
    def memory_of_a_file(self) -> int:
        """How many bytes of memory reading one file may take."""
        if not of_volumes(self.run.rendering):
            return _MEMORY_OF_A_PICTURE
        # A volume is there as it was sent, inflated, and as numbers of up to four bytes, twice.
        return self.limits.max_inflated_bytes + 8 * self.limits.max_voxels

    def classify(self, files: Sequence[bytes | Refusal], render: RenderAll | None = None) -> list[dict[str, Any]]:
        """A row a file: label, its probability, probabilities by class name, set, set_coverage, quality, run, model_version,
        data: what the model was trained on.

        set: the classes that cannot be ruled out, which hold a patient's own in a share `set_coverage` of each class's cases
        (runs/prediction_sets.py); both None for a run without held-out records. Where `serve.abstain` says so, the label is
        `unsure` unless the set is the decided class alone and the picture is of the model's kind; probability stays that of the
        decided class.

        quality: `ok`, or what makes the answer doubtful: a picture unlike those that the model was trained on
        (runs/input_kind.py), no ECG sheet in it, a sheet upside down, a blank page, a volume whose values are no Hounsfield
        units.

        measures: of whole patients, where a file is a zip of one patient's images: by name, {} where no heart was found.

        A file whose bytes are no image or no volume gets a row of its `error` alone. render: renders the files; None: one after
        the other, here.
        """
        rows: list[dict[str, Any]] = []
        rendered = iter((render or self.render)(files))
        while piece := list(islice(rendered, self._piece)):
            read = [one for one in piece if isinstance(one, Rendered)]
            answers = iter(self._answers(read) if read else [])
            rows += [{"error": one.reason} if isinstance(one, Refusal) else next(answers) for one in piece]
        return rows

    def _answers(self, rendered: Sequence[Rendered]) -> list[dict[str, Any]]:
        pixels = np.stack([one.array for one in rendered])
        probabilities = self.probabilities(pixels)
        decisions = decide(probabilities, self.run.threshold)
        unlike = self.kind.doubts(pixels, self.limits.false_alarms) if self.kind else [""] * len(rendered)
        rows = [
            self._row(p, int(decision), [*one.warnings, *filter(None, [doubt])], bool(doubt))
            for p, decision, one, doubt in zip(probabilities, decisions, rendered, unlike, strict=True)
        ]
        if self.of_patients:
            for row, one in zip(rows, rendered, strict=True):
                row["measures"] = {name: round(value, 3) for name, value in measures_of(one.array).items()}
        return rows

    def classify_study(self, study: Study) -> dict[str, Any]:
        """The row of one patient, of a model of whole patients: as `classify`, or its `error` alone."""
        if study.error:
            return {"error": study.error}
        try:
            return self._answers([render_study(study.files, self.limits.of_file("image", self.sides))])[0]
        except Undecodable as error:
            return {"error": str(error)}

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (n, ...) as rendered -> float64 (n, C)."""
        with self._turns:
            return np.asarray(self._forward(pixels.astype(np.float32)), np.float64)

    @property
    def reader(self) -> partial[Rendered]:
        """Renders one file's bytes, of whole patients an archive's; picklable. Raises Undecodable."""
        if self.of_patients:
            return partial(render_archive, limits=self.limits, of_image=self.limits.of_file("image", self.sides))
        limits = self.limits.of_file(self.run.rendering, self.sides)
        return partial(render_file, kind=self.run.rendering, size=self.run.size, limits=limits)

    def render(self, files: Sequence[bytes | Refusal]) -> Iterator[Rendered | Refusal]:
        """Renders the files one after the other."""
        for data in files:
            try:
                yield data if isinstance(data, Refusal) else self.reader(data)
            except Undecodable as error:
                yield Refusal(str(error))

    def _row(self, p: np.ndarray, decision: int, warnings: Sequence[str], unlike: bool) -> dict[str, Any]:
        label = self.run.classes[decision]
        found = self.sets.names(p) if self.sets else None
        open_ = unlike or (found is not None and found != [label])
        return {
            "label": UNSURE if self.limits.abstain and open_ else label,
            "probability": float(p[decision]),
            "probabilities": {name: float(value) for name, value in zip(self.run.classes, p, strict=True)},
            "set": found,
            "set_coverage": self.sets.coverage if self.sets else None,
            "quality": "; ".join(warnings) or "ok",
            "run": self.run.name,
            "model_version": self.model_version,
            "data": self.data,
        }


def _load(path: Path, shape: tuple[int, ...]) -> Any:
    """model.keras as one traced function of any batch size: each new size would cost seconds otherwise."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    from cardium.models import load_model

    if not path.is_file():
        raise CardiumError(f"{path.parent.name}: no {path.name} in the run folder: train the run again.")
    model = load_model(path)

    @tf.function(input_signature=[tf.TensorSpec([None, *shape], tf.float32)])  # type: ignore[untyped-decorator]
    def forward(pixels: Any) -> Any:
        return model(pixels, training=False)

    return forward
