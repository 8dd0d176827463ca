"""explain: where a trained run looked, on records that it has never seen, and how far each method can be trusted.

Writes reports/<dataset>/explanations/<run>/<method>/:

    gallery.png, overlays/     right and wrong decisions, the most and the least confident of each
    explanations.json          of each record: decision, probability, where the model looked, one line of text
    faithfulness.csv, .png     the tests of the methods on this run (explain/faithfulness.py), a row a method
    faithfulness.json          the same, with the curves

The model is that of the run's first held-out fold, the records are that fold's. They are looked at here, and not scored.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cardium import atomic
from cardium.config import Settings
from cardium.data.manifest import read_fingerprint, read_manifest
from cardium.data.rendering import read_pixels, read_rows
from cardium.data.splits import read_parts
from cardium.datasets.demos import is_demo, true_masks
from cardium.errors import CardiumError, unknown
from cardium.evaluation.metrics import decide
from cardium.explain.attribution import applicable, check_method, default_method
from cardium.explain.faithfulness import Tested, assess
from cardium.explain.gallery import Shown, file_name, write_explanations
from cardium.explain.trained_run import OpenedRun, class_number, how_of, open_run, sheet_boxes_of
from cardium.reporting import plots
from cardium.workspace import Workspace, run_name

if TYPE_CHECKING:
    import pandas

# The rows of the gallery: whether right, whether the most confident come first.
_GROUPS = {
    "right, most confident": (True, True),
    "right, least confident": (True, False),
    "wrong, most confident": (False, True),
    "wrong, least confident": (False, False),
}


def run(settings: Settings, item: str) -> None:
    """Explains the line `item` of params.yaml's `explanations`, and tests the methods on its run."""
    if item not in settings.plan.explanations:
        raise unknown("explanation", item, list(settings.plan.explanations))
    spec = settings.plan.explanations[item]
    explain_run(settings, spec.run.dataset, spec.run.model, spec.run.protocol, spec.method, test_all=spec.tests == "all")


def explain_run(
    settings: Settings,
    dataset: str,
    model: str,
    protocol: str,
    method: str,
    *,
    of_class: str = "",
    test_all: bool = False,
) -> Path:
    """Writes the folder of one trained run and one method, and returns it.

    method: "" for the default one. of_class: the class to explain, each record's decision by default. test_all: whether all
    methods are tested on the run, or only this one (and dice). Raises CardiumError for a run that is not trained, an unknown
    method or class, and a method that does not apply to the model.
    """
    import tensorflow as tf

    began = time.perf_counter()
    if method:
        check_method(method)
    tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(settings.seed)
    opened = open_run(settings, dataset, model, protocol)
    method = method or default_method(opened.model)
    check_method(method, opened.model)
    chosen = class_number(opened.classes, of_class)
    workspace = Workspace(settings.root)
    manifest = read_manifest(workspace.manifest(dataset))
    _check_same_data(opened, read_fingerprint(workspace.manifest(dataset))["manifest_sha256"])
    pixels, _ = read_pixels(workspace.rendering(dataset, opened.kind), manifest)
    fold = int(opened.info["test_folds"][0])
    test = read_parts(workspace.split(dataset), manifest, protocol, fold)
    # Where the original scored the records that chose its weights, there is no other test.
    candidates = _spread(test.test if len(test.test) else test.validation, settings.explain.candidates)
    probabilities = _probabilities(opened, pixels, candidates)
    decided = np.asarray(decide(probabilities, opened.threshold), np.int64)
    labels = manifest["label"].map({name: i for i, name in enumerate(opened.classes)}).to_numpy(dtype=np.int64)[candidates]

    groups = manifest["group"].to_numpy()[candidates]
    picked = pick(decided == labels, probabilities[np.arange(len(candidates)), decided], groups, settings.explain.shown)
    data = workspace.data(dataset)

    def shown(group: str, place: int, at: int) -> Shown:
        record = int(candidates[at])
        row = manifest.iloc[record]
        target = int(decided[at]) if chosen is None else chosen
        return Shown(
            name=f"{file_name(group)}-{place + 1}-{file_name(row['path'])}",
            group=group,
            path=str(row["path"]),
            pixels=read_rows(pixels, np.array([record]))[0],
            decided=int(decided[at]),
            explained=target,
            probabilities=probabilities[at],
            label=str(row["label"]),
            boxes=sheet_boxes_of(data / str(row["path"]), opened.kind, opened.size),
            record=record,
        )

    gallery = [shown(group, place, at) for group, ats in picked.items() for place, at in enumerate(ats)]
    how = how_of(settings)
    tested_at = pick_tested(decided == labels, labels, groups, settings.explain.tested)
    records = candidates[tested_at]
    inputs = read_rows(pixels, records).astype(np.float32)
    masks = _masks(settings, opened, manifest, records)
    info = {**opened.summary(), "fold": fold, "candidates": len(candidates)}
    out = workspace.explanations(dataset, run_name(dataset, model, protocol)) / method
    with atomic.replacing_folder(out) as part:
        entries = write_explanations(part, opened.model, method, how, gallery, opened.classes, info)
        tested = assess(
            opened.model,
            applicable(opened.model) if test_all else [method],
            inputs,
            decided[tested_at],
            how,
            points=settings.explain.curve,
            stages=settings.explain.cascade,
            masks=masks,
        )
        seconds = round(time.perf_counter() - began, 1)
        write_faithfulness(part, opened.info["run"], tested, records.tolist(), seconds)
    for entry in entries[:3]:
        print(f"{entry['path']}: {entry['text']}")
    print(_table_text(tested))
    print(f"{opened.info['run']}: {len(entries)} records explained, {len(tested) - 1} methods tested, {seconds:.0f} s")
    where = out.relative_to(settings.root)
    print(f"Wrote {where}/. Next: open {where}/gallery.png, or cardium explain FILE --dataset {dataset} --model {model}")
    return out


