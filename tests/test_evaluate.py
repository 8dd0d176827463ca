"""evaluate on a tiny project made by the contracts of ingest, split, train and ensemble; predictions come from a stand-in."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from cardium import config
from cardium.data.splits import read_parts
from cardium.errors import CardiumError
from cardium.evaluation.evaluation import Evaluation
from cardium.evaluation.leaderboard import leaderboard_text
from cardium.evaluation.metrics import score
from cardium.evaluation.published import PUBLISHED_SCORES
from cardium.evaluation.table import EvaluatedRun, score_runs
from cardium.imaging.spec import Render
from cardium.models.weights import WeightsUsed
from cardium.provenance import Provenance
from cardium.runs.data_version import DataVersion
from cardium.runs.trained_run import Phase, Seconds, TrainedRun
from cardium.stages import evaluate as stage
from cardium.workspace import RunId, Workspace

PROJECT = Path(__file__).resolve().parents[1]
CLASSES = ["Normal", "Sick"]
PATIENTS, EACH, FOLDS = 16, 6, 4
MODELS = ["mobilenetv2", "mobilenetv2_spatial", "densenet201_spatial"]
# The run that validation chooses for each held-out fold.
BEST = ["mobilenetv2", "densenet201_spatial", "mobilenetv2", "ensemble"]


def make_manifest() -> pd.DataFrame:
    n = PATIENTS * EACH
    patient = np.arange(n) // EACH
    label = np.array(CLASSES)[patient % 2]
    folder = [f"{name}/Directory_{p}" for name, p in zip(label, patient, strict=True)]
    table = pd.DataFrame(
        {
            "record": np.arange(n, dtype=np.int64), "path": [f"{name}/SR_1/IM{i:05d}.jpg" for i, name in enumerate(folder)],
            "label": label, "group": folder, "patient": folder, "series": "SR_1",
            "frame": np.arange(n, dtype=np.int64) % EACH, "sha256": [f"{i:064x}" for i in range(n)], "bytes": np.int64(1000),
            "width": np.int64(32), "height": np.int64(32), "depth": np.int64(1), "mode": "L", "format": "JPEG",
            "mean": 100.0, "std": 30.0,
            "copy_of": np.int64(-1),
            "conflict": False,
        }
    )  # fmt: skip
    # Of two identical files of one patient only the first is tested.
    table.loc[1, "copy_of"] = 0
    return table


def trained_run(run: RunId, kind: str = "train", **changes) -> TrainedRun:
    folds = list(range(FOLDS)) if run.protocol == "honest" else [0]
    transferred = run.model == "mobilenetv2"
    made = TrainedRun(
        id=hashlib.md5(run.name.encode()).hexdigest(),
        run=run,
        kind=kind,
        classes=CLASSES,
        rendering="image",
        size=Render(32, 32),
        test_folds=folds,
        data=DataVersion("", "m", "s"),
        folder=Path(run.folder),
        folds=FOLDS,
        weights=WeightsUsed("auto", "imagenet" if transferred else "random"),
        parameters=2_000_000,
        trainable_parameters=1281,
        model_bytes=9_400_000,
        seconds=Seconds(30.5, 4.25),
        phases=[Phase(fold, "head", 6 + fold % 2, 5, 0.6) for fold in folds],
        validation={"balanced_accuracy": 0.7},
        warnings=[] if transferred else ["random weights: no file was found"],
        provenance=Provenance("", False, {}, "2026-01-01T00:00:00+00:00"),
    )
    return dataclasses.replace(made, **changes)


def make_project(root: Path) -> config.Settings:
    table = yaml.safe_load((PROJECT / "params.yaml").read_text())
    models = {model: {"protocols": ["honest", "published"] if model == "mobilenetv2" else ["honest"]} for model in MODELS}
    table["datasets"] = ["cmri"]
    table["studies"]["demo"] = {"cmri": {"models": models, "ensembles": {"ensemble": MODELS[1:]}}}
    table["split"]["folds"], table["evaluate"]["bootstrap"] = FOLDS, 100
    table["evaluate"]["compared"] = 0  # There are no files behind these records: tests/test_parity.py compares.
    table["profiles"]["demo"]["split"] = {}
    (root / "params.yaml").write_text(yaml.safe_dump(table))
    result = config.load(root)
    places, manifest = Workspace(root), make_manifest()
    places.manifest("cmri").mkdir(parents=True)
    places.split("cmri").mkdir(parents=True)
    manifest.to_parquet(places.manifest("cmri") / "manifest.parquet", index=False)
    print_of = {"dataset": "cmri", "classes": CLASSES, "records": len(manifest), "manifest_sha256": "m"}
    (places.manifest("cmri") / "fingerprint.json").write_text(json.dumps(print_of))
    groups = manifest.drop_duplicates("group")
    fold = np.arange(PATIENTS) // 2 % FOLDS
    pd.DataFrame({"group": groups["group"], "label": groups["label"], "fold": fold}).to_csv(
        places.split("cmri") / "honest.csv", index=False
    )
    part = np.where(manifest["record"] % 5 == 0, "validation", "train")
    pd.DataFrame({"record": manifest["record"], "part": part}).to_csv(places.split("cmri") / "published.csv", index=False)
    (places.split("cmri") / "split.json").write_text(json.dumps({"folds": FOLDS, "seed": 1, "sha256": "s"}))
    for spec in result.plan.runs.values():
        write_run(result, trained_run(spec.id))
        if spec.id.protocol == "honest":
            write_validation(result, spec.id, manifest)
    members = [trained_run(RunId("cmri", model)) for model in MODELS[1:]]
    names, ids = [member.name for member in members], [member.id for member in members]
    write_run(result, trained_run(RunId("cmri", "ensemble"), "ensemble", members=names, member_ids=ids, phases=[]))
    write_validation(result, RunId("cmri", "ensemble"), manifest)
    return result


def write_run(settings, run: TrainedRun) -> None:
    folder = settings.root / run.run.folder
    folder.mkdir(parents=True, exist_ok=True)
    run.write(folder)


def write_validation(settings, run: RunId, manifest: pd.DataFrame) -> None:
    """Validation predictions of the fold after each held-out one: always right where BEST says so, otherwise always wrong."""
    rows = []
    for fold in range(FOLDS):
        records = read_parts(Workspace(settings.root).split("cmri"), manifest, "honest", fold).validation
        label = (manifest["label"].to_numpy()[records] == "Sick").astype(np.int64)
        p = np.where(label == (BEST[fold] == run.model), 0.9, 0.1)
        columns = {"record": records, "test_fold": fold, "group": manifest["group"].to_numpy()[records], "label": label}
        rows.append(pd.DataFrame(columns | {"p_Normal": 1 - p, "p_Sick": p}))
    pd.concat(rows).to_parquet(settings.root / run.folder / "validation.parquet", index=False)


def change_run(settings, model: str, **changes) -> None:
    run = TrainedRun.read(settings.root / RunId("cmri", model).folder)
    write_run(settings, dataclasses.replace(run, **changes))


def predict(settings, run, manifest, parts_of) -> pd.DataFrame:
    """A stand-in for scoring.predict_test: noise about the truth, from the run's name; mobilenetv2 is the best."""
    rng = np.random.default_rng(list(run.name.encode()))
    frames = []
    for fold in run.test_folds:
        test = parts_of(fold).test
        label = (manifest["label"].to_numpy()[test] == "Sick").astype(np.int64)
        strength = 2.0 if run.run.model == "mobilenetv2" else 0.5
        p = 1 / (1 + np.exp(-(strength * (label - 0.5) + rng.normal(size=len(test)))))
        columns = {"record": test, "test_fold": fold, "group": manifest["group"].to_numpy()[test], "label": label}
        frames.append(pd.DataFrame(columns | {"p_Normal": 1 - p, "p_Sick": p}))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture
