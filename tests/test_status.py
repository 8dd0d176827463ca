"""What `cardium status` and `doctor` say, what JSON a verb prints, and the shell's completion."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from run_folders import evaluation, make_project, run_folder

from cardium import cli
from cardium.evaluation.evaluation import Interval
from cardium.evaluation.promotion import Expected, Promotion, Served
from cardium.pipeline import doctor
from cardium.pipeline.status import DatasetStatus, Status, status_text
from cardium.pipeline.status import _of_dataset as of_dataset
from cardium.pipeline.turn import at_work, turn


def test_a_dataset_s_status_is_what_its_files_and_dvc_say(tmp_path: Path) -> None:
    settings = make_project(tmp_path / "project")
    before = of_dataset(settings, "cmri", ["ingest@cmri", "train@cmri-mobilenetv2", "ingest@ecg4"])
    assert (before.to_do, before.runs, before.served, before.report) == (["ingest@cmri", "train@cmri-mobilenetv2"], 0, "", "")
    run_folder(settings, "mobilenetv2", real=False)
    evaluation(settings, {"cmri-mobilenetv2": 0.9})
    expected = Expected(Interval(0.7, 0.6, 0.8), Interval(0.812, 0.71, 0.9), 1)
    folder = settings.root / "reports/cmri/promotion"
    folder.mkdir(parents=True)
    Promotion("cmri", "m", "unchanged", "as before", [], served=Served("cmri-mobilenetv2", "x", 3, expected)).write(folder)
    after = of_dataset(settings, "cmri", [])
    assert (after.to_do, after.runs, after.promotion) == ([], 1, "as before")
    assert after.served == "cmri-mobilenetv2 (version 3), expected 0.812 [0.710, 0.900] by patient"


def test_the_status_ends_with_what_to_do() -> None:
    made = DatasetStatus([], 3, 3, "cmri-a (version 1)", "", 0, "reports/cmri/report/index.html")
    assert status_text(Status("demo", True, [], {"cmri": made})).endswith(
        "Nothing to do: data, code and settings are as they were."
    )
    todo = DatasetStatus(["a@cmri", "b@cmri", "c@cmri", "d@cmri"], 0, 3, "", "not promoted: too few patients", 0, "")
    text = status_text(Status("demo", False, ["`cardium repro` (process 7)"], {"cmri": todo}))
    for said in (
        "No data/ yet",
        "At work: `cardium repro` (process 7).",
        "a@cmri, b@cmri, c@cmri and 1 more",
        "too few patients",
    ):
        assert said in text
    assert text.endswith("Next: cardium repro")


def test_who_holds_a_turn_is_at_work(tmp_path: Path) -> None:
    assert at_work(tmp_path) == []
    with turn(tmp_path):
        assert len(at_work(tmp_path)) == 1
    assert at_work(tmp_path) == []


def test_the_doctor_names_what_is_missing_and_what_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make_project(tmp_path / "project")
    monkeypatch.chdir(settings.root)
    monkeypatch.setattr(doctor, "_NEEDED", ("keras", "no_such_module"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert cli.main(["doctor", "--json"]) == 1
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["keras"]["state"] == "ok"
    assert (found["no_such_module"]["state"], found["MLflow"]["state"], found["DVC"]["state"]) == ("missing",) * 3
    assert "make setup" in found["no_such_module"]["do"]
    assert cli.main(["doctor"]) == 1
    assert "3 missing" in capsys.readouterr().out


def test_tables_are_printed_as_json_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make_project(tmp_path / "project")
    run_folder(settings, "mobilenetv2", real=False)
    evaluation(settings, {"cmri-mobilenetv2": 0.9})
    monkeypatch.chdir(settings.root)
    for verb in (["leaderboard"], ["models", "mobilenetv2*"], ["params"], ["compare", "cmri-mobilenetv2", "naive"]):
        code = cli.main([*verb, "--json"])
        printed = capsys.readouterr()
        if verb[0] == "compare":  # `naive` names no dataset.
            assert (code, printed.out) == (1, "")
            continue
        assert json.loads(printed.out)
    rows = (cli.main(["leaderboard", "--json"]), json.loads(capsys.readouterr().out))[1]
    assert {row["run"] for row in rows} == {"cmri-mobilenetv2", "chosen", "naive"}
    assert rows[0]["patient"]["balanced_accuracy"]["low"] is not None


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_the_shell_completes_verbs_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out

    def completed(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        asked = f'COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _cardium; printf "%s\\n" "${{COMPREPLY[@]}}"'
        done = subprocess.run(["bash", "-c", script + asked], capture_output=True, text=True, check=False)
        return done.stdout.split()

    assert completed("cardium", "eval") == ["evaluate"]
    assert "--run" in completed("cardium", "evaluate", "--")
    assert "stage" not in completed("cardium", "")
