"""The public API: what `import cardium` gives, how little it loads, and how a classifier is found."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_folders import CLASSES, make_project, run_folder

import cardium
from cardium.errors import CardiumError
from cardium.evaluation import metrics

SOURCE = Path(cardium.__file__).resolve().parents[1]
# What a program that only names models or scores arrays must not wait for.
HEAVY = {"numpy", "pandas", "tensorflow", "keras", "mlflow", "PIL", "matplotlib", "sklearn", "yaml"}


def in_fresh_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=True)


def test_importing_cardium_loads_nothing_of_weight() -> None:
    rows = [line.split("|") for line in in_fresh_python("-X", "importtime", "-c", "import cardium").stderr.splitlines()]
    imported = {module.strip() for _, _, module in rows[1:]}
    assert "cardium" in imported
    assert HEAVY.isdisjoint(module.partition(".")[0] for module in imported)
    assert not [module for module in imported if module.startswith("cardium.")]


def test_the_public_names_are_those_of_their_rooms() -> None:
    from cardium import models

    assert cardium.create_model is models.create_model
    assert cardium.list_models is models.list_models
    assert cardium.score is metrics.score
    assert set(cardium.__all__) <= set(dir(cardium))
    for name in cardium.__all__:
        assert getattr(cardium, name), name


def test_naming_models_needs_no_keras() -> None:
    code = "import sys, cardium; print(len(cardium.list_models())); assert not {'keras', 'tensorflow'} & set(sys.modules)"
    assert int(in_fresh_python("-c", code).stdout) > 50


def test_a_misspelt_name_is_an_attribute_error_that_lists_the_names() -> None:
    with pytest.raises(AttributeError, match=r"module 'cardium' has no attribute 'create_modle'; .*create_model, list_models"):
        cardium.create_modle  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="create_modle"):
        from cardium import create_modle  # type: ignore[attr-defined]  # noqa: F401


def test_scores_of_plain_lists() -> None:
    probabilities = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]
    scores = cardium.score([0, 1, 1], probabilities, classes=["Normal", "Sick"])
    assert scores["balanced_accuracy"] == pytest.approx(0.75)
    assert scores["recall_Sick"] == pytest.approx(0.5)


def png(seed: int = 0) -> bytes:
    file = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_a_run_folder_needs_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_folder(make_project(tmp_path / "project"))
    alone = folder.rename(tmp_path / "alone")
    monkeypatch.chdir(tmp_path)
    rows = [cardium.load_classifier(one).classify([png()])[0] for one in (alone, str(alone), "alone")]
    assert rows[0] == rows[1] == rows[2]
    assert rows[0]["label"] in CLASSES
    with pytest.raises(CardiumError, match=r"There is no run folder `nowhere`: give one, or a registered model"):
        cardium.load_classifier("nowhere")
    with pytest.raises(CardiumError, match="No cardium project in"):
        cardium.load_classifier("models:/cardium-cmri@champion")


def test_a_registered_model_is_looked_for_in_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "project"
    folder = run_folder(make_project(root))
    with pytest.raises(CardiumError, match="nothing is logged to MLflow yet"):
        cardium.load_classifier("models:/cardium-cmri@champion", root)
    monkeypatch.chdir(root)
    with pytest.raises(CardiumError, match="nothing is logged to MLflow yet"):
        cardium.load_classifier("models:/cardium-cmri@champion")
    # A relative run folder is looked for in the project too.
    monkeypatch.chdir(tmp_path)
    assert cardium.load_classifier(folder.relative_to(root), root).classify([png()])[0]["label"] in CLASSES