def settings(tmp_path):
    return make_project(tmp_path)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """An evaluation's folder and what it printed; the tests below only read them."""
    project, out = make_project(tmp_path_factory.mktemp("project")), io.StringIO()
    with contextlib.redirect_stdout(out):
        stage.run(project, "cmri", predict)
    return Workspace(project.root).evaluation("cmri"), out.getvalue()


def test_everything_named_in_the_contract_is_written(written):
    folder, out = written
    runs = [
        "cmri-mobilenetv2",
        "cmri-mobilenetv2_spatial",
        "cmri-densenet201_spatial",
        "cmri-ensemble",
        "cmri-mobilenetv2-published",
    ]
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    figures = {f"figures/{kind}-{run}.png" for run in runs for kind in ("confusion", "reliability")}
    assert names == figures | {"figures/roc.png", "figures/roc-published.png"} | {
        f"predictions/{run}.parquet" for run in [*runs, "chosen", "naive", "naive-published"]
    } | {"metrics.json", "summary.json", "leaderboard.csv", "leaderboard.png"}
    assert out.strip().splitlines()[-1] == "Scored 5 runs of cmri. Written: reports/cmri/evaluation"


def test_metrics_are_a_function_of_the_predictions(written):
    folder, _ = written
    table = json.loads((folder / "metrics.json").read_text())
    assert (table["interval"], table["classes"]) == (0.95, CLASSES)
    assert table["data"] == {"manifest_sha256": "m", "split_sha256": "s"}
    for name, row in table["runs"].items():
        frame = pd.read_parquet(folder / "predictions" / f"{name}.parquet")
        values = score(frame["label"].to_numpy(), frame[["p_Normal", "p_Sick"]].to_numpy(), classes=CLASSES)
        for metric, value in values.items():
            entry = row["image"][metric]
            assert entry["value"] == pytest.approx(value)
            if name.startswith("naive") or metric == "calibration_error":
                assert entry["low"] is None, "a constant answer is no estimate; the error's interval would not hold"
            else:
                assert entry["low"] <= entry["value"] <= entry["high"]
        assert row["records"] == len(frame)
        assert np.array(row["confusion"]).sum() == len(frame)
        means = frame.groupby("group")["p_Sick"].mean()
        right = (means > 0.5) == means.index.str.startswith("Sick")
        assert row["patient"]["accuracy"]["value"] == pytest.approx(right.mean())
    best = table["runs"]["cmri-mobilenetv2"]
    assert (best["epochs"], best["weights"], best["run_id"]) == (6.5, "imagenet", hashlib.md5(b"cmri-mobilenetv2").hexdigest())
    assert best["published_balanced_accuracy"] == 0.7815


