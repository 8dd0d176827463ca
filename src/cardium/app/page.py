"""templates/ -> the pages of the app. No style and no script stands in them, so that the browser can be told to run none."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cardium import __version__
from cardium.app.answers import Answer, as_csv, as_json
from cardium.app.catalogue import Language, catalogue
from cardium.app.champions import Champion, Score
from cardium.reporting.page import TEMPLATES as SHARED
from cardium.reporting.page import strict_environment

if TYPE_CHECKING:
    import jinja2

_TEMPLATES = Path(__file__).parent / "templates"


def style() -> str:
    """The style of all pages: what the reports have, and the app's own."""
    return (SHARED / "page.css").read_text(encoding="utf-8") + (_TEMPLATES / "app.css").read_text(encoding="utf-8")


def script() -> str:
    """The one script, without which the pages work too."""
    return (_TEMPLATES / "page.js").read_text(encoding="utf-8")


def form(
    words: Language, champions: Sequence[Champion], missing: Sequence[str], limits: Mapping[str, Any], explains: bool
) -> str:
    """The page that files are dropped on. missing: datasets without a champion. limits: `most` answers, `megabytes`."""
    return _render("form.html.j2", words, champions=champions, missing=missing, explains=explains, **limits)


def answers(words: Language, found: Sequence[Answer], seconds: float) -> str:
    """The page of answers, with the same as files in it: nothing is left to be fetched afterwards."""
    champions = list({one.champion.dataset: one.champion for one in found if one.champion}.values())
    files = {
        "json_file": _data("application/json;charset=utf-8", as_json(found).encode()),
        "csv_file": _data("text/csv;charset=utf-8", as_csv(found).encode()),
    }
    return _render("answers.html.j2", words, answers=found, champions=champions, seconds=seconds, **files)


def error(words: Language, reason: str) -> str:
    """The page of what went wrong with a request."""
    return _render("error.html.j2", words, reason=reason)


def enter(words: Language, wrong: bool) -> str:
    """The page that asks for the token."""
    return _render("enter.html.j2", words, wrong=wrong)


def _render(template: str, words: Language, **context: Any) -> str:
    def score(given: Score) -> str:
        ends = "" if given.low is None or given.high is None else f" [{words.number(given.low)}; {words.number(given.high)}]"
        return f"{words.number(given.value)}{ends if words.code != 'en' else ends.replace(';', ',')}"

    texts = {
        "words": words,
        "word": words.word,
        "sentence": words.sentence,
        "number": words.number,
        "share": words.share,
        "local": words.local,
        "score": score,
    }
    languages, version = catalogue()["languages"], __version__
    return _environment().get_template(template).render(**texts, **context, languages=languages, version=version)


@cache
def _environment() -> jinja2.Environment:
    environment = strict_environment(_TEMPLATES)
    environment.filters["jpeg"] = lambda data: _data("image/jpeg", data)
    environment.filters["png"] = lambda data: _data("image/png", data)
    environment.filters["said"] = lambda text, words: words.sentence(text)
    return environment


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
