"""A search of a run's settings, and its trials: the run's model with other settings, validated fold by fold.

A trial trains the run's model as `train` does, once for every fold except the hold-out: validated on that fold, trained on the
others. Its score is the balanced accuracy on validation, averaged over the folds. The hold-out is the first fold that
`evaluate` tests on. It is neither trained nor validated on, so the search does not depend on its labels. With a bank a trial
takes seconds, because no image is read again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cardium import atomic
from cardium.config import RunSpec, Settings, Train
from cardium.data.splits import Parts, read_parts
from cardium.errors import CardiumError
from cardium.evaluation.metrics import score
from cardium.models import is_spatial
from cardium.models.graph import graph_digest
from cardium.provenance import made_by, new_id, said_anew
from cardium.runs.data_version import DataVersion
from cardium.runs.predictions import prediction_rows
from cardium.training.bank import average_places
from cardium.training.fold import Inputs, build_models, read_inputs, source_of, train_fold
from cardium.tuning import queue
from cardium.tuning.search_space import SearchSpace, search_space
from cardium.workspace import Workspace

if TYPE_CHECKING:
    import optuna
    import pandas
    from optuna.trial import FrozenTrial

# What a trial's score depends on beside its models' graphs, and what its settings are drawn by.
_CODE = ("training", "tuning", "imaging/augment.py", "data/rendering.py", "data/splits.py", "evaluation/metrics.py")
_LIBRARIES = ("keras", "numpy", "optuna", "tensorflow")


@dataclass(frozen=True)
class Search:
    """A planned search.

    folds: the folds that are validated on in turn, with their parts; none contains records of `held_out`.
    with_views: (N,) bool, the records that have augmented views in the bank.
    study_name: contains a hash of all that determines a trial's score, so that other data or settings make another study.
    """

    settings: Settings
    spec: RunSpec
    reads: Path
    space: SearchSpace
    inputs: Inputs
    data: DataVersion
    held_out: int
    folds: dict[int, Parts]
    with_views: np.ndarray
    study_name: str

    @property
    def run(self) -> str:
        """The name of the searched run."""
        return self.spec.name

    @property
    def scratch(self) -> Path:
        """The folder of the search's journal, its lock and its trials' predictions."""
        return Workspace(self.settings.root).scratch() / "tune"

    @property
    def lock(self) -> Path:
        """The lock under which this machine's workers take trials."""
        return self.scratch / f"{self.run}.lock"


def plan_search(settings: Settings, spec: RunSpec, reads: Path, space: str = "") -> Search:
    """Plans the search of a run, and opens its inputs.

    reads: the folder of the bank or the rendering. space: a name in `tune.spaces`; "" for the one of the run's kind.
    Raises CardiumError under `published`, where the validation records are the test records.
    """
    if spec.protocol != "honest":
        raise CardiumError("Under `published` the test records choose the weights already: tune works under `honest` alone.")
    spec = dataclasses.replace(spec, train=spec.untuned, tuned="")
    searched = search_space(settings, spec, space)
    inputs = read_inputs(settings, spec, reads)
    workspace = Workspace(settings.root)
    data = DataVersion.now(workspace, spec.dataset)
    folder = workspace.split(spec.dataset)
    count = int(json.loads((folder / "split.json").read_text(encoding="utf-8"))["folds"])
    test_folds = settings.test_folds(spec.dataset)
    held_out = test_folds[0]
    # Fold f validates where fold f - 1 is the test.
    records = {
        f: read_parts(folder, inputs.manifest, "honest", (f - 1) % count).validation for f in range(count) if f != held_out
    }
    nothing = np.empty(0, dtype=np.int64)
    folds = {
        f: Parts(np.sort(np.concatenate([records[other] for other in records if other != f])), records[f], nothing)
        for f in records
    }
    with_views = np.zeros(len(inputs.labels), dtype=bool)
    for fold in test_folds:
        with_views[read_parts(folder, inputs.manifest, "honest", fold).train] = True
    origin = inputs.bank.info if inputs.bank else inputs.rendered
    determined: dict[str, Any] = {
        "space": searched.as_dict(),
        "origin": [origin.get(name) for name in ("key", "manifest_sha256", "pixels_sha256")],
        "split": data.split_sha256,
        "folds": [held_out, count],
        "seed": settings.seed,
        "augment": asdict(settings.datasets[spec.dataset].augment),
        "protocol": asdict(settings.protocols[spec.protocol]),
        "size": inputs.size.as_dict(),
    }
    models = [dataclasses.replace(spec, id=dataclasses.replace(spec.id, model=model)) for model in searched.models()]
    source = source_of(settings, spec, inputs, searched.train)
    determined["architectures"] = [graph_digest(build_models(settings, one, source).learner) for one in models]
    determined |= made_by(*_CODE, libraries=_LIBRARIES)
    digest = hashlib.sha256(json.dumps(determined, sort_keys=True).encode()).hexdigest()[:12]
    name = f"{spec.name}-{searched.name}-{digest}"
    return Search(settings, spec, reads, searched, inputs, data, held_out, folds, with_views, name)


