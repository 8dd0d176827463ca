"""Whether a run is served as it was scored: its scored predictions against its saved models' on the same records' files.

A head is scored on its backbone's bank, float16 features that another engine may have computed. Served is the saved model, on
pixels that come out of the decoder. Both ways are taken here for some test records of the first held-out fold, whose model is
saved. Where another model answers requests, it is compared as well: the mean of the folds' models (`served: mean`) with what
each fold's weights say of the same pixels, averaged; a model trained anew (`served: all`) on some of its calibration records.

What was found is kept in .cardium/parity/ with a hash of all that it depends on: the models' files, the scored rows, their
records' files, the settings, the code that decodes, renders and builds, and the libraries. Where none of it has changed the
models are not loaded again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cardium.atomic import write_json
from cardium.config import Settings
from cardium.data.render_records import Rendering, RenderJob, check_record, render_record, renderer
from cardium.data.units import unit_records
from cardium.errors import CardiumError
from cardium.evaluation.evaluation import Parity
from cardium.evaluation.metrics import decide
from cardium.imaging.kinds import of_volumes
from cardium.models import load_model
from cardium.models.trained import set_trained
from cardium.process_environment import in_force
from cardium.provenance import made_by
from cardium.runs.predictions import probability_columns
from cardium.runs.trained_run import CALIBRATION, TrainedRun
from cardium.workspace import Workspace

if TYPE_CHECKING:
    import keras
    import pandas

# Renderings up to this many bytes are kept for the next run that reads the same.
_KEPT = 1 << 20


class ServedAsScored:
    """Compares the runs of a dataset, one after the other; what they have in common is rendered once."""

    def __init__(self) -> None:
        self._rendered: dict[tuple[str, str], np.ndarray] = {}

    def __call__(
        self, settings: Settings, run: TrainedRun, manifest: pandas.DataFrame, predictions: pandas.DataFrame
    ) -> Parity:
        """Compares a run's test predictions with what its saved models say of `evaluate.compared` of their files.

        predictions: of `scoring.predict_test`. Raises CardiumError if a file is missing or has changed since ingest, and if a
        probability differs by more than `evaluate.tolerance`.
        """
        import pandas as pd

        job = RenderJob(
            where=f"data/{run.run.dataset}",
            again=f"run `cardium ingest --dataset {run.run.dataset}`",
            folder=Workspace(settings.root).data(run.run.dataset),
            kind=run.rendering,
            size=run.size,
            limits=settings.ingest.limits,
        )
        tables = [predictions[predictions["test_fold"] == run.test_folds[0]]]
        if run.retrained:
            tables.append(pd.read_parquet(run.folder / CALIBRATION))
        rows = [_some(table, settings.evaluate.compared) for table in tables]
        of_manifest = unit_records(manifest, run.rendering)
        records = [[of_manifest[at] for at in some["record"]] for some in rows]
        for record in {record.path: record for some in records for record in some}.values():
            check_record(job, record)
        scored = [some[probability_columns(run.classes)].to_numpy() for some in rows]
        # Experiments have their run's name and folders of their own.
        where = run.folder.relative_to(settings.root) if run.folder.is_relative_to(settings.root) else Path(run.id)
        kept = Workspace(settings.root).scratch() / "parity" / f"{where.as_posix()}.json"
        key = _key(run, job, records, scored)
        found = _read(kept, key)
        if found is None:
            found = self._compare(run, job, records, scored)
        if found.difference > settings.evaluate.tolerance:
            raise CardiumError(_unlike(run, found, settings.evaluate.tolerance))
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, {"key": key, "parity": asdict(found)})
        return found

    def _compare(
        self, run: TrainedRun, job: RenderJob, records: Sequence[Sequence[Rendering]], scored: Sequence[np.ndarray]
    ) -> Parity:
        import keras

        another = run.served_file != run.model_file
        expected, said = [scored[0]], []
        model = load_model(run.model_file)
        said.append(self._answers(model, job, records[0]))
        if another and not run.retrained:
            # The mean of what each fold's weights say is what the folds' mean has to say.
            total = np.zeros_like(said[0])
            for fold in run.test_folds:
                set_trained(model, run.fold_weights(fold))
                total += self._answers(model, job, records[0])
            expected.append(total / len(run.test_folds))
        elif another:
            expected.append(scored[1])
        del model
        keras.backend.clear_session()
        if another:
            said.append(self._answers(load_model(run.served_file), job, records[-1]))
            keras.backend.clear_session()
        return parity_of(np.concatenate(expected), np.concatenate(said), run.threshold)

    def _answers(self, model: keras.Model, job: RenderJob, records: Sequence[Rendering]) -> np.ndarray:
        """What a model says of records' files, float64 (n, C).

        It is called as it is: a server traces it, which takes longer than eight answers, and changes none.
        """
        parts = [np.asarray(model(pixels.astype(np.float32), training=False)) for pixels in self._pixels(job, records)]
        return np.concatenate(parts).astype(np.float64)

    def _pixels(self, job: RenderJob, records: Sequence[Rendering]) -> Iterator[np.ndarray]:
        """The records' files as they are served, uint8 (n, ...): volumes one by one, others together."""
        arrays = (self._render(job, record) for record in records)
        if of_volumes(job.kind):
            yield from (array[None] for array in arrays)
        else:
            yield np.stack(list(arrays))

    def _render(self, job: RenderJob, record: Rendering) -> np.ndarray:
        key = repr(job), record.sha256
        found = self._rendered.get(key)
        if found is None:
            found = render_record(job, record).array
            if found.nbytes <= _KEPT:
                self._rendered[key] = found
        return found


