"""The table of answers: one Parquet file, whole or not there, and the journal beside it that a killed command leaves.

    answers.parquet           a row an item, in the order of the source (`schema` below)
    answers.parquet.parts/    one Arrow stream a command, to which answers are added as they come; gone with the table's writing

A row counts for a command where the model and its settings are the same (`cardium.model` in the schema's metadata) and the
item's size and time are: nothing is answered twice, whatever was killed, and a table that is there grows by what is new.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from cardium import atomic
from cardium.batch.source import Item
from cardium.errors import CardiumError, first_line, harmless
from cardium.imaging.heart_format import MEASURES
from cardium.runs.predictions import probability_columns

if TYPE_CHECKING:
    import pyarrow

_KEY = b"cardium.model"
_STREAM = ".arrows"


def schema_of(classes: Sequence[str], model: str, patients: bool) -> pyarrow.Schema:
    """path; label, probability, p_<class>, set, set_coverage, quality or error; run, model_version, data; of patients measures.

    bytes and modified are the item's when it was read. model: what the answers depend on, as a hash.
    """
    import pyarrow as pa

    columns = [
        ("path", pa.string()),
        ("label", pa.string()),
        ("probability", pa.float64()),
        *((name, pa.float64()) for name in probability_columns(list(classes))),
        ("set", pa.list_(pa.string())),
        ("set_coverage", pa.float64()),
        ("quality", pa.string()),
        *([("measures", pa.struct([(measure.name, pa.float64()) for measure in MEASURES]))] if patients else []),
        ("error", pa.string()),
        ("run", pa.string()),
        ("model_version", pa.string()),
        ("data", pa.string()),
        ("bytes", pa.int64()),
        ("modified", pa.timestamp("ns", tz="UTC")),
    ]
    return pa.schema(columns, metadata={_KEY: model.encode()})


class Answers:
    """The answers in `out`, open for one command at a time. Used in a `with` block.

    Raises CardiumError where `out` is a file of another kind, and where another command has it open.
    """

    def __init__(self, out: Path, classes: Sequence[str], model: str, patients: bool) -> None:
        self.out, self.parts = out, out.with_name(out.name + ".parts")
        self._classes, self._schema = list(classes), schema_of(classes, model, patients)
        self._known: pyarrow.Table | None = None
        self._file: BinaryIO
        self._writer: Any
        self.of_other_models = 0

    def __enter__(self) -> Answers:
        import filelock

        self._check()
        with atomic.refusals(self.parts):
            self.parts.mkdir(parents=True, exist_ok=True)
        self._lock = filelock.FileLock(self.parts / "lock", timeout=0)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise CardiumError(
                f"Another command writes {self.out.name}: wait until it has ended, or give another --out."
            ) from None
        try:
            self._known = self._read()
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._close()
        self._lock.release()
        if self._mine.exists() and not self._wrote:
            self._mine.unlink()
        with contextlib.suppress(OSError):
            if {path.name for path in self.parts.iterdir()} <= {"lock"}:
                shutil.rmtree(self.parts)

    def missing(self, items: Sequence[Item]) -> list[Item]:
        """The items that have no answer yet, in order."""
        import pyarrow.compute as pc

        assert self._known is not None
        times = pc.cast(self._known["modified"], "int64").to_pylist()
        known = dict(
            zip(self._known["path"].to_pylist(), zip(self._known["bytes"].to_pylist(), times, strict=True), strict=True)
        )
        return [item for item in items if item.bytes < 0 or known.get(harmless(item.path)) != (item.bytes, item.modified)]

    def add(self, items: Sequence[Item], rows: Sequence[dict[str, Any]]) -> None:
        """Adds the rows of `Classifier.classify` for these items. What was added is there after a kill."""
        with atomic.refusals(self._mine):
            self._writer.write_batch(self._batch(items, rows))
            self._file.flush()
        self._wrote = True

    def complete(self, items: Sequence[Item]) -> pyarrow.Table | None:
        """The table in `out`, where it has a row for each item in their order and nothing was begun since; else None."""
        if not self.out.exists() or len(list(self.parts.glob(f"*{_STREAM}"))) > 1:
            return None
        assert self._known is not None
        same = self._known["path"].to_pylist() == [harmless(item.path) for item in items]
        return self._known if same and not self.of_other_models else None

    def finish(self, items: Sequence[Item]) -> pyarrow.Table:
        """Writes `out`, a row an item in their order, and takes the journal away; returns the table."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with atomic.refusals(self._mine):
            self._close()
        table = self._read()
        place = {path: row for row, path in enumerate(table["path"].to_pylist())}
        table = table.take(pa.array([place[harmless(item.path)] for item in items], pa.int64())).combine_chunks()
        with atomic.replacing(self.out) as part:
            pq.write_table(table, part, compression="zstd")
        for path in self.parts.glob(f"*{_STREAM}"):
            path.unlink()
        return table

    def _batch(self, items: Sequence[Item], rows: Sequence[dict[str, Any]]) -> pyarrow.RecordBatch:
        import pyarrow as pa

        flat = []
        for item, row in zip(items, rows, strict=True):
            shares = row.get("probabilities", {})
            named = dict(zip(probability_columns(self._classes), (shares.get(name) for name in self._classes), strict=True))
            about = {"path": harmless(item.path), "bytes": item.bytes, "modified": max(item.modified, 0)}
            error = {"error": harmless(row["error"])} if "error" in row else {}
            flat.append({**row, **named, **about, **error})
        return pa.RecordBatch.from_pylist(flat, schema=self._schema)

    def _check(self) -> None:
        import pyarrow.parquet as pq

        if self.out.suffix.lower() != ".parquet":
            raise CardiumError(f"--out: {self.out.name} is no name of a Parquet file: give one that ends in .parquet.")
        if not self.out.exists():
            return
        try:
            metadata = pq.read_schema(self.out).metadata or {}
        except Exception:  # A folder, another format, a damaged file.
            metadata = {}
        if _KEY not in metadata:
            raise CardiumError(f"--out: {self.out} is there and holds no answers of `cardium score`: give another name.")

    def _read(self) -> pyarrow.Table:
        """All answers of this model: of the table that is there, then of the journal; of a path the last one counts."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.of_other_models = 0
        batches: list[pyarrow.RecordBatch] = []
        if self.out.exists():
            if self._is_own(pq.read_schema(self.out)):
                batches += self._read_table()
            else:
                self.of_other_models += pq.read_metadata(self.out).num_rows
        for path in sorted(self.parts.glob(f"*{_STREAM}")):
            schema, found = _stream(path)
            if schema is not None and self._is_own(schema):
                batches += found
            else:
                self.of_other_models += sum(batch.num_rows for batch in found)
        table = pa.Table.from_batches([batch.cast(self._schema) for batch in batches], self._schema)
        last = {path: row for row, path in enumerate(table["path"].to_pylist())}
        return table if len(last) == len(table) else table.take(pa.array(sorted(last.values()), pa.int64()))

    def _read_table(self) -> list[pyarrow.RecordBatch]:
        import pyarrow.parquet as pq

        try:
            return list(pq.read_table(self.out).to_batches())
        except Exception as error:
            raise CardiumError(
                f"{self.out} is damaged ({first_line(error)}): remove it and run the same command again."
            ) from None

    def _is_own(self, schema: pyarrow.Schema) -> bool:
        return bool((schema.metadata or {}).get(_KEY) == self._schema.metadata[_KEY])

    def _open(self) -> None:
        import pyarrow as pa

        taken = [int(path.stem) for path in self.parts.glob(f"*{_STREAM}") if path.stem.isdecimal()]
        self._mine = self.parts / f"{max(taken, default=-1) + 1:06d}{_STREAM}"
        self._wrote = False
        with atomic.refusals(self._mine):
            self._file = self._mine.open("wb")
            self._writer = pa.ipc.new_stream(self._file, self._schema)

    def _close(self) -> None:
        if not self._file.closed:
            self._writer.close()
            self._file.close()


def _stream(path: Path) -> tuple[pyarrow.Schema | None, list[pyarrow.RecordBatch]]:
    """The schema and the whole batches of a journal, up to where a kill or a full disk cut it off."""
    import pyarrow as pa

    found: list[pyarrow.RecordBatch] = []
    schema: pyarrow.Schema | None = None
    with contextlib.suppress(pa.ArrowInvalid, OSError), path.open("rb") as file:
        reader = pa.ipc.open_stream(file)
        schema = reader.schema
        for batch in _whole(reader):
            found.append(batch)
    return schema, found


def _whole(reader: Any) -> Iterator[Any]:
    for batch in reader:
        batch.validate(full=True)
        yield batch
