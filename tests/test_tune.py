"""tune: what a search trains, what it may look at, and what becomes of what it finds."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from manifests import manifest
from manifests import project as make_manifest
from mlflow import MlflowClient
from optuna.trial import FrozenTrial
from test_pipeline import closure

from cardium import cli, config, tracking
from cardium.config import Settings, Train
from cardium.config.plan_file import plan_table
from cardium.data.splits import read_parts
from cardium.errors import CardiumError
from cardium.evaluation.metrics import score
from cardium.imaging.spec import Render
from cardium.models import create_head, is_spatial
from cardium.models.attention import BLOCKS
from cardium.stages import split, tune
from cardium.training import fold
from cardium.training.bank import Bank, average_places
from cardium.training.fit import Examples, Fitted
from cardium.tuning import queue, result, search
from cardium.tuning.search_space import AS_IT_IS, search_space, space_of
from cardium.workspace import RunId

ROOT = Path(__file__).resolve().parents[1]
RUN = "cmri-mobilenetv2_spatial"
SPACE = {
    "learning_rate": {"low": 1e-3, "high": 0.3, "log": True},
    "dropout": {"low": 0.0, "high": 0.5},
    "block": {"choices": ["", "spatial", "se", "msa"]},
    "augment_share": {"choices": [0, 1.0]},
    "schedule": {"sets": {"steps": {"step_epochs": [1]}}},
}


def make_project(root: Path, **changes: Any) -> Settings:
    """A project with a manifest, a split, a rendering and a bank of 48 patients of cmri, as the stages before leave them."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["datasets"] = ["cmri"]
    train = {"learning_rate": 1e-3, "dropout": 0.0, "epochs": 2, "batch": 16, "views": 1}
    raw["cmri"] = {"render": {"image": {"height": 32, "width": 32}}, "train": train}
    raw["profiles"]["demo"]["tune"] = {"trials": 4, "startup": 2, "spaces": {"bank": {}}}
    raw["tune"]["spaces"]["bank"] = SPACE
    raw["evaluate"] |= {"bootstrap": 100}
    raw["profiles"]["demo"]["evaluate"] = {"test_folds": changes.pop("test_folds", "0")}
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    (root / "dvc.yaml").write_text("stages: {}\n")
    rows = [
        (f"{'NS'[g % 2]}/{g}/{i}.jpg", ["Normal", "Sick"][g % 2], f"{g:02d}", f"{g}-{i}") for g in range(48) for i in range(2)
    ]
    records = manifest(rows)
    make_manifest(root, records)
    settings = config.load(root)
    split.run(settings, "cmri")
    rng = np.random.default_rng(0)
    pixels = root / "processed" / "cmri" / "image"
    pixels.mkdir()
    np.save(pixels / "pixels.npy", np.random.default_rng(1).integers(0, 256, (len(records), 32, 32, 3), np.uint8))
    (pixels / "render.json").write_text(json.dumps({"manifest_sha256": "m", "pixels_sha256": "p"}))
    sick = (records["label"] == "Sick").to_numpy()
    maps = rng.normal(size=(2, len(records), 2, 2, 8)).astype(np.float16)
    maps[..., 0] += 0.8 * sick[:, None, None]
    bank = root / "features" / "cmri" / "honest" / "mobilenetv2"
    bank.mkdir(parents=True)
    for view in (0, 1):
        np.save(bank / f"view{view}.npy", maps[view])
    weights = {"asked": "none", "used": "random", "warning": "", "sha256": "", "file": ""}
    info = {"key": "k", "plan": {"views": 1}, "map_shape": [2, 2, 8], "complete": True, "weights": weights, "seconds": 1.0}
    (bank / "bank.json").write_text(json.dumps({**info, "engine": "none"}))
    return settings


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, dict[str, Any]]:
    settings = make_project(tmp_path_factory.mktemp("tune") / "project")
    return settings, go(settings)


def go(settings: Settings, **options: Any) -> dict[str, Any]:
    line = settings.plan.runs[RUN]
    return tune.tune_run(settings, line, settings.root / line.reads, **options)


def tried(settings: Settings) -> pd.DataFrame:
    table = pd.read_csv(settings.root / "reports" / "cmri" / "tuning" / RUN / "trials.csv")
    return table.drop(columns=["started", "seconds"])


