"""errors: no secret is printed, wherever in an address it stands."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardium.errors import masked, printable

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
