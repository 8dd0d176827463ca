"""ensemble: averages its members' probabilities (system 000) -> a run folder with one servable model."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from cardium import atomic
from cardium.config import JointSpec, Settings
from cardium.errors import unknown
from cardium.evaluation.scoring import score_predictions
from cardium.models import load_model
from cardium.models.fusion import create_fusion
from cardium.models.saving import save_model
from cardium.runs.input_kind import read_input_kind
from cardium.runs.members import joint_run, read_members
from cardium.runs.predictions import VALIDATION, mean_predictions
from cardium.runs.trained_run import TrainedRun
from cardium.workspace import MODEL


def run(settings: Settings, item: str) -> None:
    """Builds the ensemble `item` of the plan into its run folder."""
    if item not in settings.plan.ensembles:
        raise unknown("ensemble", item, list(settings.plan.ensembles))
    spec = settings.plan.ensembles[item]
    ensemble_run(settings, spec, settings.root / spec.id.folder)


def ensemble_run(settings: Settings, spec: JointSpec, out: Path) -> TrainedRun:
    """Averages the members of `spec` into the run folder `out`.

    Raises CardiumError if a member is missing, or if members differ in data, split or held-out folds.
    """
    import pandas as pd

    began = time.perf_counter()
    members = read_members(settings.root, spec.members)
    classes = members[0].classes
    table = mean_predictions([pd.read_parquet(member.folder / VALIDATION) for member in members], classes)
    models, names = [load_model(member.model_file) for member in members], [member.model for member in spec.members]
    whole = create_fusion(models, names=names, mode="average", classes=len(classes))
    whole.name = "ensemble"
    with atomic.replacing_folder(out) as part:
        save_model(whole, part / MODEL)
        if kind := read_input_kind(members[0].folder):
            kind.write(part)
        table.to_parquet(part / VALIDATION, index=False)
        made = replace(
            joint_run(settings.root, spec.id, "ensemble", members),
            folder=out,
            overrides=settings.overrides,
            parameters=whole.count_params(),
            model_bytes=(part / MODEL).stat().st_size,
            validation=score_predictions(table, classes, settings.evaluate.threshold),
        )
        made.write(part)
    print(
        f"{spec.name}: mean of {len(members)} models, validation balanced accuracy {made.validation['balanced_accuracy']:.3f}, "
        f"{time.perf_counter() - began:.0f} s"
    )
    print(f"Wrote {out.relative_to(settings.root)}/. Next: cardium evaluate --dataset {spec.id.dataset}")
    return made
