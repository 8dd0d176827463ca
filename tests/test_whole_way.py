"""The whole way in a fresh clone, as its users type it: `mlflow run`, `cardium repro`, `dvc repro`, predict, changed data.

The clone's params.yaml asks for 32x32 images and one epoch; the commands, the data and the code are the real ones.
The tests stand in the order of a day and go on from one another.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree as a fresh clone: nothing that git ignores, a commit of its own, small settings."""
    root = tmp_path_factory.mktemp("clone") / "cardium"
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    params = yaml.safe_load((root / "params.yaml").read_text())
    members = ["mobilenetv2", "mobilenetv2_spatial", "resnet152v2"]
    fused = {"members": ["mobilenetv2", "mobilenetv2_se", "cnn_custom"], "system": "004", "train": {"hidden": 256}}
    sheets: dict[str, Any] = {"mobilenetv2": None, "mobilenetv2_se": None, "cnn_custom": {"system": "004"}}
    params["datasets"] = ["cmri", "ecg4", "chd"]
    params["studies"]["demo"] = {
        "cmri": {"models": members, "ensembles": {"ensemble": members}},
        "ecg4": {"models": sheets, "fusions": {"fused": fused}},
        "chd": {"models": {"cnn_lstm": {"system": "002"}}},
    }
    quick = {"weights": "none", "views": 1, "epochs": 1, "batch": 32, "learning_rate": 1e-2}
    params["cmri"] = {"render": {"image": {"height": 32, "width": 32}}, "train": quick}
    params["ecg4"] = {"render": {"image": {"height": 32, "width": 48}}, "train": quick}
    params["chd"] = {"render": {"slices": {"frames": 6, "height": 32, "width": 32}}}
    params["profiles"]["demo"]["systems"] = {"002": {"epochs": 1, "batch": 8}, "004": {"epochs": 1}}
    params["evaluate"]["bootstrap"] = 200
    params["audit"]["repeats"] = 2
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    done = subprocess.run([sys.executable, "-m", "cardium", "plan"], cwd=root, env=environment(root), capture_output=True)
    assert done.returncode == 0, done.stderr
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "clone"]):
        subprocess.run(["git", *command], cwd=root, check=True, capture_output=True)
    return root


def environment(root: Path, **more: str) -> dict[str, str]:
    env = {
        key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "CARDIUM_", "PYTEST_", "PYTHONPATH"))
    }
    env["PATH"] = f"{BIN}{os.pathsep}{env['PATH']}"
    # What is installed in .venv points at this checkout; the clone's own code is meant.
    env["PYTHONPATH"] = str(root / "src")
    env["TF_CPP_MIN_LOG_LEVEL"] = "3"
    return {**env, **more}


def run(root: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=root, env=environment(root, **more), capture_output=True, text=True, check=False)


