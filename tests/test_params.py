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
from cardium.config.plan_file import plan_table
from cardium.errors import CardiumError

ROOT = Path(__file__).resolve().parents[1]
RAW: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())


def changed(path: str, value: Any) -> dict[str, Any]:
    table = copy.deepcopy(RAW)
    inner = table
    *parts, last = path.split(".")
    for part in parts:
        inner = inner[part] if isinstance(inner, list) else inner.setdefault(part, {})
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
    assert demo.datasets["cmri"].train.views == RAW["profiles"]["demo"]["image"]["train"]["views"]
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
        ("seed", -1, r"seed: -1 is not between 0 and 4294967295"),
        ("seed", 2**32, r"seed: 4294967296 is not between 0 and 4294967295"),
        ("split.seed", -1, r"split\.seed: -1 is not between"),
        ("evaluate.test_folds", 9, r"`9` is neither all nor a fold from 0 to 3"),
        (
            "studies.demo.cmri.models",
            ["resnet"],
            r"studies\.demo\.cmri\.models: Unknown model `resnet`\. Did you mean `resnet50`",
        ),
        ("studies.demo.cmri.models", ["vgg16", "vgg16"], r"studies\.demo\.cmri\.models: vgg16 stands there twice"),
        (
            "studies.demo.cmri.ensembles.ensemble",
            ["mobilenetv2", "vgg16"],
            r"`vgg16` is not trained: .* no run cmri-vgg16",
        ),
        ("studies.demo.cmri.ensembles.ensemble", ["mobilenetv2"], r"ensembles\.ensemble: 1 members; give two to 8"),
        ("studies.demo.cmri.protocols", ["onest"], r"protocols\[0\]: `onest` is not one of honest, published"),
        ("studies.demo.cmri.explanations", {"vgg16": "gradcam"}, r"explanations: there is no run cmri-vgg16"),
        ("studies.demo.cmri.renderings", ["leads"], r"cmri\.render has no size for `leads`"),
        ("studies.demo.cmri.models", {"cnn2d": {}}, r"cnn2d takes leads, and params\.yaml has no cmri\.render\.leads"),
        ("studies.demo.ecg4.models", {"cnn2d": {"reads": "image"}}, r"ecg4-cnn2d: cnn2d takes leads, not image"),
        ("profile", "fast", r"profile: `fast` is not one of demo, study"),
        ("datasets", ["ecg4", "ecg6"], r"Unknown dataset of params\.yaml: `ecg6`\. Did you mean `ecg5`"),
        ("studies.demo", {"cmri": {"models": []}}, r"`datasets` has ecg4, and studies\.demo has nothing for it"),
        ("studies.demo.ecg4.models", {"cnn_custom": {"system": "005"}}, r"models\.cnn_custom: `005`\. .*Known: 001"),
        (
            "studies.demo.ecg4.models",
            {"vgg16": {"train": {"hiden": 8}}},
            r"vgg16\.train: unknown key `hiden`\. .* `hidden`",
        ),
        ("studies.demo.ecg4.models", {"vgg16": {"trian": {}}}, r"unknown key `.*vgg16\.trian`\. Did you mean `train`"),
        ("systems.003.views", 2, r"systems\.003\.views: a bank is shared by its runs: set <dataset>\.train\.views"),
        ("studies.demo.ecg4.fusions.fused.members", ["vgg16", "vgg"], r"fusions\.fused: member `vgg` is not trained"),
        ("lines", {}, r"`lines` is of cardium 0\.1; `studies` takes its place: see Upgrading in CHANGELOG\.md"),
        ("profiles.demo.split.fold", 3, r"profiles\.demo\.split: unknown key `fold`\. Did you mean `folds`"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(path: str, value: Any, message: str) -> None:
    table = changed(path, value)
    if path.startswith("evaluate."):
        # The profile would lay its own value over the wrong one.
        table["profiles"]["demo"] = {"split": RAW["profiles"]["demo"]["split"]}
    with pytest.raises(CardiumError, match=message) as error:
        _ = config.resolve(table, ROOT, {}).plan
    assert "\n" not in str(error.value)


def test_a_run_is_trained_with_its_systems_settings_then_its_own_then_the_overrides() -> None:
    settings = config.resolve(RAW, ROOT, {"ecg5.train.epochs": 3})
    train = settings.plan.runs["ecg5-cnn2d"].train
    assert (train.optimizer, train.clip_norm, train.batch) == ("adamax", 10, 16), "of system 003"
    assert (train.keep, train.class_weights) == ("best", "balanced"), "of the run's own line"
    assert train.epochs == 3, "of the command line"
    assert settings.plan.runs["ecg4-mobilenetv2"].train.optimizer == "adam"


def entries(table: dict[str, Any]) -> dict[str, Any]:
    """What stages watch in the plan of a params.yaml: `<table>.<item>` -> its entry."""
    plan = plan_table(config.resolve(table, ROOT, {}))
    return {f"{name}.{item}": entry for name, of in plan.items() if isinstance(of, dict) for item, entry in of.items()}


@pytest.mark.parametrize(
    ("path", "value", "anew"),
    [
        ("systems.004.batch", 7, {"runs.ecg4-cnn_custom", "fusions.ecg4-fused"}),
        ("studies.demo.cmri.models", ["mobilenetv2", "inceptionv3", "mobilenetv2_spatial",
                                      {"inceptionv3_spatial": {"train": {"dropout": 0.1}}},
                                      RAW["studies"]["demo"]["cmri"]["models"][-1]],
         {"runs.cmri-inceptionv3_spatial"}),
        ("ecg5.train.dropout", 0.25, set()),  # Both runs of ecg5 take their system's.
        ("ecg5.augment.rotation", 3.0, {"runs.ecg5-cnn2d", "runs.ecg5-traces_net"}),
        ("explain.window", 0.5, set()),  # The profile's own wins.
        ("explain.noise", 0.5, {f"explanations.{name}" for name in (
            "cmri-mobilenetv2-gradcam", "cmri-cine_net-integrated_gradients", "ecg4-mobilenetv2_se-gradcam",
            "ecg4-traces_net-integrated_gradients",
            "ecg5-cnn2d-integrated_gradients", "chd-cnn_lstm-gradcam")}),
        ("promote.confidence", 0.9, {f"promotions.{dataset}" for dataset in ("cmri", "ecg4", "ecg5", "chd")}),
        ("validate.blank_std", 3.0, {"validate.blank_std"}),
    ],
)  # fmt: skip
def test_a_changed_setting_makes_anew_what_it_concerns_and_nothing_else(path: str, value: Any, anew: set[str]) -> None:
    before, after = entries(RAW), entries(changed(path, value))
    assert {name for name in {**before, **after} if before.get(name) != after.get(name)} == anew


def test_what_is_run_follows_from_the_studies() -> None:
    """A dataset less, a fifth ensemble member, a fusion less: all of it is in the plan, and evaluate watches it."""
    plan = config.resolve(changed("datasets", ["ecg4", "chd"]), ROOT, {}).plan
    assert {spec.dataset for spec in plan.runs.values()} == {"ecg4", "chd"} == {spec.dataset for spec in plan.banks.values()}
    models = [model for model in RAW["studies"]["demo"]["cmri"]["models"] if isinstance(model, str)]
    models.append("mobilenetv2_se")
    table = changed("studies.demo.cmri.models", models)
    table["studies"]["demo"]["cmri"]["explanations"] = {}
    table["studies"]["demo"]["cmri"]["ensembles"]["ensemble"] = models
    five = plan_table(config.resolve(table, ROOT, {}))
    assert {f"models/cmri/honest/{model}" for model in models} == set(five["ensembles"]["cmri-ensemble"]["members"])
    without = changed("studies.demo.ecg4.fusions", {})
    assert entries(without)["evaluations.ecg4"] != entries(RAW)["evaluations.ecg4"]
    # Under the other protocol a study's own deviation holds, and a model's before that.
    study = config.resolve(changed("profile", "study"), ROOT, {}).plan.runs
    names = ("ecg4-mobilenet", "ecg4-mobilenet-published", "ecg4-vgg16-published")
    assert [study[name].system for name in names] == [
        "",
        "001",
        "004",
    ]
    assert (study["chd-cnn_lstm"].rendering, study["chd-cnn_lstm-published"].rendering) == ("slices", "slices_published")


def test_a_plan_out_of_date_is_said_with_its_first_difference(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    settings = config.load(tmp_path)
    with pytest.raises(CardiumError, match=r"There is no plan\.yaml: write it with `cardium plan`"):
        config.check_plan(settings)
    assert config.write_plan(settings)
    assert not config.write_plan(settings), "it is there already"
    config.check_plan(settings)
    later = config.load(tmp_path, {"cmri.train.epochs": 3})
    with pytest.raises(
        CardiumError, match=r"runs\.cmri-mobilenetv2\.train\.epochs: 20 there, 3 by params\.yaml.*`cardium plan`"
    ):
        config.check_plan(later)
    (tmp_path / "plan.yaml").write_text("plan: [")
    with pytest.raises(CardiumError, match="damaged"):
        config.check_plan(settings)


def test_choosing_a_profile_changes_what_is_run_and_nothing_else(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text)
    config.choose_profile(tmp_path, "study")
    settings = config.load(tmp_path)
    assert settings.profile == "study"
    assert {spec.protocol for spec in settings.plan.runs.values()} == {"honest", "published"}
    models = [model if isinstance(model, str) else next(iter(model)) for model in RAW["studies"]["study"]["cmri"]["models"]]
    assert list(settings.studies["cmri"].models) == models
    config.choose_profile(tmp_path, "demo")
    assert (tmp_path / "params.yaml").read_text() == text
    with pytest.raises(CardiumError, match=r"Unknown profile `stduy`\. Did you mean `study`"):
        config.choose_profile(tmp_path, "stduy")
    (tmp_path / "params.yaml").write_text(text.replace("\nprofile: demo", '\n"profile": demo'))
    with pytest.raises(CardiumError, match="by hand"):
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


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"seed: 1\n# a\nsplit: {folds: 3}\nseed: 2\n",
            r"the key `seed` stands in line 1 and in line 4: keep one",
        ),
        ("seed: 1\n# Herz\u00e4\n".encode("latin-1"), r"params\.yaml, line 2: not UTF-8 \(byte 0xe4\): save the file in UTF-8"),
        ("seed: 1\n".encode("utf-16"), r"params\.yaml, line 1: not UTF-8 \(UTF-16\)"),
        (b"a: *b\n", r"params\.yaml, line 1: not valid YAML"),
        (b"[" * 5000, r"params\.yaml: not valid YAML"),
        (b"a: 2020-13-45\n", r"params\.yaml: not valid YAML"),
        (b"", r"expected a table of settings"),
    ],
)
def test_a_file_that_is_no_yaml_is_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "params.yaml").write_bytes(data)
    with pytest.raises(CardiumError, match=message) as error:
        config.load(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_numbers_are_what_dvc_reads_them_as(tmp_path: Path) -> None:
    """YAML 1.2, as DVC: `010` is ten, `1e-3` a number, `yes` a word."""
    from dvc.utils.serialize import load_yaml

    from cardium.yaml_file import read_yaml

    path = tmp_path / "some.yaml"
    path.write_text("a: 010\nb: 1e-3\nc: yes\nd: 1_000\ne: 0x10\nf: ~\ng: '0'\nh: 1:30\n")
    assert read_yaml(path) == load_yaml(str(path))
    assert read_yaml(ROOT / "params.yaml") == load_yaml(str(ROOT / "params.yaml"))


@pytest.mark.parametrize("name", ["duplicate", "latin1", "utf16"])
def test_files_that_once_failed(name: str, tmp_path: Path) -> None:
    case = ROOT.parent / "shared" / "cases" / "params" / f"{name}.yaml"
    if not case.is_file():
        pytest.skip("../shared/cases is not here")
    (tmp_path / "params.yaml").write_bytes(case.read_bytes())
    with pytest.raises(CardiumError, match=r"^params\.yaml.*(keep one|save the file in UTF-8)"):
        config.load(tmp_path)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_nothing_but_a_clear_error_comes_of_nonsense(value: Any) -> None:
    with pytest.raises(CardiumError):
        config.resolve(changed("ingest", value), ROOT, {})


def test_a_patients_images_are_read_as_long_as_a_volume() -> None:
    """300 of them take 6 s of a core: a picture's 2 would refuse every real study."""
    limits = config.Serve()
    assert limits.seconds("heart") == limits.seconds("slices") == limits.max_volume_seconds
    assert limits.seconds("traces") == limits.max_seconds