def parity_of(scored: np.ndarray, served: np.ndarray, threshold: float) -> Parity:
    """Compares two arrays of probabilities (n, C) of the same records."""
    decisions = int((decide(scored, threshold) != decide(served, threshold)).sum())
    return Parity(len(scored), float(np.abs(scored - served).max()), decisions)


def _some(table: pandas.DataFrame, count: int) -> pandas.DataFrame:
    """`count` rows, evenly spread."""
    return table.iloc[np.unique(np.linspace(0, len(table) - 1, count).round().astype(int))]


def _key(run: TrainedRun, job: RenderJob, records: Sequence[Sequence[Rendering]], scored: Sequence[np.ndarray]) -> str:
    """A hash of all that a comparison depends on."""
    files = sorted({run.model_file, run.served_file, *run.folder.glob("folds/*.npz")})
    depends = {
        "files": {file.relative_to(run.folder).as_posix(): _sha256(file) for file in files if file.is_file()},
        "records": [[record.sha256 for record in some] for some in records],
        "scored": [hashlib.sha256(np.ascontiguousarray(one, np.float64).tobytes()).hexdigest() for one in scored],
        "rendering": [job.kind, job.size.as_dict(), asdict(job.limits)],
        "decides": [run.test_folds, run.threshold, run.classes],
        "made_by": [renderer(), made_by("models", "serving/parity.py", "evaluation/metrics.py")],
        "environment": in_force(),
    }
    return hashlib.sha256(json.dumps(depends, sort_keys=True, default=str).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _read(kept: Path, key: str) -> Parity | None:
    """What an earlier comparison found, if it depended on the same."""
    try:
        table: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return Parity(**table["parity"]) if table["key"] == key else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _unlike(run: TrainedRun, found: Parity, tolerance: float) -> str:
    says = (
        f"{run.name} is not served as it is scored: of {found.records} records a probability differs by up to "
        f"{found.difference:.4f} ({found.decisions} decided otherwise), and evaluate.tolerance is {tolerance:g}"
    )
    if "bf16" in run.engine:
        return f"{says}: its bank is of bfloat16; set `features.engine: auto`, or raise the tolerance to what you accept."
    return f"{says}: make the rendering and the bank again and train anew, `dvc repro -f train@{run.name}`."