def test_a_search_writes_what_it_tried_and_what_it_found(searched: tuple[Settings, dict[str, Any]]) -> None:
    settings, info = searched
    folder = settings.root / "reports" / "cmri" / "tuning" / RUN
    assert {path.name for path in folder.iterdir()} == {
        "trials.csv", "study.json", "history.png", "importance.png", "slices.png", "defaults.parquet", "best.parquet",
    }  # fmt: skip
    assert json.loads((folder / "study.json").read_text()) == info
    table = tried(settings)
    assert len(table) == 4
    assert info["trials"]["completed"] + info["trials"]["cut_short"] == 4
    # The run as it is comes first, and every trial's score is the mean over the folds but the held-out one.
    first = table.iloc[0]
    own = settings.plan.runs[RUN].train
    assert first["defaults"]
    assert (first["set.learning_rate"], first["set.dropout"]) == (own.learning_rate, own.dropout)
    assert (first["set.block"], first["set.schedule"]) == ("spatial", AS_IT_IS)
    assert info["held_out"] == 0
    done = table[table["state"] == "complete"]
    np.testing.assert_allclose(done["score"], done[["fold_1", "fold_2", "fold_3"]].mean(axis=1))
    assert info["best"]["score"] == done["score"].max() >= info["defaults"]["score"] == first["score"]
    # Each score is that of the predictions kept: out of fold, of every record but the hold-out's.
    predictions = pd.read_parquet(folder / "best.parquet")
    columns = ["p_Normal", "p_Sick"]
    scores = [
        score(part["label"].to_numpy(), part[columns].to_numpy())["balanced_accuracy"]
        for _, part in predictions.groupby("test_fold")
    ]
    assert np.mean(scores) == pytest.approx(info["best"]["score"])
    held_out = read_parts(settings.root / "processed/cmri/split", manifests_of(settings), "honest", 0).test
    assert set(predictions["record"]) == set(range(96)) - set(held_out)
    assert info["gain"]["low"] <= info["gain"]["difference"] <= info["gain"]["high"]


def manifests_of(settings: Settings) -> pd.DataFrame:
    return pd.read_parquet(settings.root / "processed" / "cmri" / "manifest" / "manifest.parquet")


def test_nothing_of_a_search_depends_on_the_test_fold(searched: tuple[Settings, dict[str, Any]], tmp_path: Path) -> None:
    settings, _ = searched
    parts = read_parts(settings.root / "processed/cmri/split", manifests_of(settings), "honest", 0)
    tables = {}
    for name, changed in (("test", parts.test), ("validation", parts.validation)):
        other = make_project(tmp_path / name)
        records = manifests_of(other)
        flipped = records["label"].map({"Normal": "Sick", "Sick": "Normal"})
        records["label"] = records["label"].mask(records["record"].isin(changed), flipped)
        records.to_parquet(other.root / "processed" / "cmri" / "manifest" / "manifest.parquet", index=False)
        for view in (0, 1):  # Nor on its images.
            file = other.root / "features" / "cmri" / "honest" / "mobilenetv2" / f"view{view}.npy"
            maps = np.load(file)
            maps[parts.test] = 9.0
            np.save(file, maps)
        go(other, trials=2)
        tables[name] = tried(other)
    pd.testing.assert_frame_equal(tables["test"], tried(settings).head(2), check_dtype=False)
    assert not np.allclose(tables["validation"]["score"], tried(settings).head(2)["score"]), "otherwise this test shows nothing"


def test_under_cross_validation_one_fold_is_held_out_of_the_search(tmp_path: Path) -> None:
    settings = make_project(tmp_path / "project", test_folds="all")
    line = settings.plan.runs[RUN]
    plan = search.plan_search(settings, line, settings.root / line.reads)
    held_out = set(read_parts(settings.root / "processed/cmri/split", manifests_of(settings), "honest", 0).test.tolist())
    assert list(plan.folds) == [1, 2, 3]
    for parts in plan.folds.values():
        assert not held_out & {*parts.train.tolist(), *parts.validation.tolist()}
        assert not set(parts.train.tolist()) & set(parts.validation.tolist())
        assert len(parts.train) + len(parts.validation) + len(held_out) == 96
    groups = manifests_of(settings)["group"].to_numpy()
    for parts in plan.folds.values():
        assert not set(groups[parts.train]) & set(groups[parts.validation]), "patients are kept whole"


