"""params.yaml -> checked, typed settings; an unknown key is an error that names the closest one.

Settings of a dataset are laid over each other: `train`, then its kind of record (`image`, `sheet`, `volume`), then the section
named after it. The chosen profile's block changes the file first, the overrides of one run last.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cardium.config.check import build, check_part, check_train, dotted, expect_table, overlay
from cardium.config.schema import Dataset, Dimension, OwnCollection, RawTable, StudiedModel, Study, Train
from cardium.config.settings import Settings
from cardium.datasets import built_in, get_collection, list_collections, set_own
from cardium.datasets.of_table import RECORDS, table_collection
from cardium.errors import CardiumError, closest, unknown
from cardium.imaging.spec import Augment, Render
from cardium.workspace import PROTOCOLS
from cardium.yaml_file import read_yaml

# The kinds of records, whose sections hold what all datasets of the kind share.
CONTENTS = ("image", "sheet", "volume")
# Settings that are no section of params.yaml.
_INTERNAL = ("root", "active", "datasets", "overrides")
# Names that a dataset cannot have.
_OF_SECTIONS = {"train", "profile", "studies", "profiles", *CONTENTS} | {f.name for f in dataclasses.fields(Settings)}
# What was in files of version 0.1, and where it went.
_OUTDATED = ("lines", "runs", "banks", "renderings", "fusions", "ensembles", "explanations", "recommended")


def load(root: Path, overrides: dict[str, Any] | None = None) -> Settings:
    """Reads and checks `root`/params.yaml.

    overrides: dotted keys -> values (`cmri.train.epochs`: 3), laid over the profile.
    Raises CardiumError in one line that names the key.
    """
    root = root.absolute()
    return resolve(read_params(root), root, overrides or {})


def read_params(root: Path) -> RawTable:
    """params.yaml as it stands. Raises CardiumError where it is missing or no YAML table."""
    try:
        raw = read_yaml(root / "params.yaml")
    except FileNotFoundError:
        raise CardiumError(f"There is no params.yaml in {root}: restore it with `git checkout params.yaml`.") from None
    if not isinstance(raw, dict):
        raise CardiumError("params.yaml: expected a table of settings.")
    return raw


def choose_profile(root: Path, profile: str) -> None:
    """Writes `profile` into the line `profile:` of `root`/params.yaml; nothing else changes.

    Raises CardiumError for an unknown profile, and where the file has no such line.
    """
    from cardium import atomic

    path = root / "params.yaml"
    known = [str(name) for name in read_params(root).get("studies") or {}]
    if profile not in known:
        raise unknown("profile", profile, known)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    places = [number for number, line in enumerate(lines) if line.startswith("profile:")]
    if len(places) != 1:
        raise CardiumError("params.yaml has no line that begins with `profile:`: choose the profile there by hand.")
    before, mark, comment = lines[places[0]].partition("#")
    lines[places[0]] = f"profile: {profile}".ljust(len(before) if mark else 0) + (mark + comment if mark else "\n")
    atomic.write_text(path, "".join(lines))


def resolve(raw: RawTable, root: Path, overrides: dict[str, Any]) -> Settings:
    """params.yaml's table -> Settings; see `load`."""
    table = dict(raw)
    outdated = [key for key in _OUTDATED if key in table]
    if outdated:
        raise CardiumError(
            f"params.yaml: `{outdated[0]}` is of cardium 0.1; `studies` takes its place: see Upgrading in CHANGELOG.md."
        )
    profiles, studies = table.pop("profiles", {}), table.pop("studies", {})
    for name, value in (("profiles", profiles), ("studies", studies)):
        if not isinstance(value, dict):
            raise CardiumError(f"params.yaml, {name}: expected a table, got {value!r}.")
    profile = table.get("profile")
    if profile not in studies:
        raise CardiumError(f"params.yaml, profile: `{profile}` is not one of {', '.join(map(str, studies))}.")
    change = profiles.get(profile) or {}
    table["collections"] = _make_own_known(table, studies[profile], root)
    _check_sections(table, "")
    _check_sections(change, f"profiles.{profile}", partial=True)
    table = overlay(table, change)
    for key, value in overrides.items():
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        _check_sections(nested, "", partial=True)
        table = overlay(table, nested)
    table["active"] = table.pop("datasets", None)
    sections = {name: table.pop(name, {}) for name in ("train", *CONTENTS, *list_collections())}
    sections |= {name: overlay(own.settings, sections[name]) for name, own in table["collections"].items()}
    table["datasets"] = {name: _dataset(name, sections) for name in list_collections()}
    table["studies"] = {
        dataset: build(Study, _study(study, f"studies.{profile}.{dataset}"), f"studies.{profile}.{dataset}")
        for dataset, study in expect_table(studies[profile], f"studies.{profile}").items()
    }
    settings: Settings = _settings(table, root, overrides)
    _check(settings)
    return settings


