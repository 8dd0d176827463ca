"""The bank holds what the backbone says of each record; it is made once, goes on after a kill, and knows what made it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from cardium.errors import CardiumError
from cardium.imaging.augment import augment_batch
from cardium.imaging.spec import Augment
from cardium.models import backbones, weights
from cardium.training import bank

AUGMENT = Augment(rotation=15.0, shift=0.1, shear=0.1, zoom=0.1, flip=True)
PIXELS = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3)).astype(np.uint8)
TRAINING = np.array([0, 2, 3, 5, 7, 9])
PLAN = bank.BankPlan(
    "m", "p", "mobilenetv2", "native", 32, 32, "random", "", 1, 2, dataclasses.asdict(AUGMENT), bank.hash_records(TRAINING)
)


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    model = backbones.build_backbone("mobilenetv2", 32, 32, seed=1)
    weights.calibrate_batch_norm(model, PIXELS)
    return model


def fill(folder: Path, model: keras.Model, plan: bank.BankPlan = PLAN, engine: str = "tensorflow") -> bank.Bank:
    folder.mkdir(exist_ok=True)
    backbone = bank.FrozenBackbone(model, weights.WeightsUsed("", "random"), batch=4, engine=engine)
    return bank.fill_bank(folder, plan, backbone, PIXELS, TRAINING)


@pytest.mark.parametrize("engine", ["tensorflow", "openvino", "auto"])
def test_every_view_is_the_backbone_of_that_view(engine: str, backbone: keras.Model, tmp_path: Path) -> None:
    made = fill(tmp_path, backbone, engine=engine)
    assert made.map_shape == (1, 1, 1280)
    expected = backbone.predict_on_batch(PIXELS.astype("float32"))
    np.testing.assert_allclose(made.view(0), expected, atol=5e-3)
    for view in (1, 2):
        moved = augment_batch(PIXELS[TRAINING], TRAINING, AUGMENT, 1, view).astype("float32")
        np.testing.assert_allclose(made.view(view)[TRAINING], backbone.predict_on_batch(moved), atol=5e-3)
        # Records that are never trained on have no augmented view.
        assert not made.view(view)[np.setdiff1d(np.arange(11), TRAINING)].any()
    assert made.view(0).dtype == np.float16
    assert json.loads((tmp_path / "bank.json").read_text())["complete"] is True


def test_a_finished_bank_is_not_computed_again(backbone: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, backbone)
    monkeypatch.setattr(bank, "compile_forward", lambda *_: pytest.fail("the bank is there"))
    fill(tmp_path, backbone)


def test_another_plan_makes_another_bank(backbone: keras.Model, tmp_path: Path) -> None:
    first = fill(tmp_path, backbone).view(1).copy()
    other = fill(tmp_path, backbone, dataclasses.replace(PLAN, views=1, augment={**PLAN.augment, "flip": False, "zoom": 0.3}))
    assert not (tmp_path / "view2.npy").exists()
    assert not np.array_equal(first, other.view(1))


@pytest.mark.parametrize("changed", ["code", "engine"])
def test_a_bank_that_was_made_otherwise_is_told_and_made_anew(
    changed: str, backbone: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = fill(tmp_path / "whole", backbone)
    plan = dataclasses.replace(PLAN, made_by={**PLAN.made_by, "code": "other code"}) if changed == "code" else PLAN
    with monkeypatch.context() as before:
        before.setattr(bank, "_CHUNK", 1)
        before.setattr(bank, "augment_batch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fill(tmp_path / "killed", backbone, plan)
    info = json.loads((tmp_path / "killed" / "bank.json").read_text())
    assert info["done"] == {"0": 11}
    np.save(tmp_path / "killed" / "view0.npy", np.zeros_like(whole.view(0)))
    if changed == "engine":
        (tmp_path / "killed" / "bank.json").write_text(json.dumps({**info, "engine": "another"}))
    capsys.readouterr()
    made_anew = fill(tmp_path / "killed", backbone)
    assert capsys.readouterr().out == f"The bank killed was made with other {changed}: starting anew.\n"
    for view in range(3):
        np.testing.assert_array_equal(whole.view(view), made_anew.view(view))


def test_what_differs_between_two_plans_is_said_in_words() -> None:
    now = dataclasses.asdict(PLAN)
    before = {**now, "architecture": "another", "pixels_sha256": "others", "manifest_sha256": "another"}
    assert bank._changed(before, now) == ["data", "data", "architecture"]
    # A bank of an earlier version says nothing of its code.
    old = {name: value for name, value in now.items() if name not in ("architecture", "made_by")}
    assert bank._changed(old, now) == ["architecture", "code", "libraries"]


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(bank.BankPlan)])
def test_each_part_of_the_plan_is_in_the_key(field: str) -> None:
    value: Any = getattr(PLAN, field)
    other = {**value, "flip": False} if isinstance(value, dict) else value + ("x" if isinstance(value, str) else 1)
    assert dataclasses.replace(PLAN, **{field: other}).key() != PLAN.key()


def test_a_killed_bank_goes_on_where_it_stopped(backbone: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fill(tmp_path / "whole", backbone)
    monkeypatch.setattr(bank, "_CHUNK", 1)
    real = bank.compile_forward
    calls = {"left": 4}

    def dying(*arguments: Any) -> Any:
        forward, name = real(*arguments)

        def once(images: np.ndarray) -> np.ndarray:
            if calls["left"] == 0:
                raise KeyboardInterrupt
            calls["left"] -= 1
            return forward(images)

        return once, name

    monkeypatch.setattr(bank, "compile_forward", dying)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "killed", backbone)
    with pytest.raises(CardiumError, match="unfinished: go on with `make it`"):
        bank.open_bank(tmp_path / "killed", "make it")
    # Three batches of view 0 and one of view 1 are done: one of view 1 and two of view 2 are left.
    calls["left"] = 3
    gone_on = fill(tmp_path / "killed", backbone)
    assert calls["left"] == 0
    for view in range(3):
        np.testing.assert_array_equal(whole.view(view), gone_on.view(view))


def test_calibration_is_kept_under_its_key(tmp_path: Path) -> None:
    first, second, third = (backbones.build_backbone("mobilenetv2", 32, 32, seed=1) for _ in range(3))
    bank.calibrate(first, PIXELS, TRAINING, tmp_path, "key")
    assert bank.restore_calibration(second, tmp_path, "key")
    np.testing.assert_array_equal(
        first.predict_on_batch(PIXELS.astype("float32")), second.predict_on_batch(PIXELS.astype("float32"))
    )
    assert not bank.restore_calibration(third, tmp_path, "another")


def test_features_beyond_float16_are_an_error(tmp_path: Path) -> None:
    inputs = keras.Input((32, 32, 3))
    huge = keras.Model(inputs, keras.layers.Rescaling(1e6)(inputs))
    with pytest.raises(CardiumError, match="beyond float16 on record 0"):
        fill(tmp_path, huge)


def test_a_missing_bank_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(CardiumError, match="There is no bank in nowhere: make it with `dvc repro`"):
        bank.open_bank(tmp_path / "nowhere", "dvc repro")
