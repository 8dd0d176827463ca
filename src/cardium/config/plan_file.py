"""The plan -> plan.yaml, and whether plan.yaml is what params.yaml comes to.

`cardium plan` writes it, git keeps it, dvc.yaml reads it. What a stage watches there is all that its result depends on, so a
changed setting makes anew what it concerns and nothing else. Where params.yaml comes to another plan than plan.yaml holds, the
stage that always runs stops (`check_plan`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cardium.config.plan import MOST_MEMBERS, BankSpec, JointSpec, RunSpec
from cardium.config.schema import RawTable
from cardium.config.settings import Settings
from cardium.errors import CardiumError
from cardium.yaml_file import parse_yaml, read_yaml

PLAN = "plan.yaml"
# DVC takes no list out of plan.yaml: dvc.yaml names so many datasets, the last one of fewer repeated.
MOST_SHOWN = 8
_HEAD = """\
# Written by `cardium plan` from params.yaml, which is what to change: every run, bank and rendering with its effective
# settings. dvc.yaml reads it. A stage runs again when what it watches here changes.
"""


def plan_table(settings: Settings) -> RawTable:
    """The content of plan.yaml: what dvc.yaml goes through and what its stages watch."""
    plan = settings.plan
    evaluate = {name: asdict(settings.evaluate)[name] for name in ("bootstrap", "interval", "least_groups", "threshold")}
    active = settings.active
    table: RawTable = {"profile": settings.profile, "datasets": active, "ingest": asdict(settings.ingest)}
    table |= {"split": asdict(settings.split), "validate": asdict(settings.validate)}
    table["audits"] = {
        dataset: {
            "seed": settings.seed,
            "audit": asdict(settings.audit),
            "features": asdict(settings.features),
            "evaluate": dict(evaluate),
            "limits": asdict(settings.limits),
            "render": _render(settings, dataset),
            "weights": settings.datasets[dataset].train.weights,
        }
        for dataset in active
    }
    own = settings.collections
    table["collections"] = {
        dataset: {"classes": own[dataset].classes, "content": own[dataset].content} if dataset in own else {}
        for dataset in active
    }
    table["renderings"] = {
        name: {
            "dataset": spec.dataset,
            "kind": spec.kind,
            "render": settings.datasets[spec.dataset].render[spec.kind].as_dict(),
            "limits": asdict(settings.limits),
        }
        for name, spec in plan.renderings.items()
    }
    table["banks"] = {name: _bank_entry(settings, spec) for name, spec in plan.banks.items()}
    table["runs"] = {name: _run_entry(settings, spec) for name, spec in plan.runs.items()}
    for verb, specs in (("fusions", plan.fusions), ("ensembles", plan.ensembles)):
        table[verb] = {name: _joint_entry(settings, spec) for name, spec in specs.items()}
    table["evaluations"] = {
        dataset: {
            "runs": [f"{run.name}: {plan.verb_of(run)}" for run in plan.ids(dataset)],
            "seed": settings.seed,
            "test_folds": settings.test_folds(dataset),
            "evaluate": {**evaluate, "compared": settings.evaluate.compared, "tolerance": settings.evaluate.tolerance},
            "coverage": settings.serve.coverage,
        }
        for dataset in active
    }
    table["promotions"] = {
        dataset: {
            "seed": settings.seed,
            "promote": asdict(settings.promote),
            "evaluate": dict(evaluate),
        }
        for dataset in active
    }
    table["explanations"] = {
        name: {
            "dataset": spec.run.dataset,
            "run": spec.run.name,
            "folder": str(spec.run.folder),
            "method": spec.method,
            "reads": f"processed/{spec.run.dataset}/{spec.rendering}",
            "tests": spec.tests,
            "seed": settings.seed,
            "explain": asdict(settings.explain),
        }
        for name, spec in plan.explanations.items()
    }
    # What a page shows beside the scores; of a dataset without explanations its audit stands in the list's places.
    table["reports"] = {
        dataset: {
            "shows": _repeated(
                [f"reports/{dataset}/audit"]
                + [
                    f"reports/{dataset}/explanations/{spec.run.name}/{spec.method}"
                    for spec in plan.explanations.values()
                    if spec.run.dataset == dataset
                ],
                MOST_SHOWN,
            )
        }
        for dataset in active
    }
    # A search watches its run's entry too.
    table["tune"] = asdict(settings.tune)
    shown = _repeated(active, MOST_SHOWN)
    table["metrics"] = [f"reports/{dataset}/evaluation/summary.json" for dataset in shown]
    table["plots"] = [f"reports/{dataset}/evaluation/leaderboard.png" for dataset in shown]
    return table


def _render(settings: Settings, dataset: str) -> RawTable:
    return {kind: size.as_dict() for kind, size in settings.datasets[dataset].render.items()}


def _bank_entry(settings: Settings, spec: BankSpec) -> RawTable:
    dataset = settings.datasets[spec.dataset]
    return {
        **asdict(spec),
        "folder": spec.folder,
        "seed": settings.seed,
        "test_folds": settings.test_folds(spec.dataset, spec.protocol),
        "scaling": settings.protocols[spec.protocol].scaling,
        "weights": dataset.train.weights,
        "views": dataset.train.views,
        "render": dataset.render[spec.rendering].as_dict(),
        "augment": asdict(dataset.augment),
        "features": asdict(settings.features),
    }


def _run_entry(settings: Settings, spec: RunSpec) -> RawTable:
    dataset = settings.datasets[spec.dataset]
    return {
        **asdict(spec.id),
        "folder": str(spec.id.folder),
        "reads": spec.reads,
        "rendering": spec.rendering,
        "system": spec.system,
        "tuned": spec.tuned,
        "seed": settings.seed,
        "test_folds": settings.test_folds(spec.dataset, spec.protocol),
        "threshold": settings.evaluate.threshold,
        **asdict(settings.protocols[spec.protocol]),
        "render": dataset.render[spec.rendering].as_dict(),
        "augment": asdict(dataset.augment),
        "train": asdict(spec.train),
    }


def _joint_entry(settings: Settings, spec: JointSpec) -> RawTable:
    return {
        **asdict(spec.id),
        "folder": str(spec.id.folder),
        "members": _repeated([str(member.folder) for member in spec.members], MOST_MEMBERS),
        "reads": f"processed/{spec.id.dataset}/{settings.plan.runs[spec.members[0].name].rendering}",
        "seed": settings.seed,
        "threshold": settings.evaluate.threshold,
        "calibration": settings.protocols[spec.id.protocol].calibration,
        **({"train": asdict(spec.train)} if spec.train else {}),
    }


def _repeated(names: list[str], count: int) -> list[str]:
    """The first `count` names, the last one repeated where there are fewer."""
    return (names + names[-1:] * count)[:count]


def plan_text(settings: Settings) -> str:
    """plan.yaml's text, the same for the same settings."""
    import yaml

    # Under one key: DVC reads params.yaml too, and refuses a key that both have.
    table = {"plan": plan_table(settings)}
    return _HEAD + yaml.safe_dump(table, sort_keys=False, default_flow_style=None, width=128, allow_unicode=True)