def _make_own_known(table: RawTable, studies: Any, root: Path) -> dict[str, OwnCollection]:
    """The collections of the project's own, made known to `datasets`: those of the section `collections`, and those that
    `datasets` or a study names and that have a table below data/."""
    stated = expect_table(table.get("collections") or {}, "collections")
    given = table.get("datasets")
    names = [name for name in [*(given if isinstance(given, list) else []), *expect_table(studies or {}, "studies")] if name]
    own = {str(name): build(OwnCollection, value or {}, f"collections.{name}") for name, value in stated.items()}
    for name in map(str, names):
        if name not in {*own, *built_in()} and (root / "data" / name / RECORDS).is_file():
            own[name] = OwnCollection()
    made = {}
    for name, entry in own.items():
        if name in built_in() or name in _OF_SECTIONS:
            raise CardiumError(f"params.yaml, collections.{name}: cardium has something of that name: choose another.")
        check_part(Dataset, entry.settings, f"collections.{name}.settings")
        if len(entry.classes) == 1:
            raise CardiumError(f"params.yaml, collections.{name}.classes: one class is none: name two or more, or none.")
        where = root / "data" / name
        made[name] = table_collection(name, where, entry.classes, entry.content, entry.title, entry.recommended)
    set_own(made)
    return own


# ------------------------------------------------------------------------------------------------------------ the sections


def section_types() -> dict[str, Any]:
    """Every section of params.yaml but `profiles` and `studies` -> its type."""
    kinds = typing.get_type_hints(Settings, include_extras=True)
    kinds = {name: kind for name, kind in kinds.items() if name not in (*_INTERNAL, "studies")}
    kinds["datasets"] = list[str]
    kinds["train"] = Train
    # Read before all others: they say which sections of datasets there may be.
    kinds.pop("collections")
    return kinds | dict.fromkeys([*CONTENTS, *list_collections()], Dataset)


def _check_sections(table: RawTable, where: str, partial: bool = False) -> None:
    """Each section on its own, so that a message names the place where the value stands."""
    kinds = section_types()
    for key, value in expect_table(table, where).items():
        if key == "collections" and not where:
            continue
        if key not in kinds:
            raise CardiumError(f"params.yaml: unknown key `{dotted(where, key)}`.{closest(str(key), list(kinds))}")
        of_dataset = kinds[key] is Dataset or key == "train"
        check: Callable[[Any, Any, str], Any] = check_part if partial or of_dataset else build
        check(kinds[key], value, dotted(where, key))


def _dataset(name: str, sections: dict[str, RawTable]) -> Dataset:
    """A dataset's settings out of `train`, its kind of record's section and its own."""
    content = get_collection(name).content
    own = overlay({"render": {}, "augment": {}, "train": {}}, overlay(sections[content], sections[name]))
    render = {kind: build(Render, size, f"{name}.render.{kind}") for kind, size in own["render"].items()}
    train = build(Train, overlay(sections["train"], own["train"]), f"{name}.train")
    return Dataset(render, build(Augment, own["augment"], f"{name}.augment"), train)


def _study(study: Any, where: str) -> RawTable:
    """A study's short forms written out: a list of models, a model or an explanation without a table of its own."""
    table = dict(expect_table(study, where))
    table["models"] = _models(table.get("models", {}), f"{where}.models")
    explained = expect_table(table.get("explanations", {}), f"{where}.explanations")
    table["explanations"] = {name: {"method": of} if isinstance(of, str) else of for name, of in explained.items()}
    return table


def _models(models: Any, where: str) -> RawTable:
    """Model -> its deviations, from a table or from a list of names and of tables of one name each."""
    if isinstance(models, list):
        entries = [pair for item in models for pair in _pairs(item, where)]
        names = [name for name, _ in entries]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise CardiumError(f"params.yaml, {where}: {twice} stands there twice.")
        models = dict(entries)
    return {name: {} if deviation is None else deviation for name, deviation in expect_table(models, where).items()}


