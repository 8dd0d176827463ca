"""catalogue.yaml -> the page's texts in one of its languages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("catalogue.yaml")
FIRST = "en"


@cache
def catalogue() -> Mapping[str, Any]:
    """The content of catalogue.yaml: `languages`, `words`, `sentences`."""
    import yaml

    return dict(yaml.safe_load(_FILE.read_text(encoding="utf-8")))


def language_of(asked: str, accepted: str = "") -> str:
    """The page's language. asked: its code, "" or unknown for none; accepted: the browser's Accept-Language, best first."""
    known = catalogue()["languages"]
    for code in [asked, *(part.partition(";")[0].strip()[:2].lower() for part in accepted[:200].split(","))]:
        if code in known:
            return str(code)
    return FIRST


@dataclass(frozen=True)
class Language:
    """The texts in the language of this code."""

    code: str

    def word(self, name: str, /, **values: Any) -> str:
        """The text of this name, filled in with `values`. Raises KeyError for an unknown name or a missing value."""
        return str(catalogue()["words"][name][self.code]).format(**values)

    def sentence(self, text: str) -> str:
        """What a reader of files said in English, translated as far as the catalogue has it: details stay as they are."""
        known = catalogue()["sentences"]
        found = known.get(text)
        if self.code == FIRST or found:
            return str(found[self.code]) if found and self.code != FIRST else text
        kind, colon, details = text.partition(": ")
        found = known.get(kind)
        return f"{found[self.code]}{colon}{details}" if found else text

    def number(self, value: float, digits: int = 2) -> str:
        """A number as the language writes it."""
        return self.local(f"{value:.{digits}f}")

    def local(self, text: str) -> str:
        """A number's English text as the language writes it."""
        return text if self.code == FIRST else text.replace(".", ",")

    def share(self, value: float) -> str:
        """`97 %`."""
        return f"{100 * value:.0f} %"
