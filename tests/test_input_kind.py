"""Whether a picture is of the kind that a model was trained on: what is none is seen, and the share of false alarms is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cardium.runs.input_kind import FILE, fit_input_kind, read_input_kind, statistics

PATIENTS, EACH, SIDE = 40, 5, 32


def hearts(seed: int, patients: int = PATIENTS) -> tuple[np.ndarray, np.ndarray]:
    """Dark pictures with a bright blurred ring, whose place, size and brightness are a patient's; and their patients."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    pictures = []
    for _ in range(patients):
        size, bright, level = rng.uniform(5, 9), rng.uniform(120, 200), rng.uniform(15, 35)
        for _ in range(EACH):
            from_middle = np.hypot(y - rng.normal(16, 1), x - rng.normal(16, 1))
            ring = bright * np.exp(-((from_middle - size) ** 2) / 8)
            pictures.append(np.clip(level + ring + rng.normal(0, 3, (SIDE, SIDE)), 0, 255))
    pixels = np.repeat(np.stack(pictures)[..., None], 3, axis=-1).astype(np.uint8)
    return pixels, np.repeat([f"{seed}/{number}" for number in range(patients)], EACH)


def strangers() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(9)
    page = np.full((4, SIDE, SIDE, 3), 250, np.uint8)
    page[:, ::4, 2:-2] = 20
    pink = np.full((4, SIDE, SIDE, 3), (255, 225, 225), np.uint8)
    pink[:, 10:12] = 40
    return {
        "noise": rng.integers(0, 256, (4, SIDE, SIDE, 3)).astype(np.uint8),
        "a page of text": page,
        "an ECG on pink paper": pink,
        "black": np.zeros((4, SIDE, SIDE, 3), np.uint8),
        "one grey": np.full((4, SIDE, SIDE, 3), 90, np.uint8),
    }


def test_what_is_of_another_kind_is_seen_and_new_patients_are_not() -> None:
    kind = fit_input_kind(*hearts(0))
    assert kind is not None
    assert (kind.pictures, kind.groups) == (PATIENTS * EACH, PATIENTS)
    for name, pixels in strangers().items():
        assert all(kind.doubts(pixels, 0.01)), name
    told = kind.doubts(strangers()["noise"], 0.01)[0]
    assert told.startswith("unlike the pictures that the model was trained on (distance ")
    assert kind.doubts(strangers()["noise"], 0) == [""] * 4, "not asked for"
    # Of new patients, no more than about the share that is asked for: 0.05 and three standard errors of 400 pictures' patients.
    pixels, _ = hearts(1, 80)
    alarms = np.mean([bool(doubt) for doubt in kind.doubts(pixels, 0.05)])
    assert alarms < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 80)


def test_more_alarms_are_a_lower_limit_and_patients_count_once() -> None:
    pixels, groups = hearts(2)
    kind = fit_input_kind(pixels, groups)
    assert kind is not None
    limits = [kind.limit(share) for share in (0.001, 0.01, 0.03, 0.1)]
    assert limits == sorted(limits, reverse=True)
    assert limits[2] > limits[3]
    # One patient's pictures many times over: a limit by pictures would be theirs.
    odd = np.clip(pixels[:1].astype(int) * 2 + 40, 0, 255).astype(np.uint8)
    many = fit_input_kind(np.concatenate([pixels, np.repeat(odd, 200, axis=0)]), np.concatenate([groups, ["odd"] * 200]))
    assert many is not None
    assert many.limit(0.05) < 20 < many.limit(0.01), "one of 41 patients"


def test_it_is_written_and_read_and_few_patients_have_none(tmp_path: Path) -> None:
    pixels, groups = hearts(3, 6)
    kind = fit_input_kind(pixels, groups)
    assert kind is not None
    kind.write(tmp_path)
    assert read_input_kind(tmp_path) == kind
    assert fit_input_kind(pixels, groups) == kind, "the same twice"
    (tmp_path / FILE).write_text("{")
    assert read_input_kind(tmp_path) is None
    assert read_input_kind(tmp_path / "nowhere") is None
    assert fit_input_kind(pixels[:20], groups[:20]) is None


@pytest.mark.parametrize("shape", [(3, 8, 8, 3), (3, 96, 128, 3)])
def test_statistics_are_finite_whatever_the_picture(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for pixels in (np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), rng.integers(0, 256, shape).astype(np.uint8)):
        assert np.isfinite(statistics(pixels)).all()


def test_an_answer_to_noise_says_so_and_abstains_where_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from io import BytesIO

    from PIL import Image
    from run_folders import make_project, run_folder

    from cardium.config import Serve
    from cardium.imaging.kinds import Rendered
    from cardium.serving import classifier

    def png(pixels: np.ndarray) -> bytes:
        file = BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    monkeypatch.setattr(classifier, "_load", lambda *_: lambda pixels: np.tile([0.01, 0.99], (len(pixels), 1)))
    folder = run_folder(make_project(tmp_path / "project"), real=False)
    files = [png(strangers()["noise"][0]), png(hearts(4, 1)[0][0])]
    older = classifier.Classifier(folder)
    assert [row["quality"] for row in older.classify(files)] == ["ok", "ok"], "a run of an older version has no such file"
    pixels, groups = hearts(0)
    rendered = [one.array for one in older.render([png(one) for one in pixels]) if isinstance(one, Rendered)]
    kind = fit_input_kind(np.stack(rendered), groups)
    assert kind is not None
    kind.write(folder)
    noise, heart = classifier.Classifier(folder, limits=Serve(abstain=True, false_alarms=0.01)).classify(files)
    assert noise["quality"].startswith("unlike the pictures that the model was trained on")
    assert (noise["label"], noise["probability"]) == ("unsure", 0.99)
    assert heart["quality"] == "ok"
