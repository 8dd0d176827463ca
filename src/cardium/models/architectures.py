"""The registry of architectures: whole networks of their own, trained end to end from a rendering, without a backbone.

A new architecture is one function with `@register_architecture(...)`, in a module that `models/__init__.py` imports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cardium.errors import CardiumError

# float32 pixels 0-255, classes, dropout -> probabilities (n, classes).
Build = Callable[[Any, int, float], Any]


@dataclass(frozen=True)
class Architecture:
    """`rendering`: the kind of array that `build` takes: `image` (n, h, w, 3), `leads` (n, 13, h, w) or `traces` (n, h, w)."""

    name: str
    rendering: str
    build: Build
    min_side: int


ARCHITECTURES: dict[str, Architecture] = {}


def register_architecture(rendering: str, *, min_side: int = 8) -> Callable[[Build], Build]:
    """Registers a function under its own name; `min_side`: the least height and width of its input in pixels."""

    def register(build: Build) -> Build:
        ARCHITECTURES[build.__name__] = Architecture(build.__name__, rendering, build, min_side)
        return build

    return register


def build_architecture(name: str, pixels: Any, classes: int, dropout: float) -> Any:
    """The named architecture on a Keras tensor `pixels`. Raises CardiumError when the pixels are too few."""
    row = ARCHITECTURES[name]
    height, width = pixels.shape[2:4] if row.rendering == "leads" else pixels.shape[1:3]
    if min(height, width) < row.min_side:
        raise CardiumError(
            f"{name} needs {row.rendering} of at least {row.min_side} pixels a side; render is {height}x{width} (params.yaml)."
        )
    return row.build(pixels, classes, dropout)
