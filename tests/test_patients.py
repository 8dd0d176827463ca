"""Whole patients as the unit: rows of renderings, scores beside those of images, answers for a folder or an archive."""

import base64
import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from manifests import manifest
from PIL import Image

from cardium.config import Serve
from cardium.data.studies import given_studies, render_archive, study_of_archive
from cardium.data.units import unit_records, unit_table
from cardium.demo import phantom
from cardium.errors import CardiumError
from cardium.imaging.decode import Undecodable
from cardium.imaging.heart_format import CELLS, MEASURES, SHAPE
from cardium.imaging.spec import Limits
from cardium.imaging.study import StudyFile, read_study
from cardium.models import create_model, load_model
from cardium.runs.predictions import same_units

LIMITS = Limits(50_000_000, 100_000_000, 1, 1)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def study():
    """Name -> bytes: both ends of the beat of three slices of a phantom, one series a slice."""
    patient = phantom.cohort(4)[1]
    return {
        f"SR_{level + 1}/IM{frame + 1:05d}.png": png(phantom.phantom(patient, level, frame)[0])
        for level in range(3)
        for frame in (0, phantom.END_SYSTOLE)
    }


def packed(files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def written(folder: Path, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


# ------------------------------------------------------------------------------------------------------------- the rows


def table():
    rows = [
        ("Normal/Directory_1/SR_10/IM1.png", "Normal", "Normal/Directory_1", "c"),
        ("Normal/Directory_1/SR_2/IM1.png", "Normal", "Normal/Directory_1", "a"),
        ("Normal/Directory_1/SR_2/IM2.png", "Normal", "Normal/Directory_1", "b"),
        ("Normal/Directory_1/SR_3/IM1.png", "Normal", "Normal/Directory_1", "a"),  # a copy within the patient
        ("Sick/Directory_2/SR_1/IM1.png", "Sick", "Sick/Directory_2", "d"),
        ("Sick/Directory_3/SR_1/IM1.png", "Sick", "Sick/Directory_3", "d"),  # the same patient filed twice
        ("Normal/Directory_4/SR_1/IM1.png", "Normal", "Normal/Directory_4", "e"),
        ("Sick/Directory_5/SR_1/IM1.png", "Sick", "Sick/Directory_5", "e"),  # one content, two labels: in nothing
        ("Sick/lost.png", "Sick", "", "f"),
    ]
    made = manifest(rows)
    made["series"] = [path.split("/")[-2] if path.count("/") > 1 else "" for path in made["path"]]
    return made


def test_a_row_is_a_patient():
    records = table()
    assert unit_table(records, "image") is records
    units = unit_table(records, "heart")
    assert units["path"].tolist() == ["Normal/Directory_1", "Sick/Directory_2", "Sick/Directory_3"]
    assert list(units.columns) == list(records.columns)
    assert units["record"].tolist() == [0, 1, 2]
    assert units["label"].tolist() == ["Normal", "Sick", "Sick"]
    assert units["depth"].tolist() == [3, 1, 1]
    assert units["copy_of"].tolist() == [-1, -1, 1]
    # Patients keep the group of their images, so that a split of groups holds for both.
    assert units["group"].tolist() == ["Normal/Directory_1", "Sick/Directory_2", "Sick/Directory_2"]
    # In natural order of the series, without the copy.
    first = unit_records(records, "heart")[0]
    assert [path for path, _, _ in first.files] == [
        f"Normal/Directory_1/{name}" for name in ("SR_2/IM1.png", "SR_2/IM2.png", "SR_10/IM1.png")
    ]
    assert [record.path for record in unit_records(records, "image")] == records["path"].tolist()
    with pytest.raises(CardiumError, match="names its patient"):
        unit_table(records[records["patient"] == ""], "heart")


def test_tables_of_images_and_of_patients_are_told_apart():
    images = pd.DataFrame({"record": [0, 1, 2, 3], "group": ["a", "a", "b", "b"]})
    patients = pd.DataFrame({"record": [0, 1], "group": ["a", "b"]})
    assert same_units(images, images.iloc[2:])
    assert same_units(patients, patients)
    assert not same_units(images, patients)


# -------------------------------------------------------------------------------------------------------------- the model


def levels(**values):
    array = np.zeros((1, *SHAPE), np.float32)
    array[0, 0, 0] = 255
    for measure in MEASURES:
        array[0, 0, CELLS[measure.name]] = measure.level(values.get(measure.name, measure.normal))
    return array


def test_cine_net_weighs_what_lies_beyond_normal(tmp_path):
    import keras

    model = create_model("cine_net", classes=2, height=SHAPE[0], width=SHAPE[1], dropout=0.0)
    path = tmp_path / "model.keras"
    model.save(path)
    vector = keras.Model(model.input, model.get_layer("embedding").output)

    def beyond(**values):
        return float(vector.predict_on_batch(levels(**values))[0, 0])

    assert beyond() == 0
    assert beyond(ejection_fraction=0.75) == 0
    assert beyond(ejection_fraction=0.15) == pytest.approx(1, abs=0.02)
    assert beyond(ejection_fraction=0.15) > beyond(ejection_fraction=0.4) > 0
    assert beyond(wall_to_pool=2.0) > beyond(wall_to_pool=1.2) > 0
    assert beyond(thickening=0.1) > 0
    together = beyond(ejection_fraction=0.3, wall_to_pool=1.2)
    assert together == pytest.approx(beyond(ejection_fraction=0.3) + beyond(wall_to_pool=1.2), abs=1e-4)
    # Pictures and contours, which tell how many slices there are, say nothing; nor does a rendering without a heart.
    filled = levels(ejection_fraction=0.3)
    filled[:, 1:] = 200
    np.testing.assert_array_equal(model.predict_on_batch(filled), model.predict_on_batch(levels(ejection_fraction=0.3)))
    assert float(vector.predict_on_batch(np.zeros((1, *SHAPE), np.float32))[0, 0]) == 0
    np.testing.assert_array_equal(load_model(path).predict_on_batch(filled), model.predict_on_batch(filled))


# ------------------------------------------------------------------------------------------------------------ what is given


def test_a_study_is_the_same_from_a_folder_an_archive_and_rows(study, tmp_path):
    written(tmp_path / "one", study)
    written(tmp_path / "cohort" / "anna", study)
    written(tmp_path / "cohort" / "bert", dict(list(study.items())[:2]))
    (tmp_path / "one.zip").write_bytes(
        packed({f"export/{name}": data for name, data in study.items()} | {"export/.DS_Store": b"x"})
    )
    flat = {name.replace("/", "_"): data for name, data in study.items()}
    written(tmp_path / "flat", flat)
    [one] = given_studies([tmp_path / "one"], Serve())
    [zipped] = given_studies([tmp_path / "one.zip"], Serve())
    [unnested] = given_studies([tmp_path / "flat"], Serve())
    anna, bert = given_studies([tmp_path / "cohort"], Serve())
    assert (Path(anna.name).name, Path(bert.name).name, len(bert.files)) == ("anna", "bert", 2)
    heart = read_study(one.files, LIMITS)
    assert len(heart.slices) == 3
    for other in (zipped, unnested, anna):
        assert not other.error
        assert [file.data for file in other.files] == [file.data for file in one.files]
        assert read_study(other.files, LIMITS).measures == heart.measures


def test_the_collections_own_folders_name_their_patients(study, tmp_path):
    for name in ("Normal/Directory_1", "Sick/Directory_1", "Sick/Directory_12"):
        written(tmp_path / name, study)
    found = given_studies([tmp_path], Serve())
    names = sorted(Path(one.name).relative_to(tmp_path).as_posix() for one in found)
    assert names == ["Normal/Directory_1", "Sick/Directory_1", "Sick/Directory_12"]
    assert [(len(one.files), one.error) for one in found] == [(6, "")] * 3


def test_a_second_folder_of_a_patient_is_the_same_patient_as_in_training(study, tmp_path):
    first, second = dict(list(study.items())[:4]), dict(list(study.items())[4:])
    written(tmp_path / "Directory_7", first)
    written(tmp_path / "Directory_7 (2)", second)
    [one] = given_studies([tmp_path], Serve())
    assert (Path(one.name).name, len(one.files), one.error) == ("Directory_7", 6, "")


def test_files_of_several_patients_in_one_folder_are_told_apart_by_name(study, tmp_path):
    for patient in ("SC-HF-I-09", "SC-N-02"):
        written(tmp_path, {f"{patient}-IM-0001-{k:04d}.png": data for k, data in enumerate(study.values(), start=1)})
    assert sorted(Path(one.name).name for one in given_studies([tmp_path], Serve())) == ["SC-HF-I-09", "SC-N-02"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"PK\x03\x04 no archive", "damaged"),
        (packed({}), "no images"),
        (packed({"readme.txt": b"nothing"}), "no images"),
        (packed({"a.png": png(np.zeros((8, 8), np.uint8))}), "one image shows no beat"),
        (packed({f"Directory_{k}/{n}.png": b"x" for k in (1, 2) for n in (1, 2)}), "of 2 patients"),
        (packed({f"{k}.png": bytes(900) for k in range(4)}), "unpacks to more than"),
        (packed({f"{k}.png": b"" for k in range(40)}), "40 files, the limit is 30"),
    ],
)
def test_a_bad_archive_gets_one_line(data, says):
    limits = Serve(max_study_files=30, max_study_bytes=3_000)
    assert says in study_of_archive("row 0", data, limits).error
    with pytest.raises(Undecodable, match=says):
        render_archive(data, limits, LIMITS)


