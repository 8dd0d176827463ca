"""The notebook of examples/: without outputs, and its cells run in order, in seconds, without Jupyter."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from run_folders import make_project, run_folder

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
# What Jupyter does without its kernel: all code cells in one namespace, some of whose values are then told.
RUN_CELLS = """
import json, sys
from pathlib import Path
namespace = {"__name__": "__main__"}
for cell in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), cell["id"], "exec"), namespace)
print(json.dumps({name: namespace[name] for name in ("scores", "balanced", "answer")}))
"""


def cells_of(notebook: Path) -> list[dict[str, Any]]:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    cells: list[dict[str, Any]] = content["cells"]
    return cells


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(notebook: Path) -> None:
    cells = cells_of(notebook)
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None), cell["id"]


def test_the_public_api_runs_from_zoo_to_classifier(tmp_path: Path) -> None:
    folder = run_folder(make_project(tmp_path))
    assert folder == tmp_path / "models" / "cmri" / "honest" / "mobilenetv2"
    (tmp_path / "examples").mkdir()
    notebook = shutil.copy2(ROOT / "examples" / "public_api.ipynb", tmp_path / "examples")
    done = subprocess.run(
        [sys.executable, "-c", RUN_CELLS, notebook],
        cwd=tmp_path / "examples",
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "MPLBACKEND": "Agg", "MPLCONFIGDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["answer"]["label"] in ("Normal", "Sick")
    balanced = told["balanced"]
    assert 0 <= balanced["low"] <= balanced["value"] <= balanced["high"] <= 1
    assert told["scores"]["balanced_accuracy"] == pytest.approx(balanced["value"])
    # It has learnt something: the demo's hearts can be told apart.
    assert balanced["value"] > 0.6