def test_a_search_goes_on_in_more_processes_and_is_logged_once(
    searched: tuple[Settings, dict[str, Any]], tmp_path: Path
) -> None:
    before, info = searched
    root = tmp_path / "project"
    shutil.copytree(before.root, root)
    settings = config.load(root)
    client, first = logged(settings)
    [parent] = [run for run in first if tracking.PARENT not in run.data.tags]
    assert len(first) == 1 + 4
    assert parent.data.metrics["best"] == info["best"]["score"]
    assert parent.data.metrics["gain_low"] == pytest.approx(info["gain"]["low"])
    figures = {item.path for item in client.list_artifacts(parent.info.run_id, "figures")}
    assert figures == {"figures/history.png", "figures/importance.png", "figures/slices.png"}
    assert {run.data.tags[tracking.PARENT] for run in first if run != parent} == {parent.info.run_id}
    assert len(logged(settings)[1]) == 5, "each once"

    more = go(settings, trials=7, workers=2)
    table = tried(settings)
    ended = table[table["state"].isin(["complete", "pruned"])]
    assert len(ended) == 7
    assert ended["trial"].is_unique
    assert more["id"] == info["id"]
    pd.testing.assert_frame_equal(table.head(4), tried(before), check_dtype=False)
    _, then = logged(settings)
    assert len(then) == 1 + 7
    assert {run.info.run_id for run in first} < {run.info.run_id for run in then}
    [parent] = [run for run in then if tracking.PARENT not in run.data.tags]
    assert parent.data.metrics["trials_asked"] == 7
    assert tracking.sync(settings)["logged"] == []


def logged(settings: Settings) -> tuple[MlflowClient, list[Any]]:
    tracking.log_search(settings, settings.root / "reports" / "cmri" / "tuning" / RUN)
    client = MlflowClient(tracking.tracking_uri(settings))
    return client, list(client.search_runs([e.experiment_id for e in client.search_experiments()]))


def deviating(settings: Settings, model: str, **changes: Any) -> Settings:
    """The settings with another deviation of a model of cmri's study."""
    study = settings.studies["cmri"]
    models = {**study.models, model: dataclasses.replace(study.models[model], **changes)}
    return dataclasses.replace(settings, studies={"cmri": dataclasses.replace(study, models=models)})


def test_a_run_takes_over_what_was_found_when_its_line_says_so(
    searched: tuple[Settings, dict[str, Any]], tmp_path: Path
) -> None:
    settings, info = searched
    found = yaml.safe_load((settings.root / "configs" / "tuned" / f"{RUN}.yaml").read_text())
    assert found["verdict"] == info["verdict"]
    assert found["gain"]["low"] == pytest.approx(info["gain"]["low"], abs=1e-6)
    assert (found["dataset"], found["model"], found["settings"]) == ("cmri", info["best"]["model"], info["best"]["settings"])

    other = make_project(tmp_path / "project")
    file = f"configs/tuned/{RUN}.yaml"
    table = {"dataset": "cmri", "model": "mobilenetv2_spatial", "settings": {"learning_rate": 0.02, "step_epochs": [1]}}
    own = other.plan.runs[RUN].train

    def tuned_train(settings: Settings = other) -> Train:
        return deviating(settings, "mobilenetv2_spatial", tuned=file).plan.runs[RUN].train

    with pytest.raises(
        CardiumError, match=r"no configs/tuned/.*: make it with `cardium tune --dataset cmri --model mobilenetv2_s"
    ):
        tuned_train()
    tuned = other.root / file
    tuned.parent.mkdir(parents=True)
    tuned.write_text(yaml.safe_dump(table))
    assert tuned_train() == dataclasses.replace(own, learning_rate=0.02, step_epochs=[1])
    overridden = config.load(other.root, {"cmri.train.learning_rate": 0.5})
    assert tuned_train(overridden).learning_rate == 0.5
    for change, message in (
        (
            {"model": "mobilenetv2"},
            "holds cmri's mobilenetv2: it belongs to the line `cmri-mobilenetv2`|give `cmri-mobilenetv2`",
        ),
        ({"settings": {"learning_rat": 1}}, "unknown key `learning_rat`. Did you mean `learning_rate`"),
        ({"settings": 3}, "not what `cardium tune` writes"),
    ):
        tuned.write_text(yaml.safe_dump({**table, **change}))
        with pytest.raises(CardiumError, match=message):
            tuned_train()


