"""The registry of architectures: whole networks of their own, trained end to end from a rendering, without a backbone.

A new architecture is one function with `@register_architecture(...)`, in a module that `models/__init__.py` imports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cardium.errors import CardiumError

# float32 pixels 0-255, classes, dropout -> probabilities (n, classes); and the named options, by keyword.
Build = Callable[..., Any]


@dataclass(frozen=True)
class Architecture:
    """`renderings`: the families of arrays that `build` takes (see imaging.kinds.family), the first one by default.

    options: which of `rendering` (the family) and `padding` (`masked` or `read`) `build` wants to know. cam: whether it has
    one layer `cam`, its last spatial map.
    """

    name: str
    renderings: tuple[str, ...]
    build: Build
    min_side: int
    options: tuple[str, ...] = ()
    cam: bool = True


ARCHITECTURES: dict[str, Architecture] = {}


def register_architecture(
    *renderings: str, min_side: int = 8, options: tuple[str, ...] = (), cam: bool = True
) -> Callable[[Build], Build]:
    """Registers a function under its own name; `min_side`: the least height and width of its input in pixels."""

    def register(build: Build) -> Build:
        ARCHITECTURES[build.__name__] = Architecture(build.__name__, renderings, build, min_side, options, cam)
        return build

    return register


def build_architecture(
    name: str, pixels: Any, classes: int, dropout: float, *, rendering: str = "", padding: str = "masked"
) -> Any:
    """The named architecture on a Keras tensor `pixels` of the family `rendering`, its first one by default.

    Raises CardiumError when the pixels are too few.
    """
    row = ARCHITECTURES[name]
    form = rendering or row.renderings[0]
    height, width = pixels.shape[1:3] if form in ("image", "traces", "heart") else pixels.shape[2:4]
    if min(height, width) < row.min_side:
        raise CardiumError(
            f"{name} needs {form} of at least {row.min_side} pixels a side; render is {height}x{width} (params.yaml)."
        )
    known = {"rendering": form, "padding": padding}
    return row.build(pixels, classes, dropout, **{option: known[option] for option in row.options})
