"""promote: who challenges, who wins, what the registry holds afterwards, with one process and with two."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from run_folders import CLASSES, SIDE, evaluation, make_project, predictions, run_folder
from sklearn.metrics import balanced_accuracy_score

from cardium import config, tracking
from cardium.errors import CardiumError
from cardium.evaluation.evaluation import RunScores
from cardium.evaluation.promotion import Promotion, choose, decide, needed_in, unseen_records
from cardium.stages import promote
from cardium.tracking import promotion, registry

TESTS = Path(__file__).resolve().parent
SOURCE = TESTS.parent / "src"
MODEL = "cardium-cmri"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", tracking.REQUESTED):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def settings(tmp_path: Path, empty_store: Path) -> Any:
    made = make_project(tmp_path / "project", **{"evaluate.bootstrap": 300})
    shutil.copy(empty_store, made.root / "mlflow.db")
    return made


def client_of(settings: Any) -> MlflowClient:
    uri = tracking.tracking_uri(settings)
    return MlflowClient(uri, registry_uri=uri)


def registered(settings: Any) -> tuple[dict[str, int], list[str]]:
    """Aliases, and the run of every version."""
    client = client_of(settings)
    return registry.aliases(client, MODEL), [version.run for version in registry.versions(client, MODEL)]


def written(settings: Any) -> dict[str, Any]:
    folder = settings.root / "reports/cmri/promotion"
    content = json.loads((folder / "promotion.json").read_text())
    read = Promotion.read(folder)
    assert read is not None
    assert read.to_json() == content, "what is written is what is read"
    return content


# --------------------------------------------------------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    ("challenger", "champion", "p_better", "naive", "promoted", "says"),
    [
        (0.70, 0.60, 0.90, 0.5, True, "it is probably better: its score 0.700 is higher than the champion's 0.600"),
        (0.70, 0.60, 0.80, 0.5, True, "with probability 0.80 (required: 0.8; to be called better in this attempt: 0.9875)"),
        (0.70, 0.60, 0.99, 0.5, True, "it is better"),
        (0.70, 0.60, 0.79, 0.5, False, "its probability of being better is 0.79 (required: 0.8)"),
        (0.60, 0.60, 0.90, 0.5, False, "not higher than the champion's"),
        (0.59, 0.60, 0.99, 0.5, False, "not higher than the champion's"),
        (0.70, None, 0.99, 0.5, True, "higher than the majority-class baseline's 0.500"),
        (0.70, None, 0.98, 0.5, False, "(required of a first champion: 0.9875)"),
        (0.50, None, 0.90, 0.5, False, "does not exceed the majority-class baseline's 0.500"),
        (0.45, 0.40, 0.90, 0.5, False, "does not exceed the majority-class baseline's 0.500"),
        (float("nan"), 0.40, 0.90, 0.5, False, "does not exceed"),
        (0.70, 0.60, float("nan"), 0.5, False, "being better is nan (required: 0.8)"),
    ],
)
def test_the_rule(challenger: float, champion: float | None, p_better: float, naive: float, promoted: bool, says: str) -> None:
    decision = decide(challenger, champion, p_better, 0.8, needed_in(1, 0.975), naive)
    assert decision.promote is promoted
    assert says in decision.reason
    assert decision.better == ("it is better" in decision.reason)


def test_what_all_attempts_on_a_split_may_err_adds_up() -> None:
    spent = [1 - needed_in(attempt, 0.975) for attempt in range(1, 2000)]
    assert sum(spent) == pytest.approx(0.025, rel=1e-3)
    assert all(earlier > later > 0 for earlier, later in pairwise(spent))


def test_what_was_rolled_back_does_not_come_back_by_itself() -> None:
    assert not decide(0.9, 0.6, 0.99, 0.8, 0.9, 0.5, rolled_back=True).promote


def row(validation: float | None, parameters: int = 10, protocol: str = "honest", run_id: str = "x") -> RunScores:
    made = {"validation_balanced_accuracy": validation, "parameters": parameters, "run_id": run_id}
    return RunScores("any", "any", protocol, "train", **made)


def test_the_challenger_is_the_best_honest_run_by_validation() -> None:
    runs = {"a": row(0.7), "b": row(0.8), "c": row(0.9, protocol="published"), "naive": row(None, run_id="")}
    assert choose(runs) == "b"
    # A difference in the last bits is a tie, and ties go to the smaller model.
    assert choose({"big": row(0.8 + 1e-13, 100), "small": row(0.8, 10), "worse": row(0.7, 1)}) == "small"
    with pytest.raises(CardiumError, match="nothing to promote"):
        choose({"c": row(0.9, protocol="published"), "naive": row(None, run_id="")})


# ------------------------------------------------------------------------------------------------------------ the registry


def test_a_first_champion_is_registered_with_its_reasons(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder(settings, "mobilenetv2", seed=0, real=False)
    folder = run_folder(settings, "resnet152v2", seed=3, real=False)
    run_folder(settings, "densenet201", seed=9, real=False, protocol="published")
    reports = evaluation(settings, {"cmri-mobilenetv2": 1.0, "cmri-resnet152v2": 0.85, "cmri-densenet201-published": 1.0})
    promote.run(settings, "cmri")

    assert registered(settings) == ({"champion": 1}, ["cmri-resnet152v2"])
    result = written(settings)
    info = json.loads((folder / "run.json").read_text())
    assert (result["action"], result["challenger"]["run_id"], result["champion"]) == ("promoted", info["id"], None)
    frame = pd.read_parquet(reports / "predictions" / "cmri-resnet152v2.parquet")
    expected = balanced_accuracy_score(frame["label"], frame["p_Sick"] > 0.5)
    assert result["comparison"]["challenger_balanced_accuracy"] == pytest.approx(expected)
    assert result["comparison"]["rival_balanced_accuracy"] == 0.5
    assert result["comparison"]["difference"] == pytest.approx(expected - 0.5)
    assert result["comparison"]["low"] < result["comparison"]["difference"] < result["comparison"]["high"]
    assert (result["comparison"]["records"], result["comparison"]["groups"]) == (60, 12)

    version = client_of(settings).get_model_version(MODEL, "1")
    assert version.tags["cardium.decision"] == "promoted"
    assert float(version.tags["challenger_balanced_accuracy"]) == pytest.approx(expected, abs=1e-4)
    assert result["reasons"][0] == version.tags[registry.REASON]
    assert result["summary"] in version.description
    printed = capsys.readouterr().out
    assert result["summary"] in printed
    assert f"models:/{MODEL}@champion" in printed
    assert printed.strip().splitlines()[-1] == "Written: reports/cmri/promotion/promotion.json"


def test_what_does_not_beat_the_naive_row_is_no_champion(settings: Any) -> None:
    run_folder(settings, "mobilenetv2", real=False)
    evaluation(settings, {"cmri-mobilenetv2": 0.3})
    assert promote.promote(settings, "cmri").to_json()["action"] == "kept"
    assert registered(settings) == ({"challenger": 1}, ["cmri-mobilenetv2"])
    assert "majority-class baseline" in written(settings)["summary"]


def test_a_run_is_registered_once_however_often_it_is_promoted(settings: Any) -> None:
    run_folder(settings, "mobilenetv2", real=False)
    evaluation(settings, {"cmri-mobilenetv2": 0.9})
    first = promote.promote(settings, "cmri").to_json()
    again = promote.promote(settings, "cmri").to_json()
    assert (first["action"], again["action"]) == ("promoted", "unchanged")
    assert again["reasons"] == first["reasons"][:1]
    assert registered(settings) == ({"champion": 1}, ["cmri-mobilenetv2"])


def succession(settings: Any, *skills: float) -> None:
    """Trains mobilenetv2 anew for each skill, its validation better each time, and promotes."""
    for i, skill in enumerate(skills):
        run_folder(settings, "mobilenetv2", seed=i, real=False)
        evaluation(settings, {"cmri-mobilenetv2": skill})
        promote.promote(settings, "cmri")


def test_a_better_challenger_takes_over_and_a_rollback_goes_back(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    succession(settings, 0.8, 0.9, 1.0)
    assert registered(settings)[0] == {"champion": 3, "previous": 2}
    assert written(settings)["champion"]["version"] == 2

    promotion.rollback(settings, "cmri", dry_run=True)
    assert registered(settings)[0] == {"champion": 3, "previous": 2}
    promotion.rollback(settings, "cmri")
    assert registered(settings)[0] == {"champion": 2, "previous": 1}
    assert "version 2) is champion again" in capsys.readouterr().out
    # The pipeline does not undo what a person decided.
    assert promote.promote(settings, "cmri").to_json()["action"] == "kept"
    assert "rolled back" in written(settings)["summary"]
    assert registered(settings)[0] == {"champion": 2, "previous": 1, "challenger": 3}
    promotion.rollback(settings, "cmri")
    assert registered(settings)[0] == {"champion": 1, "challenger": 3}
    with pytest.raises(CardiumError, match="no previous champion"):
        promotion.rollback(settings, "cmri")


def test_a_worse_challenger_stays_challenger(settings: Any) -> None:
    succession(settings, 0.9, 0.6)
    assert registered(settings) == ({"champion": 1, "challenger": 2}, ["cmri-mobilenetv2"] * 2)
    result = written(settings)
    assert result["action"] == "kept"
    assert "not higher than the champion's" in result["summary"]
    assert client_of(settings).get_model_version(MODEL, "2").tags["cardium.decision"] == "kept"
    # What is served, and what is said of it, is the first version as its own promotion recorded it.
    tags = client_of(settings).get_model_version(MODEL, "1").tags
    assert (result["served"]["version"], result["served"]["run_id"]) == (1, tags["cardium.id"])
    told = result["served"]["expected"]["group"]["value"]
    assert f"{told:.4f}" == tags["expected_patient_balanced_accuracy"] != f"{result['expected']['group']['value']:.4f}"
    # Champion's run was trained over; its predictions come from where they were logged.
    assert "stored predictions" in result["comparison"]["rival_scored_by"]


def test_champion_and_challenger_of_one_evaluation(settings: Any) -> None:
    for model, seed in (("mobilenetv2", 2), ("resnet152v2", 1)):
        folder = run_folder(settings, model, seed=seed, real=False)
        predictions(seed, 0.6 + seed / 10).to_parquet(folder / "validation.parquet")
    skills = {"cmri-mobilenetv2": 0.8, "cmri-resnet152v2": 1.0}
    reports = evaluation(settings, skills)
    promote.promote(settings, "cmri")
    predictions(1, 1.0).to_parquet(folder / "validation.parquet")
    info = settings.root / "models/cmri/honest/resnet152v2/run.json"
    better = json.loads(info.read_text())
    better["validation"]["balanced_accuracy"] = 0.99
    info.write_text(json.dumps(better))
    evaluation(settings, skills)
    result = promote.promote(settings, "cmri").to_json()
    assert (result["action"], result["attempt"]["number"], result["better"]) == ("promoted", 2, True)
    assert result["comparison"]["rival_scored_by"] == "both evaluated together"
    frames = [pd.read_parquet(reports / "predictions" / f"cmri-{name}.parquet") for name in ("resnet152v2", "mobilenetv2")]
    scores = [balanced_accuracy_score(frame["label"], frame["p_Sick"] > 0.5) for frame in frames]
    assert result["comparison"]["difference"] == pytest.approx(scores[0] - scores[1])


def test_few_patients_of_a_class_promote_nothing(settings: Any) -> None:
    run_folder(settings, "mobilenetv2", real=False)
    evaluation(settings, {"cmri-mobilenetv2": 1.0})
    demanding = config.load(settings.root, {"evaluate.least_groups": 7, "evaluate.bootstrap": 300})
    result = promote.promote(demanding, "cmri").to_json()
    assert (result["action"], result["comparison"]) == ("kept", None)
    assert "not 7 of every class" in result["summary"]


def test_attempts_on_one_split_are_counted_and_what_to_expect_is_of_all_of_them(
    settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is printed as the champion's is never the promoted maximum: earlier attempts can be chosen too."""
    strict = config.load(settings.root, {"promote.attempts": 1, "evaluate.bootstrap": 300})
    skills, validated = (0.8, 0.9, 0.95), (0.9, 0.6, 0.7)
    for seed, skill in enumerate(skills):
        folder = run_folder(settings, "mobilenetv2", seed=seed, real=False)
        predictions(seed, validated[seed]).to_parquet(folder / "validation.parquet")
        evaluation(settings, {"cmri-mobilenetv2": skill})
        promoting = promote.promote(strict, "cmri")
    promotion.print_promotion(promoting)
    result = written(settings)
    assert result["attempt"] == {"number": 3, "needed": pytest.approx(1 - 0.025 / 12)}
    assert result["expected"]["candidates"] == 3
    # By validation the first attempt is the best on either fold: its own score is what to expect.
    first = predictions(int(hashlib.md5(b"cmri-mobilenetv2").hexdigest()[:6], 16), 0.8)
    expected = balanced_accuracy_score(first["label"], first["p_Sick"] > 0.5)
    assert result["expected"]["record"]["value"] == pytest.approx(expected)
    assert result["comparison"]["challenger_balanced_accuracy"] > expected
    version = client_of(settings).get_model_version(MODEL, "3")
    assert float(version.tags["expected_record_balanced_accuracy"]) == pytest.approx(expected, abs=1e-4)
    for text in (version.description, capsys.readouterr().out):
        assert f"{expected:.3f}" in text
        assert "among 3 runs" in text
        assert "add patients, or change split.seed" in text
    assert client_of(settings).get_model_version(MODEL, "1").tags["cardium.split"] == "b" * 64
    assert promote.promote(strict, "cmri").attempt.number == 3, "the same challenger again is no further attempt"