def test_only_the_tuned_runs_own_entry_of_the_plan_changes_with_what_was_found(tmp_path: Path) -> None:
    settings = make_project(tmp_path / "project")
    file = f"configs/tuned/{RUN}.yaml"
    tuned = settings.root / file
    tuned.parent.mkdir(parents=True)
    contents = []
    for rate in (0.02, 0.03):
        found = {"dataset": "cmri", "model": "mobilenetv2_spatial", "settings": {"learning_rate": rate}, "created": rate}
        tuned.write_text(yaml.safe_dump(found))
        contents.append(plan_table(deviating(settings, "mobilenetv2_spatial", tuned=file))["runs"])
    assert contents[0].keys() == contents[1].keys() == settings.plan.runs.keys()
    assert [content[RUN]["train"]["learning_rate"] for content in contents] == [0.02, 0.03]
    assert {name for name in contents[0] if contents[0][name] != contents[1][name]} == {RUN}


def test_the_space_holds_the_run_as_it_is_and_only_blocks_of_its_bank(tmp_path: Path) -> None:
    settings = make_project(tmp_path / "project")
    line = settings.plan.runs[RUN]
    space = search_space(settings, line)
    own = line.train
    assert space.applied(space.defaults) == (line.model, own)
    assert space.dimensions["block"].choices == ["", "spatial", "se"], "msa reads another bank"
    assert space.applied({**space.defaults, "block": ""})[0] == "mobilenetv2"
    model, changed = space.applied({**space.defaults, "block": "se", "schedule": "steps", "learning_rate": 0.01})
    assert model == "mobilenetv2_se"
    assert changed == dataclasses.replace(own, learning_rate=0.01, step_epochs=[1])
    # Beyond the space's ends lies the default: they move to it.
    far = deviating(settings, "mobilenetv2_spatial", train={"learning_rate": 1e-5, "augment_share": 0.3})
    widened = search_space(far, far.plan.runs[RUN])
    assert (widened.dimensions["learning_rate"].low, widened.dimensions["learning_rate"].high) == (1e-5, 0.3)
    assert widened.dimensions["augment_share"].choices == [0.3, 0.0, 1.0]
    assert all(isinstance(choice, float) for choice in widened.dimensions["augment_share"].choices)


def test_each_kind_of_model_has_its_space() -> None:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    for profile in ("demo", "study"):
        settings = config.resolve({**raw, "profile": profile}, ROOT, {})
        for line in settings.plan.runs.values():
            if line.protocol == "honest":
                space = search_space(settings, line)
                assert space.applied(space.defaults) == (line.model, line.train)
    names = {"chd-mobilenetv2_lstm": "frames", "chd-cnn_lstm": "end_to_end", "ecg4-mobilenetv2_se": "bank"}
    assert {name: space_of(settings.plan.runs[name]) for name in names} == names
    settings_of = settings.plan.runs["ecg4-mobilenetv2"]
    assert "fine_tune" in search_space(settings, settings_of, "fine_tune").dimensions
    with pytest.raises(CardiumError, match="is searched in the space `bank`, not in `end_to_end`"):
        search_space(settings, settings_of, "end_to_end")
    with pytest.raises(CardiumError, match=r"Unknown search space `bnk`\. Did you mean `bank`"):
        search_space(settings, settings_of, "bnk")
    with pytest.raises(CardiumError, match="test records choose the weights already"):
        search.plan_search(settings, settings.plan.runs["ecg4-mobilenetv2-published"], ROOT)


@pytest.mark.parametrize(
    ("name", "dimension", "message"),
    [
        ("learning_rat", {"low": 1.0, "high": 2.0}, "unknown key `learning_rat`. Did you mean `learning_rate`"),
        ("dropout", {"low": 0.0, "high": 1.5}, "dropout: 1.5 is not between 0 and 1"),
        ("dropout", {"low": 0.5}, "`low` must be below `high`"),
        ("dropout", {}, "give `low` and `high`, or `choices`"),
        ("dropout", {"low": 0.0, "high": 0.5, "choices": [0.1]}, "give `low` and `high`, or `choices`"),
        ("weight_decay", {"low": 0.0, "high": 0.5, "log": True}, "above 0 with `log`"),
        ("optimizer", {"choices": ["adam", "adan"]}, "`adan` is not one of"),
        ("schedule", {"sets": {"a": {"step_epoch": [3]}}}, "unknown key `step_epoch`"),
        ("views", {"choices": [1, 2]}, "views and weights are not searched"),
    ],
)
def test_a_space_that_cannot_be_searched_is_one_line(name: str, dimension: dict[str, Any], message: str) -> None:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["tune"]["spaces"]["bank"] = {name: dimension}
    with pytest.raises(CardiumError, match=message):
        config.resolve(raw, ROOT, {})


