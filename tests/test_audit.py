"""The audit against data whose faults are known: planted copies, planted shortcuts, planted labels; and data without any."""

from __future__ import annotations

import collections
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image, ImageEnhance, ImageOps

from cardium import cli, config
from cardium.audit import duplicates, registration
from cardium.audit import report as audit_report
from cardium.audit.encoder import Encoder
from cardium.audit.label_issues import find_label_issues, probability_wrong
from cardium.audit.optimism import measure_optimism
from cardium.audit.probe import count_folds
from cardium.audit.series import acquisition_of_groups, has_lone_frames, lone_frames
from cardium.audit.shortcuts import Shortcut, measure_shortcuts
from cardium.audit.survey import SIDE, SurveyJob, border_only, sheet_shortcuts, survey_chunk
from cardium.demo import phantom
from cardium.demo.chd import chd_files
from cardium.demo.ecg import ecg4_paths, ecg_files
from cardium.errors import CardiumError
from cardium.imaging.spec import Render
from cardium.pipeline import dvc
from cardium.stages import audit, ingest

PROJECT = Path(__file__).resolve().parents[1]
REAL = Path(__file__).resolve().parents[2] / "shared" / "real" / "ecg"


def settings(root: Path, **overrides: Any) -> config.Settings:
    raw = yaml.safe_load((PROJECT / "params.yaml").read_text())
    return config.resolve(raw, root, {"audit.repeats": 2, "evaluate.bootstrap": 200, **overrides})


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="JPEG", quality=quality)
    return data.getvalue()


def png(data: bytes) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).save(out, format="PNG")
    return out.getvalue()


# ---------------------------------------------------------------------------------------------------------------- copies


def test_copies_are_linked_to_the_first_of_their_kind():
    links = duplicates.exact_links(["a", "b", "a", "c", "a", "d"], ["x", "y", "x", "x", "x", "y"])
    assert links == [
        duplicates.Link(2, 0, "bytes"),
        duplicates.Link(3, 0, "pixels"),
        duplicates.Link(4, 0, "bytes"),
        duplicates.Link(5, 1, "pixels"),
    ]
    labels = ["MI", "N", "MI", "N", "N", "N"]
    groups = ["1", "2", "1", "3", "1", "2"]
    counted = duplicates.count_links(links, labels, groups, ["p", "q", "p", "r", "s", "q"], ["train"] * 3 + ["test"] * 3)
    assert counted["bytes"] == {
        "links": 2, "files": 3, "across_classes": 1, "across_units": 1, "across_groups": 0, "across_parts": 1,
    }  # fmt: skip
    assert counted["pixels"] == {
        "links": 2, "files": 4, "across_classes": 1, "across_units": 1, "across_groups": 1, "across_parts": 2,
    }  # fmt: skip
    assert counted["near"]["links"] == 0


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("ECG_DATA/train/Normal/1.jpg", "train"),
        ("ECG_DATA/Test/Normal/1.jpg", "test"),
        ("train/val/1.jpg", "validation"),
        ("Normal/test.jpg", ""),
        ("contest/training set/1.jpg", ""),
    ],
)
def test_a_given_part_is_a_whole_folder_name(path, part):
    assert duplicates.given_part(path) == part


def test_twins_in_a_given_test_folder_are_counted_once_by_their_strongest_kind():
    train = [f"t{i}" for i in range(10)]
    sha256 = [*train, "t0", "t0", "new1", "new2", "new3"]
    content = [*(f"c{i}" for i in range(10)), "c0", "c0", "c1", "other", "another"]
    parts = ["train"] * 10 + ["test"] * 4 + ["validation"]
    near = [duplicates.Link(13, 4, "near", 0.97), duplicates.Link(13, 0, "near", 0.96)]
    held = duplicates.held_in_training(parts, sha256, content, near)
    assert held == [
        duplicates.Held("test", 4, {"bytes": 2, "pixels": 1, "near": 1}),
        duplicates.Held("validation", 1, {"bytes": 0, "pixels": 0, "near": 0}),
    ]
    assert duplicates.held_in_training(["test"] * 15, sha256, content, near) == []


