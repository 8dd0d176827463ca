"""The demo data: the same bytes everywhere, a heart that gives the class away, and nothing else that does."""

from __future__ import annotations

import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardium.datasets import demos
from cardium.demo import ecg, make, phantom
from cardium.errors import CardiumError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with the default demo data."""
    root = tmp_path_factory.mktemp("demo")
    assert demos.make_demo(root) == 384
    return root


# --- files ---


def test_default_bytes_are_the_published_ones(generated: Path) -> None:
    assert make.folder_digest(generated / "data/cmri") == demos.get_demo("cmri").digest


def test_layout_is_the_collections_own(generated: Path) -> None:
    folder = generated / "data/cmri"
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert len(files) == 384
    found = [re.fullmatch(r"(Normal|Sick)/Directory_(\d+)/SR_(\d+)/IM(\d{5})\.jpg", name) for name in files]
    assert all(found)
    patients = {(match[1], int(match[2])) for match in found if match}
    assert Counter(label for label, _ in patients) == {"Normal": 8, "Sick": 8}
    assert len({number for _, number in patients}) == 16, "a patient's number is unique over the classes"
    assert sum((folder / name).stat().st_size for name in files) < 6_000_000
    modes = set()
    for name in files[::29]:
        with Image.open(folder / name) as image:
            image.load()
            modes.add((image.mode, image.format))
    assert modes == {("L", "JPEG")}
    assert not list((generated / ".cardium").iterdir()), "nothing is left of the building place"
    assert [path.name for path in (generated / "data").iterdir()] == ["cmri"], "DVC hashes data/ as a whole"


def test_no_two_images_are_alike(generated: Path) -> None:
    contents = [path.read_bytes() for path in (generated / "data/cmri").rglob("*.jpg")]
    assert len(set(contents)) == len(contents)


def test_second_call_does_nothing_and_says_so(generated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (generated / "data").rglob("*")}
    assert demos.make_demo(generated) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (generated / "data").rglob("*")} == before


def test_other_demo_data_is_told_from_the_same(tmp_path: Path) -> None:
    assert demos.make_demo(tmp_path, count=2, seed=5) == 48
    assert demos.make_demo(tmp_path, count=2, seed=5) == 0
    with pytest.raises(CardiumError, match="stay as they are"):
        demos.make_demo(tmp_path, count=2, seed=6)


def test_users_data_is_never_touched(tmp_path: Path) -> None:
    mine = tmp_path / "data/cmri/Normal/Directory_1/SR_1/IM00001.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(CardiumError, match="move data/cmri away") as error:
        demos.make_demo(tmp_path)
    assert "\n" not in str(error.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
    assert mine.read_bytes() == b"mine"


def test_one_changed_byte_makes_it_the_users_data(tmp_path: Path) -> None:
    demos.make_demo(tmp_path, count=2, seed=5)
    changed = tmp_path / "data/cmri/Sick"
    victim = sorted(changed.rglob("*.jpg"))[0]
    victim.write_bytes(victim.read_bytes()[:-1] + b"\0")
    with pytest.raises(CardiumError):
        demos.make_demo(tmp_path, count=2, seed=5)


def test_empty_folder_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "data/cmri").mkdir(parents=True)
    assert demos.make_demo(tmp_path, count=2, seed=5) == 48


def test_broken_off_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = phantom.phantom

    def fails(patient: phantom.Patient, level: int, frame: int):
        if level == 1:
            raise KeyboardInterrupt
        return draw(patient, level, frame)

    monkeypatch.setattr(phantom, "phantom", fails)
    with pytest.raises(KeyboardInterrupt):
        demos.make_demo(tmp_path, count=2, seed=5)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("patients", [-2, 0, 1, 7])
def test_patients_come_in_pairs(tmp_path: Path, patients: int) -> None:
    with pytest.raises(CardiumError, match="even number"):
        demos.make_demo(tmp_path, count=patients)
    assert not (tmp_path / "data").exists()


def test_unknown_dataset_lists_the_names(tmp_path: Path) -> None:
    with pytest.raises(CardiumError, match="cmri"):
        demos.make_demo(tmp_path, "cmr")


def test_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / ".cardium").write_text("a file where a folder should be")
    with pytest.raises(CardiumError, match="cannot be written"):
        demos.make_demo(tmp_path, count=2, seed=5)


# --- ECG sheets ---

ECG_FILES = {"ecg4": 24 * 4 + 12 + 6 + 6 + 1, "ecg5": 16 * 5 + 2 * 3 + 4 * 3 + 1}


@pytest.fixture(scope="module")
def sheets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with the default demo data of both ECG datasets."""
    root = tmp_path_factory.mktemp("sheets")
    for dataset, files in ECG_FILES.items():
        assert demos.make_demo(root, dataset) == files == demos.get_demo(dataset).total(demos.get_demo(dataset).count)
    return root


