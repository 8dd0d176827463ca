"""The one error that a user sees: what is wrong, where, and what to do, in one line, without a secret.

Other people's words in it and elsewhere, names of files for instance, are shown so that they do nothing (`harmless`).
"""

from __future__ import annotations

import re
import sys
import unicodedata

# What an address in a text is: a scheme and what follows it, up to the next space, quote or bracket.
_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s'\"<>()]+")
_LEFT_OUT = "***"
# Unicode's categories of what a terminal obeys or does not show: controls, formats (text from right to left), line ends.
_ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_SERVER = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)(?!/)(.*)", re.DOTALL)


class CardiumError(Exception):
    """A user's mistake or a missing thing outside the program. The command line prints it as one line, without a traceback."""


def harmless(text: str) -> str:
    """`text` as it may be shown on a terminal and written as UTF-8.

    Control characters, which would act there, and bytes of a file's name that are no UTF-8 are written as escapes.
    """
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") if _encodes(text) else ascii(text)[1:-1]
    return "".join(sign if sign in "\n\t" or unicodedata.category(sign) not in _ACTING else _escaped(sign) for sign in text)


def harmless_cell(text: str) -> str:
    """`text` as a cell of a table that a spreadsheet may open: what would begin a formula there is quoted."""
    text = harmless(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _encodes(text: str) -> bool:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode()


def first_line(error: BaseException) -> str:
    """The first line of an error's text, at most 200 characters; its type where it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def system_reason(error: OSError) -> str:
    """What the system says is wrong with a file, in lower case and without the file's name: `no such file or directory`."""
    return (error.strerror or str(error)).lower()


def not_installed(module: str) -> str:
    """The words for a library that this Python lacks, most often because the project's environment is not activated."""
    return (
        f"This Python ({sys.executable}) has no `{module}`: use the project's environment "
        "(`make setup`, then `source .venv/bin/activate`)."
    )


# Names that an error lists at most.
_LISTED = 20


def closest(name: str, known: list[str]) -> str:
    """The words `did you mean ...?` for the known name nearest to `name`, or an empty string when none is near."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean `{near[0]}`?" if near else ""


def unknown(kind: str, name: str, known: list[str]) -> CardiumError:
    """The error for a name that is not in a registry: the nearest one, and the names, of many the first."""
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    more += ", which `cardium models` lists" if more and kind == "model" else ""
    return CardiumError(f"Unknown {kind} `{name}`.{closest(name, known)} Known: {', '.join(known[:_LISTED])}{more}.")


def printable(uri: str) -> str:
    """The URI of a server or a database as it may be shown: without user, password and token, `***` for a query's values.

    A user's name is left out too: many servers take a token in its place. A `/` or `@` that a password has unquoted is taken as
    part of the password. Where a `?` or `#` stands before an `@`, nobody can tell a password from a query: only the scheme is
    left.
    """
    server = _SERVER.fullmatch(uri)
    if server is None:
        return _without_values(uri)
    scheme, rest = server.groups()
    user, _, rest = rest.rpartition("@")
    if {"?", "#"} & set(user):
        return scheme + _LEFT_OUT
    rest, sharp, _ = rest.partition("#")
    return scheme + _without_values(rest) + (f"#{_LEFT_OUT}" if sharp else "")


def masked(text: str, uri: str = "") -> str:
    """`text`, an error's for instance, with every address in it made printable; `uri` first, as a whole."""
    if uri:
        text = text.replace(uri, printable(uri))
    return _ADDRESS.sub(lambda found: printable(found.group()), text)


def _without_values(rest: str) -> str:
    """The path and the names of the query's values."""
    path, question, query = rest.partition("?")
    if not question:
        return rest
    names = [name for name, _, _ in (part.partition("=") for part in query.split("&"))]
    # A part without `=` may be a secret itself.
    shown = [f"{name}={_LEFT_OUT}" if "=" in part else _LEFT_OUT for name, part in zip(names, query.split("&"), strict=True)]
    return f"{path}?{'&'.join(shown)}"
