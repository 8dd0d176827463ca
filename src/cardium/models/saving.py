"""A model -> its file, the same bytes for the same model: Keras writes the moment and addresses in memory into it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

# The first moment that a zip file knows.
_MOMENT = (1980, 1, 1, 0, 0, 0)
_SHARED = "shared_object_id"


def save_model(model: keras.Model, path: Path) -> None:
    """Saves `model` as `path` (.keras), as Keras reads it, without what differs between two saves of one model."""
    model.save(path)
    with zipfile.ZipFile(path) as saved:
        members = {name: saved.read(name) for name in saved.namelist()}
    metadata = json.loads(members["metadata.json"])
    metadata.pop("date_saved", None)
    members["metadata.json"] = json.dumps(metadata).encode()
    members["config.json"] = json.dumps(_numbered(json.loads(members["config.json"]), {})).encode()
    with zipfile.ZipFile(path, "w") as plain:
        for name, data in members.items():
            plain.writestr(zipfile.ZipInfo(name, _MOMENT), data)


def _numbered(value: Any, seen: dict[int, int]) -> Any:
    """Numbers the objects that layers share in the order in which they come."""
    if isinstance(value, dict):
        return {
            key: seen.setdefault(inner, len(seen)) if key == _SHARED else _numbered(inner, seen) for key, inner in value.items()
        }
    return [_numbered(inner, seen) for inner in value] if isinstance(value, list) else value