def _by_content(folder: Path) -> dict[bytes, list[str]]:
    found: dict[bytes, list[str]] = {}
    for path in sorted(folder.rglob("*.jpg")):
        found.setdefault(path.read_bytes(), []).append(path.relative_to(folder).as_posix())
    return found


@pytest.mark.parametrize("dataset", ["ecg4", "ecg5"])
def test_sheets_bytes_are_the_published_ones(sheets: Path, dataset: str) -> None:
    assert make.folder_digest(sheets / "data" / dataset) == demos.get_demo(dataset).digest
    assert demos.make_demo(sheets, dataset) == 0
    assert sum(path.stat().st_size for path in (sheets / "data" / dataset).rglob("*.jpg")) < 25_000_000


def test_version_2s_layout_with_its_copies_and_its_conflict(sheets: Path) -> None:
    folder = sheets / "data/ecg4"
    pattern = (
        r"ECG Images of Myocardial Infarction Patients \(240x12=2880\)/MI\(\d+\)\.jpg|"
        r"ECG Images of Patient that have History of MI \(172x12=2064\)/PMI\(\d+\)\.jpg|"
        r"ECG Images of Patient that have abnormal heartbeat \(233x12=2796\)/HB\(\d+\)\.jpg|"
        r"Normal Person ECG Images \(284x12=3408\)/Normal\(\d+\)\.jpg"
    )
    same = _by_content(folder)
    assert len(same) == 96
    names = [name for some in same.values() for name in some]
    assert all(re.fullmatch(pattern, name) for name in names)
    across = [some for some in same.values() if len({name.partition("/")[0] for name in some}) > 1]
    assert len(across) == 1
    assert any(name.endswith("/MI(1).jpg") for name in across[0])
    several = Counter(some[0].partition("/")[0].split(" (")[0] for some in same.values() if len(some) > 1)
    assert [several[name] for name in ("ECG Images of Patient that have abnormal heartbeat", "Normal Person ECG Images")] == [
        0,
        6,
    ]


def test_both_versions_layout_with_binder_pages_and_a_conflict(sheets: Path) -> None:
    folder = sheets / "data/ecg5"
    pattern = (
        r"v1/ECG Images of COVID-19 Patients \(250\)/(type_[12]/Binder1_Page_\d{3}|type_3/COVID  \(\d+\))\.jpg|"
        r"v1/ECG Images of Myocardial Infarction Patients \(77\)/MI \(\d+\)\.jpg|"
        r"v1/ECG Images of Patient that have History of MI \(203\)/PMI {1,2}\(\d+\)\.jpg|"
        r"v1/ECG Images of Patient that have abnormal heart beats \(548\)/HB( | {3})\(\d+\)\.jpg|"
        r"v1/Normal Person ECG Images \(859\)/Normal \(\d+\)\.jpg|"
        r"v2/[^/]+ \(\d+x12=\d+\)/(MI|PMI|HB|Normal)\(\d+\)\.jpg"
    )
    same = _by_content(folder)
    assert len(same) == 80
    for some in same.values():
        assert all(re.fullmatch(pattern, name) for name in some), some
        assert sum(name.startswith("v1/") for name in some) == 1, "all of version 2 is in version 1"
    conflict = [some for some in same.values() if any(name.endswith("/MI(1).jpg") for name in some)]
    assert ["PMI" in name for some in conflict for name in some] == [True, False, True]
    covid = list((folder / "v1/ECG Images of COVID-19 Patients (250)").iterdir())
    assert {path.name for path in covid} == {"type_1", "type_2", "type_3"}
    assert not set(same) & set(_by_content(sheets / "data/ecg4")), "the two datasets share no sheet"


