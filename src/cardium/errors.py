"""The one error that a user sees: what is wrong, where, and what to do, in one line."""

import sys


class CardiumError(Exception):
    """A user's mistake or a missing thing outside the program. The command line prints it as one line, without a traceback."""


def not_installed(module: str) -> str:
    """The words for a library that this Python lacks, most often because the project's environment is not activated."""
    return (
        f"This Python ({sys.executable}) has no `{module}`: use the project's environment "
        "(`make setup`, then `source .venv/bin/activate`)."
    )


def closest(name: str, known: list[str]) -> str:
    """The words `did you mean ...?` for the known name nearest to `name`, or an empty string when none is near."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean `{near[0]}`?" if near else ""


def unknown(kind: str, name: str, known: list[str]) -> CardiumError:
    """The error for a name that is not in a registry: it lists the names and the nearest one."""
    return CardiumError(f"Unknown {kind} `{name}`.{closest(name, known)} Known: {', '.join(known)}.")
