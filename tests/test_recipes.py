"""docs/recipes.md: each recipe, applied to a copy of the project as it stands there, works."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"<!-- recipe: (\w+) (\S+?)(?: (?:after )?\"([^\"]+)\")? -->\n```\w+\n(.*?)```", re.DOTALL)


def apply_recipes(root: Path) -> list[tuple[str, str]]:
    """Applies every block of the page below `root`; (action, path) of each."""
    done = []
    for action, name, anchor, code in _BLOCK.findall((ROOT / "docs" / "recipes.md").read_text()):
        path = root / name
        if action == "create":
            assert not path.exists(), name
            path.write_text(code)
        else:
            text = path.read_text()
            if action == "append":
                text = f"{text}\n\n{code}"
            elif action == "replace":
                assert text.count(f"{anchor}\n") == 1, (name, anchor)
                text = text.replace(f"{anchor}\n", code)
            else:
                assert action == "insert"
                assert f"{anchor}\n" in text, (name, anchor)
                text = text.replace(f"{anchor}\n", f"{anchor}\n{code}", 1)
            path.write_text(text)
        done.append((action, name))
    return done


def environment(root: Path) -> dict[str, str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "CARDIUM_", "PYTEST_"))}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    return env | {"PYTHONPATH": str(root / "src"), "TF_CPP_MIN_LOG_LEVEL": "3"}


def run(root: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=root, env=environment(root), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with all recipes applied and a dozen patients of the new dataset."""
    root = tmp_path_factory.mktemp("copy") / "cardium"
    for name in ("src", "tests", "configs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml", "MLproject", "pyproject.toml", ".dvcignore"):
        shutil.copy2(ROOT / name, root / name)
    actions = apply_recipes(root)
    assert {name.split("/")[-2] for _, name in actions if "/" in name} == {"models", "datasets", "stages", "pipeline"}
    rng = np.random.default_rng(0)
    for patient in range(16):
        folder = root / "data" / "echo" / ("Healthy", "Failing")[patient % 2] / f"P{patient}"
        folder.mkdir(parents=True)
        for frame in range(2):
            pixels = rng.integers(0, 120, (40, 48), dtype=np.uint8) + np.uint8(100 * (patient % 2))
            Image.fromarray(pixels).save(folder / f"{frame}.png")
    run(root, sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm")
    assert "1 runs" in run(root, sys.executable, "-m", "cardium", "plan")
    return root


def test_a_new_dataset_architecture_and_verb_go_through_the_pipeline(copy: Path) -> None:
    run(copy, sys.executable, "-m", "cardium", "repro", "evaluate@echo")
    scores = json.loads((copy / "reports/echo/evaluation/metrics.json").read_text())
    assert set(scores["runs"]) == {"chosen", "echo-tiny_cnn", "naive"}
    assert scores["runs"]["echo-tiny_cnn"]["groups"] == 16
    told = run(copy, sys.executable, "-m", "cardium", "census", "--dataset", "echo")
    assert "wrote reports/echo/census.json" in told
    assert json.loads((copy / "reports/echo/census.json").read_text()) == {"Failing": 16, "Healthy": 16}
    assert run(copy, sys.executable, "-m", "cardium", "census", "--dataset", "echo").startswith("Nothing to do")


def test_a_new_backbone_and_block_are_in_the_zoo_with_each_other(copy: Path) -> None:
    names = run(copy, sys.executable, "-m", "cardium", "models").split()
    assert {"resnet50v2", "resnet50v2_gate", "mobilenetv2_gate", "resnet50v2_spatial", "tiny_cnn"} <= set(names)
    code = (
        "import numpy as np\nfrom cardium.models import create_model\n"
        "for name in ('resnet50v2_gate', 'tiny_cnn'):\n"
        "    model = create_model(name, classes=3, height=32, width=32)\n"
        "    print(model.predict(np.full((2, 32, 32, 3), 90.0), verbose=0).sum(axis=1).round(4))\n"
    )
    assert run(copy, sys.executable, "-c", code).splitlines()[-2:] == ["[1. 1.]", "[1. 1.]"]


def test_the_projects_own_tests_try_the_new_names(copy: Path) -> None:
    """What the registry drives takes a new row as it is, and finds no fault with it."""
    files = ["tests/test_models.py", "tests/test_attention.py", "tests/test_architectures.py", "tests/test_pipeline.py"]
    chosen = "resnet50v2 or gate or tiny_cnn or census"
    told = run(copy, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", chosen, *files)
    passed = re.search(r"(\d+) passed", told)
    assert passed, told[-2000:]
    assert int(passed[1]) >= 10


def test_every_block_of_the_page_is_a_recipe() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text()
    assert text.count("```") == 2 * len(_BLOCK.findall(text))