@pytest.mark.parametrize(("dataset", "classes"), [("ecg4", 4), ("ecg5", 5)])
def test_sheets_come_in_the_same_sizes_in_every_class(sheets: Path, dataset: str, classes: int) -> None:
    drawn = demos.get_demo(dataset)
    sizes: dict[str, list[tuple[int, int]]] = {}
    for (label, _), paths in ecg._ecg_paths(dataset, drawn.count, drawn.seed).items():
        with Image.open(sheets / "data" / dataset / paths[0]) as image:
            assert (image.mode, image.format) == ("RGB", "JPEG")
            sizes.setdefault(label, []).append(image.size)
    assert len(sizes) == classes
    assert len({tuple(some) for some in sizes.values()}) == 1
    assert len(set(sizes["Normal"])) > 5


def test_truth_of_a_file_is_drawn_anew(sheets: Path) -> None:
    path = "v1/Normal Person ECG Images (859)/Normal (5).jpg"
    truth = ecg.sheet_truth("ecg5", path)
    with Image.open(sheets / "data/ecg5" / path) as image:
        pixels = np.asarray(image.convert("L"))
        if truth.angle:
            pixels = np.asarray(image.convert("L").rotate(truth.angle))
    assert all(pixels[top:bottom, left:right].min() < 120 for left, top, right, bottom in truth.leads)
    copied = ecg.sheet_truth("ecg5", "v2/ECG Images of Myocardial Infarction Patients (240x12=2880)/MI(1).jpg")
    assert copied == ecg.sheet_truth("ecg5", "v1/ECG Images of Patient that have History of MI (203)/PMI  (1).jpg")
    with pytest.raises(CardiumError, match="no file"):
        ecg.sheet_truth("ecg4", "nothing.jpg")
    with pytest.raises(CardiumError, match="ecg4"):
        ecg.sheet_truth("cmri", path)


def test_other_counts_and_seeds_are_other_sheets(tmp_path: Path) -> None:
    assert demos.make_demo(tmp_path / "one", "ecg4", count=2, seed=1) == demos.get_demo("ecg4").total(2)
    assert demos.make_demo(tmp_path / "one", "ecg4", count=2, seed=1) == 0
    assert demos.make_demo(tmp_path / "two", "ecg4", count=2, seed=2) == demos.get_demo("ecg4").total(2)
    one, two = (_by_content(tmp_path / name / "data/ecg4") for name in ("one", "two"))
    assert not set(one) & set(two)


@pytest.mark.parametrize("count", [-1, 0, 1])
def test_one_sheet_is_too_few(tmp_path: Path, count: int) -> None:
    with pytest.raises(CardiumError, match="too few"):
        demos.make_demo(tmp_path, "ecg5", count=count)
    assert not (tmp_path / "data").exists()


# --- what gives the class away, and what does not ---


@dataclass(frozen=True)
class Traces:
    """Per patient of a large cohort: label (1 Sick), what is measured outside the heart, and what the true masks say."""

    sick: np.ndarray
    names: list[str]
    outside: np.ndarray
    emptying: np.ndarray
    thickness: np.ndarray
    still: np.ndarray
    torso: np.ndarray


