"""Tiny run folders and evaluations by the contract of `train` and `evaluate`: for the tests of tracking, serving, promote."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from cardium import config
from cardium.config import Settings
from cardium.evaluation.evaluation import Evaluation, Interval, RunScores
from cardium.evaluation.nested import Candidate, choose_by_fold
from cardium.imaging.spec import Render
from cardium.models.weights import WeightsUsed
from cardium.provenance import Provenance
from cardium.runs.data_version import DataVersion
from cardium.runs.trained_run import Phase, Seconds, TrainedRun
from cardium.workspace import RunId

PROJECT = Path(__file__).resolve().parents[1]
CLASSES = ["Normal", "Sick"]
SIDE = 16


def make_project(root: Path, **overrides: Any) -> Settings:
    """A project folder with the real params.yaml, and its settings."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dvc.yaml").write_text("stages: {}\n")
    table = yaml.safe_load((PROJECT / "params.yaml").read_text())
    (root / "params.yaml").write_text(yaml.safe_dump(table, sort_keys=False))
    return config.load(root, overrides)


@lru_cache
def _keras_bytes(seed: int) -> bytes:
    """A whole model of a few weights: float32 (n, 16, 16, 3), 0-255 -> (n, 2)."""
    import tempfile

    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(4, 3, activation="relu", name="cam")(x)
    x = layers.GlobalAveragePooling2D(name="embedding")(x)
    outputs = layers.Dense(2, activation="softmax", kernel_initializer="random_normal")(x)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        keras.Model(inputs, outputs).save(path)
        return path.read_bytes()


