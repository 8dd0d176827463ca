"""The types of params.yaml -> its JSON schema (docs/params.schema.json), by which editors complete and check the file.

`python -m cardium.config.json_schema` prints it. What a key means is its comment in params.yaml: the committed file is the one
place that says it.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from pathlib import Path
from typing import Any, Literal

from cardium.config.load import section_types
from cardium.config.schema import Dataset, OwnCollection, StudiedModel, Study
from cardium.ranges import Range

_SIMPLE = {int: "integer", float: "number", str: "string", bool: "boolean"}


class Schemas:
    """The schemas of types, those of tables once each, in `defs`, and referred to by name.

    meanings: dotted key -> what it means, as `comments_of` gives them.
    """

    def __init__(self, meanings: dict[str, str]) -> None:
        self.meanings = meanings
        self.defs: dict[str, Any] = {}
        # Where params.yaml says what the fields of a type mean.
        self.places = {kind: name for name, kind in section_types().items() if dataclasses.is_dataclass(kind)}

    def of(self, kind: Any, where: str = "", *, partial: bool = False) -> dict[str, Any]:
        """The schema of one type. where: its dotted key, for its meaning. partial: no key of its tables is required."""
        found = (
            self._table(kind, partial=partial) if dataclasses.is_dataclass(kind) else self._value(kind, where, partial=partial)
        )
        return {"description": self.meanings[where], **found} if where in self.meanings else found

    def _table(self, kind: Any, *, partial: bool) -> dict[str, Any]:
        name = f"{kind.__name__}{'Change' if partial else ''}"
        if name not in self.defs:
            self.defs[name] = {}
            hints, fields = typing.get_type_hints(kind, include_extras=True), dataclasses.fields(kind)
            place = self.places.get(kind, "")
            properties = {f.name: self.of(hints[f.name], f"{place}.{f.name}", partial=partial) for f in fields}
            self.defs[name] = {"type": "object", "properties": properties, "additionalProperties": False}
            needed = [f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
            if needed and not partial:
                self.defs[name]["required"] = needed
        return {"$ref": f"#/$defs/{name}"}

    def _value(self, kind: Any, where: str, *, partial: bool) -> dict[str, Any]:
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin is typing.Annotated:
            schema: dict[str, Any] = {"type": _SIMPLE[arguments[0]]}
            for extra in arguments[1:]:
                if isinstance(extra, Range):
                    ends = {"minimum": extra.low, "maximum": extra.high, "exclusiveMinimum": extra.above}
                    schema |= {name: value for name, value in ends.items() if value is not None}
            return schema
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.of(arguments[1], partial=partial)}
        if origin is list:
            return {"type": "array", "items": self.of(arguments[0], partial=partial)}
        if kind is Any or isinstance(kind, types.UnionType):
            return {}
        if where.endswith(".test_folds"):  # `0` and `"0"` are the same fold.
            return {"type": ["string", "integer"]}
        return {"type": _SIMPLE[kind]}


def params_schema(meanings: dict[str, str]) -> dict[str, Any]:
    """The schema of a whole params.yaml."""
    schemas, sections = Schemas(meanings), section_types()
    partial = {name for name, kind in sections.items() if kind is Dataset}
    properties = {name: schemas.of(kind, name, partial=name in partial) for name, kind in sections.items()}
    changes = {name: schemas.of(kind, partial=True) for name, kind in sections.items()}
    schemas.of(Study)
    _allow_short_forms(schemas.defs["Study"], schemas.of(StudiedModel))
    properties["collections"] = {
        "description": meanings.get("collections", ""),
        "type": "object",
        "additionalProperties": schemas.of(OwnCollection, partial=True),
    }
    properties["studies"] = {
        "description": meanings.get("studies", ""),
        "type": "object",
        "additionalProperties": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Study"}},
    }
    properties["profiles"] = {
        "description": meanings.get("profiles", ""),
        "type": "object",
        "additionalProperties": {"type": "object", "properties": changes, "additionalProperties": False},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "params.yaml of cardium",
        "type": "object",
        "required": [*(name for name in sections if name not in partial), "studies"],
        "properties": properties,
        "additionalProperties": False,
        "$defs": schemas.defs,
    }


def _allow_short_forms(study: dict[str, Any], model: dict[str, Any]) -> None:
    """Lets a study's schema take what `config.load` writes out: lists of models, and explanations that are a method's name."""
    table = {"type": "object", "additionalProperties": {"anyOf": [model, {"type": "null"}]}}
    one = {"type": "object", "maxProperties": 1, "additionalProperties": model}
    study["properties"]["models"] = {"anyOf": [table, {"type": "array", "items": {"anyOf": [{"type": "string"}, one]}}]}
    explained = study["properties"]["explanations"]
    explained["additionalProperties"] = {"anyOf": [{"type": "string"}, explained["additionalProperties"]]}


def comments_of(text: str) -> dict[str, str]:
    """What the comments of params.yaml say of its keys: dotted key -> text.

    A comment behind a key is that key's; one on the lines above it is too where there is none behind.
    """
    meanings: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    above: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            above.append(line.lstrip("# "))
            continue
        found = re.match(r'( *)(?:"([^"]+)"|([\w-]+)):(?: |$)(.*)', line)
        if not found:
            above = []
            continue
        depth, key, rest = len(found[1]), found[2] or found[3], found[4]
        path = [(d, k) for d, k in path if d < depth] + [(depth, key)]
        behind = re.search(r"(?:^|\s)#\s+(.*)$", rest)
        words = behind[1] if behind else " ".join(above)
        if words:
            meanings[".".join(k for _, k in path)] = words.removeprefix("... ")
        above = []
    return meanings


def schema_text(root: Path) -> str:
    """The schema as the committed file holds it, with the comments of `root`/params.yaml."""
    meanings = comments_of((root / "params.yaml").read_text(encoding="utf-8"))
    return json.dumps(params_schema(meanings), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    from cardium.workspace import find_root

    print(schema_text(find_root()), end="")
