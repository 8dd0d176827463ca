"""The rooms of src/cardium: an import goes down, no two rooms import each other, and none imports from stages."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_pipeline import SOURCE, imports, module_path

PACKAGE = SOURCE / "cardium"
# From the top down: a room imports only rooms below it. The ground files are below all of them.
ROOMS = (
    "cli", "pipeline", "stages", "app", "batch", "serving", "tracking", "tuning", "explain", "audit", "reporting",
    "evaluation", "runs", "training", "data", "config", "models", "download", "datasets", "demo", "imaging",
)  # fmt: skip
GROUND = {
    "atomic", "errors", "parallel", "process_environment", "progress", "provenance", "ranges", "tensorflow_import",
    "workspace", "yaml_file",
}  # fmt: skip


def room_of(name: str) -> str:
    """`cardium.models.cnn` -> `models`; `cardium.errors` -> `errors`."""
    return name.split(".")[1] if "." in name else ""


def arrows() -> dict[tuple[str, str], list[str]]:
    """(room, room that it imports) -> where; imports inside of functions count, those for types alone do not."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        for target in imports(path):
            own, other = room_of(name.removesuffix(".__init__")), room_of(target)
            if own != other and own and other:
                found.setdefault((own, other), []).append(f"{name} -> {target}")
    return found


ARROWS = arrows()


def test_every_file_is_in_a_room_or_on_the_ground() -> None:
    names = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir() if path.suffix in ("", ".py")}
    assert names - {"__init__", "__main__", "__pycache__", "py"} - {"py.typed"} == {*ROOMS, *GROUND}


@pytest.mark.parametrize("pair", sorted(ARROWS), ids="-".join)
def test_a_room_imports_only_what_is_below_it(pair: tuple[str, str]) -> None:
    own, other = pair
    if own in ("__main__", "__init__"):
        return
    if own in GROUND:
        assert other in GROUND, ARROWS[pair]
    elif other not in GROUND:
        assert ROOMS.index(own) < ROOMS.index(other), ARROWS[pair]


def test_no_circle_within_a_room() -> None:
    """Modules of one room do not import each other in a circle; a package's face may import its modules."""
    for room in ROOMS:
        folder = PACKAGE / room
        if not folder.is_dir():
            continue
        graph = {
            f"cardium.{room}.{path.stem}": {name for name in imports(path) if name.startswith(f"cardium.{room}.")}
            for path in folder.glob("*.py")
            if path.stem != "__init__"
        }
        while graph:
            free = [name for name, targets in graph.items() if not (targets - {name}) & graph.keys()]
            assert free, f"a circle among {sorted(graph)}"
            for name in free:
                del graph[name]


def test_the_ground_files_are_few() -> None:
    assert all(isinstance(module_path(f"cardium.{name}"), Path) for name in GROUND)
    assert len(GROUND) <= 10
