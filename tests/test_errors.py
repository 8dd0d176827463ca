"""errors: no secret is printed, wherever in an address it stands."""

from __future__ import annotations

import os
import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardium.errors import harmless, harmless_cell, masked, printable

# Letters that no host, path or name below has, and what people put into passwords unquoted.
SECRET = st.text("QXZ" + string.digits + "/?#@:&=!$%", min_size=1).map(lambda text: f"Q{text}Q")


@given(SECRET, SECRET)
def test_users_passwords_and_tokens_are_left_out(user: str, password: str) -> None:
    for uri in (f"http://{user}:{password}@host.org:5000/api", f"https://{user}@host.org:5000/api"):
        assert printable(uri).partition("://")[2] in ("host.org:5000/api", "***")
        assert "Q" not in masked(f"the server at {uri} is away", uri)


@given(st.lists(st.tuples(st.sampled_from(["sslmode", "password", "key"]), SECRET), min_size=1, max_size=4))
def test_a_querys_values_are_left_out_and_its_names_stay(query: list[tuple[str, str]]) -> None:
    rest = "&".join(f"{name}={value.replace('&', '')}" for name, value in query)
    for start in ("postgresql://host/db", "sqlite:////folder/mlflow.db"):
        shown = printable(f"{start}?{rest}")
        assert "Q" not in shown
        if not {"@", "#"} & set(rest):
            assert shown == f"{start}?" + "&".join(f"{name}=***" for name, _ in query)


@given(st.text())
def test_it_takes_any_text_and_changes_nothing_twice(text: str) -> None:
    assert printable(printable(text)) == printable(text)
    masked(text, text)


@pytest.mark.parametrize(
    "uri", ["sqlite:////home/me@work/a#b/mlflow.db", "http://127.0.0.1:5000", "models:/cardium-cmri@champion", "mlflow.db"]
)
def test_what_holds_no_secret_stays_as_it_is(uri: str) -> None:
    assert printable(uri) == uri
    assert masked(f"no {uri} here") == f"no {uri} here"


@given(st.text(st.characters(codec=None)) | st.binary().map(os.fsdecode))
def test_what_is_shown_does_nothing_and_is_utf_8(text: str) -> None:
    shown = harmless(text)
    shown.encode("utf-8")
    assert not any(unicodedata.category(sign)[0] == "C" and sign not in "\n\t" and sign.isascii() for sign in shown)
    assert "\x1b" not in shown
    if text.isascii() and text.isprintable():
        assert shown == text


def test_escapes_say_what_stood_there() -> None:
    assert harmless("\x1b[31mred\x07.png") == "\\x1b[31mred\\x07.png"
    assert harmless(os.fsdecode(b"IM\xff1.jpg")) == "IM\\xff1.jpg"
    assert harmless("gpj.\u202e1MI") == "gpj.\\u202e1MI"
    assert harmless("José 心電図 1.png") == "José 心電図 1.png"
    assert [harmless_cell(text) for text in ("=1+1", "+1", "-1", "@a", "a=1", "")] == ["'=1+1", "'+1", "'-1", "'@a", "a=1", ""]