def write_plan(settings: Settings) -> bool:
    """Writes plan.yaml where it differs from what the settings come to; True if it did."""
    from cardium import atomic

    path, text = settings.root / PLAN, plan_text(settings)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    atomic.write_text(path, text)
    return True


def check_plan(settings: Settings) -> None:
    """Raises CardiumError that names the first difference between plan.yaml and what params.yaml comes to."""
    try:
        there = read_yaml(settings.root / PLAN)
    except FileNotFoundError:
        raise CardiumError(f"There is no {PLAN}: write it with `cardium plan`.") from None
    except CardiumError as error:
        raise CardiumError(f"{PLAN} is damaged ({str(error).rstrip('.')}): write it again with `cardium plan`.") from None
    # Through YAML, so that both sides have YAML's types.
    wanted = parse_yaml(plan_text(settings).encode(), PLAN)
    found = difference(there if isinstance(there, Mapping) else {}, wanted)
    if found:
        raise CardiumError(
            f"{PLAN} is not what params.yaml comes to ({found}): take it over with `cardium plan`, then run again."
        )


def difference(there: Any, wanted: Any, where: str = "") -> str:
    """The first place in which two tables differ, in words; "" where they are equal."""
    if isinstance(there, Mapping) and isinstance(wanted, Mapping):
        for key in [*wanted, *(key for key in there if key not in wanted)]:
            place = f"{where}.{key}" if where else str(key)
            if key not in there:
                return f"{place} is new"
            if key not in wanted:
                return f"{place} is gone"
            found = difference(there[key], wanted[key], place)
            if found:
                return found
        return ""
    return (
        ""
        if there == wanted and type(there) is type(wanted)
        else f"{where}: {_shown(there)} there, {_shown(wanted)} by params.yaml"
    )


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
