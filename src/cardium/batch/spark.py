"""The engine of a Spark cluster: `mapInArrow` over Spark's own reader of files, a model a worker.

The files go to the workers by Spark (`binaryFile`), from wherever Spark reads: a file system that all machines mount, or an
address such as s3a://bucket/folder. The model and cardium's code go along in an archive (package.py); the workers' Python needs
the libraries of requirements.lock. A lost worker's tasks are given to another by Spark. Files go in waves, and the answers of a
wave are written down before the next one begins.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cardium.batch.package import Model
from cardium.batch.source import Item, Source
from cardium.data.studies import is_litter
from cardium.errors import CardiumError, first_line
from cardium.parallel import cores

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# What the model's archive is called on the workers.
_MODEL = "cardium-model"
# Chunks a wave for every core of the cluster: the slowest file of a wave holds up the others for a small share of it.
_WAVE = 16
# Tries at a task whose worker was lost.
_TRIES = 4
# What Spark takes for a pattern in a path.
_PATTERN = str.maketrans({sign: f"\\{sign}" for sign in "\\{}[]*?"})


def answers(
    model: Model, place: str, chunks: Sequence[Sequence[Item]], master: str
) -> Iterator[tuple[Sequence[Item], list[dict[str, Any]]]]:
    """Yields (items, their rows), a wave of chunks at a time. master: Spark's, "" for one of its own on this machine's cores.

    Raises CardiumError where Spark does not start or gives up, and for patients that are no zips.
    """
    if any(item.files for chunk in chunks for item in chunk):
        raise CardiumError("Spark sends whole files: put each patient's images into a zip, or use the engines local or ray.")
    size = max(map(len, chunks))
    with tempfile.TemporaryDirectory(prefix="cardium-score-") as folder:
        packed = Path(folder) / f"{_MODEL}.zip"
        model.pack(packed)
        session = _session(master, size)
        try:
            session.sparkContext.addArchive(f"{packed}#{_MODEL}")
            step = _WAVE * session.sparkContext.defaultParallelism
            for start in range(0, len(chunks), step):
                wave = [item for chunk in chunks[start : start + step] for item in chunk]
                yield wave, _wave(session, place, wave)
        finally:
            session.stop()


def read_address(address: str, master: str) -> Source:
    """All files below an address that Spark reads, in order of their paths, with sizes and times; no file is opened.

    Left out is what systems leave there, and what has no bytes, which Spark does not list.
    """
    session = _session(master, 1)
    base = address.rstrip("/")
    try:
        found = session.read.format("binaryFile").option("recursiveFileLookup", "true").load(base.translate(_PATTERN))
        rows = found.select("path", "length", "modificationTime").collect()
    except Exception as error:  # Py4J's and Spark's.
        raise _told(error) from None
    finally:
        session.stop()
    # Spark writes file:///a as file:/a.
    begins = [f"{one}/" for one in (base, base.replace(":///", ":/"))]
    items = []
    for row in rows:
        path = next((row.path.removeprefix(begin) for begin in begins if row.path.startswith(begin)), row.path)
        if is_litter(path):
            continue
        items.append(Item(path, bytes=row.length, modified=int(row.modificationTime.timestamp() * 1e6) * 1000))
    if not items:
        raise CardiumError(f"{address} holds no files to score.")
    return Source(base, sorted(items))


def _session(master: str, batch: int) -> SparkSession:
    """A session whose workers are given `batch` files at a time."""
    if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        raise CardiumError("--engine spark needs Java 17, and there is none: install OpenJDK 17, or set JAVA_HOME.")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    from pyspark.sql import SparkSession

    settings = {
        "spark.log.level": "ERROR",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.task.maxFailures": str(_TRIES),
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(batch),
        # A file counts as this much at least, so that so many small ones make a task.
        "spark.sql.files.openCostInBytes": str(2 * 1024 * 1024 * 64 // max(batch, 1)),
        # One bad file costs one row: what cannot be read comes back without a row, and is told as such.
        "spark.sql.files.ignoreMissingFiles": "true",
        "spark.sql.files.ignoreCorruptFiles": "true",
    }
    builder = SparkSession.builder.appName("cardium score").master(master or f"local[{cores()},{_TRIES}]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        return builder.getOrCreate()
    except Exception as error:
        raise _told(error) from None


def _wave(session: SparkSession, place: str, items: Sequence[Item]) -> list[dict[str, Any]]:
    addresses = [_address(place, item) for item in items]
    asked = [address.translate(_PATTERN) for address in addresses if address]
    found: dict[str, dict[str, Any]] = {}
    if asked:
        try:
            files = session.read.format("binaryFile").load(asked)
            for row in files.select("path", "content").mapInArrow(_answering(), "path string, answer string").collect():
                found[row.path] = json.loads(row.answer)
        except Exception as error:
            raise _told(error) from None
    return [found.get(address) or _unread(item, address) for item, address in zip(items, addresses, strict=True)]


def _unread(item: Item, address: str) -> dict[str, Any]:
    """The row of a file of which Spark brought nothing."""
    if item.bytes < 0:
        return {"error": "no such file or directory"}
    if item.bytes == 0:  # Spark leaves it out.
        return {"error": "empty file"}
    return {"error": "it cannot be read" if address else "its name is no UTF-8: rename it, or use the engines local or ray"}


def _address(place: str, item: Item) -> str:
    """A file's address as Spark writes it; "" where there is no such file, or Java cannot name it."""
    if item.bytes < 0 or any("\udc80" <= sign <= "\udcff" for sign in item.path):
        return ""
    whole = item.path if Path(item.path).is_absolute() else f"{place}/{item.path}"
    return whole.replace(":///", ":/", 1) if "://" in whole else "file:" + os.path.normpath(whole)


def _answering() -> Any:
    """What the workers do. A function within a function: it is sent as it is, where one of a module would have to be there."""
    name = _MODEL

    def answer(batches: Any) -> Any:
        import json
        import sys

        import pyarrow
        from pyspark import SparkFiles

        folder = SparkFiles.get(name)
        if f"{folder}/code" not in sys.path:
            sys.path.insert(0, f"{folder}/code")
        from cardium.batch.package import worker_of

        worker = worker_of(folder)
        for batch in batches:
            rows = worker.answers_of(batch.column("content").to_pylist())
            told = pyarrow.array([json.dumps(row) for row in rows], pyarrow.string())
            yield pyarrow.RecordBatch.from_arrays([batch.column("path"), told], names=["path", "answer"])

    return answer


def _told(error: Exception) -> CardiumError:
    return CardiumError(f"Spark gave up ({first_line(error)}): see to that, then run the same command again, which goes on.")
