"""A model as engines take it: where its run folder lies and what limits it has; and all of it with cardium's code in one zip.

A worker elsewhere needs the libraries of requirements.lock, and neither cardium nor the project: the zip is both.

    run/           run.json, the model that answers requests, validation.parquet and what else an answer takes
    code/cardium/  this package
    model.json     the registry's version, limits and sides
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

from cardium import __version__
from cardium.batch.worker import Worker
from cardium.config import Serve
from cardium.imaging.spec import Sides
from cardium.runs.input_kind import FILE as KIND
from cardium.runs.predictions import VALIDATION
from cardium.runs.trained_run import FILE, TrainedRun
from cardium.serving.exported import FILE as EXPORT
from cardium.serving.exported import model_files

# Of the answers' table: a table of another form is made anew.
_FORM = 1


@dataclass(frozen=True)
class Model:
    """folder: of the run. version: of the registry, None where it has none. limits, sides: what one file may cost."""

    folder: Path
    version: str | None
    limits: Serve
    sides: Sides

    def worker(self, processes: int) -> Worker:
        """Loads the model, with `processes` that read its files."""
        from cardium.tensorflow_import import import_tensorflow

        import_tensorflow()
        return Worker(self.folder, self.version, self.limits, self.sides, processes)

    def key(self, run: TrainedRun) -> str:
        """A hash of what an answer depends on: the model's bytes, cardium's version, the limits."""
        network = []
        for path in model_files(self.folder, run.served_file):
            with path.open("rb") as file:
                network.append(hashlib.file_digest(file, "sha256").hexdigest())
        about = [_FORM, __version__, run.id, network, self._settings()]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def pack(self, path: Path) -> None:
        """Writes the zip that `unpacked` reads."""
        run, package = TrainedRun.read(self.folder), Path(__file__).parents[1]
        with ZipFile(path, "w", ZIP_STORED) as archive:
            about = [self.folder / name for name in (FILE, VALIDATION, KIND, EXPORT)]
            for file in [*about, *model_files(self.folder, run.served_file)]:
                if file.is_file():
                    archive.write(file, f"run/{file.relative_to(self.folder).as_posix()}")
            for file in sorted(package.rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    archive.write(file, f"code/cardium/{file.relative_to(package).as_posix()}")
            archive.writestr("model.json", json.dumps(self._settings()))

    def _settings(self) -> dict[str, Any]:
        sides = dataclasses.asdict(self.sides)
        return {"version": self.version, "limits": dataclasses.asdict(self.limits), "sides": sides}


@functools.cache
def worker_of(folder: str) -> Worker:
    """The worker of a folder that a zip of `Model.pack` was unpacked to, for one core: one a process."""
    # A cluster has a worker a core: more threads would only wait for each other.
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    place = Path(folder)
    about = json.loads((place / "model.json").read_bytes())
    model = Model(place / "run", about["version"], Serve(**about["limits"]), Sides(**about["sides"]))
    return model.worker(1)
