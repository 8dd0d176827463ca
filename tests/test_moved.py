"""A project folder that is moved, copied, or loses mlruns/: what is logged is found again, and each error's advice helps."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from run_folders import evaluation, make_project, run_folder

from cardium import config, tracking
from cardium.errors import CardiumError
from cardium.serving import predict
from cardium.stages import promote
from cardium.tracking import registry

CHAMPION = "models:/cardium-cmri@champion"


@pytest.fixture(scope="session")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose one run is the champion."""
    settings = make_project(tmp_path_factory.mktemp("made") / "project", **{"evaluate.bootstrap": 300})
    run_folder(settings, real=False)
    evaluation(settings, {"cmri-mobilenetv2": 0.9})
    assert promote.promote(settings, "cmri").action == "promoted"
    return settings.root


@pytest.fixture
def project(tmp_path: Path, promoted: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that was moved: nothing is left in its first place."""
    monkeypatch.setattr(predict, "Classifier", lambda folder, *_: (folder / "run.json").read_bytes())
    copy = tmp_path / "project"
    shutil.copytree(promoted, copy)
    return copy


def settings_of(root: Path) -> Any:
    return config.load(root, {"evaluate.bootstrap": 300})


def places(root: Path) -> list[str]:
    """Everything that the store says of where artifacts lie."""
    settings = settings_of(root)
    uri = tracking.tracking_uri(settings)
    client = MlflowClient(uri, registry_uri=uri)
    experiments = client.search_experiments()
    ids = [one.experiment_id for one in experiments]
    found = [one.artifact_location for one in experiments]
    found += [run.info.artifact_uri for run in client.search_runs(ids)]
    found += [model.artifact_location for model in client.search_logged_models(ids)]
    return found


def follow(settings: Any, error: BaseException) -> None:
    """Does what an error advises."""
    advised = re.findall(r"`cardium (\w+)", str(error))
    assert advised, f"no command in: {error}"
    {"sync": lambda: tracking.sync(settings), "promote": lambda: promote.promote(settings, "cmri")}[advised[0]]()


def test_a_moved_project_finds_what_was_logged(project: Path, promoted: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "mlruns" / "named so"
    moved.parent.mkdir(parents=True)
    # The fixture's copy has logged nothing itself; once opened there, it is a project of its own that is moved once more.
    with tracking.connected(settings_of(project)):
        pass
    project.rename(moved)
    settings = settings_of(moved)
    assert predict.load_classifier(settings, CHAMPION) == (moved / "models/cmri/honest/mobilenetv2/run.json").read_bytes()
    assert all(place.startswith((moved / "mlruns").as_uri()) for place in places(moved))
    assert tracking.sync(settings)["logged"] == []
    assert promote.promote(settings, "cmri").action == "unchanged"


def test_a_copied_project_leaves_the_first_one_alone(project: Path, promoted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def files(root: Path) -> set[str]:
        return {path.as_posix() for path in (root / "mlruns").rglob("*")}

    before = files(promoted)
    settings = settings_of(project)
    folder = run_folder(settings, "resnet152v2", real=False)
    assert tracking.log_run(settings, folder)
    assert "moved or copied" in capsys.readouterr().err
    assert files(promoted) == before
    assert len(places(project)) == 6, "two experiments, two runs, two models"
    assert all(place.startswith((project / "mlruns").as_uri()) for place in places(project))
    assert all(place.startswith((promoted / "mlruns").as_uri()) for place in places(promoted))
    with tracking.connected(settings):
        assert "moved" not in capsys.readouterr().err, "it is said once"


def test_a_copy_without_mlruns_reads_there_and_writes_here(project: Path, promoted: Path) -> None:
    shutil.rmtree(project / "mlruns")
    settings = settings_of(project)
    assert predict.load_classifier(settings, CHAMPION)
    before = set((promoted / "mlruns").rglob("*"))
    assert tracking.log_run(settings, run_folder(settings, "resnet152v2", real=False))
    assert set((promoted / "mlruns").rglob("*")) == before


def test_an_experiment_that_is_meant_to_lie_elsewhere_stays_there(project: Path, tmp_path: Path) -> None:
    settings = settings_of(project)
    place = tmp_path / "big disk" / "mlruns" / "mine"
    place.mkdir(parents=True)
    with tracking.connected(settings) as client:
        client.create_experiment("mine", artifact_location=place.as_uri())
    with tracking.connected(settings) as client:
        found = client.get_experiment_by_name("mine")
        assert found is not None
        assert found.artifact_location == place.as_uri()


def test_a_project_that_is_named_from_within_is_the_same_one(
    project: Path, promoted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = project.with_name("a link to it")
    link.symlink_to(project)
    for folder, root in ((project, Path()), (link, Path("../project"))):
        monkeypatch.chdir(folder)
        settings = settings_of(root)
        assert predict.load_classifier(settings, CHAMPION) == (project / "models/cmri/honest/mobilenetv2/run.json").read_bytes()
        assert promote.promote(settings, "cmri").action == "unchanged"
        assert len(places(root)) == len(places(project))


@pytest.mark.parametrize("first", ["predict", "sync"])
def test_with_mlruns_gone_what_has_its_run_folder_is_logged_again(project: Path, first: str) -> None:
    settings = settings_of(project)
    with tracking.connected(settings):  # its own from now on
        pass
    shutil.rmtree(project / "mlruns")
    if first == "predict":
        with pytest.raises(CardiumError) as caught:
            predict.load_classifier(settings, CHAMPION)
        follow(settings, caught.value)
    else:
        assert tracking.sync(settings)["logged"] == ["models/cmri/honest/mobilenetv2"]
    assert predict.load_classifier(settings, CHAMPION)
    assert tracking.sync(settings)["logged"] == [], "once"
    with tracking.connected(settings) as client:
        assert len(registry.versions(client, "cardium-cmri")) == 1


def test_a_champion_that_is_gone_for_good_makes_room(project: Path) -> None:
    """mlruns/ was deleted, and its run has been trained again since."""
    settings = settings_of(project)
    with tracking.connected(settings):
        pass
    shutil.rmtree(project / "mlruns")
    run_folder(settings, real=False, seed=3)
    evaluation(settings, {"cmri-mobilenetv2": 0.9})
    with pytest.raises(CardiumError) as caught:
        predict.load_classifier(settings, CHAMPION)
    follow(settings, caught.value)
    assert predict.load_classifier(settings, CHAMPION) == (project / "models/cmri/honest/mobilenetv2/run.json").read_bytes()
    with tracking.connected(settings) as client:
        assert registry.aliases(client, "cardium-cmri") == {"champion": 2}


def test_nothing_left_says_what_to_train(project: Path) -> None:
    settings = settings_of(project)
    with tracking.connected(settings):
        pass
    for name in ("mlruns", "models"):
        shutil.rmtree(project / name)
    with pytest.raises(CardiumError, match="dvc repro"):
        promote.promote(settings, "cmri")
