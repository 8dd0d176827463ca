"""dvc.yaml, params.yaml, MLproject and the code agree: dependencies, names, settings."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cardium import cli, config
from cardium.evaluation import published

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# Modules that carry a stage's files and words but cannot change what it computes; plots only where figures are the result.
CARRIERS = {
    "errors", "progress", "atomic", "workspace", "provenance", "config", "reporting.plots", "tracking", "tracking.registry",
    "parallel", "data.tracked",
}  # fmt: skip


def module_path(name: str) -> Path | None:
    base = SOURCE / Path(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def imports(path: Path) -> set[str]:
    """The cardium modules that a file imports, anywhere in it but under TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    found = set()
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in found if name.startswith("cardium") and module_path(name)}


def says_only_its_docstring(path: Path) -> bool:
    """Whether a file is a package's face, without code that could change a result."""
    return path.name == "__init__.py" and len(ast.parse(path.read_text()).body) <= 1


def closure(stage: str) -> set[str]:
    """Every module that a stage imports, itself or through others, as paths below the root; carriers left out."""
    waiting, seen = [f"cardium.stages.{stage}"], set()
    while waiting:
        name = waiting.pop()
        path = module_path(name)
        assert path is not None
        if name in seen or name == "cardium" or says_only_its_docstring(path):
            continue
        seen.add(name)
        if name.removeprefix("cardium.") not in CARRIERS:
            waiting += imports(path)
    return {
        str(path.relative_to(ROOT))
        for name in seen
        if name.removeprefix("cardium.") not in CARRIERS and (path := module_path(name))
    }


def body(stage: str) -> dict[str, Any]:
    return PIPELINE[stage].get("do", PIPELINE[stage])


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_depends_on_the_modules_that_it_imports(stage: str) -> None:
    if stage == "tracked":
        assert PIPELINE[stage]["always_changed"], "it asks about data/ at every run"
        return
    declared = [dep for dep in body(stage)["deps"] if dep.startswith("src/")]
    needed = closure(stage)
    missing = {path for path in needed if not any(path == dep or path.startswith(f"{dep}/") for dep in declared)}
    assert not missing, f"{stage} imports what its deps do not list"
    # A collection's own module is found by its name, not by an import.
    found_by_name = {
        "src/cardium/datasets/chd.py",
        "src/cardium/datasets/cmri.py",
        "src/cardium/datasets/ecg.py",
        "src/cardium/datasets/scan.py",
    }
    declared = [dep for dep in declared if dep not in found_by_name]
    carriers = {str(path.relative_to(ROOT)) for name in CARRIERS if (path := module_path(f"cardium.{name}"))}
    unused = {dep for dep in declared if not any(path == dep or path.startswith(f"{dep}/") for path in needed)}
    unused -= {dep for dep in declared if dep.startswith("src/cardium/reporting/templates/")}
    assert unused <= carriers, f"{stage} lists what it does not import"


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_depends_on_the_templates_that_it_renders(stage: str) -> None:
    texts = [(ROOT / path).read_text() for path in closure(stage)]
    waiting = {name for text in texts for name in re.findall(r'\brender\(\s*"([^"]+)"', text)}
    needed: set[str] = set()
    while waiting:
        name = waiting.pop()
        needed.add(name)
        template = (SOURCE / "cardium" / "reporting" / "templates" / name).read_text()
        waiting |= set(re.findall(r'{% (?:extends|include) "([^"]+)"', template)) - needed
    declared = {Path(dep).name for dep in body(stage).get("deps", []) if dep.startswith("src/cardium/reporting/templates/")}
    assert declared == needed
    assert bool(needed) == (stage in ("validate", "audit", "report"))


@pytest.mark.parametrize("stage", PIPELINE)
def test_no_stage_depends_on_anything_below_data(stage: str) -> None:
    # DVC would then rewrite data.dvc whenever data changed (tests/test_tracked.py).
    assert not [dep for dep in body(stage).get("deps", []) if dep == "data" or dep.startswith("data/")]