def test_a_truncated_archive_and_every_cut_of_it_get_one_line(study):
    whole = packed(study)
    for cut in np.linspace(30, len(whole) - 1, 12).astype(int):
        assert study_of_archive("row 0", whole[:cut], Serve()).error == "the archive is damaged"


def test_dicom_of_two_patients_is_refused():
    from test_serving import dicom

    def of(patient):
        from pydicom import dcmread

        made = dcmread(io.BytesIO(dicom(np.zeros((16, 16), np.uint8))))
        made.PatientID = patient
        file = io.BytesIO()
        made.save_as(file, enforce_file_format=True)
        return file.getvalue()

    assert study_of_archive("x", packed({"1.dcm": of("a"), "2.dcm": of("a")}), Serve()).error == ""
    assert "of 2 patients" in study_of_archive("x", packed({"1.dcm": of("a"), "2.dcm": of("b")}), Serve()).error


def test_a_picture_that_cannot_be_read_is_named(study):
    files = [StudyFile("a.png", next(iter(study.values()))), StudyFile("b.png", b"no picture")]
    with pytest.raises(CardiumError, match=r"b\.png: not a JPEG"):
        read_study(files, LIMITS)


# -------------------------------------------------------------------------------------------------------------- the way

_LIGHT = {"cmri.render.image.height": 32, "cmri.render.image.width": 32, "split.folds": 4}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Eight phantoms, of each slice both ends of the beat, trained and evaluated with a model of images beside it."""
    import yaml

    from cardium import config
    from cardium.stages import evaluate, ingest, prepare, split, train

    root = tmp_path_factory.mktemp("patients")
    for patient in phantom.cohort(16)[:12]:
        for level in range(3):
            for frame in (0, phantom.END_SYSTOLE):
                path = root / "data/cmri" / patient.label / f"Directory_{patient.number}" / f"SR_{level}" / f"IM{frame}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(phantom.phantom(patient, level, frame)[0]))
    raw = yaml.safe_load((Path(__file__).resolve().parents[1] / "params.yaml").read_text())
    raw["datasets"] = ["cmri"]
    study = raw["studies"]["demo"]["cmri"]
    study["models"] = [*study["models"][-1:], {"cnn_baseline": {"train": {"epochs": 1}}}]
    study |= {"ensembles": {}, "explanations": {}}
    (root / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    (root / "dvc.yaml").write_text("stages: {}\n")
    settings = config.load(root, _LIGHT)
    ingest.run(settings, "cmri")
    split.run(settings, "cmri")
    for item in settings.plan.renderings:
        prepare.run(settings, item)
    for item in settings.plan.runs:
        train.run(settings, item)
    evaluate.run(settings, "cmri")
    return settings


def test_patients_go_the_whole_way_beside_images(project):
    from cardium.evaluation.evaluation import Evaluation
    from cardium.evaluation.leaderboard import leaderboard_text
    from cardium.evaluation.promotion import choose, compare
    from cardium.workspace import Workspace

    places = Workspace(project.root)
    evaluation = Evaluation.read(places.evaluation("cmri"), "cmri")
    ours, images = evaluation.runs["cmri-cine_net"], evaluation.runs["cmri-cnn_baseline"]
    assert (ours.unit, ours.records, ours.groups) == ("patient", 12, 12)
    assert (images.unit, images.records, images.groups) == ("image", 72, 12)
    assert ours.patient["balanced_accuracy"] == ours.balanced_accuracy
    assert ours.balanced_accuracy.value > 0.7
    assert "72 images of 12 patients" in leaderboard_text(evaluation)
    assert choose(evaluation.runs) == "cmri-cine_net"
    tables = {
        name: pd.read_parquet(places.evaluation("cmri") / "predictions" / f"{name}.parquet")
        for name in ("cmri-cine_net", "cmri-cnn_baseline", "naive")
    }
    for rival in ("naive", "cmri-cnn_baseline"):
        found = compare(
            project,
            evaluation.classes,
            tables["cmri-cine_net"],
            tables[rival],
            rival_name=rival,
            rival_scored_by="",
            naive_score=0.5,
        )
        # Patient by patient, by the images' mean probability.
        assert (found.records, found.groups, found.records_left_out) == (12, 12, 0)
        assert found.challenger_balanced_accuracy == ours.balanced_accuracy.value
        assert found.rival_balanced_accuracy == evaluation.runs[rival].patient["balanced_accuracy"].value


def test_a_folder_of_patients_is_answered(project, study):
    from cardium.serving import predict_files
    from cardium.serving.predict import prediction_table

    model = "models/cmri/honest/cine_net"
    rows = predict_files(project, [project.root / "data/cmri"], model)
    assert [row["quality"] for row in rows] == ["ok"] * 12
    right = [row["label"] == ("Sick" if "/Sick/" in row["file"] else "Normal") for row in rows]
    assert sum(right) >= 10
    assert set(rows[0]["measures"]) == {measure.name for measure in MEASURES}
    first = next((project.root / "data/cmri/Normal").rglob("*.png"))
    [single] = predict_files(project, [first], model)
    assert "one image shows no beat" in single["error"]
    said = prediction_table([*rows, single])
    assert "ejection fraction" in said
    assert "Not for diagnosis" in said


def test_a_batch_of_patients_says_what_predict_says(project, study, tmp_path):
    from cardium.batch.score import score_files
    from cardium.batch.source import read_source
    from cardium.serving import predict_files

    (tmp_path / "cohort").mkdir()
    for name in ("Normal", "Sick"):
        (tmp_path / "cohort" / name).symlink_to(next((project.root / "data/cmri" / name).iterdir()))
        written(tmp_path / "cohort" / f"{name} copy", study)
    (tmp_path / "cohort" / "one.zip").write_bytes(packed(study))
    (tmp_path / "cohort" / "cut.zip").write_bytes(packed(study)[:50])
    (tmp_path / "table.csv").write_text("path\ncohort/Normal\ncohort/one.zip\ncohort/cut.zip\ncohort/Sick copy\ncohort\n")
    model = str(project.root / "models/cmri/honest/cine_net")
    told = score_files(project, str(tmp_path / "table.csv"), tmp_path / "a.parquet", model)
    assert (told.items, told.errors) == (5, 2)
    rows = pd.read_parquet(tmp_path / "a.parquet").set_index("path").to_dict("index")
    for name in ("cohort/Normal", "cohort/one.zip", "cohort/Sick copy"):
        [row] = predict_files(project, [tmp_path / name], model)
        assert rows[name]["p_Sick"] == pytest.approx(row["probabilities"]["Sick"], abs=1e-6)
        assert rows[name]["measures"] == row["measures"]
    assert rows["cohort/cut.zip"]["error"] == "the archive is damaged"
    assert rows["cohort"]["error"] == "is a directory"
    assert [item.path for item in read_source(tmp_path / "cohort", True).items] == [
        "Normal copy", "Sick copy", "cut.zip", "one.zip",
    ]  # fmt: skip


def test_the_served_model_takes_an_archive_a_row(project, study, monkeypatch):
    from types import SimpleNamespace

    from cardium.serving import served_model
    from cardium.tracking.signature import input_example, signature

    monkeypatch.setattr(served_model, "downloaded_version", lambda _: None)
    served = served_model.ServedModel()
    served.load_context(SimpleNamespace(artifacts={"run": str(project.root / "models/cmri/honest/cine_net")}, model_config={}))
    archive, single = (base64.b64encode(data).decode() for data in (packed(study), next(iter(study.values()))))
    rows = served.predict(None, pd.DataFrame({"image": [archive, single, archive]}))
    assert rows["measures"][0] == rows["measures"][2]
    assert set(rows["measures"][0]) == {measure.name for measure in MEASURES}
    assert "one file shows no beat" in rows["error"][1]
    assert "one file shows no beat" in served.predict(None, pd.DataFrame({"image": [single]}))["error"][0]
    assert {column.name for column in signature(["Normal", "Sick"], "heart").outputs} == set(rows.columns)
    assert served.predict(None, input_example("heart"))["measures"][0] == {}


def test_an_explanation_shows_contours_and_names_measures(project):
    from cardium.explain.files import explain_files
    from cardium.workspace import RunId

    folder = project.root / "data/cmri/Sick"
    rows = explain_files(project, RunId("cmri", "cine_net", "honest"), "", [str(next(folder.iterdir()))])
    assert len(rows) == 1
    assert "measurements 100%" in rows[0]["text"]
    assert "No clinical finding" in rows[0]["text"]
    assert Path(rows[0]["overlay"]).is_file()


def test_a_model_of_patients_is_refused_where_they_may_be_torn_apart(project):
    from cardium.config.settings import run_spec
    from cardium.workspace import RunId

    with pytest.raises(CardiumError, match="whole patients"):
        run_spec(project, RunId("cmri", "cine_net", "published"))