@pytest.fixture(scope="module")
def traces() -> Traces:
    """64 patients, the middle slice at end-diastole and end-systole; a disc of 85 pixels, with all of the heart, is cut out."""
    outside, sick, emptying, thickness, still, torso = [], [], [], [], [], []
    names = ["bytes", "width", "height", "number", "border mean", "border std", "mean", "std", "bright share", "dark share"]
    for patient in phantom.cohort(64, seed=1):
        rows, areas, walls = [], [], []
        for frame in (0, phantom.END_SYSTOLE):
            image, masks = phantom.phantom(patient, 1, frame)
            data = io.BytesIO()
            Image.fromarray(image).save(data, format="JPEG", quality=90)
            if frame == 0:
                centre = np.argwhere(masks["lv"]).mean(0)
            places = np.argwhere(np.ones(image.shape)) - centre
            away = np.hypot(*places.T).reshape(image.shape)
            assert not any(mask[away > 85].any() for mask in masks.values())
            rest = image[away > 85].astype(float)
            border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]).astype(float)
            rows.append(
                [
                    *(len(data.getvalue()), image.shape[1], image.shape[0], patient.number, border.mean(), border.std()),
                    *(rest.mean(), rest.std(), (rest > 90).mean(), (rest < 12).mean()),
                ]
            )
            areas.append(masks["lv"].sum())
            outer = np.sqrt((masks["lv"].sum() + masks["myocardium"].sum()) / np.pi)
            walls.append(1 - np.sqrt(masks["lv"].sum() / np.pi) / outer)
            # How far the cavity's edge lies from the centre, in 24 directions.
            angle = np.arctan2(places[:, 0], places[:, 1]).reshape(image.shape)
            sector = ((angle + np.pi) / (2 * np.pi) * 24).astype(int) % 24
            edge = np.sqrt(np.bincount(sector[masks["lv"]], minlength=24) * 24 / np.pi)
            if frame == 0:
                first = edge
        moved = 1 - edge / first
        outside.append(np.mean(rows, axis=0))
        sick.append(patient.label == "Sick")
        emptying.append(1 - areas[1] / areas[0])
        thickness.append(walls[0])
        still.append(moved.min())
        torso.append(patient["torso_depth"])
    return Traces(np.array(sick), names, *map(np.array, (outside, emptying, thickness, still, torso)))


def _balanced_accuracy(sick: np.ndarray, said: np.ndarray) -> float:
    return float((said[sick].mean() + (~said[~sick]).mean()) / 2)


def _left_out(features: np.ndarray, sick: np.ndarray) -> float:
    """Balanced accuracy of logistic regression, each patient judged by a model that never saw it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import LeaveOneOut, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3))
    return _balanced_accuracy(sick, cross_val_predict(model, features, sick, cv=LeaveOneOut()).astype(bool))


def _largest_gap(features: np.ndarray, sick: np.ndarray) -> float:
    """The largest difference of the two classes' means over all features, in standard deviations."""
    spread = features.std(axis=0)
    scaled = features[:, spread > 0] / spread[spread > 0]
    return float(np.abs(scaled[sick].mean(0) - scaled[~sick].mean(0)).max())


def _chance(features: np.ndarray, sick: np.ndarray) -> float:
    """How often shuffled labels show as large a gap as the true ones: a permutation test over all features at once."""
    random = np.random.default_rng(0)
    seen = _largest_gap(features, sick)
    return float(np.mean([_largest_gap(features, random.permutation(sick)) >= seen for _ in range(2000)]))


def test_heart_alone_gives_the_class(traces: Traces) -> None:
    for measured, normal_above in ((traces.emptying, True), (traces.thickness, True), (traces.still, True)):
        normal, sick = measured[~traces.sick], measured[traces.sick]
        cut = (np.median(normal) + np.median(sick)) / 2
        assert _balanced_accuracy(traces.sick, (measured < cut) == normal_above) >= 0.9
    # Ranges that a clinic would recognise: area emptied in the middle slice, and a segment that does not move at all.
    assert 0.45 < np.median(traces.emptying[~traces.sick]) < 0.70
    assert np.median(traces.emptying[traces.sick]) < 0.35
    assert np.median(traces.still[traces.sick]) < 0.08 < 0.2 < np.median(traces.still[~traces.sick])


def test_nothing_outside_the_heart_gives_the_class(traces: Traces) -> None:
    # 0.66: what guessing passes once in a hundred cohorts of 64.
    assert _left_out(traces.outside, traces.sick) < 0.66
    assert _chance(traces.outside, traces.sick) > 0.05
    for name, column in zip(traces.names, traces.outside.T, strict=True):
        if column.std() > 0:
            gap = abs(column[traces.sick].mean() - column[~traces.sick].mean()) / column.std()
            assert gap < 0.6, f"{name}: the classes' means are {gap:.2f} deviations apart"


