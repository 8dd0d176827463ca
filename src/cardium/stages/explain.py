"""explain: where a trained run looked, on records that it has never seen, and how far each method can be trusted.

Writes reports/<dataset>/explanations/<run>/<method>/:

    gallery.png, overlays/     right and wrong decisions, the most and the least confident of each
    explanations.json          of each record: decision, probability, where the model looked, one line of text
    faithfulness.csv, .png     the tests of the methods on this run (explain/faithfulness.py), a row a method
    faithfulness.json          the same, with the curves

The model is that of the run's first held-out fold, the records are that fold's. They are looked at here, and not scored.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cardium import atomic
from cardium.config import Settings
from cardium.data.manifest import class_numbers, read_fingerprint, read_manifest
from cardium.data.rendering import read_pixels, read_rows
from cardium.data.splits import read_parts
from cardium.data.units import unit_table
from cardium.datasets.demos import is_demo, true_masks
from cardium.errors import CardiumError, harmless, unknown
from cardium.evaluation.metrics import decide
from cardium.explain.attribution import applicable, check_method, default_method
from cardium.explain.faithfulness import assess
from cardium.explain.faithfulness_files import faithfulness_text, write_faithfulness
from cardium.explain.gallery import Shown, file_name, write_explanations
from cardium.explain.opened_run import OpenedRun, class_number, how_of, open_run, sheet_boxes_of
from cardium.explain.selection import pick, pick_tested, spread
from cardium.imaging.kinds import of_patients
from cardium.workspace import RunId, Workspace

if TYPE_CHECKING:
    import pandas


def run(settings: Settings, item: str) -> None:
    """Makes the explanation `item` of the plan, and tests the methods on its run."""
    if item not in settings.plan.explanations:
        raise unknown("explanation", item, list(settings.plan.explanations))
    spec = settings.plan.explanations[item]
    explain_run(settings, spec.run, spec.method, test_all=spec.tests == "all")


def explain_run(settings: Settings, run: RunId, method: str, *, of_class: str = "", test_all: bool = False) -> Path:
    """Explains one trained run with one method; writes and returns the method's folder.

    method: "" for the default one. of_class: the class to explain; "" for each record's decision. test_all: test all methods on
    the run, or only this one (and random attributions). Raises CardiumError if the run is not trained, for an unknown method or
    class, and if the method does not apply to the model.
    """
    import tensorflow as tf

    began = time.perf_counter()
    if method:
        check_method(method)
    tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(settings.seed)
    opened = open_run(settings, run)
    method = method or default_method(opened.model)
    check_method(method, opened.model)
    chosen = class_number(opened.classes, of_class)
    workspace = Workspace(settings.root)
    manifest = read_manifest(workspace.manifest(run.dataset))
    rows = unit_table(manifest, opened.kind)
    _check_same_data(opened, read_fingerprint(workspace.manifest(run.dataset))["manifest_sha256"])
    pixels, _ = read_pixels(workspace.rendering(run.dataset, opened.kind), rows)
    fold = opened.trained.test_folds[0]
    test = read_parts(workspace.split(run.dataset), rows, run.protocol, fold)
    # Where the original scored the records that chose its weights, there is no other test.
    candidates = spread(test.test if len(test.test) else test.validation, settings.explain.candidates)
    probabilities = opened.probabilities(pixels, candidates)
    decided = np.asarray(decide(probabilities, opened.threshold), np.int64)
    labels = class_numbers(rows, opened.classes)[candidates]

    groups = rows["group"].to_numpy()[candidates]
    picked = pick(decided == labels, probabilities[np.arange(len(candidates)), decided], groups, settings.explain.shown)
    data = workspace.data(run.dataset)

    def shown(group: str, place: int, at: int) -> Shown:
        record = int(candidates[at])
        row = rows.iloc[record]
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
    out = workspace.explanations(run.dataset, run.name) / method
    with atomic.replacing_folder(out) as part:
        entries = write_explanations(part, opened, method, how, gallery, {"fold": fold, "candidates": len(candidates)})
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
        write_faithfulness(part, run.name, tested, records.tolist(), seconds)
    for entry in entries[:3]:
        print(harmless(f"{entry['path']}: {entry['text']}"))
    print(faithfulness_text(tested))
    print(f"{run}: {len(entries)} records explained, {len(tested) - 1} methods tested, {seconds:.0f} s")
    where = out.relative_to(settings.root)
    again = f"cardium explain FILE --dataset {run.dataset} --model {run.model}"
    print(f"Wrote {where}/. Next: open {where}/gallery.png, or {again}")
    return out


def _check_same_data(opened: OpenedRun, manifest_sha256: str) -> None:
    if opened.trained.data.manifest_sha256 != manifest_sha256:
        run = opened.name
        raise CardiumError(
            f"{run} was trained on other data than processed/ holds now: train it again, `dvc repro train@{run}`."
        )


def _masks(
    settings: Settings, opened: OpenedRun, manifest: pandas.DataFrame, records: NDArray[np.int64]
) -> list[Mapping[str, NDArray[np.bool_]]]:
    """Draws the true masks of each record of demo data; [] for other data, and where a row is a patient."""
    dataset = opened.trained.run.dataset
    if of_patients(opened.kind) or not is_demo(settings.root, dataset, manifest):
        return []
    data = Workspace(settings.root).data(dataset)
    paths = manifest["path"].to_numpy()[records]
    return [true_masks(data, dataset, str(path), opened.kind, opened.size) for path in paths]
