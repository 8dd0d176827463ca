"""Checks tables of params.yaml against the types of its sections; an error names the key's place and the closest known key."""

from __future__ import annotations

import contextlib
import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, Literal

from cardium.config.schema import RawTable, Train
from cardium.errors import CardiumError, closest
from cardium.ranges import Range


def overlay(base: RawTable, change: RawTable) -> RawTable:
    """`base` with `change` laid over it, table by table; values of `change` win."""
    result = dict(base)
    for key, value in (change or {}).items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        result[key] = overlay(base[key], value) if both else value
    return result


def build(kind: Any, value: Any, where: str) -> Any:
    """`value` checked against the type `kind`, tables becoming dataclasses; `where` is the key's path for messages."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        checked = {key: build(hints[key], item, dotted(where, key)) for key, item in _known_keys(kind, value, where).items()}
        for f in dataclasses.fields(kind):
            if f.name not in checked and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
                raise CardiumError(f"params.yaml: `{dotted(where, f.name)}` is missing.")
        return kind(**checked)  # type: ignore[operator]
    return _value(kind, value, where)


def check_part(kind: Any, value: Any, where: str) -> None:
    """As `build` for a table that need not hold every key: what it holds is checked, and thrown away."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        for key, item in _known_keys(kind, value, where, part=True).items():
            check_part(hints[key], item, dotted(where, key))
    elif typing.get_origin(kind) is dict and dataclasses.is_dataclass(typing.get_args(kind)[1]):
        for key, item in expect_table(value, where).items():
            check_part(typing.get_args(kind)[1], item, dotted(where, key))
    else:
        _value(kind, value, where)


def check_train(change: RawTable, where: str) -> None:
    """What may be laid over a run's `train`. Raises CardiumError for what a bank's runs share."""
    check_part(Train, change, where)
    fixed = sorted({"views", "weights"} & change.keys())
    if fixed:
        raise CardiumError(f"params.yaml, {where}.{fixed[0]}: a bank is shared by its runs: set <dataset>.train.{fixed[0]}.")


def _known_keys(kind: Any, value: Any, where: str, part: bool = False) -> RawTable:
    """`value` as a table whose keys are fields of the dataclass `kind`. part: a message names the table, then the key."""
    names = [f.name for f in dataclasses.fields(kind)]
    for key in expect_table(value, where):
        if key not in names:
            place, shown = (f", {where}", key) if part else ("", dotted(where, key))
            raise CardiumError(f"params.yaml{place}: unknown key `{shown}`.{closest(str(key), names)}")
    return dict(value)


def expect_table(value: Any, where: str) -> RawTable:
    """`value`, if it is a table. Raises CardiumError."""
    if not isinstance(value, dict):
        raise CardiumError(f"params.yaml, {where}: expected a table, got {value!r}.")
    return value


def _value(kind: Any, value: Any, where: str) -> Any:
    """A value of a type that is no dataclass: a choice, a table, a list, a number with its range, a text."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        checked = _number(arguments[0], value, where)
        for extra in arguments[1:]:
            fault = extra.fault(checked) if isinstance(extra, Range) else ""
            if fault:
                raise CardiumError(f"params.yaml, {where}: {checked} {fault}.")
        return checked
    if origin is Literal:
        # YAML reads a bare `none` as text but `null` and `~` as nothing.
        if value not in arguments:
            hint = closest(str(value), [str(choice) for choice in arguments])
            raise CardiumError(f"params.yaml, {where}: `{value}` is not one of {', '.join(map(str, arguments))}.{hint}")
        return value
    if origin is dict:
        return {str(key): build(arguments[1], item, dotted(where, key)) for key, item in expect_table(value, where).items()}
    if origin is list:
        if not isinstance(value, list):
            raise CardiumError(f"params.yaml, {where}: expected a list, got {value!r}.")
        return [build(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if kind is Any or kind is Path or isinstance(kind, types.UnionType):
        return value
    return _number(kind, value, where)


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _number(kind: Any, value: Any, where: str) -> Any:
    if kind is str and where.endswith(".test_folds") and isinstance(value, int):
        value = str(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        value = float(value)
    if kind is float and isinstance(value, str):
        with contextlib.suppress(ValueError):  # YAML 1.1 reads 1e-4, without a point, as text.
            value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise CardiumError(f"params.yaml, {where}: expected {_WORDS.get(kind, kind.__name__)}, got {value!r}.")
    return value


def dotted(where: str, key: Any) -> str:
    """The path of a key below `where`."""
    return f"{where}.{key}" if where else str(key)