def run_folder(
    project: Settings, model: str = "mobilenetv2", *, protocol: str = "honest", seed: int = 0, real: bool = True, **changes: Any
) -> Path:
    """A trained run: `real` puts a Keras model into it, otherwise some bytes (enough for what only copies them).

    changes: of run.json, by its keys.
    """
    name = f"{model}{'' if protocol == 'honest' else '-' + protocol}"
    folder = project.root / "models" / "cmri" / protocol / model
    if changes.get("overrides"):
        folder = project.root / "experiments" / f"cmri-{name}" / "-".join(f"{k}={v}" for k, v in changes["overrides"].items())
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    (folder / "model.keras").write_bytes(_keras_bytes(seed % 2) if real else b"not a model")
    epochs = 4
    rows = []
    for fold in (0, 1):
        loss = 0.7 * np.exp(-0.2 * np.arange(epochs)) + 0.05 * rng.random(epochs)
        for epoch in range(epochs - fold):
            rows.append(
                [fold, "head", epoch, loss[epoch], 1 - loss[epoch] / 2, loss[epoch] + 0.1, 0.9 - loss[epoch] / 2, 1e-3, 0.5]
            )
    columns = ["test_fold", "phase", "epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "history.csv", index=False)
    Image.new("L", (40, 30), 200).save(folder / "history.png")
    predictions(seed, 0.5 + seed / 20).to_parquet(folder / "validation.parquet", index=False)
    made = TrainedRun(
        id=uuid.uuid4().hex,
        run=RunId("cmri", model, protocol),
        kind="train",
        classes=CLASSES,
        rendering="image",
        size=Render(SIDE, SIDE),
        test_folds=[0, 1],
        data=DataVersion("0123456789abcdef0123456789abcdef.dir", "a" * 64, "b" * 64),
        folder=folder,
        folds=4,
        weights=WeightsUsed("auto", "random"),
        settings={"cmri.train.epochs": epochs, "cmri.train.learning_rate": 1e-3, "evaluate.threshold": 0.5, "seed": 1337,
                  "profile": "demo", "cmri.train.class_weights": "balanced", "cmri.augment.flip": True},
        parameters=1000 * (seed + 1),
        trainable_parameters=10,
        model_bytes=(folder / "model.keras").stat().st_size,
        seconds=Seconds(3.0, 4.5),
        phases=[Phase(0, "head", epochs, 3, 0.4)],
        validation={"balanced_accuracy": 0.6 + seed / 100, "accuracy": 0.61, "loss": 0.6, "roc_auc": 0.7},
        warnings=["random weights: nothing was transferred"],
        provenance=Provenance("c" * 40, False, {"python": "3.11.7"}, "2026-11-20T10:00:00+00:00"),
    )  # fmt: skip
    TrainedRun.from_json({**made.to_json(), **changes}, folder).write(folder)
    return folder


def predictions(seed: int, skill: float, groups: int = 12, each: int = 5) -> pd.DataFrame:
    """Test or validation predictions of `groups` patients, half of each class; skill 1 is always right, 0.5 a coin a record."""
    rng = np.random.default_rng(seed)
    n = groups * each
    group = np.repeat([f"cmri/{g:02d}" for g in range(groups)], each)
    label = np.repeat(np.arange(groups) % 2, each)
    right = rng.random(n) < skill
    p = np.where(right == (label == 1), 0.8, 0.2) + rng.uniform(-0.1, 0.1, n)
    return pd.DataFrame(
        {
            "record": np.arange(n),
            "test_fold": (np.arange(n) // each // 2 % 2),
            "group": group,
            "label": label,
            "p_Normal": 1 - p,
            "p_Sick": p,
        }
    )


def evaluation(settings: Settings, skills: dict[str, float]) -> Path:
    """reports/cmri/evaluation over the run folders in models/: run name -> how good its test predictions are."""
    from cardium.evaluation.metrics import confusion, score

    folder = settings.root / "reports" / "cmri" / "evaluation"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "predictions").mkdir(parents=True)
    (folder / "figures").mkdir()
    runs: list[RunScores] = []
    data = DataVersion("", "a" * 64, "b" * 64)
    for path in sorted(settings.root.glob("models/cmri/*/*/run.json")):
        trained = TrainedRun.read(path.parent)
        seed = int(hashlib.md5(trained.name.encode()).hexdigest()[:6], 16)
        table = predictions(seed, skills[trained.name])
        table.to_parquet(folder / "predictions" / f"{trained.name}.parquet", index=False)
        p, y = table[["p_Normal", "p_Sick"]].to_numpy(), table["label"].to_numpy()
        scores = {key: Interval(v, v - 0.1, v + 0.1) for key, v in score(y, p, classes=CLASSES).items()}
        runs.append(
            RunScores(
                trained.name, trained.run.model, trained.run.protocol, trained.kind, "random",
                records=len(y), groups=12,
                image=scores, patient=scores, confusion=confusion(y, p).tolist(), seconds=trained.seconds,
                parameters=trained.parameters, model_bytes=trained.model_bytes, warnings=trained.warnings, run_id=trained.id,
                validation_balanced_accuracy=trained.validation["balanced_accuracy"],
            )
        )  # fmt: skip
        Image.new("L", (40, 30), 100).save(folder / "figures" / f"confusion-{trained.name}.png")
        data = trained.data
    naive = predictions(0, 1.0).assign(p_Normal=0.6, p_Sick=0.4)
    naive.to_parquet(folder / "predictions" / "naive.parquet", index=False)
    tables = {
        row.name: (
            pd.read_parquet(settings.root / RunId("cmri", row.model).folder / "validation.parquet"),
            pd.read_parquet(folder / "predictions" / f"{row.name}.parquet"),
        )
        for row in runs
        if row.protocol == "honest"
    }
    if tables:
        candidates = [Candidate(name, 0, validation, test) for name, (validation, test) in tables.items()]
        nested, choices = choose_by_fold(candidates, CLASSES, 0.5)
        nested.to_parquet(folder / "predictions" / "chosen.parquet", index=False)
        found = score(nested["label"].to_numpy(), nested[["p_Normal", "p_Sick"]].to_numpy(), classes=CLASSES)
        scores = {key: Interval(v, v - 0.1, v + 0.1) for key, v in found.items()}
        by_fold = {str(fold): name for fold, name in choices.items()}
        runs.append(RunScores("chosen", "chosen", "honest", "chosen", image=scores, patient=scores, choices=by_fold))
    p, y = naive[["p_Normal", "p_Sick"]].to_numpy(), naive["label"].to_numpy()
    half = {key: Interval(v) for key, v in score(y, p, classes=CLASSES).items()}
    runs.append(RunScores("naive", "naive", "honest", "naive", image=half, patient=half))
    Image.new("L", (40, 30), 100).save(folder / "leaderboard.png")
    Evaluation("cmri", CLASSES, 0.95, 0.5, data, {row.name: row for row in runs}).write(folder)
    return folder