def test_expected_twins_are_what_random_splits_give():
    names = [
        f"{kind}{i}"
        for kind, count, times in (("m", 30, 8), ("n", 70, 2), ("o", 90, 1))
        for i in range(count)
        for _ in range(times)
    ]
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(100):
        test = rng.random(len(names)) < 0.2
        trained = {name for name, held in zip(names, test, strict=True) if not held}
        shares.append(np.mean([name in trained for name, held in zip(names, test, strict=True) if held]))
    assert duplicates.twins_by_chance(names) == pytest.approx(np.mean(shares), abs=0.01)


def surveyed(folder: Path, files: dict[str, bytes], sheets: bool) -> list[Any]:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    job = SurveyJob("data/x", "again", folder, "image", sheets, settings(folder).ingest.limits, 96, 128)
    return survey_chunk(job, [(name, True) for name in files])


def variants(data: bytes) -> dict[str, bytes]:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    w, h = image.size
    white = (255, 255, 255) if np.asarray(image).mean() > 128 else (0, 0, 0)
    return {
        "recoded": jpeg(np.asarray(image), 50),
        "smaller": jpeg(np.asarray(image.resize((image.width * 4 // 5, image.height * 4 // 5)))),
        "grey": jpeg(np.asarray(image.convert("L"))),
        "dark": jpeg(np.asarray(ImageEnhance.Brightness(image).enhance(0.85))),
        "turned": jpeg(np.asarray(image.rotate(0.5, Image.Resampling.BICUBIC, fillcolor=white))),
        "cropped": jpeg(np.asarray(image.crop((w // 20, h // 20, w - w // 20, h - h // 20)))),
        "inverted": jpeg(np.asarray(ImageOps.invert(image))),
        "padded": jpeg(np.asarray(ImageOps.pad(image, (2 * w, 2 * w), color=white))),
        "mirrored": jpeg(np.asarray(ImageOps.mirror(image))),
        "tilted": jpeg(np.asarray(image.rotate(4, Image.Resampling.BICUBIC, fillcolor=white))),
        "equalised": jpeg(np.asarray(ImageOps.equalize(image))),
    }


@pytest.mark.parametrize("sheets", [True, False])
def test_near_copies_are_found_and_different_pictures_are_not(tmp_path, sheets):
    if sheets:
        first = {paths[0] for paths in ecg4_paths(2, 0).values()}
        originals = [data for path, data in ecg_files("ecg4", 2, 4004) if path in first][::2]
    else:
        originals = [jpeg(phantom.phantom(patient, 1, 0)[0]) for patient in phantom.cohort(8, 5)]
    files = {f"{number}": data for number, data in enumerate(originals)}
    changed = variants(originals[1])
    for name, data in (
        changed.items()
        if not sheets
        else [(name, changed[name]) for name in ("smaller", "grey", "turned", "cropped", "padded")]
    ):
        files[f"1 {name}"] = data
    found = surveyed(tmp_path / "pictures", files, sheets)
    names = list(files)
    # Vectors that know nothing: the pictures' own neighbourhood must do.
    vectors = np.random.default_rng(0).normal(size=(len(names), 8)).astype(np.float32)
    rasters = np.stack([one.raster for one in found])
    wholes = np.stack([one.whole for one in found])
    links = duplicates.near_links(np.arange(len(names)), rasters, wholes, vectors, names, sheets)
    ends = {(names[link.of][0], names[link.copy][0]) for link in links}
    assert ends == {("1", "1")}
    # A copy may be found as the copy of another copy.
    assert {names[end] for link in links for end in (link.copy, link.of)} == {name for name in names if name.startswith("1")}
    # Told apart with room to spare: the strongest resemblance of two different pictures.
    prepared = [duplicates.prepare(raster, sheets) for raster in rasters[: len(originals)]]
    others = [duplicates.similarity(a, b) for i, a in enumerate(prepared) for b in prepared[:i]]
    assert max(others) < (duplicates.NEAR_SHEETS if sheets else duplicates.NEAR) - 0.02
    scale = registration.SHEETS if sheets else registration.PICTURES
    normal = [registration.normalise(whole, scale) for whole in wholes[: len(originals)]]
    others = [
        registration.similarity_aligned(a, b, [0, registration.VIEWS // 2], scale)
        for i, a in enumerate(normal)
        for b in normal[:i]
    ]
    assert max(others) < (duplicates.ALIGNED_SHEETS if sheets else duplicates.ALIGNED) - 0.02


def test_pictures_without_the_heart_show_none_of_it(tmp_path):
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 255, (200, 300, 3)).astype(np.uint8)
    other = picture.copy()
    other[40:160, 60:240] = 7
    border = border_only(picture)
    assert np.array_equal(border, border_only(other))
    assert (border[20:180, 30:270] == 128).all()
    assert np.array_equal(border[:20], picture[:20])
    # Of a sheet: whatever its traces, what is outside of them is all that is left.
    sheet = next(data for path, data in ecg_files("ecg4", 2, 4004))
    found = surveyed(tmp_path / "sheet", {"a.jpg": sheet}, True)[0]
    assert found.raster.shape == (13, SIDE, SIDE)
    assert (found.outside == 128).all(axis=2).mean() > 0.4
    assert not (found.border == 128).all(axis=2).all()
    assert found.layout in {"3x4+1", "6x2+1", "6x2"}
    assert 30 < found.rate < 220


def test_a_file_that_is_gone_is_one_line(tmp_path):
    job = SurveyJob("data/ecg4", "run it again", tmp_path, "image", False, settings(tmp_path).ingest.limits, 96, 128)
    with pytest.raises(CardiumError, match=r"^data/ecg4/a.jpg cannot be read \(.*\): run it again\.$"):
        survey_chunk(job, [("a.jpg", False)])


@pytest.fixture(scope="module")
def texture() -> np.ndarray:
    """A picture of blobs, uint8 (256, 256), and another: (2, 256, 256)."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(5).normal(size=(2, 256, 256))
    smooth = np.stack([gaussian_filter(one, 6) for one in noise])
    return np.uint8(255 * (smooth - smooth.min()) / np.ptp(smooth))


def laid(moving: Image.Image, still: Image.Image) -> float:
    """The similarity of two pictures, laid on each other by the view that their signatures name."""
    scale = registration.PICTURES
    a, b = (
        registration.normalise(np.asarray(Image.fromarray(registration.trim(np.asarray(one))).resize((64, 64), 4)), scale)
        for one in (moving, still)
    )
    found = []
    for here, there in ((a, b), (b, a)):
        likely = registration.signatures_of_views(here, scale) @ registration.signatures(there[None], scale)[0]
        found.append(registration.similarity_aligned(here, there, np.argsort(-likely)[:5].tolist(), scale))
    return max(found)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.08])
@pytest.mark.parametrize("degrees", [-4.0, 0.0, 3.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_changed_copy_lies_on_its_original_and_on_no_other(texture, share, degrees, mirrored):
    original, other = (Image.fromarray(one) for one in texture)
    copy = ImageOps.mirror(original) if mirrored else original
    side = round(share * 256)
    copy = copy.rotate(degrees, Image.Resampling.BICUBIC).crop((side, side, 256, 256 - side))
    for changed in (copy, ImageOps.invert(copy), ImageOps.equalize(copy)):
        assert laid(changed, original) > 0.8
        assert laid(changed, other) < 0.4


def test_brightness_that_rises_with_brightness_changes_nothing_and_an_inverted_picture_only_the_sign(texture):
    picture = texture[0, ::4, ::4] // 4
    normal = registration.normalise(picture, registration.PICTURES)
    brighter = np.uint8(picture.astype(float) ** 1.2 + 7)
    assert len(np.unique(brighter)) == len(np.unique(picture))
    np.testing.assert_allclose(registration.normalise(brighter, registration.PICTURES), normal, atol=1e-5)
    np.testing.assert_allclose(registration.normalise(255 - picture, registration.PICTURES), -normal, atol=1e-4)


def test_a_flat_picture_is_no_copy_of_anything(texture):
    flat = np.full((64, 64), 9, np.uint8)
    scale = registration.PICTURES
    blank, shown = registration.normalise(flat, scale), registration.normalise(texture[0, ::4, ::4], scale)
    assert not blank.any()
    assert registration.trim(flat) is flat
    for pair in ((blank, shown), (shown, blank), (blank, blank)):
        assert registration.similarity_aligned(*pair, range(registration.VIEWS), scale) == 0


def test_padding_of_any_width_is_cut_away():
    inner = np.random.default_rng(0).integers(0, 255, (40, 50)).astype(np.uint8)
    padded = np.pad(inner, ((7, 0), (3, 90)), constant_values=30)
    assert np.array_equal(registration.trim(padded), inner)


# ---------------------------------------------------------------------------------------------------------------- the probe

CLASSES = ["Normal", "Sick"]


def cohort(groups: int, each: int) -> tuple[np.ndarray, list[str], np.ndarray]:
    """(labels, groups, index of the group) of `groups` patients a class with `each` records."""
    index = np.repeat(np.arange(2 * groups), each)
    return (index % 2).astype(np.int64), [f"p{i:02d}" for i in index], index


def test_a_probe_that_knows_patients_by_heart_is_caught():
    labels, groups, index = cohort(12, 8)
    rng = np.random.default_rng(0)
    # Every patient has a look of its own, and no class has one.
    vectors = (rng.normal(size=(24, 40))[index] + 0.1 * rng.normal(size=(len(index), 40))).astype(np.float32)
    once = np.ones(len(labels), dtype=bool)
    found = measure_optimism(vectors, labels, groups, once, CLASSES, 4, 3, 300, 1)
    assert found is not None
    assert found.random.value > 0.99
    assert found.grouped.value < 0.7
    low, high = found.gap.interval(0.95)
    assert 0 < low < found.gap.value < high
    assert found.gap.value == pytest.approx(found.random.value - found.grouped.value)


def test_an_honest_dataset_has_no_gap():
    labels, groups, _ = cohort(40, 2)
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(len(labels), 10)) + 0.8 * labels[:, None]).astype(np.float32)
    found = measure_optimism(vectors, labels, groups, np.ones(len(labels), dtype=bool), CLASSES, 5, 3, 300, 1)
    assert found is not None
    low, high = found.gap.interval(0.95)
    assert low <= 0 <= high
    assert found.grouped.value > 0.8


def test_copies_count_once_only_where_groups_are_kept_apart():
    labels = np.array([0, 1] * 20)
    groups = [f"g{i:02d}" for i in range(20) for _ in range(2)]
    labels = np.array([i % 2 for i in range(20) for _ in range(2)])
    once = np.array([True, False] * 20)
    vectors = np.random.default_rng(0).normal(size=(20, 60)).astype(np.float32).repeat(2, axis=0)
    found = measure_optimism(vectors, labels, groups, once, CLASSES, 5, 3, 200, 1)
    assert found is not None
    assert found.random.value > 0.75 > found.grouped.value
    assert np.isnan(found.probabilities[~once]).all()
    assert np.isfinite(found.probabilities[once]).all()


def test_too_few_groups_are_said_and_not_scored():
    labels, groups, _ = cohort(1, 5)
    assert count_folds(groups, [CLASSES[label] for label in labels], CLASSES, 5) == 0
    vectors = np.zeros((len(labels), 2), np.float32)
    assert measure_optimism(vectors, labels, groups, np.ones(len(labels), bool), CLASSES, 5, 2, 50, 0) is None
    labels, groups, _ = cohort(3, 5)
    assert count_folds(groups, [CLASSES[label] for label in labels], CLASSES, 5) == 3


def test_a_planted_shortcut_is_named_and_noise_is_not():
    labels, groups, index = cohort(15, 2)
    rng = np.random.default_rng(4)
    size = (1000 + 300 * labels + rng.normal(0, 100, len(labels))).astype(np.float32)
    planted = [
        Shortcut("size", "file size", "", size[:, None]),
        # A tree finds what no straight line tells: the middle sizes are sick.
        Shortcut(
            "middle", "middle", "", np.where(labels == 1, 5, rng.choice([0, 10], len(labels))).astype(np.float32)[:, None]
        ),
        Shortcut("count", "files", "", (5.0 + labels)[:, None].astype(np.float32), of_groups=True),
        Shortcut("same", "constant", "", np.ones((len(labels), 1), np.float32)),
    ]
    noise = [
        Shortcut(f"noise{i}", "", "", rng.normal(size=(30, 1))[index].astype(np.float32), "logistic" if i % 2 else "tree")
        for i in range(1)
    ]
    tested = measure_shortcuts([*noise, *planted], labels, groups, CLASSES, 4, 1, 200, 0, 0.95)
    assert {one.shortcut.name for one in tested if one.clear} == {"size", "middle", "count"}
    assert [one.shortcut.name for one in tested if one.score is None] == ["same"]
    values = [one.score.value for one in tested if one.score]
    assert values == sorted(values, reverse=True)


def drawn_labels(records: int, wrong: float, sharp: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(labels, probabilities, flipped): true classes follow `probabilities` ** sharp; a share of labels is another class."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(3, 0.3), records)
    p = (p + 1e-6) / (p + 1e-6).sum(axis=1, keepdims=True)
    true_p = p**sharp / (p**sharp).sum(axis=1, keepdims=True)
    true = (true_p.cumsum(axis=1) < rng.random((records, 1))).sum(axis=1)
    flipped = rng.random(records) < wrong
    return np.where(flipped, (true + rng.integers(1, 3, records)) % 3, true), p, flipped


@pytest.mark.parametrize("sharp", [0.4, 1.0])
def test_labels_are_wrong_as_often_as_said_whether_or_not_the_probe_is_too_sure(sharp):
    labels, p, flipped = drawn_labels(20_000, 0.06, sharp, 3)
    wrong = probability_wrong(labels, p)
    assert wrong.sum() == pytest.approx(flipped.sum(), rel=0.3)
    for low, high in ((0.02, 0.3), (0.3, 0.7), (0.7, 0.97)):
        some = (wrong >= low) & (wrong < high)
        assert some.sum() > 20
        assert flipped[some].mean() == pytest.approx(wrong[some].mean(), abs=0.13)


def test_clean_labels_are_not_called_wrong_by_a_probe_that_errs():
    for seed in range(5):
        # Right in two of three records, and surer than that.
        labels, p, _ = drawn_labels(600, 0.0, 0.4, seed)
        assert (p.argmax(axis=1) != labels).mean() > 0.2
        assert len(find_label_issues(labels, p)) <= 3


def test_flipped_labels_are_named_with_the_class_that_they_had():
    rng = np.random.default_rng(7)
    true, p, _ = drawn_labels(600, 0.0, 1.0, 7)
    p[:200], true[:200] = [0.9995, 0.0003, 0.0002], 0
    sure = np.flatnonzero((p.max(axis=1) > 0.999) & (p.argmax(axis=1) == true))
    flipped = rng.choice(sure[sure > 0], 12, replace=False)
    labels = true.copy()
    labels[flipped] = (labels[flipped] + 1) % 3
    p[0] = np.nan
    issues = find_label_issues(labels, p)
    assert {issue.row for issue in issues} >= set(flipped.tolist())
    assert len(issues) <= 15
    assert all(issue.suggested == true[issue.row] for issue in issues if issue.row in flipped)
    assert [issue.wrong for issue in issues] == sorted((issue.wrong for issue in issues), reverse=True)
    assert 0 not in {issue.row for issue in issues}
    assert find_label_issues(labels[:1], p[:1]) == []


def test_a_probe_that_is_always_as_sure_tells_no_wrong_label_from_its_own_errors():
    labels = np.arange(300) % 3
    p = np.full((300, 3), 0.02)
    p[np.arange(300), np.where(np.arange(300) % 25, labels, (labels + 1) % 3)] = 0.96
    assert find_label_issues(labels, p) == []


# ---------------------------------------------------------------------------------------------------------------- series


def cine(slices: int, frames: tuple[int, ...], without: tuple[tuple[int, int], ...] = (), first: int = 2) -> np.ndarray:
    """Frame numbers of a stack with 20 numbers a slice. without: (slice, index of the frame) that do not exist."""
    return np.array([20 * (first + s) + n for s in range(slices) for i, n in enumerate(frames) if (s, i) not in without])


def test_frames_that_stand_alone_are_counted_whatever_number_begins_a_slice():
    series = [
        cine(9, (7, 19)),
        cine(9, (8, 20), without=((0, 0),)),
        cine(8, (1, 10), without=((0, 1), (7, 1)), first=0),
        cine(9, (7, 18), without=((8, 0), (4, 0), (2, 0))),
        np.array([-1, -1]),
    ]
    assert lone_frames(series).tolist() == [0, 1, 2, 3, 0]
    # Every number exists but one; numbers without any rule say nothing.
    assert lone_frames([np.arange(1, 30), np.delete(np.arange(1, 30), 4)]).tolist() == [0, 1]
    assert lone_frames([np.array([1, 2, 5, 30, 31, 70])]).tolist() == [0]
    assert lone_frames([]).tolist() == []


def series_manifest(rows: list[tuple[str, str, str, int, int]]) -> Any:
    import pandas as pd

    return pd.DataFrame(rows, columns=["label", "group", "series", "frame", "width"]).assign(height=100)


def test_which_frames_exist_and_how_series_were_made_is_known():
    rows = []
    for patient in range(16):
        label, views = ("Normal", ["SAX", "2CH"]) if patient % 2 else ("Sick", ["SAX"])
        for view in views:
            numbers = cine(6, (7, 19), without=((0, 0),) if label == "Normal" else ())
            rows += [(label, f"p{patient:02d}", view, int(number), 200) for number in numbers]
    manifest = series_manifest(rows)
    normal = (manifest["label"] == "Normal").to_numpy()
    assert np.array_equal(has_lone_frames(manifest)[:, 0] == 1, normal)
    acquired = acquisition_of_groups(manifest)
    assert np.isfinite(acquired).all()
    assert len(np.unique(acquired[normal], axis=0)) == len(np.unique(acquired[~normal], axis=0)) == 1
    # The number of series, the fewest, the middle and the most files, first and last number, sizes; then names and sizes.
    assert acquired[normal][0].tolist() == [2, 11, 11, 11, 59, 159, 1, 0.5, 0.5, 1]
    assert acquired[~normal][0].tolist() == [1, 12, 12, 12, 47, 159, 1, 1, 0, 1]
    # Without series and numbers there is nothing to tell.
    bare = manifest.assign(series="", frame=-1)
    assert not has_lone_frames(bare).any()
    assert np.isfinite(acquisition_of_groups(bare)).all()


def test_a_sheet_tells_its_layout_and_its_rate_beside_its_picture():
    layout, rate = sheet_shortcuts(["6x2", "3x4+1", "6x2", "grid"], [71.0, 0.0, 120.0, 64.5])
    assert layout.values.tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert rate.values.tolist() == [[71.0], [0.0], [120.0], [64.5]]


# ---------------------------------------------------------------------------------------------------------------- the verb


def stand_in(settings: config.Settings, dataset: str, manifest: Any, volumes: bool) -> Encoder:
    """Vectors without a network: a picture's own coarse levels."""

    def encode(pictures: np.ndarray) -> np.ndarray:
        return np.stack([np.asarray(Image.fromarray(one).convert("L").resize((8, 8)), np.float32).ravel() for one in pictures])

    folder = settings.root / "data" / dataset
    pictures = [np.asarray(Image.open(folder / path).convert("RGB").resize((64, 64))) for path in manifest["path"]]
    size = Render(48, 64)
    return Encoder("coarse", "none", "", "image", size, encode(np.stack(pictures)), np.stack(pictures), encode)


def sheets_by_class(count: int) -> dict[str, list[bytes]]:
    paths = ecg4_paths(count, 0)
    label_of = {of[0]: label for (label, _), of in paths.items()}
    found: dict[str, list[bytes]] = collections.defaultdict(list)
    for path, data in ecg_files("ecg4", count, 4004):
        if path in label_of:
            found[label_of[path]].append(data)
    return found


def audited(root: Path, files: dict[str, bytes], patch: pytest.MonkeyPatch) -> dict[str, Any]:
    for path, data in files.items():
        target = root / "data" / "ecg4" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    own = settings(root)
    ingest.run(own, "ecg4")
    patch.setattr(audit_report, "open_encoder", stand_in)
    audit.run(own, "ecg4")
    report: dict[str, Any] = json.loads((root / "reports" / "ecg4" / "audit" / "audit.json").read_text())
    return report


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """A clean dataset, and the same with a given split in which 5 of 7 test files are known from training."""
    sheets = sheets_by_class(3)
    clean = {f"{label}/{n}.jpg": data for label, own in sheets.items() for n, data in enumerate(own[:2])}
    leaky = {f"ECG_DATA/train/{path}": data for path, data in clean.items()}
    pixels = np.asarray(Image.open(io.BytesIO(sheets["Normal"][1])).convert("RGB"))
    leaky |= {
        "ECG_DATA/test/MI/a.jpg": sheets["MI"][0],
        "ECG_DATA/test/MI/b.jpg": sheets["MI"][0],
        "ECG_DATA/test/Abnormal/a.jpg": sheets["Abnormal"][1],
        "ECG_DATA/test/Normal/same pixels.png": png(sheets["Normal"][0]),
        "ECG_DATA/test/Normal/recoded.jpg": jpeg(pixels, 60),
        "ECG_DATA/test/History/new.jpg": sheets["History"][2],
        "ECG_DATA/test/MI/new.jpg": sheets["MI"][2],
    }
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("audit")
        return {name: (root / name, audited(root / name, files, patch)) for name, files in (("clean", clean), ("leaky", leaky))}


def test_a_clean_dataset_passes(projects):
    _, report = projects["clean"]
    assert report["leaks"] == []
    assert report["verdict"]["verdict"] in ("clean", "warnings")
    assert (report["copies"]["files"], report["copies"]["distinct_contents"]) == (8, 8)
    assert report["copies"]["pairs"] == []
    assert report["copies"]["twins_by_chance"] == 0


def test_a_leaky_split_is_caught_with_exact_numbers(projects):
    root, report = projects["leaky"]
    copies = report["copies"]
    assert copies["given"] == [{"part": "test", "files": 7, "twins": {"bytes": 3, "pixels": 1, "near": 1}}]
    assert (copies["files"], copies["distinct"], copies["distinct_contents"]) == (15, 12, 11)
    assert {how: row["links"] for how, row in copies["links"].items()} == {"bytes": 3, "pixels": 1, "near": 1}
    assert {leak["name"]: leak["count"] for leak in report["leaks"]} == {
        "given_test": 5, "identical_files": 3, "across_groups": 2,
    }  # fmt: skip
    assert report["verdict"]["verdict"] == "leak"
    assert report["verdict"]["said"][0] == (
        "5 of 7 files in the given test folder are also in the training folder: 3 identical to a training file, 1 of the same"
        " pixels as a training file, 1 nearly a copy of a training file."
    )
    near = next(pair for pair in copies["pairs"] if pair["how"] == "near")
    assert {near["copy"], near["of"]} == {"ECG_DATA/test/Normal/recoded.jpg", "ECG_DATA/train/Normal/1.jpg"}
    assert (root / "reports" / "ecg4" / "audit" / "figures" / "copies.png").is_file()


def test_the_page_stands_by_itself(projects):
    root, report = projects["leaky"]
    page = (root / "reports" / "ecg4" / "audit" / "audit.html").read_text()
    assert "<script" not in page
    links = re.findall(r'(?:src|href)="(?!data:image/jpeg;base64,)([^"]*)', page)
    assert links == ["../report/index.html", "../../index.html"], "the pages beside it"
    assert page.count('<img src="data:') == 2 * 5 + min(8, report["label_issues"]["count"])
    assert "5</strong> of 7" in page or "5 of 7</strong>" in page
    assert page.count('class="tag">tells the label') == sum(line["clear"] for line in report["shortcuts"])
    assert "ECG_DATA/test/Normal/recoded.jpg" in page


def test_the_same_data_give_the_same_report(projects, monkeypatch):
    root, _ = projects["clean"]
    monkeypatch.setattr(audit_report, "open_encoder", stand_in)
    folder = root / "reports" / "ecg4" / "audit"
    before = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    audit.run(settings(root), "ecg4")
    assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_strict_is_an_error_where_there_is_a_leak(projects, monkeypatch, capsys):
    monkeypatch.setattr(dvc, "reproduce", lambda root, targets: False)
    for name, strict in (("leaky", 1), ("clean", 0)):
        root, report = projects[name]
        for file in ("params.yaml", "dvc.yaml"):
            (root / file).write_text((PROJECT / file).read_text())
        monkeypatch.setenv("CARDIUM_ROOT", str(root))
        assert cli.main(["audit", "ecg4"]) == 0
        assert report["verdict"]["headline"] in capsys.readouterr().out
        assert cli.main(["audit", "--dataset", "ecg4", "--strict"]) == strict
        error = capsys.readouterr().err
        assert error.count("\n") == strict
        assert ("5 of 7 files in the given test folder" in error) == bool(strict)
    assert cli.main(["audit", "ecg9"]) == 1
    assert "Unknown dataset `ecg9`" in capsys.readouterr().err


def test_volumes_are_audited_by_a_backbone(tmp_path):
    own = settings(tmp_path, **{"chd.train.weights": "none"})
    for path, data in chd_files(2, 2002):
        (tmp_path / "data" / "chd" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "chd" / path).write_bytes(data)
    ingest.run(own, "chd")
    audit.run(own, "chd")
    report = json.loads((tmp_path / "reports" / "chd" / "audit" / "audit.json").read_text())
    assert report["leaks"] == []
    assert report["probe"]["backbone"] == "mobilenetv2_frames"
    assert {line["name"] for line in report["shortcuts"]} >= {"slices", "border", "file_size", "encoding"}
    assert not (tmp_path / "features").exists()


def test_a_large_collection_is_probed_in_part_and_every_group_has_its_turn():
    import pandas as pd

    groups = ["a"] * 90 + ["b"] * 6 + ["c"] * 4
    manifest = pd.DataFrame({"record": range(100), "group": groups, "conflict": [False] * 99 + [True]})
    chosen = audit_report.choose_records(manifest, 21, 0)
    assert chosen.sum() == 21
    assert not chosen[99]
    assert collections.Counter(np.array(groups)[chosen].tolist()) == {"a": 12, "b": 6, "c": 3}
    assert audit_report.choose_records(manifest, 100, 0).sum() == 99


# ---------------------------------------------------------------------------------------------------------------- real sheets


@pytest.mark.skipif(not REAL.is_dir(), reason="the real sheets of ../shared/real/ecg are not here")
def test_the_published_split_of_real_sheets_is_caught_with_its_numbers():
    import csv

    with (REAL / "files.csv").open(newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["version"] == "v2"]
    sha256 = [hashlib.sha256((REAL / "images" / row["image"]).read_bytes()).hexdigest() for row in rows]
    links = duplicates.exact_links(sha256, sha256)
    assert (len(rows), len(set(sha256)), len(links)) == (928, 491, 437)
    assert duplicates.twins_by_chance(sha256) == pytest.approx(0.65, abs=0.01)
    # As Kaggle's ECG_DATA has it: 187 test files, 118 of them identical to a training file.
    copies = collections.Counter(sha256)
    several = [row for row, name in enumerate(sha256) if copies[name] > 1]
    first = {name: row for row, name in reversed(list(enumerate(sha256)))}
    twins = [row for row in several if first[sha256[row]] != row][:118]
    single = [row for row, name in enumerate(sha256) if copies[name] == 1][: 187 - 118]
    parts = np.full(928, "train", dtype="<U5")
    parts[twins + single] = "test"
    held = duplicates.held_in_training(parts.tolist(), sha256, sha256, [])
    assert held == [duplicates.Held("test", 187, {"bytes": 118, "pixels": 0, "near": 0})]
