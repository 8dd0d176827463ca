"""A hash of a model's graph: its layers, their settings, how they are joined, and the code of cardium's own layers.

Two models of one hash have weights of the same shapes and compute the same from them.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cardium.provenance import code_digest

if TYPE_CHECKING:
    import keras


def graph_digest(model: keras.Model) -> str:
    """Hashes the graph of `model`. Names that Keras counts up (`conv2d_7`) differ between processes and do not count."""
    names = {layer.name: f"layer {number}" for number, layer in enumerate(model.layers)}
    config = {key: value for key, value in model.get_config().items() if key != "name"}
    said = json.dumps(_renamed(config, names), sort_keys=True, default=repr)
    learns = [layer.trainable for layer in model.layers]
    return hashlib.sha256(json.dumps([said, learns, _own_code(model)]).encode()).hexdigest()


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(inner, names) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_renamed(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


def _own_code(model: keras.Model) -> list[str]:
    """The code of the layers that are not Keras' own, whose version counts in its place."""
    modules = {type(layer).__module__ for layer in model.layers}
    files = [inspect.getsourcefile(sys.modules[name]) for name in sorted(modules) if name.partition(".")[0] != "keras"]
    return [code_digest(Path(file)) for file in files if file]
