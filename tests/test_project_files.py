"""The files around the code agree with it and with each other: versions, Pythons, dependencies, paths, commands."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import cardium

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [Requirement(line) for line in PROJECT["dependencies"]]
DEV = [Requirement(line) for line in PROJECT["optional-dependencies"]["dev"]]
# What one engine of `cardium score` needs, and may lack.
ENGINES = {name: Requirement(PROJECT["optional-dependencies"][name][0]) for name in ("spark", "ray")}
PYTHONS = ["3.11", "3.12", "3.13"]
PAGES = [ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md")]
FILES = [*PAGES, *(ROOT / name for name in ("CITATION.cff", ".pre-commit-config.yaml")), *(ROOT / ".github").rglob("*.*")]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    released = re.findall(r"^## (\d\S*) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert PROJECT["version"] == cardium.__version__ == citation["version"] == released[0][0]
    assert citation["date-released"] == released[0][1]
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]


def test_the_same_pythons_everywhere() -> None:
    stated = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert stated == PYTHONS == [f"3.{minor}" for minor in range(30) if f"3.{minor}" in allowed]
    lowest, highest = (tuple(map(int, version.split("."))) for version in (PYTHONS[0], PYTHONS[-1]))
    assert f"{lowest} <= v <= {highest}" in (ROOT / "Makefile").read_text()
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    job = workflow["jobs"]["test"]
    assert set(job["strategy"]["matrix"]["python"]) <= set(PYTHONS)
    assert job["steps"][-1] == {"run": ".ci/run"}
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make test"


def test_the_lock_holds_what_is_asked_for() -> None:
    lines = re.findall(r"^([a-z0-9][\w.\-]*)(?:\[\S+\])?==([^\s;]+)", (ROOT / "requirements.lock").read_text(), re.M)
    for requirement in [*REQUIREMENTS, *DEV]:
        versions = [version for name, version in lines if name == normal(requirement.name)]
        assert versions, f"{requirement.name} is not in requirements.lock: make lock"
        assert all(version in requirement.specifier for version in versions), requirement


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engines_lock_fits_beside_the_lock(engine: str) -> None:
    of_file = {
        name: dict(re.findall(r"^([a-z0-9][\w.\-]*)==([^\s;]+)", (ROOT / name).read_text(), re.M))
        for name in ("requirements.lock", f"requirements-{engine}.lock")
    }
    lock, own = of_file.values()
    assert own[ENGINES[engine].name] in ENGINES[engine].specifier
    assert {name: version for name, version in own.items() if lock.get(name, version) != version} == {}
    assert (ROOT / f"requirements-{engine}.lock").read_text().count("--hash=") >= len(own)


@pytest.mark.parametrize(
    ("folder", "declared"), [("src", REQUIREMENTS), ("benchmarks", REQUIREMENTS), ("tests", [*REQUIREMENTS, *DEV])]
)
def test_what_is_imported_is_a_dependency_of_our_own(folder: str, declared: list[Requirement]) -> None:
    names = {normal(requirement.name) for requirement in declared}
    # A module may belong to several distributions: mlflow to mlflow-skinny too.
    homes = metadata.packages_distributions()
    local = {path.stem for path in (ROOT / folder).rglob("*.py")} | {"cardium", "__future__"}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for module in {name.partition(".")[0] for name in modules} - local - set(sys.stdlib_module_names):
                if path.parent.name == "batch" and module in {requirement.name for requirement in ENGINES.values()}:
                    continue
                assert {normal(home) for home in homes.get(module, [])} & names, f"{path.name} imports {module}"


def test_the_image_is_the_locks_environment() -> None:
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    [base] = [rest for verb, rest in steps if verb == "FROM"]
    assert base.split(":")[1].split("-")[0] in PYTHONS
    [copied] = [rest.split()[:-1] for verb, rest in steps if verb == "COPY"]
    shown = (ROOT / ".dockerignore").read_text().splitlines()
    assert shown[1:] == ["*", *(f"!{name}" for name in copied)]
    assert all((ROOT / name).is_file() for name in copied)
    [install] = [rest for verb, rest in steps if verb == "RUN" and "venv" in rest]
    of_make = (ROOT / "Makefile").read_text().replace("$(BIN)", ".venv/bin")
    uv = re.search(r"sed -n '[^']+' requirements.lock", install)
    assert uv is not None
    assert uv[0] in of_make
    assert install.count("--require-hashes") == 2
    assert subprocess.run(["sh", "-n", "-c", install], check=False).returncode == 0
    [user] = [rest for verb, rest in steps if verb == "USER"]
    assert user != "root"


def test_hooks_are_the_tools_of_the_environment() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [one["repo"] for one in repositories] == ["local"], "nothing is downloaded"
    tools = {requirement.name for requirement in DEV}
    for hook in repositories[0]["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].split()[0].removeprefix(".venv/bin/") in tools


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_pages_name_files_and_targets_that_exist(page: Path) -> None:
    text = page.read_text()
    paths = set(re.findall(r"\]\(([^)#:]+)\)", text)) | set(re.findall(r"`((?:src|tests|docs|examples)/[\w./]+)`", text))
    assert paths or page.name == "CHANGELOG.md"
    for path in paths:
        assert (ROOT / path).exists(), path
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"\bmake (?:PYTHON=\S+ )?([a-z]+)\b(?=[`,]|\s{2,})", text)) <= targets


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_files_for_people_are_well_formed_and_name_nobody(file: Path) -> None:
    text = file.read_text()
    assert not re.search(r"[\w.+-]+@[\w-]+\.\w+", text), "an e-mail address"
    assert not re.search(r"https?://(pypi|files|upload)", text), "a package registry"
    if file.suffix in (".yml", ".yaml", ".cff"):
        assert isinstance(yaml.safe_load(text), dict)
    if file.parent.name == "ISSUE_TEMPLATE" and file.name != "config.yml":
        form = yaml.safe_load(text)
        assert form["name"]
        assert form["description"]
        ids = [field["id"] for field in form["body"]]
        assert len(set(ids)) == len(ids)
