"""The collections that cardium reads: one file each, which turns its folders, names and tables into records.

A file of this package with a dict `COLLECTIONS` (name -> Collection) is the whole of a new dataset; nothing lists it elsewhere.
A project may have collections of its own, each a table (of_table.py): reading its params.yaml makes them known here.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType

from cardium.datasets.collection import Collection, Found, Mendeley, Rejected
from cardium.datasets.measure import Facts
from cardium.errors import CardiumError, unknown

__all__ = ["Collection", "Facts", "Found", "Mendeley", "Rejected", "built_in", "get_collection", "list_collections", "set_own"]


def list_collections() -> list[str]:
    """The names of all collections, by `Collection.order`, then by name."""
    collections = _collections()
    return sorted(collections, key=lambda name: (collections[name].order, name))


def get_collection(name: str) -> Collection:
    """The collection called `name`. Raises CardiumError, with the known names, if there is none."""
    collections = _collections()
    if name not in collections:
        raise unknown("dataset", name, sorted(collections))
    return collections[name]


def set_own(collections: Mapping[str, Collection]) -> None:
    """Makes the collections of a project's own known, in place of those of the project before it."""
    _own.clear()
    _own.update(collections)


def built_in() -> list[str]:
    """The names of the collections of this package."""
    return sorted(name for module in _modules() for name in module.COLLECTIONS)


# The collections of the project whose settings were read last.
_own: dict[str, Collection] = {}


def _collections() -> dict[str, Collection]:
    """name -> collection, of all modules and of the project. Raises CardiumError for a name that two modules use."""
    found: dict[str, Collection] = {}
    owner: dict[str, str] = {}
    for module in _modules():
        collections: dict[str, Collection] = module.COLLECTIONS
        for name, collection in collections.items():
            if name in found:
                raise CardiumError(f"{module.__name__} and {owner[name]} both have a dataset `{name}`: rename one of them.")
            if name != collection.name:
                raise CardiumError(f"{module.__name__} lists the dataset `{collection.name}` as `{name}`: use one name.")
            found[name], owner[name] = collection, module.__name__
    return found | _own


@functools.cache
def _modules() -> list[ModuleType]:
    """The modules of this package that have COLLECTIONS, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return [module for module in modules if hasattr(module, "COLLECTIONS")]