def _pairs(item: Any, where: str) -> list[tuple[str, Any]]:
    return [(item, None)] if isinstance(item, str) else list(expect_table(item, where).items())


def _settings(table: RawTable, root: Path, overrides: dict[str, Any]) -> Settings:
    """The sections as Settings; those of datasets and studies are built already."""
    hints = typing.get_type_hints(Settings, include_extras=True)
    made = {name: table.pop(name) for name in ("datasets", "studies", "collections")}
    for f in dataclasses.fields(Settings):
        if f.name not in (*made, "root", "overrides") and table.get(f.name) is None:
            raise CardiumError(f"params.yaml: `{'datasets' if f.name == 'active' else f.name}` is missing.")
    built = {name: build(hints[name], value, "datasets" if name == "active" else name) for name, value in table.items()}
    return Settings(root=root, overrides=overrides, **made, **built)


# --------------------------------------------------------------------------------------- what sections say of each other


def _check(settings: Settings) -> None:
    for dataset in [*settings.active, *settings.studies]:
        if dataset not in settings.datasets:
            told = unknown("dataset of params.yaml:", dataset, list(settings.datasets))
            raise CardiumError(f"{told} One of your own has a table, data/{dataset}/{RECORDS} (docs/own_data.md).")
    for dataset in settings.active:
        if dataset not in settings.studies:
            raise CardiumError(f"params.yaml: `datasets` has {dataset}, and studies.{settings.profile} has nothing for it.")
    folds = settings.evaluate.test_folds
    if folds != "all" and not (folds.isdigit() and int(folds) < settings.split.folds):
        raise CardiumError(
            f"params.yaml, evaluate.test_folds: `{folds}` is neither all nor a fold from 0 to {settings.split.folds - 1}."
        )
    for name in PROTOCOLS:
        if name not in settings.protocols:
            raise CardiumError(f"params.yaml: `protocols.{name}` is missing.")
    for system, change in settings.systems.items():
        check_train(change, f"systems.{system}")
    for dataset, study in settings.studies.items():
        _check_deviations(settings, study, f"studies.{settings.profile}.{dataset}")
    _check_spaces(settings)


def _check_deviations(settings: Settings, study: Study, where: str) -> None:
    """Every system that a study names is there, and every setting is one of `train`."""
    places = [(f"{where}.{protocol}", getattr(study, protocol)) for protocol in PROTOCOLS]
    for name, model in study.models.items():
        of_model: StudiedModel = model
        places += [(f"{where}.models.{name}", of_model)]
        places += [(f"{where}.models.{name}.{protocol}", getattr(of_model, protocol)) for protocol in PROTOCOLS]
    places += [(f"{where}.fusions.{name}", fusion) for name, fusion in study.fusions.items()]
    for place, deviation in places:
        if deviation.system and deviation.system not in settings.systems:
            raise unknown(f"system of params.yaml, {place}:", deviation.system, list(settings.systems))
        check_train(deviation.train, f"{place}.train")


def _check_spaces(settings: Settings) -> None:
    """Every value that a search may come to is one that `train` takes."""
    for space, dimensions in settings.tune.spaces.items():
        for name, dimension in dimensions.items():
            where = f"tune.spaces.{space}.{name}"
            if [dimension.low != dimension.high, bool(dimension.choices), bool(dimension.sets)].count(True) != 1:
                raise CardiumError(f"params.yaml, {where}: give `low` and `high`, or `choices`, or `sets`.")
            if dimension.low > dimension.high or (dimension.log and dimension.low <= 0):
                raise CardiumError(f"params.yaml, {where}: `low` must be below `high`, and above 0 with `log`.")
            if name == "block" and dimension.choices:
                if not all(isinstance(choice, str) for choice in dimension.choices):
                    raise CardiumError(f'params.yaml, {where}: blocks are names, "" for none.')
                continue
            for tried in _tried(name, dimension):
                if {"views", "weights"} & tried.keys():
                    raise CardiumError(
                        f"params.yaml, {where}: a bank is shared by its runs: views and weights are not searched."
                    )
                check_part(Train, tried, where)


def _tried(name: str, dimension: Dimension) -> list[RawTable]:
    """The settings at the ends of a dimension, or all of them."""
    if dimension.sets:
        return list(dimension.sets.values())
    ends: list[Any] = [int(v) if dimension.whole else v for v in (dimension.low, dimension.high)]
    return [{name: value} for value in dimension.choices or ends]
