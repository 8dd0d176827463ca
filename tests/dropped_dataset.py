"""The docs' recipe for a new dataset: one file dropped into src/cardium/datasets, and nothing else of the code changed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from cardium import datasets

SOURCE = Path(datasets.__file__).parent


def drop(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, of: str = "cmri") -> Path:
    """Adds a dataset `name`, a copy of the file of `of` without a demo, for one test. `folder`: an empty one to put it in."""
    text = (SOURCE / f"{of}.py").read_text(encoding="utf-8")
    text = text.replace(f'"{of}": Collection(', f'"{name}": Collection(').replace(f'name="{of}"', f'name="{name}"')
    text = re.sub(r"^ *(demo|order)=.*\n", "", text, flags=re.MULTILINE)
    path = folder / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(folder)])
    monkeypatch.setitem(sys.modules, f"{datasets.__name__}.{name}", None)
    monkeypatch.delitem(sys.modules, f"{datasets.__name__}.{name}")
    monkeypatch.setattr(datasets, "_modules", datasets._modules.__wrapped__)
    return path
