"""The demo volumes: ImageCHD's layout, the same bytes everywhere, hearts that give the class away, and nothing else."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import openpyxl
import pytest

from cardium.datasets import demos
from cardium.demo import chd, make, thorax
from cardium.errors import CardiumError

ROOT = Path(__file__).resolve().parents[1]
CYANOTIC, SIMPLE = {"ToF", "TGA", "PA"}, {"ASD", "VSD", "PDA"}


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/chd of a project folder with the default demo data."""
    root = tmp_path_factory.mktemp("volumes")
    assert demos.make_demo(root, "chd") == 34 == chd.DEMO.total(chd.DEMO.count)
    return root / "data/chd"


@pytest.fixture(scope="module")
def shipped() -> list[thorax.Patient]:
    return thorax.cohort(chd.DEMO.count, chd.DEMO.seed)


def _label(flags: set[str]) -> str:
    """The label rule of system 002, written anew."""
    if flags & CYANOTIC:
        return "Cyanotic"
    return "Normal" if not flags else "Non-Cyanotic" if flags <= SIMPLE else ""


def _table(folder: Path) -> dict[int, dict[str, int | None]]:
    header, *rows = openpyxl.load_workbook(folder / chd.CHD_TABLE)["classification dataset"].iter_rows(values_only=True)
    return {row[0]: dict(zip(header[1:17], row[1:17], strict=True)) for row in rows}


# --- files ---


def test_default_bytes_are_the_published_ones(generated: Path) -> None:
    assert make.folder_digest(generated) == chd.DEMO.digest
    assert demos.make_demo(generated.parents[1], "chd") == 0
    assert sum(path.stat().st_size for path in generated.iterdir()) < 12_000_000


def test_layout_is_the_collections_own(generated: Path, shipped: list[thorax.Patient]) -> None:
    names = {path.name for path in generated.rglob("*") if path.is_file()} - {"imageCHD_dataset_info.xlsx"}
    assert all(re.fullmatch(r"ct_1\d{3}_image\.nii\.gz", name) for name in names)
    assert names == {f"ct_{patient.id}_image.nii.gz" for patient in shipped}
    header = next(openpyxl.load_workbook(generated / chd.CHD_TABLE)["classification dataset"].iter_rows(values_only=True))
    assert header == (
        *("index", "ASD", "VSD", "AVSD", "ToF", "TGA", "DORV", "CAT", "CA", "AAH", "DAA", "IAA"),
        *("PA", "APVC", "DSVC", "PDA", "PAS", None, None, None, None, None),
    )


def test_labels_follow_from_the_table(generated: Path, shipped: list[thorax.Patient]) -> None:
    table = _table(generated)
    said = {number: _label({flag for flag, value in row.items() if value == 1}) for number, row in table.items()}
    assert {patient.id: patient.label for patient in shipped}.items() < said.items()
    assert len(said) == len(shipped) + 1, "one row has no volume"
    assert Counter(patient.label for patient in shipped) == {"Cyanotic": 10, "Non-Cyanotic": 10, "Normal": 10, "": 3}
    assert [(n, flag) for n, row in table.items() for flag, value in row.items() if value == 0] == [(1047, "VSD")]
    assert said[1047] == "Normal"
    assert len({patient.kind for patient in shipped if patient.label}) == 8, "every kind of heart is there"


def test_ids_are_of_the_published_lists_and_unique_beyond_them() -> None:
    many = thorax.cohort(25, seed=1)
    assert len({patient.id for patient in many}) == 78
    assert Counter(patient.label for patient in many if 1000 <= patient.id < 2000) == {
        **{"Cyanotic": 18, "Non-Cyanotic": 19, "Normal": 20, "": 3}
    }


def test_headers_place_the_body_in_the_scanner(generated: Path, shipped: list[thorax.Patient]) -> None:
    """Read and turned by nibabel: heart to the left and in front, table behind, liver below on the right."""
    for patient in shipped:
        path = generated / f"ct_{patient.id}_image.nii.gz"
        image = nibabel.load(path)
        assert image.shape == (patient.columns, patient.rows, patient.slices)
        assert "".join(nibabel.aff2axcodes(image.affine)) == patient.orientation
        assert np.array_equal(image.get_qform(), image.get_sform())
        assert image.header.get_zooms() == patient.spacing
        assert image.get_data_dtype() == np.int16
        turned = nibabel.as_closest_canonical(image)
        voxels = turned.get_fdata()
        mask = nibabel.Nifti1Image(chd.volume_truth(path.name)["heart"].astype(np.uint8), image.affine)
        heart = np.argwhere(nibabel.as_closest_canonical(mask).get_fdata()).mean(0)
        body = np.argwhere(voxels > -300).mean(0)
        assert heart[0] < body[0] - 1
        assert heart[1] > body[1] + 2
        # Beside the body there is nothing but the table's ends.
        table = np.argwhere(voxels[:2] > -600)[:, 1]
        assert table.size > 50
        assert table.max() < body[1] - 28 / patient.spacing[1]
        right_low, left_low = voxels[-22:-18, 30:40, 2:5].mean(), voxels[18:22, 30:40, 2:5].mean()
        assert right_low > left_low - 20
        assert voxels[:, :, :8].mean() > voxels[:, :, -8:].mean()
    assert Counter(patient.orientation for patient in shipped).keys() == {"LPS", "RAS", "LPI"}