def test_the_settings_that_stages_watch_exist() -> None:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    for profile in raw["profiles"]:
        for stage in PIPELINE:
            for key in body(stage).get("params", []):
                for dataset in config.DATASETS:
                    if "${key}" in key:
                        continue  # A line of the table that the stage goes through: there by construction.
                    known = {
                        "profile": profile,
                        "item.dataset": dataset,
                        "item": dataset,
                        "item.protocol": "honest",
                        "item.kind": next(iter(raw[dataset]["render"])),
                        "item.rendering": next(iter(raw[dataset]["render"])),
                    }
                    name = re.sub(r"\$\{([^}]+)\}", lambda found, known=known: known[found[1]], key)
                    table = raw
                    for part in name.split("."):
                        assert part in table, f"{stage}: {name}"
                        table = table[part]


def test_profiles_name_the_same_sections() -> None:
    profiles = yaml.safe_load((ROOT / "params.yaml").read_text())["profiles"]
    assert profiles["demo"].keys() == profiles["study"].keys()


def chosen(profile: str) -> config.Settings:
    """The settings that `cardium profile` makes."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    return config.resolve({**raw, "profile": profile, **raw["lines"][profile]}, ROOT, {})


@pytest.mark.parametrize("profile", ["demo", "study"])
def test_every_run_reads_what_its_model_takes(profile: str) -> None:
    from cardium.models import bank_of, reads_rendering

    settings = chosen(profile)
    for name, run in settings.runs.items():
        assert run.bank == bank_of(run.model), name
        kind = settings.rendering_of(run)
        assert run.bank or run.reads == f"processed/{run.dataset}/{kind}", name
        assert reads_rendering(run.model, kind), name
        assert kind in settings.datasets[run.dataset].render, name
        assert run.bank or f"{run.dataset}-{kind}" in settings.renderings, name
        settings.train_of(run)


def test_the_study_runs_every_model_of_the_published_systems() -> None:
    settings = chosen("study")
    for dataset, models in published.PUBLISHED_SCORES.items():
        made = {line.model for line in settings.fusions.values()} | {"ensemble"}
        for protocol in ("honest", "published"):
            runs = {run.model for run in settings.runs.values() if run.dataset == dataset and run.protocol == protocol}
            assert set(models) <= runs | made, (dataset, protocol)


def test_mlproject_passes_what_the_verbs_take() -> None:
    project = yaml.safe_load((ROOT / "MLproject").read_text())
    assert project["name"] == "cardium"
    parser = cli._parser()
    for name, point in project["entry_points"].items():
        assert point["description"], name
        parameters = point.get("parameters", {})
        assert all({"type", "default", "description"} <= set(parameter) for parameter in parameters.values()), name
        command = point["command"]
        assert set(re.findall(r"\{(\w+)\}", command)) == set(parameters), name
        words = command.split("-m cardium ")[1].split()
        values = {f"{{{key}}}": str(parameter["default"]) for key, parameter in parameters.items()}
        arguments = parser.parse_args([values.get(word, word) for word in words])
        assert arguments.run


def test_conda_takes_nothing_but_python_and_the_lock() -> None:
    environment = yaml.safe_load((ROOT / "conda.yaml").read_text())
    assert environment["dependencies"] == ["python=3.11", "pip", {"pip": ["-r requirements.lock"]}]


def test_no_committed_file_names_a_package_registry() -> None:
    for name in ("requirements.lock", "pyproject.toml", "conda.yaml", "Makefile"):
        text = (ROOT / name).read_text()
        assert not re.search(r"--(extra-)?index-url|--find-links |https?://(pypi|files)", text), name
    hashes = (ROOT / "requirements.lock").read_text()
    packages = re.findall(r"^[a-z0-9][\w.\-\[\]]*==", hashes, re.M)
    assert len(packages) > 100
    assert hashes.count("--hash=sha256:") > len(packages)
