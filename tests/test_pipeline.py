"""dvc.yaml, params.yaml, MLproject and the code agree: dependencies, names, settings."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cardium import cli, config
from cardium.config.plan import MOST_MEMBERS
from cardium.evaluation import published
from cardium.pipeline.stages import STAGES, Stage

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# Modules and rooms that carry a stage's files and words but cannot change what it computes; plots only where figures are the
# result.
CARRIERS = {
    "errors", "progress", "atomic", "workspace", "provenance", "parallel", "ranges", "yaml_file", "config", "tracking",
    "process_environment", "reporting.plots", "data.tracked",
}  # fmt: skip


def is_carrier(name: str) -> bool:
    """Whether a module, `cardium.<...>`, is a carrier or lies in a room that is one."""
    inner = name.removeprefix("cardium.")
    return any(inner == carrier or inner.startswith(f"{carrier}.") for carrier in CARRIERS)


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
        if not is_carrier(name):
            waiting += imports(path)
    return {str(path.relative_to(ROOT)) for name in seen if not is_carrier(name) and (path := module_path(name))}


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
    # A collection's own module is found by its name, not by an import: all of the room counts where files are read by it.
    declared = [dep for dep in declared if not (stage == "ingest" and dep == "src/cardium/datasets")]
    unused = {dep for dep in declared if not any(path == dep or path.startswith(f"{dep}/") for path in needed)}
    unused -= {dep for dep in declared if dep.startswith("src/cardium/reporting/templates/")}
    assert not unused, f"{stage} lists what it does not import"


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


def chosen(profile: str) -> config.Settings:
    """The settings that `cardium profile` makes."""
    return config.resolve({**yaml.safe_load((ROOT / "params.yaml").read_text()), "profile": profile}, ROOT, {})


def test_the_committed_plan_is_what_params_yaml_comes_to() -> None:
    config.check_plan(config.load(ROOT))


@pytest.mark.parametrize("profile", ["demo", "study"])
def test_what_stages_name_is_in_the_plan(profile: str) -> None:
    """Every `${...}` of dvc.yaml and every key that a stage watches, for every item that it goes through."""
    plan = yaml.safe_load(config.plan_text(chosen(profile)))["plan"]
    searches = yaml.safe_load((ROOT / "configs" / "dvc.yaml").read_text())["stages"]

    def value(path: str, names: dict[str, Any]) -> Any:
        found: Any = {"plan": plan, **names}
        for part in re.findall(r"[\w-]+", path):
            found = found[int(part) if isinstance(found, list) else part]
        return found

    for stage, definition in {**PIPELINE, **searches}.items():
        inner = definition.get("do", definition)
        items = value(definition["foreach"].strip("${}"), {}) if "foreach" in definition else {}
        pairs = items.items() if isinstance(items, dict) else [(item, item) for item in items]
        for key, item in pairs:
            names = {"key": key, "item": item}
            texts = [
                inner["cmd"],
                *inner["deps"],
                *(next(iter(out)) if isinstance(out, dict) else out for out in inner["outs"]),
            ]
            for text in texts:
                for path in re.findall(r"\$\{([^}]+)\}", text):
                    assert isinstance(value(path, names), str), f"{stage}: {text}"
            for watched in (path for table in inner.get("params", []) for path in table["plan.yaml"]):
                value(re.sub(r"\$\{(\w+)\}", lambda found, names=names: str(names[found[1]]), watched), names)
    for listed in ("metrics", "plots"):
        texts = yaml.safe_load((ROOT / "dvc.yaml").read_text())[listed]
        assert [value(text.strip("${}"), {}) for text in texts] == plan[listed]


def test_dvc_yaml_has_a_place_for_every_member_that_the_plan_allows() -> None:
    for stage in ("fuse", "ensemble"):
        members = [dep for dep in body(stage)["deps"] if "item.members" in dep]
        assert members == [f"${{item.members[{number}]}}" for number in range(MOST_MEMBERS)]


def test_every_stage_is_in_the_table_and_goes_through_its_items() -> None:
    searches = yaml.safe_load((ROOT / "configs" / "dvc.yaml").read_text())["stages"]
    for name, definition in {**PIPELINE, **searches}.items():
        stage = STAGES[name]
        # A report's entry is a dataset's, and says what the page shows.
        table = "reports" if name == "report" else stage.items
        assert definition.get("foreach", "${plan.data}") == f"${{plan.{table}}}"
        command = definition.get("do", definition)["cmd"].split()
        assert command[:5] == ["python", "-m", "cardium", "stage", name]
        assert module_path(f"cardium.stages.{name}")
    assert STAGES.keys() == {*PIPELINE, *searches}


def test_a_report_waits_for_the_audit_and_the_explanations_that_it_shows() -> None:
    plan = yaml.safe_load((ROOT / "plan.yaml").read_text())["plan"]
    assert list(plan["reports"]) == plan["datasets"]
    made = [f"reports/{one['dataset']}/explanations/{one['run']}/{one['method']}" for one in plan["explanations"].values()]
    made += [f"reports/{dataset}/audit" for dataset in plan["datasets"]]
    assert {path for entry in plan["reports"].values() for path in entry["shows"]} == set(made)


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: stage.name)
def test_a_stage_imports_tensorflow_where_the_table_says_so(stage: Stage) -> None:
    texts = [(ROOT / path).read_text() for path in closure(stage.name)]
    uses = any(re.search(r"^\s+import (tensorflow|keras)\b", text, re.M) for text in texts)
    assert stage.heavy <= uses, "imported for nothing"


@pytest.mark.parametrize("profile", ["demo", "study"])
def test_every_run_reads_what_its_model_takes(profile: str) -> None:
    from cardium.models import bank_of, reads_rendering

    settings = chosen(profile)
    for name, run in settings.plan.runs.items():
        assert run.bank == bank_of(run.model), name
        assert run.bank or run.reads == f"processed/{run.dataset}/{run.rendering}", name
        assert reads_rendering(run.model, run.rendering), name
        assert run.rendering in settings.datasets[run.dataset].render, name
        assert f"{run.dataset}-{run.rendering}" in settings.plan.renderings, name
        assert not run.bank or run.bank_spec.name in settings.plan.banks, name


def test_the_study_runs_every_model_of_the_published_systems() -> None:
    settings = chosen("study")
    for dataset, models in published.PUBLISHED_SCORES.items():
        made = {joint.id.model for joint in settings.plan.joints.values()}
        for protocol in ("honest", "published"):
            runs = {run.model for run in settings.plan.runs.values() if run.dataset == dataset and run.protocol == protocol}
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
    locks = ("requirements.lock", "requirements-spark.lock", "requirements-ray.lock")
    for name in (*locks, "pyproject.toml", "conda.yaml", "Makefile"):
        text = (ROOT / name).read_text()
        assert not re.search(r"--(extra-)?index-url|--find-links |https?://(pypi|files)", text), name
    hashes = (ROOT / "requirements.lock").read_text()
    packages = re.findall(r"^[a-z0-9][\w.\-\[\]]*==", hashes, re.M)
    assert len(packages) > 100
    assert hashes.count("--hash=sha256:") > len(packages)