@pytest.mark.parametrize("name", ["bytes", "border mean", "mean", "dark share"])
def test_a_planted_trace_would_be_found(traces: Traces, name: str) -> None:
    """The test above has the power to fail: one feature shifted by one and a half deviations in the Sick is caught."""
    planted = traces.outside.copy()
    column = traces.names.index(name)
    planted[traces.sick, column] += 1.5 * planted[:, column].std()
    assert _chance(planted, traces.sick) < 0.01
    assert _left_out(planted, traces.sick) > 0.66


def test_patients_differ_more_than_classes(traces: Traces) -> None:
    shift = abs(traces.torso[traces.sick].mean() - traces.torso[~traces.sick].mean())
    assert shift < 0.5 * traces.torso[traces.sick].std()
    brightness = traces.outside[:, traces.names.index("mean")]
    assert abs(brightness[traces.sick].mean() - brightness[~traces.sick].mean()) < 0.5 * brightness.std()


def test_shipped_cohort_has_no_trace_either(generated: Path) -> None:
    """The sixteen patients themselves, from their files: sizes, dimensions, counts, borders."""
    folder = generated / "data/cmri"
    features, sick, dimensions = [], [], {}
    for patient in sorted(folder.glob("*/*")):
        files = sorted(patient.rglob("*.jpg"))
        assert len(files) == 24
        rows = []
        for path in files[::5]:
            with Image.open(path) as image:
                size, pixels = image.size, np.asarray(image).astype(float)
            border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
            rows.append([path.stat().st_size, *size, border.mean(), border.std(), pixels.mean(), pixels.std()])
        dimensions.setdefault(patient.parent.name, []).append(size)
        number = int(patient.name.removeprefix("Directory_"))
        features.append([*np.mean(rows, axis=0), number])
        sick.append(patient.parent.name == "Sick")
    assert Counter(dimensions["Normal"]) == Counter(dimensions["Sick"])
    assert len(set(dimensions["Normal"])) == 3
    table, labels = np.array(features), np.array(sick)
    assert _chance(table, labels) > 0.1
    assert _left_out(table, labels) <= 0.7


# --- phantom ---


def test_masks_are_the_hearts_parts() -> None:
    for patient in phantom.cohort(4, seed=3):
        for level in range(phantom.SLICES):
            for frame in (0, phantom.END_SYSTOLE):
                image, masks = phantom.phantom(patient, level, frame)
                assert image.shape == (patient.height, patient.width)
                assert image.dtype == np.uint8
                assert set(masks) == {"lv", "myocardium", "rv"}
                assert sum(mask.astype(int) for mask in masks.values()).max() == 1, "no pixel belongs to two parts"
                assert min(mask.sum() for mask in masks.values()) > 100
                blood, wall = image[masks["lv"]].mean(), image[masks["myocardium"]].mean()
                assert blood > 1.4 * wall, "blood is brighter than muscle"
                # Radiological view: the right ventricle is on the left ventricle's left in the image.
                assert np.argwhere(masks["rv"])[:, 1].mean() < np.argwhere(masks["lv"])[:, 1].mean()


def test_heart_beats_and_the_wall_keeps_its_muscle() -> None:
    patient = next(p for p in phantom.cohort(4, seed=3) if p.label == "Normal")
    truth = [phantom.phantom(patient, 1, frame)[1] for frame in range(phantom.FRAMES)]
    cavity = [mask["lv"].sum() for mask in truth]
    assert int(np.argmin(cavity)) == phantom.END_SYSTOLE
    assert int(np.argmax(cavity)) == 0
    muscle = np.array([mask["myocardium"].sum() for mask in truth])
    assert np.ptp(muscle) < 0.05 * muscle.mean(), "muscle does not compress"


def test_same_call_same_image_whatever_came_before() -> None:
    first, second = phantom.cohort(2, seed=9)
    alone = phantom.phantom(first, 2, 5)[0]
    for patient in (second, first):
        for level in range(phantom.SLICES):
            phantom.phantom(patient, level, 1)
    assert np.array_equal(alone, phantom.phantom(first, 2, 5)[0])


@pytest.mark.parametrize(("level", "frame"), [(-1, 0), (3, 0), (0, 8), (0, -1)])
def test_no_such_slice_or_frame(level: int, frame: int) -> None:
    with pytest.raises(ValueError, match="exist"):
        phantom.phantom(phantom.cohort(2)[0], level, frame)
