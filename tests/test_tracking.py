"""tracking: what the store holds of a run folder, exactly once, whatever happens in between."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from run_folders import CLASSES, evaluation, make_project, run_folder

from cardium import tracking
from cardium.errors import CardiumError
from cardium.runs.trained_run import TrainedRun
from cardium.tracking import mlflow_run, registry, store

TESTS = Path(__file__).resolve().parent
SOURCE = TESTS.parent / "src"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", tracking.REQUESTED):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def settings(tmp_path: Path, empty_store: Path) -> Any:
    made = make_project(tmp_path / "project")
    shutil.copy(empty_store, made.root / "mlflow.db")
    return made


def client_of(settings: Any) -> MlflowClient:
    uri = tracking.tracking_uri(settings)
    return MlflowClient(uri, registry_uri=uri)


def all_runs(settings: Any) -> list[Any]:
    client = client_of(settings)
    return list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))


def whole(settings: Any) -> list[Any]:
    """Runs that are logged to the end, each with one whole model."""
    client = client_of(settings)
    runs = [run for run in all_runs(settings) if run.data.tags.get(tracking.COMPLETE) == "true"]
    for run in runs:
        models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
        assert len(models) == 1, "one model a run"
        assert models[0].status.name == "READY"
    return runs


def in_process(settings: Any, code: str, **environment: str) -> subprocess.Popen[str]:
    script = f"""
