"""Where everything lies in a project folder, from the project's root and a name. No file is opened here.

data/<dataset>/                      raw, as its publisher lays it out
processed/<dataset>/manifest/        manifest.parquet, rejected.csv, fingerprint.json
processed/<dataset>/split/           honest.csv, published.csv, split.json
processed/<dataset>/validation/      validation.json, validation.html
processed/<dataset>/<rendering>/     pixels.npy, render.json
features/<dataset>/<protocol>/<backbone>/      the bank
models/<dataset>/<protocol>/<model>/           a run: model.keras, run.json, history.csv, validation.parquet
reports/<dataset>/audit/, evaluation/, promotion/
reports/<dataset>/tuning/<run>/       a search: trials.csv, study.json, figures
configs/tuned/<run>.yaml             what it found; git keeps it, a run's line in params.yaml names it
experiments/<run>/<overrides>/       runs with overrides: the same folder contract, outside the pipeline
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from cardium.errors import CardiumError


def find_root(start: Path | None = None) -> Path:
    """The project's root: CARDIUM_ROOT, or the nearest folder from `start` (default: the current one) up with a params.yaml."""
    given = os.environ.get("CARDIUM_ROOT")
    if given:
        if not (Path(given) / "params.yaml").is_file():
            raise CardiumError(
                f"CARDIUM_ROOT is {given}, where there is no params.yaml: set it to a cardium project or unset it."
            )
        return Path(given).resolve()
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
            return folder
    raise CardiumError(f"No cardium project in {here} or above it (params.yaml and dvc.yaml): run this inside a clone.")


@dataclass(frozen=True, order=True)
class RunId:
    """Which run: a model trained on a dataset under a protocol.

    model: a name of the zoo, or `ensemble`, `fused`, `fused_average`, which are made of other runs. protocol: `honest`, the
    default, or `published`.
    """

    dataset: str
    model: str
    protocol: str = "honest"

    @property
    def name(self) -> str:
        """`cmri-mobilenetv2`, `cmri-mobilenetv2-published`: the run's name in files, commands and messages."""
        return f"{self.dataset}-{self.model}{suffix(self.protocol)}"

    @property
    def folder(self) -> PurePosixPath:
        """The run folder, below the project's root."""
        return PurePosixPath("models", self.dataset, self.protocol, self.model)

    @classmethod
    def parse(cls, name: str) -> RunId:
        """The run of a name, as `name` gives it. Raises CardiumError for what is no run's name."""
        dataset, _, rest = name.partition("-")
        model, _, protocol = rest.partition("-")
        if not dataset or not model or protocol not in ("", "published"):
            raise CardiumError(f"`{name}` is no run's name: write <dataset>-<model> or <dataset>-<model>-published.")
        return cls(dataset, model, protocol or "honest")

    def under(self, protocol: str) -> RunId:
        """The same model on the same dataset under `protocol`."""
        return RunId(self.dataset, self.model, protocol)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Workspace:
    """The paths of one project folder."""

    root: Path

    def data(self, dataset: str) -> Path:
        return self.root / "data" / dataset

    def manifest(self, dataset: str) -> Path:
        return self.root / "processed" / dataset / "manifest"

    def split(self, dataset: str) -> Path:
        return self.root / "processed" / dataset / "split"

    def validation(self, dataset: str) -> Path:
        return self.root / "processed" / dataset / "validation"

    def rendering(self, dataset: str, kind: str) -> Path:
        return self.root / "processed" / dataset / kind

    def bank(self, dataset: str, backbone: str, protocol: str) -> Path:
        return self.root / "features" / dataset / protocol / backbone

    def run(self, run: RunId) -> Path:
        return self.root / run.folder

    def audit(self, dataset: str) -> Path:
        return self.root / "reports" / dataset / "audit"

    def evaluation(self, dataset: str) -> Path:
        return self.root / "reports" / dataset / "evaluation"

    def promotion(self, dataset: str) -> Path:
        return self.root / "reports" / dataset / "promotion"

    def report(self, dataset: str) -> Path:
        return self.root / "reports" / dataset / "report"

    def explanations(self, dataset: str, run: str) -> Path:
        """A folder a method below it."""
        return self.root / "reports" / dataset / "explanations" / run

    def tuning(self, dataset: str, run: str) -> Path:
        return self.root / "reports" / dataset / "tuning" / run

    def tuned(self, run: str) -> Path:
        return self.root / "configs" / "tuned" / f"{run}.yaml"

    def experiment(self, run: str, overrides: str) -> Path:
        return self.root / "experiments" / run / overrides

    def scratch(self) -> Path:
        """What can be thrown away at any time: locks, half-trained runs, banks of runs with overrides."""
        return self.root / ".cardium"


# A run folder's models: the first held-out fold's, and, where there is one, what answers requests in its place.
# In the order of their blocks on a leaderboard.
Protocol = Literal["honest", "published"]
PROTOCOLS: tuple[Protocol, ...] = ("honest", "published")

MODEL, SERVED = "model.keras", "served.keras"


def served_file(run_folder: Path) -> Path:
    """The file of the model that answers requests."""
    return run_folder / (SERVED if (run_folder / SERVED).is_file() else MODEL)


def suffix(protocol: str) -> str:
    """How a protocol shows in a name: `honest` is the default and has no suffix."""
    return "" if protocol == "honest" else f"-{protocol}"


def run_name(dataset: str, model: str, protocol: str) -> str:
    return RunId(dataset, model, protocol).name