def pick(right: NDArray[np.bool_], confidence: NDArray[np.float64], groups: NDArray[Any], count: int) -> dict[str, list[int]]:
    """Positions of the records of each row of the gallery, at most `count`, none twice; of each patient one first."""
    taken: set[int] = set()
    picked = {}
    for name, (is_right, most_first) in _GROUPS.items():
        order = np.argsort(-confidence if most_first else confidence, kind="stable")
        waiting = [int(at) for at in order if right[at] == is_right and int(at) not in taken]
        seen: set[Any] = set()
        # The frames of one patient are alike: the most confident dozen would all be theirs.
        first = [at for at in waiting if not (groups[at] in seen or seen.add(groups[at]))]  # type: ignore[func-returns-value]
        chosen = (first + [at for at in waiting if at not in set(first)])[:count]
        if chosen:
            picked[name] = chosen
            taken |= set(chosen)
    return picked


def pick_tested(right: NDArray[np.bool_], labels: NDArray[Any], groups: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Positions of at most `count` records to test on: the classes in turn, the rightly decided and new patients first."""
    waiting: dict[int, list[int]] = {}
    for label in sorted(set(labels.tolist())):
        own = np.flatnonzero(labels == label)
        counts: dict[Any, int] = {}
        turns = []
        for at in own:
            counts[groups[at]] = counts.get(groups[at], 0) + 1
            turns.append((not right[at], counts[groups[at]], int(at)))
        waiting[label] = [at for *_, at in sorted(turns)]
    picked: list[int] = []
    while len(picked) < count and any(waiting.values()):
        for own_waiting in waiting.values():
            if own_waiting and len(picked) < count:
                picked.append(own_waiting.pop(0))
    return np.array(sorted(picked), dtype=np.int64)


def write_faithfulness(folder: Path, run: str, tested: Sequence[Tested], records: Sequence[int], seconds: float) -> None:
    """faithfulness.csv, .json and .png in `folder`."""
    columns = list(dict.fromkeys(name for one in tested for name in one.row))
    with (folder / "faithfulness.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", *columns])
        for one in tested:
            writer.writerow([one.method, *(f"{one.row[name]:.4f}" if name in one.row else "" for name in columns)])
    told = {
        "run": run,
        "records": list(records),
        "seconds": seconds,
        "methods": {
            one.method: {
                **{name: round(value, 6) for name, value in one.row.items()},
                "curve": [[round(float(v), 5) for v in line] for line in zip(*_curves(one), strict=True)],
                "cascade": [[round(share, 5), round(correlation, 5)] for share, correlation in one.cascade],
            }
            for one in tested
        },
    }
    atomic.write_json(folder / "faithfulness.json", told)
    lines = [(one.method, *_curves(one), one.cascade) for one in tested]
    plots.faithfulness(lines, folder / "faithfulness.png", title=f"{run}: what is true of the explanations")


def _curves(one: Tested) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    return one.curves.shares, one.curves.deletion, one.curves.insertion


def _table_text(tested: Sequence[Tested]) -> str:
    columns = list(dict.fromkeys(name for one in tested for name in one.row))
    width = max(len(one.method) for one in tested)
    lines = [" " * width + "".join(f"  {name:>{max(9, len(name))}}" for name in columns)]
    for one in tested:
        values = [f"{one.row[name]:.3f}" if name in one.row else "" for name in columns]
        lines.append(
            f"{one.method:<{width}}"
            + "".join(f"  {value:>{max(9, len(name))}}" for value, name in zip(values, columns, strict=True))
        )
    return "\n".join(lines)


def _spread(records: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of the records, evenly spread over them."""
    if len(records) <= count:
        return records
    return records[np.linspace(0, len(records) - 1, count).round().astype(np.int64)]


def _probabilities(opened: OpenedRun, pixels: NDArray[np.uint8], records: NDArray[np.int64]) -> NDArray[np.float64]:
    size = opened.model.at_once
    parts = [
        opened.model.probabilities(read_rows(pixels, records[at : at + size]).astype(np.float32))
        for at in range(0, len(records), size)
    ]
    return np.concatenate(parts)


def _check_same_data(opened: OpenedRun, manifest_sha256: str) -> None:
    if opened.info["data"].get("manifest_sha256") != manifest_sha256:
        run = opened.info["run"]
        raise CardiumError(
            f"{run} was trained on other data than processed/ holds now: train it again, `dvc repro train@{run}`."
        )


def _masks(
    settings: Settings, opened: OpenedRun, manifest: pandas.DataFrame, records: NDArray[np.int64]
) -> list[Mapping[str, NDArray[np.bool_]]]:
    """Of demo data each record's true masks; [] of any other."""
    dataset = opened.info["dataset"]
    if not is_demo(settings.root, dataset, manifest):
        return []
    data = Workspace(settings.root).data(dataset)
    paths = manifest["path"].to_numpy()[records]
    return [true_masks(data, dataset, str(path), opened.kind, opened.size) for path in paths]