def test_test_records_are_out_of_fold_and_copies_are_left_out(written):
    folder, _ = written
    frame = pd.read_parquet(folder / "predictions" / "cmri-mobilenetv2.parquet")
    assert sorted(frame["record"]) == [r for r in range(PATIENTS * EACH) if r != 1]
    assert (frame["test_fold"] == frame["group"].str.rsplit("_").str[-1].astype(int) // 2 % FOLDS).all()


def test_the_ensemble_is_the_mean_of_its_members(written):
    folder, _ = written
    frames = {
        n: pd.read_parquet(folder / "predictions" / f"cmri-{n}.parquet").set_index("record") for n in ["ensemble", *MODELS[1:]]
    }
    assert not np.allclose(frames[MODELS[1]]["p_Sick"], frames[MODELS[2]]["p_Sick"])
    mean = (frames[MODELS[1]]["p_Sick"] + frames[MODELS[2]]["p_Sick"]) / 2
    assert frames["ensemble"]["p_Sick"].sort_index().to_numpy() == pytest.approx(mean.sort_index().to_numpy())


def test_the_naive_row_is_one_guess_from_the_training_records(written, settings):
    folder, _ = written
    manifest = make_manifest()
    sick = (manifest["label"] == "Sick").to_numpy()
    parts = [read_parts(Workspace(settings.root).split("cmri"), manifest, "honest", fold) for fold in range(FOLDS)]
    naive = pd.read_parquet(folder / "predictions" / "naive.parquet")
    assert naive["p_Sick"].to_numpy() == pytest.approx(np.mean([sick[part.train].mean() for part in parts]))
    published = read_parts(Workspace(settings.root).split("cmri"), manifest, "published", 0)
    naive = pd.read_parquet(folder / "predictions" / "naive-published.parquet")
    assert naive["p_Sick"].to_numpy() == pytest.approx(sick[published.train].mean())
    assert sorted(naive["record"]) == published.test.tolist()
    runs = json.loads((folder / "metrics.json").read_text())["runs"]
    for name in ("naive", "naive-published"):
        assert (runs[name]["image"]["balanced_accuracy"]["value"], runs[name]["image"]["roc_auc"]["value"]) == (0.5, 0.5)


def test_the_chosen_row_joins_what_each_folds_validation_chose(written):
    folder, _ = written
    frames = {path.stem: pd.read_parquet(path) for path in (folder / "predictions").glob("*.parquet")}
    row = Evaluation.read(folder, "cmri").runs["chosen"]
    assert row.choices == {str(fold): f"cmri-{model}" for fold, model in enumerate(BEST)}
    parts = [frames[f"cmri-{model}"].query("test_fold == @fold") for fold, model in enumerate(BEST)]
    pd.testing.assert_frame_equal(frames["chosen"], pd.concat(parts, ignore_index=True))
    expected = [score(part["label"].to_numpy(), part[["p_Normal", "p_Sick"]].to_numpy()) for part in parts]
    assert list(row.folds.values()) == pytest.approx([values["balanced_accuracy"] for values in expected])
    assert row.between_folds == pytest.approx(np.std(list(row.folds.values()), ddof=1))
    assert (row.run_id, row.is_run) == (None, False)


def test_few_patients_of_a_class_are_warned_of(written, settings):
    folder, _ = written
    assert not any("fewer than" in warning for row in Evaluation.read(folder, "cmri").runs.values() for warning in row.warnings)
    naive = EvaluatedRun("naive", "naive", "honest", [0], pd.read_parquet(folder / "predictions" / "naive.parquet"))
    demanding = config.load(settings.root, {"evaluate.least_groups": 9})
    row = score_runs(demanding, "cmri", CLASSES, [naive], DataVersion("", "m", "s")).runs["naive"]
    assert "fewer than 9 patients of a class (Normal 8, Sick 8)" in row.warnings[0]


def test_leaderboard_is_sorted_and_marks_what_chose_the_weights(written):
    folder, _ = written
    table = pd.read_csv(folder / "leaderboard.csv")
    assert table["protocol"].tolist() == ["honest"] * 6 + ["published"] * 2
    for _, block in table.groupby("protocol"):
        assert block["balanced_accuracy"].is_monotonic_decreasing
    assert set(table["run"][:2]) == {"cmri-mobilenetv2", "chosen"}
    chosen = table.loc[table["scored_on"] != "records held out", "run"].tolist()
    assert chosen == ["cmri-mobilenetv2-published"]
    wanted = {*PUBLISHED_SCORES["cmri"]["mobilenetv2"], "roc_auc", "brier", "calibration_error", "patient_balanced_accuracy",
              "balanced_accuracy_low", "balanced_accuracy_high", "train_seconds", "features_seconds", "parameters", "model_mb",
              "epochs", "warnings", "weights", "published_balanced_accuracy"}  # fmt: skip
    assert wanted <= set(table.columns)
    first = table.set_index("run").loc["cmri-mobilenetv2"]
    assert (first["train_seconds"], first["features_seconds"], first["model_mb"]) == (4.2, 30.5, 9.4)


def test_the_text_fits_a_terminal(written):
    folder, out = written
    evaluation = Evaluation.read(folder, "cmri")
    text = leaderboard_text(evaluation)
    assert text in out
    assert max(map(len, text.splitlines())) <= 120
    for word in (
        "cmri-densenet201_spatial",
        "naive-published",
        "random",
        "imagenet",
        "0.7815",
        "which chose the weights too",
    ):
        assert word in text
    rows = evaluation.runs.values()
    renamed = [dataclasses.replace(row, name="cmri-" + "x" * 60) if row.kind == "ensemble" else row for row in rows]
    longer = dataclasses.replace(evaluation, runs={row.name: row for row in renamed})
    assert max(map(len, leaderboard_text(longer).splitlines())) <= 120
    assert "\x1b" not in text


def test_summary_is_what_dvc_shows(written):
    folder, _ = written
    summary = json.loads((folder / "summary.json").read_text())
    runs = json.loads((folder / "metrics.json").read_text())["runs"]
    chosen = runs["chosen"]["patient"]["balanced_accuracy"]
    assert [summary[name] for name in ("balanced_accuracy", "low", "high")] == pytest.approx(
        [chosen[name] for name in ("value", "low", "high")], abs=1e-4
    )
    assert summary["chance"] == 0.5


def test_the_same_twice(written, settings):
    folder, _ = written
    stage.run(settings, "cmri", predict)
    again = Workspace(settings.root).evaluation("cmri")
    for path in folder.rglob("*.*"):
        assert path.read_bytes() == (again / path.relative_to(folder)).read_bytes(), path.name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data": DataVersion("", "old", "s")}, "on data that has changed since"),
        ({"data": DataVersion("", "m", "old")}, "on a split that has changed since"),
        ({"test_folds": [0]}, "for test folds 0, params.yaml asks for 0, 1, 2, 3"),
    ],
)
def test_a_run_of_other_data_is_refused(settings, change, says):
    change_run(settings, "mobilenetv2", **change)
    with pytest.raises(CardiumError, match=f"{says}: run `dvc repro train@cmri-mobilenetv2`"):
        stage.run(settings, "cmri", predict)