def test_a_share_of_a_training_epoch_is_augmented_and_records_without_views_never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views hold their own number, so what was shown can be read off."""
    views = [np.full((40, 1, 1, 1), number, np.float16) for number in range(3)]

    class OfNumbers:
        views = 2

        def view(self, number: int) -> np.ndarray:
            return views[number]

    seen: dict[float, Examples] = {}
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    own = config.resolve(raw, ROOT, {}).datasets["cmri"].train
    parts = params_parts()
    with_views = np.arange(40) % 4 != 0

    def fit(_: Any, examples: Examples, validation: Examples, **options: Any) -> Fitted:
        seen[share] = examples
        assert not validation.inputs(0, np.arange(10)).any(), "validation is plain"
        return Fitted([{"val_loss": 0.0}], 0, 0.0)

    monkeypatch.setattr(fold, "fit", fit)
    monkeypatch.setattr(fold, "predict", lambda *_: np.zeros((10, 2)))
    monkeypatch.setattr(fold, "trained_weights", lambda _: {})
    augment = config.resolve(raw, ROOT, {}).datasets["cmri"].augment
    for share in (0.0, 0.5, 1.0):
        settings = dataclasses.replace(own, augment_share=share)
        source = fold.Source(
            bank=OfNumbers(),  # type: ignore[arg-type]
            pixels=np.empty(0),
            size=Render(1, 1),
            labels=np.arange(40) % 2,
            classes=["a", "b"],
            train=settings,
            augment=augment,
            seed=3,
            with_views=with_views,
        )
        fold.train_fold(source, fold.FoldModels(None, None), parts, 0)
    shown = {share: np.array([seen[share].inputs(epoch, np.arange(30)).ravel() for epoch in range(40)]) for share in seen}
    assert not shown[0.0].any()
    np.testing.assert_array_equal(shown[1.0][:2, with_views[:30]], np.repeat([[1], [2]], with_views[:30].sum(), axis=1))
    assert not shown[1.0][:, ~with_views[:30]].any()
    assert 0.45 < (shown[0.5][:, with_views[:30]] > 0).mean() < 0.55
    # Which ones changes from epoch to epoch, and not with the batch that a record is in.
    assert not np.array_equal(shown[0.5][0] > 0, shown[0.5][2] > 0)
    np.testing.assert_array_equal(seen[0.5].inputs(5, np.array([7, 3])).ravel(), shown[0.5][5, [7, 3]])


@pytest.mark.parametrize("block", ["", *BLOCKS])
def test_a_head_that_does_not_tell_places_apart_says_the_same_of_their_average(block: str, tmp_path: Path) -> None:
    name = f"efficientnetb0_{block}" if block else "efficientnetb0"
    if block and BLOCKS[block].taps:
        assert is_spatial(name)
        return
    maps = np.random.default_rng(0).normal(size=(5, 3, 4, 32)).astype(np.float16)
    for view in (0, 1):
        np.save(tmp_path / f"view{view}.npy", maps)
    averaged = average_places(Bank(tmp_path, {"plan": {"views": 1}, "map_shape": [3, 4, 32]}), tmp_path / "averaged")
    assert averaged.map_shape == (1, 1, 32)
    full = create_head(name, classes=3, map_shape=(3, 4, 32), hidden=7, seed=1)
    small = create_head(name, classes=3, map_shape=(1, 1, 32), hidden=7, seed=1)
    small.set_weights(full.get_weights())
    said, of_average = full.predict_on_batch(maps.astype("float32")), small.predict_on_batch(averaged.view(1))
    assert np.allclose(said, of_average, atol=1e-5) != is_spatial(name)


def params_parts() -> Any:
    from cardium.data.splits import Parts

    return Parts(np.arange(30), np.arange(30, 40), np.empty(0, dtype=np.int64))


@pytest.mark.parametrize(
    ("none_better", "low", "begins"),
    [
        (True, 0.0, "No gain: of 9 trials none beat"),
        (False, -0.01, "No gain that can be told"),
        (False, 0.01, "A gain of +0.050"),
    ],
)
def test_no_gain_is_said_plainly(none_better: bool, low: float, begins: str) -> None:
    said = result.verdict(none_better, {"difference": 0.05, "low": low, "high": 0.09}, 9)
    assert said.startswith(begins)
    assert none_better or "9" in said


def test_the_settings_of_another_block_are_all_that_its_own_line_lacks(tmp_path: Path) -> None:
    settings = make_project(tmp_path / "project")
    settings = deviating(settings, "mobilenetv2_spatial", train={"hidden": 7})
    line = settings.plan.runs[RUN]
    plan = search.plan_search(settings, line, settings.root / line.reads)

    class Best:
        params = {**plan.space.defaults, "block": ""}  # noqa: RUF012

    found = result.settings_to_take_over(plan, Best())  # type: ignore[arg-type]
    # The line cmri-mobilenetv2 has no hidden layer of its own.
    assert found["hidden"] == 7
    other = deviating(settings, "mobilenetv2", train=found)
    assert other.plan.runs["cmri-mobilenetv2"].train == plan.space.train


def test_mistakes_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = make_project(tmp_path / "project")
    monkeypatch.setenv("CARDIUM_ROOT", str(settings.root))
    for arguments, message in (
        (["--dataset", "cmr"], "Unknown dataset `cmr`. Did you mean `cmri`?"),
        (["--model", "mobilnetv2"], "Unknown model `mobilnetv2`. Did you mean `mobilenetv2`?"),
        (["--trials", "0"], "--trials: 0 is too few; the least is 1."),
        (["--workers", "-2"], "--workers: -2 is too few; the least is 1."),
        (["--space", "frames"], "mobilenetv2 is searched in the space `bank`, not in `frames`."),
        (["--model", "fused"], "fused is made of trained models"),
    ):
        assert cli.main(["tune", *arguments]) == 1
        errors = capsys.readouterr().err.splitlines()
        assert len(errors) == 1
        assert message in errors[0]
    shutil.rmtree(settings.root / "features")
    line = settings.plan.runs[RUN]
    with pytest.raises(CardiumError, match="no bank in mobilenetv2: make it with `dvc repro features@cmri-mobilenetv2`"):
        tune.tune_run(settings, line, settings.root / line.reads)


def test_the_search_depends_on_what_it_imports() -> None:
    stage = yaml.safe_load((ROOT / "configs" / "dvc.yaml").read_text())["stages"]["tune"]["do"]
    declared = [dep for dep in stage["deps"] if dep.startswith("src/")]
    needed = closure("tune")
    assert not {path for path in needed if not any(path == dep or path.startswith(f"{dep}/") for dep in declared)}
    assert not {dep for dep in declared if not any(path == dep or path.startswith(f"{dep}/") for path in needed)}


def test_an_architecture_of_its_own_is_searched_whole(tmp_path: Path) -> None:
    settings = make_project(tmp_path / "project")
    line = config.run_spec(settings, RunId("cmri", "cnn_baseline"))
    plan = search.plan_search(settings, line, settings.root / line.reads)
    assert plan.space.name == "end_to_end"
    _, own = plan.space.applied(plan.space.defaults)
    _, augmented = plan.space.applied({**plan.space.defaults, "augmented": True, "learning_rate": 0.1, "batch": 32})
    once = [p for _, p, _ in search.validate_folds(plan, line.model, dataclasses.replace(own, epochs=1))]
    # Every fold starts from the same weights, whatever was trained before.
    only = dataclasses.replace(plan, folds={3: plan.folds[3]})
    [alone] = search.validate_folds(only, line.model, dataclasses.replace(own, epochs=1))
    np.testing.assert_array_equal(once[2], alone[1])
    assert augmented == dataclasses.replace(own, augmented=True, learning_rate=0.1, batch=32)


def test_equal_predictions_are_no_better_and_no_worse(searched: tuple[Settings, dict[str, Any]]) -> None:
    settings, _ = searched
    line = settings.plan.runs[RUN]
    plan = search.plan_search(settings, line, settings.root / line.reads)
    own = pd.read_parquet(settings.root / "reports" / "cmri" / "tuning" / RUN / "defaults.parquet")
    gain = result.gain_of(plan, own, own.sample(frac=1, random_state=0))
    assert (gain["difference"], gain["low"], gain["high"], gain["probability_better"]) == (0.0, 0.0, 0.0, 0.5)


def test_another_machines_predictions_are_made_again_as_they_were(searched: tuple[Settings, dict[str, Any]]) -> None:
    settings, info = searched
    line = settings.plan.runs[RUN]
    plan = search.plan_search(settings, line, settings.root / line.reads)
    study = search.open_study(plan, "")
    trial: FrozenTrial = study.get_trials()[info["best"]["trial"]]
    kept = search.predictions_of(plan, trial)
    search.kept_predictions(plan, trial.number).unlink()
    pd.testing.assert_frame_equal(search.predictions_of(plan, trial), kept)
    assert queue.count_trials(study).ended == 4