def open_study(search: Search, storage: str) -> optuna.Study:
    """Opens the search's study. storage: an SQLAlchemy URL or a journal's path; "" for the project's own journal."""
    import filelock

    search.scratch.mkdir(parents=True, exist_ok=True)
    # A new database must be made by one process alone.
    with filelock.FileLock(search.scratch / "storage.lock"):
        store = queue.open_storage(storage, search.scratch / f"{search.run}.journal")
        settings, names = search.settings, queue.study_names(store)
        if search.study_name not in names and any(name.startswith(f"{search.run}-{search.space.name}-") for name in names):
            print(said_anew(f"An earlier search of {search.run}", ["settings, data, code or libraries"]))
        study = queue.open_study(store, search.study_name, search.space.defaults, settings.seed, settings.tune.startup)
        if "id" not in study.user_attrs:
            study.set_user_attr("id", new_id())
    return study


# ---------------------------------------------------------------------------------------------------------------- one trial


def validate_folds(search: Search, model: str, train: Train) -> Iterator[tuple[int, np.ndarray, float]]:
    """Trains `model` with the settings `train` on fold after fold; yields fold, validation probabilities (n, C), seconds.

    model: the run's, or the same backbone with another block. Nothing is written.
    """
    import keras
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    keras.utils.clear_session()
    spec = dataclasses.replace(search.spec, id=dataclasses.replace(search.spec.id, model=model))
    pooled = search.inputs.bank is not None and not is_spatial(model) and not train.fine_tune
    inputs = _pooled_inputs(search) if pooled else search.inputs
    source = source_of(search.settings, spec, inputs, train, search.with_views)
    models = build_models(search.settings, spec, source)
    for fold, parts in search.folds.items():
        began = time.perf_counter()
        models.reset()
        trained = train_fold(source, models, parts, fold, show=lambda _: None)
        yield fold, trained.probabilities, time.perf_counter() - began


def _pooled_inputs(search: Search) -> Inputs:
    """Returns the inputs with a bank averaged over places. A head that is not spatial learns the same from it, faster."""
    import filelock

    bank = search.inputs.bank
    assert bank is not None
    search.scratch.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(search.scratch / "averaged.lock"):
        averaged = average_places(bank, search.scratch / "averaged" / bank.key[:16])
    return dataclasses.replace(search.inputs, bank=averaged)


def objective_of(search: Search) -> Callable[[optuna.Trial], float]:
    """Returns the function that runs a trial and returns its score.

    The mean over the folds so far is reported after each fold, so that a trial can be pruned.
    """
    threshold = search.settings.evaluate.threshold

    def objective(trial: optuna.Trial) -> float:
        import optuna

        model, train = search.space.applied(search.space.suggest(trial))
        scores: list[float] = []
        tables = []
        seconds = 0.0
        for fold, probabilities, took in validate_folds(search, model, train):
            records = search.folds[fold].validation
            seconds += took
            tables.append(_rows(search, fold, probabilities))
            scores.append(score(search.inputs.labels[records], probabilities, threshold)["balanced_accuracy"])
            trial.set_user_attr("scores", scores)
            trial.set_user_attr("seconds", round(seconds, 2))
            trial.report(float(np.mean(scores)), len(scores))
            last = len(scores) == len(search.folds)
            # Without the defaults' score there is nothing to compare with.
            if not last and not trial.user_attrs.get(queue.DEFAULTS) and trial.should_prune():
                raise optuna.TrialPruned
        _keep(search, trial.number, tables)
        return float(np.mean(scores))

    return objective


def _rows(search: Search, fold: int, probabilities: np.ndarray) -> pandas.DataFrame:
    inputs = search.inputs
    return prediction_rows(inputs.manifest, search.folds[fold].validation, fold, inputs.labels, probabilities, inputs.classes)


def kept_predictions(search: Search, trial: int) -> Path:
    """Returns the file of a completed trial's validation predictions, on the machine that ran it."""
    return search.scratch / search.study_name / f"{trial}.parquet"


def _keep(search: Search, number: int, tables: list[pandas.DataFrame]) -> pandas.DataFrame:
    import pandas as pd

    table = pd.concat(tables, ignore_index=True)
    with atomic.replacing(kept_predictions(search, number)) as part:
        table.to_parquet(part, index=False)
    return table


def predictions_of(search: Search, trial: FrozenTrial) -> pandas.DataFrame:
    """Reads a completed trial's validation predictions. They are computed again if another machine ran the trial."""
    import pandas as pd

    path = kept_predictions(search, trial.number)
    if path.is_file():
        return pd.read_parquet(path)
    model, train = search.space.applied(trial.params)
    print(f"Trial {trial.number} was another machine's: training it again for its predictions.")
    tables = [_rows(search, fold, probabilities) for fold, probabilities, _ in validate_folds(search, model, train)]
    return _keep(search, trial.number, tables)
