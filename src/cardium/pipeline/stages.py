"""The table of stages: a row a verb that dvc.yaml calls (`cardium stage VERB ITEM`), its module is stages/<verb>.py."""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cardium.errors import CardiumError, unknown
from cardium.parallel import exit_with, exit_with_parent

if TYPE_CHECKING:
    from cardium.config import Settings

# The stage that runs every time, changed or not.
ALWAYS = "tracked"
# Where a stage of `pipeline.dvc.reproduce` writes down that it began and that it ended.
JOURNAL = "CARDIUM_JOURNAL"
# What stands before a stage's name where it says that it begins.
BEGINS = "--- "
# The process of that command.
COMMAND = "CARDIUM_COMMAND"
# A file to which every stage adds a line of JSON: where its time went (benchmarks/startup.py).
TIMES = "CARDIUM_STAGE_TIMES"


@dataclass(frozen=True)
class Stage:
    """name: of the verb and its module. help: of the command `cardium NAME --dataset D` that runs it; "" for none.

    items: the table of the plan whose names it is run for; `datasets`: the active ones. heavy: whether it imports TensorFlow,
    which is then done quietly and first. logged: what it shows to MLflow when it has ended; "" for nothing.
    """

    name: str
    help: str = ""
    items: Literal["data", "datasets", "renderings", "banks", "runs", "fusions", "ensembles", "explanations"] = "datasets"
    heavy: bool = False
    logged: Literal["", "run", "search", "explanations", "evaluation", "audit", "report"] = ""


# In the order of the pipeline.
STAGES = {
    stage.name: stage
    for stage in (
        Stage("tracked", items="data"),
        Stage("ingest", "raw files -> manifest"),
        Stage("split", "manifest -> folds, patients kept whole"),
        Stage("validate", "check manifest and folds (Great Expectations)"),
        Stage("audit", heavy=True, logged="audit"),
        Stage("prepare", "render every record into one array", items="renderings"),
        Stage("features", "the banks: frozen backbones' features of all records", items="banks", heavy=True),
        Stage("train", items="runs", heavy=True, logged="run"),
        Stage("fuse", "join trained models by their features, or average them", items="fusions", heavy=True, logged="run"),
        Stage("ensemble", "average models into one", items="ensembles", heavy=True, logged="run"),
        Stage("evaluate", heavy=True, logged="evaluation"),
        Stage("promote"),
        Stage("explain", items="explanations", heavy=True, logged="explanations"),
        Stage("report", logged="report"),
        Stage("tune", items="runs", heavy=True, logged="search"),
    )
}


def items_of(settings: Settings, stage: Stage) -> list[str]:
    """The items that a stage is run for, as dvc.yaml goes through them."""
    if stage.items == "data":
        return ["data"]
    if stage.items == "datasets":
        return settings.active
    table: Mapping[str, Any] = getattr(settings.plan, stage.items)
    return list(table)


def targets_of(settings: Settings, verb: str, dataset: str) -> list[str]:
    """The DVC targets of a verb for one dataset. Raises CardiumError where the plan has none."""
    stage = STAGES[verb]
    if stage.items == "datasets":
        return [f"{verb}@{dataset}"]
    found = [f"{verb}@{item}" for item in items_of(settings, stage) if item.partition("-")[0] == dataset]
    if not found:
        raise CardiumError(
            f"params.yaml has no {stage.items} for {dataset}: its study is studies.{settings.profile}.{dataset}."
        )
    return found


def run_stage(settings: Settings, verb: str, item: str) -> None:
    """Runs one stage's module on files, then shows the result to MLflow, which may be away."""
    stage = STAGES.get(verb)
    if stage is None:
        raise unknown("stage", verb, list(STAGES))
    if item not in (known := items_of(settings, stage)):  # Before TensorFlow is imported.
        raise unknown(stage.items.removesuffix("s"), item, known)
    _note(verb, item, "began")
    times = _Times()
    if stage.heavy:
        from cardium.tensorflow_import import import_tensorflow

        import_tensorflow()
    module = importlib.import_module(f"cardium.stages.{verb}")
    times.end("imports")
    module.run(settings, item)
    times.end("work")
    _log(settings, stage, item)
    times.end("mlflow")
    times.write(verb, item)
    _note(verb, item, "ended")


class _Times:
    """Seconds, of the clock and of processors, that the parts of a stage took. The first part begins with the process."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[str, float]] = {}
        self._last = (time.monotonic(), 0.0)

    def end(self, part: str) -> None:
        used = os.times()
        now = (time.monotonic(), used.user + used.system + used.children_user + used.children_system)
        seconds, processor = (after - before for after, before in zip(now, self._last, strict=True))
        self._parts[part] = {"seconds": round(seconds, 3), "processor_seconds": round(processor, 3)}
        self._last = now

    def write(self, verb: str, item: str) -> None:
        if path := os.environ.get(TIMES):
            with open(path, "a", encoding="utf-8") as file:  # noqa: PTH123  one atomic append
                file.write(json.dumps({"stage": verb, "item": item, **self._parts}) + "\n")


def end_with_command() -> None:
    """Lets this stage end with DVC, and with the `cardium` command that DVC was started by, if one or the other is killed."""
    exit_with_parent(os.getppid())
    command = os.environ.get(COMMAND, "")
    if command.isdecimal():
        exit_with(int(command))


def _note(verb: str, item: str, what: str) -> None:
    """Adds a line to the journal of the `cardium` command that DVC was started by, and says on the screen what began.

    The check that always runs is no news, unless it stops.
    """
    path = os.environ.get(JOURNAL)
    if path:
        with open(path, "a", encoding="utf-8") as journal:  # noqa: PTH123  one atomic append
            journal.write(f"{what} {verb}@{item}\n")
        if what == "began" and verb != ALWAYS:
            print(f"{BEGINS}{verb} {item}", flush=True)


def journal_entries(text: str) -> Iterator[tuple[str, str]]:
    """(`began` or `ended`, target) of each line of a journal."""
    for line in text.splitlines():
        what, _, target = line.partition(" ")
        yield what, target


def _log(settings: Settings, stage: Stage, item: str) -> None:
    if not stage.logged:
        return
    from cardium import tracking
    from cardium.workspace import RunId, Workspace

    places = Workspace(settings.root)
    if stage.logged == "run":
        tracking.log_run(settings, places.run(RunId.parse(item)))
    elif stage.logged == "search":
        tracking.log_search(settings, places.tuning(RunId.parse(item).dataset, item))
    elif stage.logged == "explanations":
        spec = settings.plan.explanations[item]
        tracking.log_explanations(settings, places.explanations(spec.run.dataset, spec.run.name) / spec.method)
    else:
        log = {"evaluation": tracking.log_evaluation, "audit": tracking.log_audit, "report": tracking.log_report}
        log[stage.logged](settings, item)
