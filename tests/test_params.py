"""params.yaml -> settings: what is wrong is said in one line that names the key and the nearest one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cardium import config
from cardium.errors import CardiumError
from cardium.stages import settings as settings_stage

ROOT = Path(__file__).resolve().parents[1]
RAW: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())


def changed(path: str, value: Any) -> dict[str, Any]:
    table = copy.deepcopy(RAW)
    inner = table
    *parts, last = path.split(".")
    for part in parts:
        inner = inner[part]
    inner[last] = value
    return table


def test_the_study_profile_is_the_published_protocol() -> None:
    settings = config.resolve(changed("profile", "study"), ROOT, {})
    train = settings.datasets["cmri"].train
    assert (train.epochs, train.batch, train.learning_rate, train.dropout) == (10, 128, 1e-4, 0.5)
    assert (train.stop_patience, train.plateau_patience, train.plateau_factor, train.min_learning_rate) == (5, 3, 0.5, 1e-6)
    assert (settings.datasets["cmri"].render["image"].height, settings.seed) == (128, 1337)
    augment = settings.datasets["cmri"].augment
    assert (augment.rotation, augment.shift, augment.shear, augment.zoom, augment.flip) == (15, 0.1, 0.1, 0.1, True)
    assert settings.protocols["published"].scaling == "unit"


def test_the_profile_is_laid_over_and_overrides_over_that() -> None:
    demo = config.resolve(RAW, ROOT, {"cmri.train.epochs": 3})
    assert demo.datasets["cmri"].train.epochs == 3
    assert demo.datasets["cmri"].train.views == RAW["profiles"]["demo"]["cmri"]["train"]["views"]
    assert demo.overrides == {"cmri.train.epochs": 3}
    assert demo.test_folds("cmri") == list(range(demo.split.folds))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("ingest.max_badd", 0.1, r"unknown key `ingest\.max_badd`\. Did you mean `max_bad`\?"),
        ("spilt", {}, r"unknown key `spilt`\. Did you mean `split`\?"),
        ("cmri.train.epochs", 0, r"cmri\.train\.epochs: 0 is too small; the least is 1"),
        ("cmri.train.epochs", "ten", r"cmri\.train\.epochs: expected a whole number, got 'ten'"),
        ("cmri.train.epochs", True, r"cmri\.train\.epochs: expected a whole number"),
        ("cmri.train.dropout", 1.5, r"cmri\.train\.dropout: 1\.5 is not between 0 and 1"),
        ("cmri.train.weights", "imagnet", r"`imagnet` is not one of imagenet, none, auto\. Did you mean `imagenet`\?"),
        ("promote", [], r"promote: expected a table"),
        ("evaluate.test_folds", 9, r"`9` is neither all nor a fold from 0 to 3"),
        ("runs.cmri-mobilenetv2.model", "resnet", r"runs\.cmri-mobilenetv2: by its content this line's name is `cmri-resnet`"),
        ("ensembles.cmri-ensemble.members", ["vgg"], r"member `vgg` has no line `cmri-vgg` in runs"),
        ("profile", "fast", r"profile: `fast` is not one of demo, study"),
        ("datasets", ["ecg4", "ecg5"], r"runs\.cmri-mobilenetv2: dataset `cmri` is not among `datasets`"),
        ("renderings.cmri-leads", {"dataset": "cmri", "kind": "leads"}, r"cmri\.render has no size for `leads`"),
        ("runs.ecg4-cnn_custom.system", "005", r"Unknown system of params\.yaml, runs\.ecg4-cnn_custom: `005`"),
        ("runs.ecg5-cnn2d.reads", "processed/ecg5/leeds", r"runs\.ecg5-cnn2d\.reads: .* Did you mean `processed/ecg5/leads`\?"),
        ("runs.ecg4-vgg16.train.hiden", 8, r"runs\.ecg4-vgg16\.train: unknown key `hiden`\. Did you mean `hidden`\?"),
        ("systems.003.views", 2, r"systems\.003\.views: a bank is shared by its runs: set ecg5\.train\.views"),
        ("fusions.ecg4-fused.members", ["vgg"], r"fusions\.ecg4-fused: member `vgg` has no line `ecg4-vgg` in runs"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(path: str, value: Any, message: str) -> None:
    table = changed(path, value)
    if path.startswith(("cmri.train.", "evaluate.")):
        # The profile would lay its own value over the wrong one.
        table["profiles"]["demo"] = copy.deepcopy(RAW["profiles"]["study"]) | {"split": RAW["profiles"]["demo"]["split"]}
    with pytest.raises(CardiumError, match=message) as error:
        config.resolve(table, ROOT, {})
    assert "\n" not in str(error.value)


def test_a_run_is_trained_with_its_systems_settings_then_its_own_then_the_overrides() -> None:
    settings = config.resolve(RAW, ROOT, {"ecg5.train.epochs": 3})
    train = settings.train_of(settings.runs["ecg5-cnn2d"])
    assert (train.optimizer, train.clip_norm, train.batch) == ("adamax", 10, 16), "of system 003"
    assert (train.keep, train.class_weights) == ("best", "balanced"), "of the run's own line"
    assert train.epochs == 3, "of the command line"
    assert settings.train_of(settings.runs["ecg4-mobilenetv2"]).optimizer == "adam"


def test_only_a_systems_own_runs_change_with_it(tmp_path: Path) -> None:
    contents = []
    for epochs in (2, 3):
        changed = config.resolve(copy.deepcopy(RAW), tmp_path, {})
        changed.systems["004"]["epochs"] = epochs
        settings_stage.run(changed, "runs")
        contents.append({path.stem: path.read_text() for path in (tmp_path / "processed" / "settings").iterdir()})
    different = {name for name in contents[0] if contents[0][name] != contents[1][name]}
    assert different == {name for name, line in RAW["runs"].items() if line.get("system") == "004"}
    assert different < contents[0].keys() == RAW["runs"].keys()


def test_choosing_a_profile_changes_what_is_run_and_nothing_else(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text)
    config.choose_profile(tmp_path, "study")
    settings = config.load(tmp_path)
    assert settings.profile == "study"
    assert set(settings.runs) == set(RAW["lines"]["study"]["runs"])
    assert set(settings.banks) == set(RAW["lines"]["study"]["banks"])
    config.choose_profile(tmp_path, "demo")
    assert (tmp_path / "params.yaml").read_text() == text
    with pytest.raises(CardiumError, match=r"Unknown profile `stduy`\. Did you mean `study`"):
        config.choose_profile(tmp_path, "stduy")
    (tmp_path / "params.yaml").write_text(text.replace("runs: *demo_runs", "runs: {}"))
    with pytest.raises(CardiumError, match="edit it by hand"):
        config.choose_profile(tmp_path, "study")


def test_a_missing_key_is_named() -> None:
    table = copy.deepcopy(RAW)
    del table["promote"]["confidence"]
    with pytest.raises(CardiumError, match=r"`promote\.confidence` is missing"):
        config.resolve(table, ROOT, {})


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    assert (
        config.resolve(changed("cmri.train.min_learning_rate", "1e-7"), ROOT, {}).datasets["cmri"].train.min_learning_rate
        == 1e-7
    )


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: 1\nruns: [\n")
    with pytest.raises(CardiumError, match=r"params\.yaml, line 3: not valid YAML"):
        config.load(tmp_path)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_nothing_but_a_clear_error_comes_of_nonsense(value: Any) -> None:
    with pytest.raises(CardiumError):
        config.resolve(changed("ingest", value), ROOT, {})