import sys, os
sys.path[:0] = [{str(SOURCE)!r}, {str(TESTS)!r}]
from pathlib import Path
from cardium import tracking
from cardium import config
settings = config.load(Path({str(settings.root)!r}))
{code}
"""
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        cwd=settings.root.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_rooms_are_imported_without_what_they_work_with() -> None:
    code = (
        "import sys, cardium.tracking.promotion, cardium.serving\nprint({'mlflow', 'tensorflow', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True)
    assert done.stdout.decode().strip() == "set()", done.stderr.decode()


def test_a_run_folder_is_logged_with_everything_in_it(settings: Any) -> None:
    changed = {"overrides": {"cmri.train.epochs": 4}, "warnings": ["random weights: nothing was transferred"]}
    folder = run_folder(settings, "resnet152v2", real=False, **changed)
    run_id = tracking.log_run(settings, folder)
    client = client_of(settings)
    run = client.get_run(run_id)
    info = json.loads((folder / "run.json").read_text())

    assert client.get_experiment(run.info.experiment_id).name == "cardium-cmri"
    assert run.info.run_name == "resnet152v2 epochs=4"
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == pytest.approx(4500, abs=2)
    tags = run.data.tags
    assert tags["mlflow.source.git.commit"] == info["commit"]
    assert (tags["dataset"], tags["model"], tags["protocol"], tags["weights"]) == ("cmri", "resnet152v2", "honest", "random")
    assert "random weights" in tags["warnings"]
    assert run.data.params["cfg.cmri.train.learning_rate"] == "0.001"
    assert run.data.params["cfg.cmri.augment.flip"] == "true"
    assert run.data.params["override.cmri.train.epochs"] == "4"
    assert run.data.metrics["val_balanced_accuracy"] == info["validation"]["balanced_accuracy"]

    [dataset] = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("cmri", info["data"]["dvc_md5"])

    paths = {item.path for place in ("", "figures", "predictions") for item in client.list_artifacts(run_id, place or None)}
    assert {
        "run.json", "history.csv", "confusion_validation.json", "figures/history.png", "figures/confusion_validation.png",
        "predictions/validation.parquet", "predictions/validation.json",
    } <= paths  # fmt: skip
    # Everything below the project's root, whatever the current folder is.
    assert run.info.artifact_uri.startswith(settings.root.as_uri())


def test_curves_are_history_csv_to_the_digit(settings: Any) -> None:
    import pandas as pd

    folder = run_folder(settings, real=False)
    run_id = tracking.log_run(settings, folder)
    history = pd.read_csv(folder / "history.csv")
    client = client_of(settings)

    fold = history[history["test_fold"] == 1]
    points = sorted(client.get_metric_history(run_id, "training_folds/val_loss_1"), key=lambda metric: metric.step)
    assert [metric.value for metric in points] == fold["val_loss"].tolist()
    assert [metric.step for metric in points] == list(range(1, len(fold) + 1))
    # The mean goes as far as every fold went: fold 0 has four epochs, fold 1 three.
    points = sorted(client.get_metric_history(run_id, "training/loss"), key=lambda metric: metric.step)
    assert len(points) == 3
    assert points[0].value == pytest.approx(history[history["epoch"] == 0]["loss"].mean())


def test_the_model_is_code_and_files_without_pickle(settings: Any) -> None:
    import mlflow
    import yaml

    folder = run_folder(settings, "densenet201", real=False)
    run_id = tracking.log_run(settings, folder)
    client = client_of(settings)
    model = tracking.model_of(client, run_id)
    place = Path(model.artifact_location.removeprefix("file://"))
    described = yaml.safe_load((place / "MLmodel").read_text())

    assert not [path for path in place.rglob("*") if path.suffix in (".pkl", ".pickle")]
    text = (place / "MLmodel").read_text()
    assert str(settings.root) not in text
    assert str(Path(tracking.__file__).parents[1]) not in text
    assert "file:" not in text
    stored = tracking.run_folder_of(place)
    assert (stored / "model.keras").read_bytes() == (folder / "model.keras").read_bytes()
    assert (place / "code" / "cardium" / "serving" / "served_model.py").is_file()
    assert not list((place / "code").rglob("__pycache__"))
    signature = mlflow.models.ModelSignature.from_dict(described["signature"])
    assert signature.inputs.input_names() == ["image"]
    answered = [
        "label",
        "probability",
        "probabilities",
        "set",
        "set_coverage",
        "quality",
        "run",
        "model_version",
        "data",
    ]
    assert signature.outputs.input_names() == [*answered, "error"]
    needed = (place / "requirements.txt").read_text()
    assert "keras==" in needed
    assert "mlflow==" in needed
    assert (place / "input_example.json").is_file()


def test_logged_twice_is_logged_once(settings: Any) -> None:
    folder = run_folder(settings, real=False)
    first = tracking.log_run(settings, folder)
    assert tracking.log_run(settings, folder) == first
    assert tracking.sync(settings)["logged"] == []
    assert [run.info.run_id for run in whole(settings)] == [first]
    # Trained again, it is another run.
    again = run_folder(settings, real=False)
    assert tracking.log_run(settings, again) != first
    assert len(whole(settings)) == 2


def test_two_processes_at_once_on_a_store_that_does_not_exist_yet(tmp_path: Path) -> None:
    settings = make_project(tmp_path / "fresh")
    folder = run_folder(settings, real=False)
    processes = [in_process(settings, f"print(tracking.log_run(settings, Path({str(folder)!r})))") for _ in range(2)]
    answers = [process.communicate(timeout=90) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    ids = {answer.strip() for answer, _ in answers}
    assert len(ids) == 1
    assert ids == {run.info.run_id for run in whole(settings)}
    assert not (tmp_path / "mlruns").exists(), "artifacts went to the current folder"


def test_killed_half_way_it_is_completed_and_not_doubled(settings: Any) -> None:
    """Killed at the worst moment: everything is written but the model, which is there in halves."""
    folder = run_folder(settings, real=False)
    kill = "import mlflow.pyfunc, signal\nmlflow.pyfunc.save_model = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
    process = in_process(settings, kill + f"tracking.log_run(settings, Path({str(folder)!r}))")
    process.communicate(timeout=60)
    assert process.returncode == -9
    [half] = all_runs(settings)
    assert tracking.COMPLETE not in half.data.tags

    assert tracking.sync(settings)["logged"] == ["models/cmri/honest/mobilenetv2"]
    [run] = whole(settings)
    assert run.info.run_id == half.info.run_id
    client = client_of(settings)
    assert len(client.get_metric_history(run.info.run_id, "training/loss")) == 3, "no point of a curve is there twice"
    assert len(run.inputs.dataset_inputs) == 1
    table = json.loads(client_text(client, run.info.run_id, "predictions/validation.json"))
    assert len(table["data"]) == 60


def client_text(client: MlflowClient, run_id: str, path: str) -> str:
    return Path(client.download_artifacts(run_id, path)).read_text()


def test_killed_between_creation_and_the_first_step(settings: Any) -> None:
    folder = run_folder(settings, real=False)
    kill = (
        "import signal\nfrom cardium.tracking import runs\nruns._write = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = in_process(settings, kill + f"tracking.log_run(settings, Path({str(folder)!r}))")
    process.communicate(timeout=60)
    assert process.returncode == -9
    assert len(all_runs(settings)) == 1
    tracking.log_run(settings, folder)
    assert len(whole(settings)) == len(all_runs(settings)) == 1


def test_evaluation_goes_to_the_same_runs_once(settings: Any) -> None:
    folders = {name: run_folder(settings, name, real=False, seed=i) for i, name in enumerate(("mobilenetv2", "resnet152v2"))}
    ids = {name: tracking.log_run(settings, folder) for name, folder in folders.items()}
    evaluation(settings, {"cmri-mobilenetv2": 0.6, "cmri-resnet152v2": 0.9})
    assert tracking.log_evaluation(settings, "cmri") == 2
    assert tracking.log_evaluation(settings, "cmri") == 0
    table = json.loads((settings.root / "reports/cmri/evaluation/metrics.json").read_text())
    client = client_of(settings)
    for name, run_id in ids.items():
        expected = table["runs"][f"cmri-{name}"]["image"]["balanced_accuracy"]
        metrics = client.get_run(run_id).data.metrics
        assert metrics["test_balanced_accuracy"] == expected["value"]
        assert metrics["test_balanced_accuracy_low"] == expected["low"]
        assert metrics["test_patient_balanced_accuracy"] == expected["value"]
        assert (
            metrics["val_balanced_accuracy"]
            == json.loads((folders[name] / "run.json").read_text())["validation"]["balanced_accuracy"]
        )
        figures = {item.path for item in client.list_artifacts(run_id, "figures/test")}
        assert figures == {f"figures/test/confusion-cmri-{name}.png", "figures/test/leaderboard.png"}
        assert len(client.get_metric_history(run_id, "test_accuracy")) == 1
    # New test scores replace the old ones in what the UI shows.
    evaluation(settings, {"cmri-mobilenetv2": 1.0, "cmri-resnet152v2": 0.9})
    assert tracking.sync(settings)["evaluated"] == ["cmri-mobilenetv2"]
    assert client.get_run(ids["mobilenetv2"]).data.metrics["test_balanced_accuracy"] == 1.0


def test_sync_finds_models_experiments_and_evaluations(settings: Any) -> None:
    run_folder(settings, "mobilenetv2", real=False)
    run_folder(settings, "mobilenetv2", protocol="published", real=False)
    run_folder(settings, "mobilenetv2", real=False, overrides={"epochs": 2})
    evaluation(settings, {"cmri-mobilenetv2": 0.6, "cmri-mobilenetv2-published": 0.9})
    (settings.root / "models/cmri/honest/broken").mkdir()
    (settings.root / "models/cmri/honest/broken/run.json").write_text("{")
    half_written = settings.root / "models/cmri/honest/.new.12345678.part"
    shutil.copytree(settings.root / "models/cmri/honest/mobilenetv2", half_written)
    summary = tracking.sync(settings)
    assert sorted(summary["logged"]) == [
        "experiments/cmri-mobilenetv2/epochs=2", "models/cmri/honest/mobilenetv2", "models/cmri/published/mobilenetv2",
    ]  # fmt: skip
    assert sorted(summary["evaluated"]) == ["cmri-mobilenetv2", "cmri-mobilenetv2-published"]
    [failed] = summary["failed"]
    assert failed.startswith("models/cmri/honest/broken: ")
    assert "cardium train" in failed
    names = {run.info.run_name for run in whole(settings)}
    assert names == {"mobilenetv2", "mobilenetv2 published", "mobilenetv2 epochs=2"}
    assert "Logged 3 runs" in tracking.sync_text(settings, summary)


# What `mlflow run` writes into the run that it opens.
OPENED = {"mlflow.project.entryPoint": "train"}


def test_under_mlflow_run_the_requested_run_takes_the_opened_one(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of(settings)
    with tracking.connected(settings) as connection:
        experiment = store.experiment_id(connection, settings, "cmri")
    opened = client.create_run(experiment, tags=OPENED)
    # As `mlflow run -P` logs them, in its own spelling.
    client.log_param(opened.info.run_id, "learning_rate", "1e-3")
    client.log_param(opened.info.run_id, "model", "resnet152v2")
    monkeypatch.setenv("MLFLOW_RUN_ID", opened.info.run_id)
    monkeypatch.setenv(tracking.REQUESTED, "cmri-resnet152v2")
    before = run_folder(settings, "mobilenetv2", real=False)
    wanted = run_folder(settings, "resnet152v2", real=False)
    other = tracking.log_run(settings, before)
    assert other != opened.info.run_id
    assert tracking.log_run(settings, wanted) == opened.info.run_id
    assert os.environ["MLFLOW_RUN_ID"] == opened.info.run_id
    assert {run.info.run_id for run in whole(settings)} == {other, opened.info.run_id}
    run = client.get_run(opened.info.run_id)
    assert run.data.params["learning_rate"] == "1e-3"
    assert run.data.params["cfg.cmri.train.learning_rate"] == "0.001"
    assert run.info.status == "RUNNING", "`mlflow run` itself ends its run"


def test_under_mlflow_run_a_run_logged_before_is_shown_and_not_doubled(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_folder(settings, "resnet152v2", real=False)
    first = tracking.log_run(settings, folder)
    client = client_of(settings)
    opened = client.create_run("0", tags=OPENED).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", opened)
    monkeypatch.setenv(tracking.REQUESTED, "cmri-resnet152v2")
    for _ in range(2):
        assert tracking.log_run(settings, folder) == first
    mirror = client.get_run(opened)
    assert mirror.data.tags[tracking.SAME_AS] == first
    assert tracking.ID not in mirror.data.tags
    assert mirror.data.metrics["val_balanced_accuracy"] == client.get_run(first).data.metrics["val_balanced_accuracy"]
    assert mirror.data.metrics["training/loss"] == client.get_run(first).data.metrics["training/loss"]
    assert mirror.data.params["cfg.model"] == "resnet152v2"
    assert tracking.model_of(client, opened) is None
    assert len(tracking.find_run(client, tracking.ID, json.loads((folder / "run.json").read_text())["id"])) == 1
    evaluation(settings, {"cmri-resnet152v2": 0.9})
    assert tracking.log_evaluation(settings, "cmri") == 2
    assert "test_balanced_accuracy" in client.get_run(opened).data.metrics


@pytest.mark.parametrize("server", ["refuses", "hangs", "no folder", "no such host"])
def test_with_the_store_away_the_pipeline_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: str
) -> None:
    settings = make_project(tmp_path / "project")
    folder = run_folder(settings, real=False)
    evaluation(settings, {"cmri-mobilenetv2": 0.6})
    monkeypatch.setattr(store, "_PROBE_SECONDS", 0.5)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if server == "hangs":
            listening.listen()
        port = listening.getsockname()[1]
        uri = {
            "refuses": f"http://user:secret@127.0.0.1:{port}",
            "hangs": f"http://127.0.0.1:{port}",
            "no folder": f"sqlite:///{tmp_path}/missing/mlflow.db",
            "no such host": "http://mlflow.invalid:5000",
        }[server]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        before = time.perf_counter()
        assert tracking.log_run(settings, folder) is None
        assert tracking.log_evaluation(settings, "cmri") is None
        assert time.perf_counter() - before < 8
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 2
        assert all("nothing lost, run `cardium sync` later" in line for line in lines), lines
        assert not any("secret" in line for line in lines)
        with pytest.raises(tracking.StoreAway):
            tracking.sync(settings)


def test_afterwards_sync_logs_what_is_missing(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_folder(settings, real=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert tracking.log_run(settings, folder) is None
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking.sync(settings)["logged"] == ["models/cmri/honest/mobilenetv2"]
    assert tracking.sync(settings) == {"logged": [], "known": ["models/cmri/honest/mobilenetv2"], "evaluated": [], "failed": []}


def test_an_error_inside_of_mlflow_is_one_line_too(
    settings: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(settings, real=False)

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mlflow.pyfunc.save_model", full)
    assert tracking.log_run(settings, folder) is None
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "No space left" in line
    assert "cardium sync" in line
    monkeypatch.undo()
    assert tracking.sync(settings)["logged"] == ["models/cmri/honest/mobilenetv2"]
    assert len(whole(settings)) == 1


def test_the_store_is_the_projects_own_wherever_it_is_called_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_project(tmp_path / "project")
    monkeypatch.chdir(tmp_path)
    assert tracking.tracking_uri(settings) == f"sqlite:///{settings.root}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    assert tracking.tracking_uri(settings) == f"sqlite:///{settings.root}/elsewhere.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    assert tracking.tracking_uri(settings) == "https://mlflow.example.org"


def test_the_process_store_is_left_as_it_was(settings: Any) -> None:
    import mlflow

    before = mlflow.get_tracking_uri()
    with tracking.connected(settings):
        assert mlflow.get_tracking_uri() == tracking.tracking_uri(settings)
    assert mlflow.get_tracking_uri() == before
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


def test_a_held_lock_ends_in_one_line(settings: Any) -> None:
    code = "with tracking.store_lock(settings, 'promote-cmri'):\n    print('held', flush=True)\n    import time; time.sleep(60)"
    holder = in_process(settings, code)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(CardiumError, match="Another process holds") as caught,
            tracking.store_lock(settings, "promote-cmri", 0.2),
        ):
            pass
        assert "\n" not in str(caught.value)
    finally:
        holder.kill()
        holder.communicate()
    # The system frees the lock of a killed process.
    with tracking.store_lock(settings, "promote-cmri", 1):
        pass


def test_what_is_no_run_folder_says_so(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert tracking.log_run(settings, settings.root / "models") is None
    assert "no run.json" in capsys.readouterr().err
    folder = settings.root / "models" / "x"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"id": 3, "classes": CLASSES}))
    with pytest.raises(CardiumError, match="cardium train"):
        TrainedRun.read(folder)


def test_explanations_are_added_to_their_run_once(settings: Any) -> None:
    run = run_folder(settings, real=False)
    info = json.loads((run / "run.json").read_text())
    with tracking.connected(settings) as client:
        experiment = store.experiment_id(client, settings, "cmri")
        run_id = client.create_run(experiment, tags={tracking.ID: info["id"]}).info.run_id
    folder = settings.root / "reports" / "cmri" / "explanations" / info["run"] / "gradcam++"
    folder.mkdir(parents=True)
    (folder / "explanations.json").write_text(json.dumps({"run_id": info["id"], "method": "gradcam++"}))
    assert tracking.log_explanations(settings, folder) == 0, "without its tests it is no part of a run"
    methods = {"gradcam++": {"deletion": 0.2, "inside_heart": 0.7, "curve": [[0, 1, 0]]}, "random": {"deletion": 0.5}}
    (folder / "faithfulness.json").write_text(json.dumps({"methods": methods}))
    (folder / "faithfulness.csv").write_text("method,deletion,inside_heart\ngradcam++,0.2,0.7\nrandom,0.5,\n")
    assert tracking.log_explanations(settings, folder) == 1
    assert tracking.log_explanations(settings, folder) == 0
    client = client_of(settings)
    logged = client.get_run(run_id).data
    assert logged.metrics == {"explain/gradcampp_deletion": 0.2}, "the table has the rest"
    assert "explanations/gradcampp/faithfulness_table.json" in logged.tags["mlflow.loggedArtifacts"]
    assert {one.path for one in client.list_artifacts(run_id, "explanations/gradcampp")} == {
        f"explanations/gradcampp/{name}"
        for name in ("explanations.json", "faithfulness.json", "faithfulness.csv", "faithfulness_table.json")
    }


def test_a_report_and_an_audit_are_runs_of_their_own_and_each_page_is_logged_once(settings: Any) -> None:
    folder = settings.root / "reports" / "cmri"
    score = {"value": 0.7, "low": 0.6, "high": 0.8}
    advice = {"run": "cmri-mobilenetv2", "use": True, "records": 60, "groups": 12, "chance": 0.5, "score": score, "other": None}
    (folder / "report").mkdir(parents=True)
    (folder / "report" / "index.html").write_text("<h1>one</h1>")
    (folder / "report" / "report.json").write_text(json.dumps({"advice": advice, "said": "Use cmri-mobilenetv2."}))
    audit = {
        "copies": {"files": 90, "distinct_contents": 80},
        "leaks": [{}],
        "label_issues": {"count": 3},
        "optimism": {"gap": score},
        "shortcuts": [{"name": "brightness", "score": score}, {"name": "size", "score": None}],
        "verdict": {"verdict": "leak", "headline": "A split by files leaks", "said": ["10 of 90 files are copies."]},
    }
    (folder / "audit").mkdir()
    (folder / "audit" / "audit.json").write_text(json.dumps(audit))
    assert tracking.log_report(settings, "cmri") is True
    assert tracking.log_report(settings, "cmri") is False, "the same page"
    assert tracking.log_audit(settings, "cmri") is True
    assert tracking.sync(settings)["known"] == ["reports/cmri/audit", "reports/cmri/report"]
    (folder / "report" / "index.html").write_text("<h1>two</h1>")
    assert tracking.sync(settings)["logged"] == ["reports/cmri/report"], "another page is another run"
    runs = all_runs(settings)
    assert sorted(run.info.run_name for run in runs) == ["audit", "report", "report"]
    pages = {client_of(settings).get_experiment(run.info.experiment_id).name for run in runs}
    assert pages == {"cardium-cmri-pages"}, "no comparison of the runs meets them"
    by_kind = {run.data.tags["kind"]: run for run in runs}
    logged = by_kind["report"].data
    assert logged.metrics["report_balanced_accuracy_low"] == 0.6
    assert logged.tags["mlflow.note.content"] == "Use cmri-mobilenetv2."
    client = client_of(settings)
    pages = {one.path for one in client.list_artifacts(by_kind["report"].info.run_id, "report")}
    assert pages == {"report/index.html", "report/report.json"}
    found = by_kind["audit"].data
    assert found.metrics["audit_gap_high"] == 0.8
    assert found.metrics["audit_shortcut_brightness"] == 0.7
    assert "audit_shortcut_size" not in found.metrics
    assert found.tags["verdict"] == "leak"
    assert "A split by files leaks" in found.tags["mlflow.note.content"]


# -------------------------------------------------------------------------------------- servers that fail, runs that ended


@pytest.mark.parametrize("end", ["FINISHED", "FAILED", "deleted"])
def test_a_run_that_has_ended_is_not_taken_over(settings: Any, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    client = client_of(settings)
    ended = client.create_run("0", run_name="mine", tags=OPENED).info.run_id
    if end == "deleted":
        client.delete_run(ended)
    else:
        client.set_terminated(ended, end)
    monkeypatch.setenv("MLFLOW_RUN_ID", ended)
    monkeypatch.setenv(tracking.REQUESTED, "cmri-mobilenetv2")
    assert mlflow_run.find_opened(client, "cmri-mobilenetv2", "x") is None
    # A notebook's own is running too.
    monkeypatch.setenv("MLFLOW_RUN_ID", client.create_run("0").info.run_id)
    assert mlflow_run.find_opened(client, "cmri-mobilenetv2", "x") is None
    monkeypatch.setenv("MLFLOW_RUN_ID", client.create_run("0", tags=OPENED).info.run_id)
    assert mlflow_run.find_opened(client, "cmri-mobilenetv2", "x") is not None


def failing_once(done: Any) -> Any:
    """`done`, which does what it is asked to and then fails as a server's answer 500 does; the second time it does not fail."""
    calls: list[Any] = []

    def called(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0", "MLflow would ask again at once"
        made = done(*arguments, **options)
        if len(calls) == 1:
            raise MlflowException("API request to http://x failed with exception: too many 500 error responses")
        return made

    return called


def test_a_server_that_acts_and_then_fails_gets_each_thing_once(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("create_run", "create_registered_model", "create_model_version"):
        monkeypatch.setattr(MlflowClient, name, failing_once(getattr(MlflowClient, name)))
    folder = run_folder(settings, real=False)
    run_id = tracking.log_run(settings, folder)
    assert run_id is not None
    assert [run.info.run_id for run in all_runs(settings)] == [run_id]
    own_id = json.loads((folder / "run.json").read_text())["id"]
    with tracking.connected(settings) as client:
        assert registry.register(client, "cardium-cmri", own_id).number == 1
        assert [version.id for version in registry.versions(client, "cardium-cmri")] == [own_id]


def test_what_failed_before_it_was_done_is_tried_once_more() -> None:
    tries: list[int] = []

    def fails() -> str:
        tries.append(1)
        raise MlflowException("API request to http://x failed")

    with pytest.raises(MlflowException):
        mlflow_run.create_once(fails, lambda: None)
    assert len(tries) == 2
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


@pytest.mark.parametrize("deleted", ["experiment", "run"])
def test_a_deleted_run_is_restored_and_not_logged_twice(settings: Any, deleted: str) -> None:
    folder = run_folder(settings, real=False)
    run_id = tracking.log_run(settings, folder)
    assert run_id is not None
    client = client_of(settings)
    if deleted == "run":
        client.delete_run(run_id)
    else:
        client.delete_experiment(client.get_run(run_id).info.experiment_id)
    assert tracking.log_run(settings, folder) == run_id
    assert [run.info.run_id for run in all_runs(settings)] == [run_id]
    assert len(whole(settings)) == 1


def said_in(folder: Path) -> str:
    """All that the files of a folder say: of Parquet the table, of archives their members."""
    import zipfile

    texts = []
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            texts.append(path.name)
        elif path.suffix == ".parquet":
            texts.append(pd.read_parquet(path).to_csv())
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                texts += [archive.read(name).decode("latin-1") for name in archive.namelist()]
        else:
            texts.append(path.read_bytes().decode("latin-1"))
    return "\n".join(texts)


def test_a_logged_model_names_no_patient_and_no_place(settings: Any) -> None:
    from cardium.tracking.pseudonyms import FOLDS, folds_of, pseudonym_key

    folder = run_folder(settings, "resnet50", real=False)
    names = [f"cmri/{number:02d}" for number in range(12)]
    (folder / "folds").mkdir()
    np.savez(folder / "folds" / "0.npz", w=np.zeros(2))
    shutil.copy(folder / "validation.parquet", folder / "calibration.parquet")
    split = settings.root / "processed" / "cmri" / "split"
    split.mkdir(parents=True)
    lines = [f'"{name}","Normal",{number % 4}' for number, name in enumerate([*names, "Directory_7, Anna"])]
    (split / "honest.csv").write_text("\n".join(['"group","label","fold"', *lines]) + "\n")
    (split / "split.json").write_text(json.dumps({"sha256": "b" * 64}))
    run_id = tracking.log_run(settings, folder)
    client = client_of(settings)
    place = Path(tracking.model_of(client, run_id).artifact_location.removeprefix("file://"))
    said = said_in(place)
    for secret in (*names, "Anna", "Directory_7", str(settings.root), str(Path(tracking.__file__).parents[1])):
        assert secret not in said, secret
    assert "cmri/03" in said_in(folder), "what is looked for would be found"
    # Whoever has the store knows the names again; another key knows none.
    with tracking.connected(settings) as connected:
        key = pseudonym_key(connected, settings, "cmri")
    assert key not in said
    given = [*names, "Directory_7, Anna", "a stranger"]
    assert folds_of(place / "artifacts" / FOLDS, key, given) == {name: n % 4 for n, name in enumerate(given[:-1])}
    assert folds_of(place / "artifacts" / FOLDS, "00" * 32, given) == {}
    # Served from there, sets are those of the run.
    from cardium.runs.prediction_sets import served_sets

    own, logged = (served_sets(TrainedRun.read(one), 0.8) for one in (folder, tracking.run_folder_of(place)))
    assert own is not None
    assert logged is not None
    assert own.floors.tolist() == logged.floors.tolist()
    assert own.groups.tolist() == logged.groups.tolist()
    assert (tracking.run_folder_of(place) / "folds" / "0.npz").is_file()