def test_a_missing_run_names_its_command(settings):
    (Workspace(settings.root).run(RunId("cmri", "mobilenetv2", "published")) / "run.json").unlink()
    with pytest.raises(CardiumError, match="`dvc repro train@cmri-mobilenetv2-published`"):
        stage.run(settings, "cmri", predict)
    assert not Workspace(settings.root).evaluation("cmri").exists()


def test_an_ensemble_of_older_members_is_refused(settings):
    change_run(settings, "mobilenetv2_spatial", id="new")
    with pytest.raises(CardiumError, match="trained again since: run `dvc repro ensemble@cmri-ensemble`"):
        stage.run(settings, "cmri", predict)


def test_an_ensemble_of_other_members_is_refused(settings):
    change_run(settings, "ensemble", members=["cmri-mobilenetv2"])
    with pytest.raises(CardiumError, match="other members than params"):
        stage.run(settings, "cmri", predict)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: f.iloc[:-1], "predictions of 94 records where 95"),
        (lambda f: pd.concat([f, f.iloc[:1]]), "predictions of 96 records where 95"),
        (lambda f: f.assign(label=1 - f["label"]), "other labels"),
        (lambda f: f.assign(p_Sick=np.nan), "95 of 95 predictions are not finite"),
    ],
)
def test_spoiled_predictions_are_refused(settings, spoil, says):
    def spoiled(*arguments):
        frame = predict(*arguments)
        return spoil(frame) if arguments[1].name == "cmri-mobilenetv2" else frame

    with pytest.raises(CardiumError, match=f"cmri-mobilenetv2: .*{says}"):
        stage.run(settings, "cmri", spoiled)


def test_published_table_is_that_of_the_page():
    page = next(iter((PROJECT.parent / "shared" / "seeds").glob("000*.txt")), None)
    if page is None:
        pytest.skip("the page of system 000 is not here (shared/seeds)")
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if "_OG" in line]
    names = {"Baseline": "", "Attention": "_spatial"}
    seen = 0
    for line in lines:
        cells = [cell.strip().strip("*") for cell in line.strip("|").split("|")]
        name = cells[0].replace("\\", "")
        backbone, variant = name.split("_")[:2]
        model = "ensemble" if variant == "Ensemble" else backbone.lower() + names[variant]
        numbers = [float(cell) for cell in cells[1:] if cell != "N/A"]
        assert list(PUBLISHED_SCORES["cmri"][model].values()) == numbers
        seen += 1
    assert seen == len(PUBLISHED_SCORES["cmri"]) == 9
