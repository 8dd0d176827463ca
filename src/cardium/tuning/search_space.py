"""The search space of one run, from params.yaml's `tune.spaces` and the run's own settings.

The run's own settings are always part of the space: a dimension that lacks them is widened. The first trial is therefore the
run as it is, and every gain is a gain over it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cardium.config import Dimension, RunSpec, Settings, Train
from cardium.errors import CardiumError, unknown
from cardium.models import bank_of, parse_name
from cardium.models.attention import BLOCKS
from cardium.models.backbones import FRAMES

if TYPE_CHECKING:
    import optuna

# The name under which a dimension of `sets` holds the run's own settings.
AS_IT_IS = "as it is"
BLOCK = "block"


def space_of(spec: RunSpec) -> str:
    """Returns the default space of a run: `bank`, `frames` or `end_to_end`."""
    if not spec.bank:
        return "end_to_end"
    return "frames" if spec.bank.endswith(FRAMES) else "bank"


@dataclass(frozen=True)
class SearchSpace:
    """What a trial may set.

    model, train: the run's model and its settings before the search. dimensions: each contains the default. defaults: the
    values of the trial that is the run as it is.
    """

    name: str
    model: str
    train: Train
    dimensions: dict[str, Dimension]
    defaults: dict[str, Any]

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Draws a value for every dimension, as Optuna stores them: numbers, texts, names of sets."""
        values: dict[str, Any] = {}
        for name, dimension in self.dimensions.items():
            if dimension.sets:
                values[name] = trial.suggest_categorical(name, list(dimension.sets))
            elif dimension.choices:
                values[name] = trial.suggest_categorical(name, dimension.choices)
            elif dimension.whole:
                values[name] = trial.suggest_int(name, int(dimension.low), int(dimension.high), log=dimension.log)
            else:
                values[name] = trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
        return values

    def applied(self, values: dict[str, Any]) -> tuple[str, Train]:
        """Translates a trial's values into the model to train and its settings."""
        changes: dict[str, Any] = {}
        for name, value in values.items():
            if name != BLOCK:
                dimension = self.dimensions[name]
                changes |= dimension.sets[value] if dimension.sets else {name: value}
        return self._model(values.get(BLOCK)), dataclasses.replace(self.train, **changes)

    def models(self) -> list[str]:
        """Returns the models that a trial may train."""
        return [self._model(block) for block in self.dimensions[BLOCK].choices] if BLOCK in self.dimensions else [self.model]

    def searched(self) -> set[str]:
        """Returns the names of the settings that a trial may change."""
        names = {name for name, dimension in self.dimensions.items() if name != BLOCK and not dimension.sets}
        return names | {name for dimension in self.dimensions.values() for one in dimension.sets.values() for name in one}

    def as_dict(self) -> dict[str, Any]:
        """Returns what two searches must share to be the same study."""
        dimensions = {name: dataclasses.asdict(dimension) for name, dimension in self.dimensions.items()}
        return {"name": self.name, "model": self.model, "train": dataclasses.asdict(self.train), "dimensions": dimensions}

    def _model(self, block: str | None) -> str:
        if block is None:
            return self.model
        backbone = parse_name(self.model).backbone
        return f"{backbone}_{block}" if block else backbone


def search_space(settings: Settings, spec: RunSpec, name: str = "") -> SearchSpace:
    """Builds the space `name` around the run's own settings; "" for the default one.

    Raises CardiumError for an unknown space, and for one that does not fit the run.
    """
    name = name or space_of(spec)
    spaces = settings.tune.spaces
    if name not in spaces:
        raise unknown("search space", name, list(spaces))
    fitting = {"bank": space_of(spec) == "bank", "frames": space_of(spec) == "frames", "end_to_end": not spec.bank}
    if not fitting.get(name, bool(spec.bank)):
        raise CardiumError(f"{spec.model} is searched in the space `{space_of(spec)}`, not in `{name}`.")
    train = spec.untuned
    dimensions: dict[str, Dimension] = {}
    defaults: dict[str, Any] = {}
    for key, dimension in spaces[name].items():
        if key == BLOCK:
            dimension, default = _blocks(spec, dimension), parse_name(spec.model).block
        elif dimension.sets:
            own = {setting: getattr(train, setting) for one in dimension.sets.values() for setting in one}
            # Each sets all of them, so that what one leaves out is not another's.
            sets = {label: own | _typed(one, own) for label, one in dimension.sets.items()}
            dimension, default = dataclasses.replace(dimension, sets={AS_IT_IS: own, **sets}), AS_IT_IS
        else:
            default = getattr(train, key)
        where = f"params.yaml, tune.spaces.{name}.{key}"
        dimensions[key], defaults[key] = _holding(dimension, default, where), default
    return SearchSpace(name, spec.model, train, dimensions, defaults)


def _holding(dimension: Dimension, default: Any, where: str) -> Dimension:
    """Widens the dimension if it lacks the default."""
    if dimension.sets:
        return dimension
    if dimension.choices or isinstance(default, str):
        choices = [_typed({"": choice}, {"": default})[""] for choice in dimension.choices]
        return dataclasses.replace(dimension, choices=choices if default in choices else [default, *choices])
    if dimension.log and default <= 0:
        raise CardiumError(f"{where}: the run's own value is {default}, which has no logarithm: give `choices`.")
    return dataclasses.replace(dimension, low=min(dimension.low, default), high=max(dimension.high, default))


def _typed(values: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Gives numbers the types of the settings: YAML reads 0 for 0.0, and text for 1e-4."""
    return {name: float(value) if isinstance(own[name], float) else value for name, value in values.items()}


def _blocks(spec: RunSpec, dimension: Dimension) -> Dimension:
    """Keeps the blocks that read the run's own bank; multi-scale blocks need taps."""
    backbone = parse_name(spec.model).backbone
    known = ["", *BLOCKS]
    strange = [block for block in dimension.choices if block not in known]
    if strange:
        raise unknown("block of params.yaml, tune.spaces,", strange[0], list(BLOCKS))
    fitting = [block for block in dimension.choices if bank_of(f"{backbone}_{block}" if block else backbone) == spec.bank]
    return dataclasses.replace(dimension, choices=fitting)
