"""ensemble: the mean of its members' probabilities (system 000), as a run folder and one servable model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from cardium import atomic, provenance
from cardium.config import JointSpec, Settings
from cardium.errors import unknown
from cardium.evaluation.metrics import score
from cardium.models import load_model
from cardium.models.fusion import create_fusion
from cardium.runs.members import common_info, common_settings, read_members
from cardium.runs.predictions import mean_predictions, probability_columns


def run(settings: Settings, item: str) -> None:
    """Builds the ensemble `item` of the plan into its run folder."""
    if item not in settings.plan.ensembles:
        raise unknown("ensemble", item, list(settings.plan.ensembles))
    spec = settings.plan.ensembles[item]
    ensemble_run(settings, spec, settings.root / spec.id.folder)


def ensemble_run(settings: Settings, spec: JointSpec, out: Path) -> dict[str, Any]:
    """Averages the members of `spec` into the run folder `out` and returns its run.json.

    Raises CardiumError when a member is missing or members come from different data, splits or held-out folds.
    """
    import pandas as pd

    began = time.perf_counter()
    name, folders = spec.name, [settings.root / member.folder for member in spec.members]
    members = read_members(folders, spec.id.dataset, spec.id.protocol)
    first = members[0]
    tables = [pd.read_parquet(folder / "validation.parquet") for folder in folders]
    table = mean_predictions(tables, first["classes"])

    models = [load_model(folder / "model.keras") for folder in folders]
    names = [member["model"] for member in members]
    whole = create_fusion(models, names=names, mode="average", classes=len(first["classes"]))
    whole.name = "ensemble"
    with atomic.replacing_folder(out) as part:
        whole.save(part / "model.keras")
        table.to_parquet(part / "validation.parquet", index=False)
        info = {
            **provenance.stamp(settings.root),
            "run": name,
            "model": out.name,
            "kind": "ensemble",
            **common_info(members),
            "settings": common_settings(members),
            "overrides": settings.overrides,
            "parameters": whole.count_params(),
            "trainable_parameters": sum(member["trainable_parameters"] for member in members),
            "model_bytes": (part / "model.keras").stat().st_size,
            "seconds": {key: round(sum(member["seconds"][key] for member in members), 1) for key in ("features", "train")},
            "phases": [],
            "validation": score(
                table["label"].to_numpy(),
                table[probability_columns(first["classes"])].to_numpy(),
                settings.evaluate.threshold,
                first["classes"],
            ),
        }
        atomic.write_json(part / "run.json", info)
    print(
        f"{name}: mean of {len(members)} models, validation balanced accuracy {info['validation']['balanced_accuracy']:.3f}, "
        f"{time.perf_counter() - began:.0f} s"
    )
    print(f"Wrote {out.relative_to(settings.root)}/. Next: cardium evaluate --dataset {spec.id.dataset}")
    return info
