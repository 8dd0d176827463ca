"""A model and the processes that read files for it, as every engine has them: items in; the rows of `cardium predict` out.

Files are read as the server reads them (serving/render_pool.py): in processes that are ended where a file takes too long or too
much, so that a bad file costs its own row. What a file may cost is what a request may, but for the time: nobody waits here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cardium.batch.source import Item
from cardium.config import Serve
from cardium.data.studies import study_of_paths
from cardium.errors import system_reason
from cardium.imaging.decode import Undecodable
from cardium.imaging.kinds import Rendered, of_patients, of_volumes
from cardium.imaging.spec import Limits, Sides
from cardium.imaging.study import render_study
from cardium.runs.trained_run import TrainedRun
from cardium.serving.classifier import Classifier
from cardium.serving.render_pool import FILE, RenderPool, Request
from cardium.serving.request import Refusal
from cardium.tracking.signature import example_file

# Items that go together: so many pictures, and so many volumes or patients.
_PICTURES, _LARGE = 64, 8
# Seconds: longer than any chunk takes. The CPU time of each file is bounded by itself.
_NEVER = 1e7
# What stands before the bytes of a patient's archive, and before the names of a patient's files: no archive's own bytes are
# ever taken for names.
_ARCHIVE, _NAMES = b"a", b"n"


def chunk_of(run: TrainedRun) -> int:
    """How many items of this run's kind go together: what is lost with a worker that is killed."""
    return _LARGE if of_volumes(run.rendering) or of_patients(run.rendering) else _PICTURES


class Worker:
    """The model of a run folder with `processes` that read files for it. Its methods may be called from several threads.

    version: of the model in the registry. Raises CardiumError as Classifier and RenderPool do.
    """

    def __init__(self, folder: Path, version: str | None, limits: Serve, sides: Sides, processes: int) -> None:
        self.classifier = Classifier(folder, version, limits, sides)
        self._limits = limits.of_file(self.classifier.run.rendering, sides)
        read: Callable[[bytes], Rendered] = self.classifier.reader
        example = example_file(self.classifier.run.rendering)
        if self.classifier.of_patients:
            read = partial(_read_patient, limits=limits, of_image=limits.of_file("image", sides), archive=read)
            example = _ARCHIVE + example
        # `predict` waits for any file: the longest time that a request has for one ends only what is made to take long.
        seconds, memory = limits.max_volume_seconds, self.classifier.memory_of_a_file
        self._pool = RenderPool({FILE: read}, seconds, memory, example, processes, processes)

    def answers(self, place: Path, items: Sequence[Item]) -> list[dict[str, Any]]:
        """A row an item, whose files lie below `place`."""
        files: list[bytes | Refusal] = []
        for item in items:
            if item.files:  # Read where it is rendered: a patient's files are many.
                files.append(_NAMES + json.dumps([str(place / item.base), item.files]).encode())
            else:
                files.append(self._whole(read_file(place / item.path, self._limits)))
        return self._rows(files)

    def answers_of(self, files: Sequence[bytes]) -> list[dict[str, Any]]:
        """A row a file; of a model of patients a file is a zip."""
        return self._rows([self._whole(data) for data in files])

    def close(self) -> None:
        """Ends the processes; what is being answered is refused."""
        self._pool.close()

    def _whole(self, data: bytes | Refusal) -> bytes | Refusal:
        return _ARCHIVE + data if self.classifier.of_patients and isinstance(data, bytes) else data

    def _rows(self, files: Sequence[bytes | Refusal]) -> list[dict[str, Any]]:
        request = Request(time.monotonic() + _NEVER)
        return self.classifier.classify(files, partial(self._pool.render, request))


def read_file(path: Path, limits: Limits) -> bytes | Refusal:
    """A file's bytes, or what it is refused for: what the system says, or more bytes than `limits` allow."""
    largest = max(limits.max_bytes, limits.max_volume_bytes)
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            return Refusal("it is no file")  # A pipe would be waited for.
        if (size := path.stat().st_size) > largest:
            return Refusal(f"too many bytes: {size}, limit {largest}")
        return path.read_bytes() or Refusal("empty file")
    except ValueError:  # A name with a zero byte.
        return Refusal("no such file or directory")
    except OSError as error:
        return Refusal(system_reason(error))


def _read_patient(data: bytes, limits: Serve, of_image: Limits, archive: Callable[[bytes], Rendered]) -> Rendered:
    """The rendering of a patient: of an archive's bytes, or of the files that are named. Raises Undecodable."""
    if data[:1] == _ARCHIVE:
        return archive(data[1:])
    place, paths = json.loads(data[1:])
    study = study_of_paths(Path(place), "", paths, limits)
    if study.error:
        raise Undecodable(study.error)
    return render_study(study.files, of_image)
