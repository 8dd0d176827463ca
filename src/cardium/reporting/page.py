"""templates/ -> HTML pages that open from disk: styles and pictures inside, no script, no network."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parent / "templates"


# What a page's verdict means for its reader -> the class in page.css that it is shown by.
_MARKS = {"stopped": "critical", "leak": "critical", "warnings": "warning", "passed": "good", "clean": "good"}


def render(template: str, **context: Any) -> str:
    """The page that `template` of templates/ makes of `context`. All text is escaped; a name that is missing is an error.

    Functions in `context` are there for the template to call. Filter: `mark`, the class of page.css for a verdict.
    """
    environment = strict_environment(TEMPLATES)
    environment.filters["mark"] = _MARKS.__getitem__
    return environment.get_template(template).render(**context)


def strict_environment(templates: Path) -> jinja2.Environment:
    """What makes pages of the templates in a folder: all text is escaped, and a name that is missing is an error."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


@dataclass(frozen=True)
class Embedded:
    """A picture inside a page. source: a data: address. width, height: in pixels; a page that says them does not move later."""

    source: str
    width: int
    height: int


def embedded(path: Path) -> Embedded | None:
    """A PNG file as a picture inside a page; None where there is none."""
    if not path.is_file():
        return None
    data = path.read_bytes()
    # Behind the signature and the header's length and name stand its width and height.
    width, height = struct.unpack(">II", data[16:24])
    return Embedded("data:image/png;base64," + base64.b64encode(data).decode("ascii"), width, height)


def embedded_photograph(pixels: NDArray[np.uint8]) -> str:
    """Pixels (H, W) or (H, W, 3), 0-255, as a JPEG's data: address: small, for thumbnails."""
    from PIL import Image

    data = BytesIO()
    Image.fromarray(pixels).save(data, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")
