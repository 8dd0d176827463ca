"""`cardium score`: every file of a folder or a table answered by one model -> a Parquet table with a row a file.

Answers are written as they come (answers.py): a command that was killed goes on where it stopped, and one that is given again
answers what is new. An engine (local.py, spark.py, actors.py) is a function: model, place, chunks of items -> chunks of rows.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cardium.batch.answers import Answers
from cardium.batch.package import Model
from cardium.batch.source import Item, Source, read_source
from cardium.config import Settings
from cardium.errors import CardiumError, harmless, unknown
from cardium.imaging.kinds import of_patients
from cardium.progress import progress
from cardium.runs.trained_run import TrainedRun
from cardium.serving.predict import find_model

if TYPE_CHECKING:
    import pyarrow

# What engines there are: name -> the module's, the library that it needs, and what installs that.
ENGINES = {"local": ("local", ""), "spark": ("spark", "pyspark"), "ray": ("actors", "ray")}
_SHOWN = 3


@dataclass(frozen=True)
class Scored:
    """What a command came to. answered: items now; items: in the table. seconds: that answering took."""

    out: Path
    run: str
    engine: str
    items: int
    answered: int
    errors: int
    seconds: float
    labels: dict[str, int]
    text: str

    @property
    def values(self) -> dict[str, float]:
        """The numbers of the command: for MLflow."""
        rate = self.answered / max(self.seconds, 1e-9)
        counts = {f"label_{name}": float(count) for name, count in self.labels.items()}
        return {
            "items": self.items,
            "answered": self.answered,
            "errors": self.errors,
            "seconds": self.seconds,
            "rate": rate,
        } | counts


def score_files(settings: Settings, source: str, out: Path, model: str, engine: str = "local", master: str = "") -> Scored:
    """Answers every item of `source` and writes `out`. model: as in `find_model`. master: of the engine's cluster.

    Raises CardiumError for a mistake in what was given, before anything is written; one bad file is a row with its error.
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, list(ENGINES))
    if master and engine == "local":
        raise CardiumError("--master: the local engine has none: add --engine spark or --engine ray.")
    _check_installed(engine)
    folder, version = find_model(settings, model)
    run = TrainedRun.read(folder)
    patients = of_patients(run.rendering)
    given = Model(folder, version, settings.serve, settings.validate.sides)
    found = _source(source, patients, engine, master)
    with Answers(out, run.classes, given.key(run), patients) as answers:
        todo = answers.missing(found.items)
        _say_before(found, answers, todo, patients)
        begun = time.monotonic()
        answered = _answered(given, run, found, todo, answers, engine, master)
        for _ in progress(answered, total=len(todo), desc="score", unit="file"):
            pass
        seconds = time.monotonic() - begun
        table = None if todo else answers.complete(found.items)
        if table is None:
            table = answers.finish(found.items)
    return _scored(out, run, engine, table, len(todo), seconds)


def _answered(
    model: Model, run: TrainedRun, source: Source, todo: Sequence[Item], answers: Answers, engine: str, master: str
) -> Iterator[Item]:
    """Yields each item once its answer is written down."""
    from cardium.batch.worker import chunk_of

    if not todo:
        return
    size = chunk_of(run)
    chunks = [todo[start : start + size] for start in range(0, len(todo), size)]
    module = importlib.import_module(f"cardium.batch.{ENGINES[engine][0]}")
    run_engine: Callable[..., Iterator[tuple[Sequence[Item], list[dict[str, Any]]]]] = module.answers
    for chunk, rows in run_engine(model, source.place, chunks, master):
        answers.add(chunk, rows)
        yield from chunk


def _source(given: str, patients: bool, engine: str, master: str) -> Source:
    if not given:  # As `mlflow run` passes what was not given.
        raise CardiumError("There is nothing to score: give a folder, or a CSV or Parquet table with a column `path`.")
    if "://" not in given:
        return read_source(Path(given), patients)
    if engine != "spark":
        raise CardiumError(f"{given} is an address that Spark reads: add --engine spark, or give a folder or a table.")
    from cardium.batch import spark

    return spark.read_address(given, master)


def _check_installed(engine: str) -> None:
    library = ENGINES[engine][1]
    if library and importlib.util.find_spec(library) is None:
        raise CardiumError(
            f"--engine {engine} needs {library}, which is not installed: `uv pip install --require-hashes -r "
            f"requirements-{engine}.lock` into this environment."
        )


def _say_before(source: Source, answers: Answers, todo: Sequence[Item], patients: bool) -> None:
    what = "patients" if patients else "files"
    if source.repeated:
        print(f"{source.repeated} rows of the table name a path that stands there before: one answer each.")
    if answers.of_other_models:
        print(f"{answers.of_other_models} answers in {answers.out.name} are another model's or of other settings: made anew.")
    if len(todo) < len(source.items):
        print(f"{len(source.items) - len(todo)} of {len(source.items)} {what} have their answer already; {len(todo)} to go.")


def _scored(out: Path, run: TrainedRun, engine: str, table: pyarrow.Table, answered: int, seconds: float) -> Scored:
    import pyarrow.compute as pc

    failed = table.filter(pc.is_valid(table["error"]))
    labels = Counter(label for label in table["label"].to_pylist() if label is not None)
    doubtful = pc.sum(pc.fill_null(pc.not_equal(table["quality"], "ok"), False)).as_py() or 0
    what = "patients" if of_patients(run.rendering) else "files"
    lines = []
    if answered:
        rate = answered / max(seconds, 1e-9)
        lines.append(f"Answered {answered} {what} in {seconds:.1f} s ({rate:.1f} a second), engine {engine}.")
    counted = ", ".join(f"{label} {labels[label]}" for label in sorted(labels))
    lines.append(f"{len(table)} {what}: {counted or 'no answer'}; {doubtful} doubtful, {len(failed)} errors.")
    for path, error in zip(failed["path"][:_SHOWN].to_pylist(), failed["error"][:_SHOWN].to_pylist(), strict=True):
        lines.append(f"  {harmless(path)}: {harmless(error)}")
    if len(failed) > _SHOWN:
        lines.append(f"  and {len(failed) - _SHOWN} more, in the column `error`")
    did = "Wrote" if answered else "Nothing to do:"
    lines.append(f"{did} {out}, by {run.name}. Not for diagnosis. Next: pandas.read_parquet({str(out)!r})")
    return Scored(out, run.name, engine, len(table), answered, len(failed), seconds, dict(labels), "\n".join(lines))
