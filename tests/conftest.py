"""Tests see none of the caller's settings: a store, a run or a weights folder of the machine would change what they test."""

import gc
import os
from pathlib import Path

import pytest
from hypothesis import settings

for name in [name for name in os.environ if name.startswith(("MLFLOW_", "CARDIUM_"))]:
    del os.environ[name]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# How long an example takes says nothing while another test file runs beside this one.
settings.register_profile("cardium", deadline=None)
settings.load_profile("cardium")

# The two longest files: begun first, so that neither is left for the end, when nothing runs beside it.
_LONGEST = ("test_whole_way.py", "test_models.py", "test_recipes.py", "test_serving.py", "test_tune.py", "test_patients.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _LONGEST.index(item.path.name) if item.path.name in _LONGEST else len(_LONGEST))


def pytest_collection_finish() -> None:
    # What the imports have made stays; collections that go through all of it take an eighth of building a large model.
    gc.freeze()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a store without runs: making one takes seconds, copying it none."""
    from run_folders import make_project

    from cardium.tracking.store import connected

    settings = make_project(tmp_path_factory.mktemp("store"))
    with connected(settings):
        pass
    return settings.root / "mlflow.db"