def mlflow_runs(root: Path) -> list[Any]:
    """The MLflow runs of the clone's own store, newest first."""
    code = (
        "import json, mlflow\n"
        f"c = mlflow.MlflowClient('sqlite:///{root}/mlflow.db')\n"
        "e = [x.experiment_id for x in c.search_experiments()]\n"
        "print(json.dumps([{'status': r.info.status, 'params': r.data.params, 'metrics': r.data.metrics, 'tags': r.data.tags}"
        " for r in c.search_runs(e)]))"
    )
    done = run(root, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_mlflow_run_trains_on_a_fresh_clone_in_an_environment_of_its_own(clone: Path, tmp_path: Path) -> None:
    import conda_stand_in

    home = conda_stand_in.install(tmp_path / "conda")
    assert not (clone / "data").exists()
    env = environment(clone, MLFLOW_CONDA_HOME=str(home))
    del env["PYTHONPATH"]
    done = subprocess.run(
        ["mlflow", "run", ".", "-e", "train", "-P", "model=resnet152v2"],
        cwd=clone,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    # What was missing before `train` has been made, and nothing else has been trained.
    assert (clone / "models/cmri/honest/resnet152v2/model.keras").is_file()
    assert [path.name for path in (clone / "models/cmri/honest").iterdir() if not path.name.startswith(".")] == ["resnet152v2"]
    created = next((home / "envs").iterdir())
    assert (created / "bin" / "python").exists(), "it ran in the environment made from conda.yaml"
    requested = [r for r in mlflow_runs(clone) if r["tags"].get("mlflow.project.entryPoint") == "train"]
    assert len(requested) == 1
    assert requested[0]["status"] == "FINISHED"
    assert requested[0]["params"]["model"] == "resnet152v2"
    assert requested[0]["params"]["cfg.train.epochs"] == "1"
    assert "val_balanced_accuracy" in requested[0]["metrics"]


def test_the_pipeline_goes_all_the_way(clone: Path) -> None:
    """`cardium repro` is what `make demo` and `mlflow run .` call."""
    done = run(clone, sys.executable, "-m", "cardium", "repro")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    metrics = json.loads((clone / "reports/cmri/evaluation/metrics.json").read_text())
    assert set(metrics["runs"]) == {
        "cmri-mobilenetv2",
        "cmri-mobilenetv2_spatial",
        "cmri-resnet152v2",
        "cmri-ensemble",
        "chosen",
        "naive",
    }
    ecg = json.loads((clone / "reports/ecg4/evaluation/metrics.json").read_text())
    models = {"mobilenetv2", "mobilenetv2_se", "cnn_custom", "fused"}
    assert set(ecg["runs"]) == {f"ecg4-{model}" for model in models} | {"chosen", "naive"}
    # No backbone's bank is there for volumes: their one run is trained end to end.
    volumes = json.loads((clone / "reports/chd/evaluation/metrics.json").read_text())
    assert volumes["runs"]["chd-cnn_lstm"]["records"] == 30
    assert (clone / "models/chd/honest/cnn_lstm/montage.png").is_file()
    assert (clone / "reports/chd/report/index.html").is_file()
    # Sheets filed under two classes and copies are counted neither twice nor at all.
    fingerprint = json.loads((clone / "processed/ecg4/manifest/fingerprint.json").read_text())
    conflicting = {record["path"] for conflict in fingerprint["conflicts"] for record in conflict["records"]}
    assert conflicting
    tested = ecg["runs"]["ecg4-fused"]["records"]
    assert tested == fingerprint["records"] - fingerprint["copies"] - len(fingerprint["conflicts"])
    for dataset in ("cmri", "ecg4"):
        promotion = json.loads((clone / f"reports/{dataset}/promotion/promotion.json").read_text())
        assert promotion["summary"]
    # One MLflow run for each trained run, audit and report, none doubled by going over it again.
    ids = [r["tags"]["cardium.id"] for r in mlflow_runs(clone) if "cardium.id" in r["tags"]]
    assert len(ids) == len(set(ids))
    kinds = Counter(name.rpartition("-")[0] or "trained" for name in ids)
    assert kinds == {"trained": 7 + 1 + 1, "audit": 3, "report": 3}, "seven runs, an ensemble, a fusion; three datasets"
    shown = run(clone, "dvc", "metrics", "show")
    assert "balanced_accuracy" in shown.stdout
    compared = run(clone, "dvc", "params", "diff", "--all")
    assert "cmri.train" in compared.stdout


def test_a_second_time_there_is_nothing_to_do(clone: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in clone.glob("models/**/*") if path.is_file()}
    done = run(clone, sys.executable, "-m", "cardium", "repro")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "Nothing to do: data, code and settings are as they were."
    assert before == {path: path.stat().st_mtime_ns for path in clone.glob("models/**/*") if path.is_file()}


def test_dvc_repro_alone_makes_what_a_changed_setting_concerns(clone: Path) -> None:
    params = yaml.safe_load((clone / "params.yaml").read_text())
    params["promote"]["attempts"] += 1
    (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    assert run(clone, sys.executable, "-m", "cardium", "plan").returncode == 0
    before = {path: path.stat().st_mtime_ns for path in clone.glob("models/**/*") if path.is_file()}
    done = run(clone, "dvc", "repro")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    ran = {line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")}
    assert {f"promote@{dataset}" for dataset in ("cmri", "ecg4", "chd")} <= ran
    # A report follows where the decision, which it shows, reads otherwise.
    assert {name.partition("@")[0] for name in ran} <= {"tracked", "promote", "report"}
    assert before == {path: path.stat().st_mtime_ns for path in clone.glob("models/**/*") if path.is_file()}


def test_the_test_fold_stays_shut_until_evaluate(clone: Path) -> None:
    """House rule: what trains and chooses sees no record of the fold that is held out."""
    import pandas as pd

    for dataset in ("cmri", "ecg4"):
        split = pd.read_csv(clone / f"processed/{dataset}/split/honest.csv").set_index("group")["fold"]
        for folder in (clone / f"models/{dataset}/honest").iterdir():
            table = pd.read_parquet(folder / "validation.parquet")
            fold = table["group"].map(split)
            assert ((table["test_fold"] + 1) % 4 == fold).all(), folder.name
        for path in (clone / f"reports/{dataset}/evaluation/predictions").glob(f"{dataset}-*.parquet"):
            table = pd.read_parquet(path)
            assert (table["group"].map(split) == table["test_fold"]).all()
            assert not table["record"].duplicated().any()
    openers = {path.name for path in (ROOT / "src/cardium/stages").glob("*.py") if "predict_test" in path.read_text()}
    assert openers <= {"evaluate.py", "promote.py"}


def test_heads_on_the_bank_and_the_whole_model_agree(clone: Path) -> None:
    code = """
import json, numpy as np, pandas as pd, keras
from pathlib import Path
folder = Path("models/cmri/honest/mobilenetv2")
info = json.loads((folder / "run.json").read_text())
table = pd.read_parquet(folder / "validation.parquet")
table = table[table.test_fold == info["test_folds"][0]].head(64)
pixels = np.load("processed/cmri/image/pixels.npy", mmap_mode="r")[table.record]
whole = keras.models.load_model(folder / "model.keras").predict(pixels.astype("float32"), verbose=0)
print(np.abs(whole - table[["p_Normal", "p_Sick"]].to_numpy()).max(), np.ptp(whole[:, 1]))
"""
    done = run(clone, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    difference, spread = map(float, done.stdout.split()[-2:])
    # The bank holds float16; what that changes is small beside what tells records apart.
    assert spread > 1e-3
    assert difference < 0.05 * spread


def test_overrides_make_an_experiment_beside_the_pipeline(clone: Path) -> None:
    before = (clone / "models/cmri/honest/mobilenetv2/run.json").read_text()
    done = run(
        clone, "mlflow", "run", ".", "-e", "train", "--env-manager", "local",
        "-P", "model=mobilenetv2", "-P", "protocol=published", "-P", "epochs=2", "-P", "learning_rate=0.003",
        "-P", "fine_tune=3",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (clone / "models/cmri/honest/mobilenetv2/run.json").read_text() == before
    folder = next((clone / "experiments/cmri-mobilenetv2-published").iterdir())
    info = json.loads((folder / "run.json").read_text())
    assert info["overrides"] == {
        "cmri.train.epochs": 2,
        "cmri.train.learning_rate": 0.003,
        "cmri.train.fine_tune": 3,
        "protocol": "published",
    }
    assert info["settings"]["scaling"] == "unit"
    assert [phase["phase"] for phase in info["phases"]] == ["head", "fine_tune"]
    logged = [r for r in mlflow_runs(clone) if r["tags"].get("cardium.id") == info["id"]]
    assert len(logged) == 1
    assert any("override" in key for key in {**logged[0]["params"], **logged[0]["tags"]})


def test_a_fused_model_is_its_members_and_a_head_on_their_vectors(clone: Path) -> None:
    code = """
import json, numpy as np, pandas as pd, keras
from pathlib import Path
from cardium.models import load_model
folder = Path("models/ecg4/honest/fused")
info = json.loads((folder / "run.json").read_text())
table = pd.read_parquet(folder / "validation.parquet")
table = table[table.test_fold == info["test_folds"][0]].head(16)
pixels = np.load("processed/ecg4/image/pixels.npy", mmap_mode="r")[table.record].astype("float32")
whole = load_model(folder / "model.keras")
columns = [f"p_{name}" for name in info["classes"]]
gaps = [np.abs(whole.predict(pixels, verbose=0) - table[columns].to_numpy()).max()]
for member in ("mobilenetv2", "mobilenetv2_se", "cnn_custom"):
    alone = load_model(folder.parent / member / "model.keras")
    vector = keras.Model(alone.input, alone.get_layer("embedding").output).predict(pixels, verbose=0)
    inside = keras.Model(whole.input, whole.get_layer(f"{member}__embedding").output).predict(pixels, verbose=0)
    gaps.append(np.abs(vector - inside).max() / np.abs(vector).max())
print(max(gaps))
"""
    done = run(clone, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    # The bank holds float16.
    assert float(done.stdout.split()[-1]) < 0.02


def test_evaluate_scores_another_collection(clone: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(clone / "data/ecg5", other)
    done = run(clone, sys.executable, "-m", "cardium", "evaluate", "--dataset", "ecg4", "--external", str(other))
    assert done.returncode == 0, done.stderr
    written = json.loads((clone / "reports/ecg4/external/other/external.json").read_text())
    assert set(written["runs"]) >= {"ecg4-fused", "ecg4-cnn_custom"}
    assert "ecg4-cnn_custom" in done.stdout


def test_predict_says_what_the_champion_or_a_run_folder_thinks(clone: Path) -> None:
    image = next((clone / "data/cmri/Sick").rglob("*.jpg"))
    done = run(
        clone, sys.executable, "-m", "cardium", "predict", str(image), "--model", "models/cmri/honest/mobilenetv2", "--json"
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["label"] in ("Normal", "Sick")
    # A cardiac MRI is no ECG sheet, and a sheet is one.
    sheet = max((clone / "data/ecg4").rglob("*.jpg"), key=lambda path: path.stat().st_size)
    command = [
        sys.executable,
        "-m",
        "cardium",
        "predict",
        str(image),
        str(sheet),
        "--model",
        "models/ecg4/honest/cnn_custom",
        "--json",
    ]
    done = run(clone, *command)
    assert done.returncode == 0, done.stderr
    mri, ecg = (json.loads(line) for line in done.stdout.splitlines()[-2:])
    assert mri["quality"] != "ok"
    assert ecg["quality"] == "ok"


def test_changed_data_is_reported_and_data_dvc_left_alone(clone: Path) -> None:
    tracked = (clone / "data.dvc").read_bytes()
    victim = next((clone / "data/cmri/Normal").rglob("*.jpg"))
    original = victim.read_bytes()
    victim.unlink()  # it may be a link into DVC's cache
    done = run(clone, "dvc", "repro")
    assert done.returncode != 0
    assert "data/ is not what data.dvc tracks: accept it with `dvc add data`" in done.stderr
    assert (clone / "data.dvc").read_bytes() == tracked
    assert (clone / "reports/cmri/evaluation/leaderboard.csv").is_file(), "what was made before is still there"
    victim.write_bytes(original)
    assert run(clone, sys.executable, "-m", "cardium", "repro").returncode == 0


def test_members_of_different_splits_are_refused(clone: Path) -> None:
    path = clone / "models/cmri/honest/mobilenetv2_spatial/run.json"
    text = path.read_text()
    info = json.loads(text)
    info["data"]["split_sha256"] = "another"
    path.unlink()
    path.write_text(json.dumps(info))
    done = run(clone, sys.executable, "-m", "cardium", "stage", "ensemble", "cmri-ensemble")
    path.write_text(text)
    assert done.returncode == 1
    assert "members must come from the same split" in done.stderr
    assert "Traceback" not in done.stderr