def test_truth_lies_where_the_file_has_it(generated: Path, shipped: list[thorax.Patient]) -> None:
    for patient in shipped[::4]:
        voxels = np.asanyarray(nibabel.load(generated / f"ct_{patient.id}_image.nii.gz").dataobj)
        masks = thorax.truth(patient)
        assert {mask.shape for mask in masks.values()} == {voxels.shape}
        assert voxels[masks["lv"]].mean() > 240
        assert 0.01 < masks["heart"].mean() < 0.08
        assert masks["defect"].any() == (patient.kind != "none")
        assert not (masks["lv"] & ~masks["heart"]).any()
    with pytest.raises(CardiumError, match="no volume"):
        chd.volume_truth("ct_1_image.nii.gz")


def test_other_counts_and_seeds_are_other_volumes(tmp_path: Path) -> None:
    assert demos.make_demo(tmp_path / "one", "chd", count=2, seed=1) == 10
    assert demos.make_demo(tmp_path / "one", "chd", count=2, seed=1) == 0
    assert demos.make_demo(tmp_path / "two", "chd", count=2, seed=2) == 10
    one, two = ({path.read_bytes() for path in (tmp_path / name).rglob("*.nii.gz")} for name in ("one", "two"))
    assert len(one) == len(two) == 9
    assert not one & two
    with pytest.raises(CardiumError, match="too few"):
        demos.make_demo(tmp_path / "three", "chd", count=1)


# --- what gives the class away, and what does not ---


def test_heart_alone_gives_the_class(shipped: list[thorax.Patient]) -> None:
    """Measured by hand: is there blood where the pulmonary trunk should be, and where a septum or nothing should be?"""
    for patient in shipped:
        if not patient.label:
            continue
        voxels, masks = thorax.volume(patient), thorax.truth(patient)
        blood = voxels[masks["lv"]].mean()
        filled = {name: voxels[masks[name]].mean() / blood for name in ("trunk", "atrial", "ventricular", "duct")}
        holes = {name for name in ("atrial", "ventricular", "duct") if filled[name] > 0.7}
        said = "Cyanotic" if filled["trunk"] < 0.6 else "Non-Cyanotic" if holes else "Normal"
        assert said == patient.label
        flags = {"atrial": "ASD", "ventricular": "VSD", "duct": "PDA"}
        if patient.label == "Non-Cyanotic":
            assert {flags[name] for name in holes} == set(patient.flags)


@pytest.fixture(scope="module")
def traces() -> tuple[np.ndarray, np.ndarray]:
    """Of 20 patients a class: what can be told without looking at the anatomy, (60, features), and the classes."""
    rows, labels = [], []
    edges = [-1100, -950, -700, -300, -150, -50, 0, 50, 100, 150, 200, 250, 300, 350, 400, 450, 3100]
    for patient in thorax.cohort(20, seed=1):
        if not patient.label:
            continue
        voxels = thorax.volume(patient)
        shares = np.histogram(voxels, bins=edges)[0] / voxels.size
        turns = [patient.orientation == known for known in ("LPS", "RAS", "LPI")]
        place = thorax.affine(patient)[:3, 3]
        rows.append([*voxels.shape, voxels.size, *patient.spacing, *place, *turns, voxels.mean(), voxels.std(), *shares])
        # The table, and noise in the air before the chest.
        canonical = thorax._as_stored(voxels.transpose(2, 1, 0), patient.orientation).transpose(2, 1, 0)
        rows[-1] += [canonical[:, -8:].mean(), canonical[:, :4].std()]
        labels.append(thorax.CLASSES.index(patient.label))
    return np.array(rows, dtype=float), np.array(labels)


def _guessed(features: np.ndarray, labels: np.ndarray) -> float:
    """Balanced accuracy out of fold of the better of two shallow classifiers."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = StratifiedKFold(6, shuffle=True, random_state=0)
    said = [
        cross_val_predict(model, features, labels, cv=folds)
        for model in (
            make_pipeline(StandardScaler(), LogisticRegression(C=0.3)),
            RandomForestClassifier(50, random_state=0),
        )
    ]
    return max(float(balanced_accuracy_score(labels, some)) for some in said)


def _chance(features: np.ndarray, labels: np.ndarray) -> float:
    """How often shuffled labels show as large a gap between two classes' means as the true ones, over all features at once."""
    scaled = features[:, features.std(0) > 0]
    scaled = scaled / scaled.std(0)

    def gap(said: np.ndarray) -> float:
        means = np.array([scaled[said == label].mean(0) for label in range(3)])
        return float(np.ptp(means, axis=0).max())

    random = np.random.default_rng(0)
    return float(np.mean([gap(random.permutation(labels)) >= gap(labels) for _ in range(1000)]))


def test_nothing_but_the_anatomy_gives_the_class(traces: tuple[np.ndarray, np.ndarray]) -> None:
    # 0.5: what the better of two guessing classifiers passes about once in a hundred cohorts of 60.
    assert _guessed(*traces) < 0.5
    assert _chance(*traces) > 0.05


@pytest.mark.parametrize("column", [6, 13, 18, -1])
def test_a_planted_trace_would_be_found(traces: tuple[np.ndarray, np.ndarray], column: int) -> None:
    """The test above can fail: one feature (spacing, mean, a share of the levels, noise) shifted in one class is caught."""
    features, labels = traces[0].copy(), traces[1]
    features[labels == 0, column] += 2.0 * features[:, column].std()
    assert _chance(features, labels) < 0.01
    features[labels == 0, column] += 3.0 * features[:, column].std()
    assert _guessed(features, labels) > 0.55


def test_three_patients_of_three_classes_share_size_and_orientation() -> None:
    kinds = Counter((p.label, p.columns, p.rows, p.orientation) for p in thorax.cohort(15, seed=7) if p.label)
    for (_, *rest), count in kinds.items():
        assert all(kinds[label, *rest] == count for label in thorax.CLASSES)
    assert len({key[1:] for key in kinds}) > 4
