"""What a process inherits: a user's Keras settings and variables do not change a result, and are said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from run_folders import make_project, run_folder

from cardium import process_environment
from cardium.errors import CardiumError
from cardium.provenance import Provenance, commit
from cardium.runs.members import joint_run
from cardium.runs.trained_run import TrainedRun
from cardium.workspace import RunId

SOURCE = Path(process_environment.__file__).resolve().parents[1]
# A user's settings for other projects.
KERAS_JSON = {"backend": "torch", "image_data_format": "channels_first", "floatx": "float16", "epsilon": 1e-3}
SMALL = "create_model('attention_vgg', classes=2, height=32, width=32).count_params()"


@pytest.fixture
def inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables of a shell in which somebody else's settings stand."""
    (tmp_path / "keras.json").write_text(json.dumps(KERAS_JSON))
    given = {
        "KERAS_HOME": str(tmp_path),
        "KERAS_BACKEND": "torch",
        "KERAS_MAX_EPOCHS": "1",
        "TF_USE_LEGACY_KERAS": "1",
        "GIT_DIR": str(tmp_path / "of a hook"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "OMP_NUM_THREADS": "1",
    }
    for name in (process_environment.OVERRIDDEN, "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "")  # Whatever the code sets is undone.
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return given


def fresh(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_what_would_decide_is_set_aside_and_said_once(inherited: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    process_environment.settle()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for text in ("KERAS_BACKEND=torch", "KERAS_MAX_EPOCHS=1", "image_data_format=channels_first", "floatx=float16"):
        assert text in said
    assert os.environ["KERAS_BACKEND"] == "tensorflow"
    assert os.environ["MPLBACKEND"] == "Agg"
    assert not {"KERAS_MAX_EPOCHS", "TF_USE_LEGACY_KERAS", "GIT_DIR"} & os.environ.keys()
    assert os.environ["OMP_NUM_THREADS"] == "1", "how many threads is the user's to say"
    process_environment.settle()
    assert capsys.readouterr().err == ""
    recorded = Provenance.now(Path.cwd()).environment
    assert recorded["OMP_NUM_THREADS"] == "1"
    assert "KERAS_BACKEND=torch" in recorded["overridden"]
    assert int(recorded["cores"]) >= 1


def test_nothing_is_said_where_nothing_is_set_aside(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path) -> None:
    for name in ("KERAS_BACKEND", "MPLBACKEND"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    process_environment.settle()
    assert capsys.readouterr().err == ""


@pytest.fixture(scope="module")
def usual() -> int:
    """The network's parameters under nobody's settings: made before a test inherits any."""
    from cardium.models import create_model

    return int(create_model("attention_vgg", classes=2, height=32, width=32).count_params())


def test_cardiums_own_process_builds_the_same_network_whatever_the_user_set(usual: int, inherited: dict[str, str]) -> None:
    done = fresh(
        "from cardium.tensorflow_import import import_tensorflow; import_tensorflow()\n"
        f"from cardium.models import create_model; print({SMALL})\n"
        "import keras, matplotlib.pyplot; print(keras.config.floatx(), keras.config.epsilon(), keras.config.max_epochs())\n"
        "from cardium.process_environment import in_force; print(in_force()['image_data_format'])"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(usual), "float32 1e-07 None", "channels_last"]


@pytest.mark.parametrize(("setting", "value"), [("image_data_format", "channels_first"), ("dtype_policy", "mixed_bfloat16")])
def test_in_a_users_own_process_it_is_an_error_and_nothing_is_changed(setting: str, value: str) -> None:
    import keras

    from cardium.models import create_model

    get, change = getattr(keras.config, setting), getattr(keras.config, f"set_{setting}")
    before = get()
    change(value)
    try:
        with pytest.raises(CardiumError, match=rf"{setting} {value}.*keras\.config\.set_{setting}\("):
            create_model("attention_vgg", classes=2, height=32, width=32)
        assert value in (get(), getattr(get(), "name", ""))
    finally:
        change(before)


def test_another_backend_is_one_line_before_keras_is_imported(inherited: dict[str, str]) -> None:
    done = fresh(
        "import cardium, os\nfrom cardium.errors import CardiumError\n"
        f"try:\n    cardium.{SMALL}\nexcept CardiumError as error:\n    print(error, os.environ['KERAS_BACKEND'])"
    )
    assert "backend torch" in done.stdout
    assert done.stdout.endswith(" torch\n"), done.stderr


@pytest.mark.parametrize("there", [False, True])
def test_a_server_settles_and_a_users_process_with_keras_is_left_alone(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cardium.serving import served_model

    called: list[str] = []
    monkeypatch.setattr(served_model, "import_tensorflow", lambda: called.append("settled"))
    monkeypatch.setattr(served_model, "Classifier", lambda *_: called.append("loaded"))
    monkeypatch.setattr(served_model, "downloaded_version", lambda _: None)
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    if there:
        monkeypatch.setitem(sys.modules, "keras", ModuleType("keras"))
    context = SimpleNamespace(artifacts={"run": str(tmp_path / "model/artifacts/run")}, model_config=None)
    served_model.ServedModel().load_context(context)
    assert called == (["loaded"] if there else ["settled", "loaded"])


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


def test_a_clone_of_another_user_is_said_and_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "first")
    assert Provenance.now(tmp_path).warnings == []
    assert len(commit(tmp_path)[0]) == 40
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    made = Provenance.now(tmp_path)
    assert made.commit == ""
    assert ["dubious ownership" in warning for warning in made.warnings] == [True]
    said = capsys.readouterr().err
    assert "warning: the commit is not recorded, git says: detected dubious ownership" in said
    assert said.count("\n") == 1
    assert "git_error" not in made.as_dict()
    member = TrainedRun.read(run_folder(make_project(tmp_path), real=False))
    joint = joint_run(tmp_path, RunId("cmri", "ensemble"), "ensemble", [member])
    assert made.warnings[0] in joint.to_json()["warnings"]


def test_the_commit_of_a_repository_around_an_unpacked_archive_is_not_the_projects(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "--allow-empty", "-m", "somebody's home")
    root = make_project(tmp_path / "project").root
    assert commit(root) == ("", False)
    assert Provenance.now(root).warnings == [
        "the commit is not recorded, git says: the repository around the project does not track it"
    ]
    git(tmp_path, "add", "project/params.yaml")
    git(tmp_path, "commit", "-m", "taken in")
    assert len(commit(root)[0]) == 40


def test_outside_of_git_nothing_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert Provenance.now(tmp_path).warnings == []
    monkeypatch.setenv("PATH", str(tmp_path))  # No git at all.
    assert Provenance.now(tmp_path).warnings == []
    (tmp_path / ".git").mkdir()
    assert Provenance.now(tmp_path).warnings == ["the commit is not recorded, git says: git is not installed"]
    assert capsys.readouterr().err.count("\n") == 1


def test_run_json_without_an_environment_is_read_and_written_as_it_was() -> None:
    old = {"commit": "c", "dirty": False, "versions": {"python": "3"}, "created": "2024"}
    assert Provenance.from_json(old).environment == {}
    assert Provenance.from_json({**old, "environment": {"cores": "2"}}).environment == {"cores": "2"}


def test_a_users_matplotlibrc_does_not_reach_the_figures(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text(
        "test_fold,phase,epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds\n0,head,0,0.7,0.5,0.7,0.5,0.001,1\n"
    )
    code = (
        "from pathlib import Path; from cardium.reporting.plots import learning_curves; "
        f"learning_curves(Path({str(tmp_path / 'history.csv')!r}), Path('out.png'), title='t')"
    )
    pictures = []
    for name, settings in (("plain", ""), ("own", "text.usetex: True\nlines.linewidth: 9\naxes.facecolor: red\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "matplotlibrc").write_text(settings)  # The first place that matplotlib looks in.
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "MPLBACKEND": "Agg"}
        subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path / name, check=True)
        pictures.append((tmp_path / name / "out.png").read_bytes())
    assert pictures[0] == pictures[1]