def test_dry_run_changes_nothing(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder(settings, "mobilenetv2", real=False)
    evaluation(settings, {"cmri-mobilenetv2": 0.9})
    promotion.dry_run(settings, "cmri")
    printed = capsys.readouterr().out
    assert "is the champion" in printed
    assert "nothing was changed" in printed
    assert registered(settings) == ({}, [])
    assert not (settings.root / "reports/cmri/promotion").exists()
    (settings.root / "mlflow.db").unlink()
    promotion.dry_run(settings, "cmri")
    assert not (settings.root / "mlflow.db").exists()


def test_with_the_store_away_the_pipeline_goes_on_and_says_so(
    settings: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder(settings, "mobilenetv2", real=False)
    evaluation(settings, {"cmri-mobilenetv2": 0.9})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    promote.run(settings, "cmri")
    assert written(settings)["action"] == "skipped"
    assert "cardium promote" in written(settings)["summary"]
    assert "does not answer" in capsys.readouterr().out
    with pytest.raises(tracking.StoreAway):
        promote.promote(settings, "cmri")
    with pytest.raises(tracking.StoreAway):
        promotion.rollback(settings, "cmri")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    promote.run(settings, "cmri")
    assert written(settings)["action"] == "promoted"


def test_without_an_evaluation_or_a_promotion_it_says_what_to_do(tmp_path: Path) -> None:
    settings = make_project(tmp_path / "project")
    assert Promotion.read(tmp_path) is None
    (tmp_path / "promotion.json").write_text('{"action": "kept"}')
    with pytest.raises(CardiumError, match="is damaged"):
        Promotion.read(tmp_path)
    with pytest.raises(CardiumError, match="cardium evaluate --dataset cmri"):
        promote.promote(settings, "cmri")
    with pytest.raises(CardiumError, match="cardium promote --dataset cmri"):
        promotion.rollback(settings, "cmri")
    assert not (settings.root / "mlflow.db").exists()


def test_two_promotions_at_once_leave_one_version_and_one_champion(settings: Any) -> None:
    run_folder(settings, "mobilenetv2", real=False)
    evaluation(settings, {"cmri-mobilenetv2": 0.9})
    code = f"""
import sys
sys.path[:0] = [{str(SOURCE)!r}]
from pathlib import Path
from cardium import config
from cardium.stages import promote
print(promote.promote(config.load(Path({str(settings.root)!r})), "cmri").action)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    assert sorted(out.strip() for out, _ in answers) == ["promoted", "unchanged"]
    assert registered(settings) == ({"champion": 1}, ["cmri-mobilenetv2"])


def test_a_promotion_that_waits_too_long_fails_cleanly(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run_folder(settings, "mobilenetv2", real=False)
    evaluation(settings, {"cmri-mobilenetv2": 0.9})
    code = f"""
import sys, time
sys.path[:0] = [{str(SOURCE)!r}]
from pathlib import Path
from cardium import tracking
from cardium import config
with tracking.store_lock(config.load(Path({str(settings.root)!r})), "promote-cmri"):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        monkeypatch.setattr(promotion, "_WAIT_SECONDS", 0.3)
        with pytest.raises(CardiumError, match="Another process holds"):
            promote.promote(settings, "cmri")
        assert registered(settings) == ({}, [])
    finally:
        holder.kill()
        holder.communicate()


def test_a_champion_changed_from_elsewhere_is_not_overwritten(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine on the same server: no lock of this one's files holds it back."""
    succession(settings, 0.8)
    run_folder(settings, "mobilenetv2", seed=5, real=False)
    evaluation(settings, {"cmri-mobilenetv2": 1.0})
    contest = promotion._contest

    def meanwhile(*arguments: Any) -> Any:
        client_of(settings).delete_registered_model_alias(MODEL, "champion")
        return contest(*arguments)

    monkeypatch.setattr(promotion, "_contest", meanwhile)
    with pytest.raises(CardiumError, match="meanwhile"):
        promote.promote(settings, "cmri")
    assert "champion" not in registered(settings)[0]


# ---------------------------------------------------------------------------------------------- data or split have changed


def manifest_of(patients: dict[str, int], each: int = 2) -> pd.DataFrame:
    """patient -> class index; `each` records a patient."""
    rows = [(patient, label, i) for patient, label in patients.items() for i in range(each)]
    n = len(rows)
    return pd.DataFrame(
        {
            "record": np.arange(n), "path": [f"{CLASSES[label]}/{patient}/{i}.png" for patient, label, i in rows],
            "label": [CLASSES[label] for _, label, _ in rows], "group": [patient for patient, _, _ in rows],
            "patient": [patient for patient, _, _ in rows], "series": "", "frame": -1,
            "sha256": [f"{i:064d}" for i in range(n)],
            "bytes": 100, "width": SIDE, "height": SIDE, "depth": 1, "mode": "L", "format": "PNG", "mean": 1.0, "std": 1.0,
            "copy_of": -1,
            "conflict": False,
        }
    )  # fmt: skip


def test_known_patients_keep_the_fold_they_had_and_new_ones_are_unseen() -> None:
    manifest = manifest_of({"a": 0, "b": 1, "c": 0, "new": 1, "joined": 0})
    manifest.loc[manifest["group"] == "joined", "patient"] = ["a", "b"]
    unseen = unseen_records(manifest, {"a": 0, "b": 1, "c": 2}, [0, 1])
    records = {name: manifest.index[manifest["group"] == name].tolist() for name in ("a", "b", "new")}
    # c was trained on by the weights of both folds; `joined` holds patients of two folds.
    assert {fold: found.tolist() for fold, found in unseen.items()} == {
        0: sorted(records["a"] + records["new"]),
        1: records["b"],
    }
    copies = manifest.assign(copy_of=[0] * len(manifest))
    assert unseen_records(copies, {}, [0]) == {}


def write_world(
    settings: Any, patients: dict[str, int], folds: dict[str, int], split_sha256: str
) -> tuple[pd.DataFrame, np.ndarray]:
    """The files of ingest, prepare and split; Sick images are brighter."""
    root = settings.root / "processed" / "cmri"
    shutil.rmtree(root, ignore_errors=True)
    for name in ("manifest", "image", "split"):
        (root / name).mkdir(parents=True)
    manifest = manifest_of(patients)
    manifest.to_parquet(root / "manifest" / "manifest.parquet", index=False)
    rng = np.random.default_rng(3)
    bright = np.array([90 if label == "Normal" else 150 for label in manifest["label"]])
    pixels = np.clip(bright[:, None, None, None] + rng.normal(0, 45, (len(manifest), 1, 1, 3)), 0, 255)
    pixels = (pixels + rng.integers(0, 9, (len(manifest), SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)
    np.save(root / "image" / "pixels.npy", pixels)
    (root / "image" / "render.json").write_text(json.dumps({"kind": "image", "height": SIDE, "width": SIDE, "area": "whole"}))
    pd.DataFrame({"group": list(folds), "label": "", "fold": list(folds.values())}).to_csv(
        root / "split" / "honest.csv", index=False
    )
    (root / "split" / "split.json").write_text(json.dumps({"sha256": split_sha256, "folds": 4}))
    return manifest, pixels


def test_a_champion_of_another_split_is_scored_again_on_patients_it_never_saw(settings: Any) -> None:
    """Expected scores by Keras and scikit-learn alone, from the folds' weights."""
    import keras

    patients = {f"p{i:02d}": i % 2 for i in range(16)}
    old = {patient: i // 2 % 4 for i, patient in enumerate(patients)}
    write_world(settings, patients, old, "b" * 64)
    folder = run_folder(settings, "mobilenetv2", scored_from="bank", bank="features/none")
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    dense = model.layers[-1]
    kernel, bias = dense.get_weights()
    (folder / "folds").mkdir()
    stored = {}
    for fold, sign in ((0, 1.0), (1, -1.0)):
        stored[fold] = (sign * np.ones_like(kernel) * [-1, 1] * 20, bias + sign * np.array([0.3, -0.3]))
        np.savez(folder / "folds" / f"{fold}.npz", **{f"{dense.name}|0": stored[fold][0], f"{dense.name}|1": stored[fold][1]})
    evaluation(settings, {"cmri-mobilenetv2": 0.9})
    assert promote.promote(settings, "cmri").to_json()["action"] == "promoted"

    # New patients, another split: fold 0's weights never saw old fold 0 and the new ones, fold 1's never saw old fold 1.
    more = {**patients, "q00": 0, "q01": 1}
    manifest, pixels = write_world(settings, more, {patient: i % 4 for i, patient in enumerate(more)}, "d" * 64)
    data = {"dvc_md5": "f" * 32 + ".dir", "manifest_sha256": "e" * 64, "split_sha256": "d" * 64}
    run_folder(settings, "mobilenetv2", seed=5, real=False, data=data)
    reports = evaluation(settings, {"cmri-mobilenetv2": 1.0})
    # The challenger's test predictions are of every record, right with probability 0.8.
    labels = manifest["label"].map({name: i for i, name in enumerate(CLASSES)}).to_numpy()
    mine = pd.DataFrame({"record": manifest["record"], "test_fold": 0, "group": manifest["group"], "label": labels})
    mine["p_Sick"] = np.where(labels == 1, 0.8, 0.2)
    mine["p_Normal"] = 1 - mine["p_Sick"]
    for name in ("cmri-mobilenetv2", "chosen"):
        mine.to_parquet(reports / "predictions" / f"{name}.parquet", index=False)

    result = promote.promote(settings, "cmri").to_json()
    decided: dict[int, int] = {}
    for fold in (0, 1):
        dense.set_weights(stored[fold])
        fresh = [p for p in more if old.get(p, 0 if p not in old else None) == fold]
        records = manifest.index[manifest["patient"].isin(fresh)].to_numpy()
        decided |= dict(zip(records, np.asarray(model(pixels[records].astype(np.float32)))[:, 1] > 0.5, strict=True))
    seen = sorted(decided)
    expected = balanced_accuracy_score(labels[seen], [decided[record] for record in seen])
    assert 0 < expected < 1
    assert result["comparison"]["records"] == len(seen) == 2 * (8 + 2)
    assert result["comparison"]["records_left_out"] == len(manifest) - len(seen)
    assert result["comparison"]["rival_balanced_accuracy"] == pytest.approx(expected)
    assert result["comparison"]["challenger_balanced_accuracy"] == 1.0
    assert "scored again" in result["comparison"]["rival_scored_by"]
    assert result["action"] == "promoted"


def test_a_champion_without_the_weights_of_its_folds_is_scored_on_what_its_one_model_never_saw(settings: Any) -> None:
    """As an ensemble whose members are gone."""
    import keras

    patients = {f"p{i:02d}": i % 2 for i in range(40)}
    old = {patient: i // 2 % 4 for i, patient in enumerate(patients)}
    write_world(settings, patients, old, "b" * 64)
    folder = run_folder(settings, "mobilenetv2")
    evaluation(settings, {"cmri-mobilenetv2": 0.9})
    assert promote.promote(settings, "cmri").action == "promoted"
    model = keras.saving.load_model(folder / "model.keras", compile=False)

    manifest, pixels = write_world(settings, patients, {patient: i % 4 for i, patient in enumerate(patients)}, "d" * 64)
    data = {"dvc_md5": "", "manifest_sha256": "e" * 64, "split_sha256": "d" * 64}
    run_folder(settings, "mobilenetv2", seed=5, real=False, data=data)
    reports = evaluation(settings, {"cmri-mobilenetv2": 1.0})
    labels = (manifest["label"] == CLASSES[1]).to_numpy(dtype=np.int64)
    own = pd.DataFrame({"record": manifest["record"], "test_fold": 0, "group": manifest["group"], "label": labels})
    for name in ("cmri-mobilenetv2", "chosen"):
        own.assign(p_Sick=labels * 1.0, p_Normal=1.0 - labels).to_parquet(reports / "predictions" / f"{name}.parquet")
    result = promote.promote(settings, "cmri").to_json()
    unseen = manifest.index[manifest["patient"].isin([patient for patient in patients if old[patient] == 0])].to_numpy()
    decided = np.asarray(model(pixels[unseen].astype(np.float32)))[:, 1] > 0.5
    assert result["comparison"]["records"] == len(unseen)
    expected = balanced_accuracy_score(labels[unseen], decided)
    assert result["comparison"]["rival_balanced_accuracy"] == pytest.approx(expected)


def test_a_champion_that_saw_everyone_is_not_beaten_unfairly(settings: Any) -> None:
    """Its split was never logged with it: nothing says which patients it knows, so it stays champion, and the file says why."""
    succession(settings, 0.8)
    write_world(settings, {f"p{i:02d}": i % 2 for i in range(12)}, {}, "d" * 64)
    data = {"dvc_md5": "", "manifest_sha256": "e" * 64, "split_sha256": "d" * 64}
    run_folder(settings, "mobilenetv2", seed=5, real=False, data=data)
    evaluation(settings, {"cmri-mobilenetv2": 1.0})
    result = promote.promote(settings, "cmri").to_json()
    assert result["action"] == "kept"
    assert "not logged with it" in result["summary"]
    assert registered(settings)[0] == {"champion": 1, "challenger": 2}


def test_settings_reach_the_decision(settings: Any) -> None:
    strict = config.load(settings.root, {"promote.confidence": 1.0, "evaluate.bootstrap": 300})
    run_folder(settings, "mobilenetv2", real=False)
    evaluation(settings, {"cmri-mobilenetv2": 0.65})
    result = promote.promote(strict, "cmri").to_json()
    assert result["confidence"] == 1.0
    assert 0.5 < result["comparison"]["probability_better"] < 1
    assert result["action"] == "kept"
    assert os.listdir(settings.root / "reports/cmri/promotion") == ["promotion.json"]  # noqa: PTH208


def test_a_registry_of_its_own_is_where_versions_are_kept(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "sqlite:///registry.db")
    run_folder(settings, "mobilenetv2", real=False)
    evaluation(settings, {"cmri-mobilenetv2": 0.9})
    assert [promote.promote(settings, "cmri").action for _ in range(2)] == ["promoted", "unchanged"]
    assert registered(settings) == ({}, []), "nothing in the tracking store's"
    with tracking.connected(settings) as client:
        assert registry.aliases(client, MODEL) == {"champion": 1}
        assert tracking.run_folder_of(Path(mlflow.artifacts.download_artifacts(f"models:/{MODEL}@champion")))
    assert (settings.root / "registry.db").is_file()
    assert os.environ["MLFLOW_REGISTRY_URI"] == "sqlite:///registry.db"
