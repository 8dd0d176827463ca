"""The models that answer on the page: each dataset's champion, what to expect of it, and the data that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cardium.app.seen import Reads
from cardium.config import Settings
from cardium.datasets import get_collection
from cardium.datasets.demos import TRACKED_MD5
from cardium.errors import CardiumError
from cardium.evaluation.evaluation import Evaluation
from cardium.evaluation.promotion import Expected
from cardium.serving.classifier import GENERATED, Classifier
from cardium.serving.predict import load_classifier
from cardium.tracking.promotion import expected_of
from cardium.tracking.registry import CHAMPION, by_alias
from cardium.tracking.store import connected
from cardium.workspace import Workspace


@dataclass(frozen=True)
class Score:
    """What to expect of a model: its balanced accuracy on held-out data, 0-1, by `patient` or by `record`.

    low, high: of its 95 % interval, None where there is none. chance: chance level, one over the number of classes.
    """

    value: float
    low: float | None
    high: float | None
    unit: str
    chance: float

    @property
    def above_chance(self) -> bool:
        """Whether the whole interval lies above chance level."""
        return self.low is not None and self.low > self.chance


@dataclass(frozen=True)
class Champion:
    """A model that answers. score: None where none is known of it. generated: whether it was trained on generated demo data."""

    dataset: str
    title: str
    classifier: Classifier
    score: Score | None
    generated: bool

    @property
    def reads(self) -> Reads:
        """What it reads."""
        run = self.classifier.run
        return Reads(self.dataset, run.rendering, run.size, self.classifier.limits, self.classifier.sides)

    @property
    def name(self) -> str:
        """The run's name and the registry's version: `ecg4-traces_net, version 3`."""
        version = self.classifier.model_version
        return f"{self.classifier.run.name}, version {version}" if version else self.classifier.run.name

    @property
    def data(self) -> str:
        """What it was trained on, in an answer's words."""
        return f"{GENERATED} in the form of {self.dataset}" if self.generated else self.classifier.data

    def facts(self) -> dict[str, Any]:
        """What an answer's file says of the model."""
        score = self.score
        return {
            "dataset": self.dataset,
            "title": self.title,
            "run": self.classifier.run.name,
            "run_id": self.classifier.run.id,
            "model_version": self.classifier.model_version,
            "trained_on_generated_demo_data": self.generated,
            "expected_balanced_accuracy": score
            and {"value": score.value, "low": score.low, "high": score.high, "by": score.unit, "chance_level": score.chance},
        }


def load_champion(settings: Settings, dataset: str) -> Champion:
    """The registry's champion of a dataset. Raises CardiumError where there is none."""
    name = f"{settings.tracking.experiment}-{dataset}"
    classifier = load_classifier(settings, f"models:/{name}@{CHAMPION}")
    with connected(settings) as client:
        version = by_alias(client, name, CHAMPION)
    # Another may have been promoted meanwhile.
    expected = expected_of(version) if version and str(version.number) == classifier.model_version else None
    return _champion(classifier, _score(dataset, expected, len(classifier.run.classes)) if expected else None)


def load_named(settings: Settings, model: str) -> Champion:
    """A model that was named: a run folder or an MLflow model. Raises CardiumError where there is none."""
    classifier = load_classifier(settings, model)
    run = classifier.run
    try:
        row = Evaluation.read(Workspace(settings.root).evaluation(run.run.dataset), run.run.dataset).runs.get(run.name)
    except CardiumError:
        row = None
    score = None
    if row is not None and row.run_id == run.id:
        by_patient = row.patient.get("balanced_accuracy", row.balanced_accuracy)
        score = _score(run.run.dataset, Expected(row.balanced_accuracy, by_patient, 1), len(run.classes))
    return _champion(classifier, score)


def load_all(settings: Settings, datasets: Sequence[str], models: Sequence[str]) -> tuple[list[Champion], dict[str, str]]:
    """The models that were named, otherwise every dataset's champion; and of each dataset without one the reason.

    Raises CardiumError where none is left.
    """
    if models:
        named = [load_named(settings, model) for model in models]
        if len({champion.dataset for champion in named}) < len(named):
            raise CardiumError("--model: two of the models are of one dataset: name one a dataset.")
        return named, {}
    found: list[Champion] = []
    missing: dict[str, str] = {}
    for dataset in datasets:
        try:
            print(f"Loading the champion of {dataset} ...", flush=True)
            found.append(load_champion(settings, dataset))
        except CardiumError as error:
            missing[dataset] = str(error)
    if not found:
        first = next(iter(missing))
        raise CardiumError(
            f"No dataset has a champion yet: run `cardium promote --dataset {first}`, "
            "or name a run folder with `cardium app --model models/...`."
        )
    return found, missing


def _champion(classifier: Classifier, score: Score | None) -> Champion:
    dataset = classifier.run.run.dataset
    data = classifier.run.data
    generated = data.generated or data.dvc_md5 == TRACKED_MD5  # Runs of older versions name the data by their hash alone.
    return Champion(dataset, get_collection(dataset).title, classifier, score, generated)


def _score(dataset: str, expected: Expected, classes: int) -> Score | None:
    """What a promotion says is to be expected, by patient where the collection names patients."""
    named = get_collection(dataset).names_patients
    found = expected.group if named else expected.record
    return None if found.value is None else Score(found.value, found.low, found.high, _unit(dataset), 1 / classes)


def _unit(dataset: str) -> str:
    return "patient" if get_collection(dataset).names_patients else "record"
