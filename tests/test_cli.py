"""The command line: quick to answer, one line for a mistake, no traceback."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from cardium import cli
from cardium.models.backbones import BACKBONES

ROOT = Path(__file__).resolve().parents[1]
HEAVY = (
    "tensorflow",
    "keras",
    "mlflow",
    "pandas",
    "numpy",
    "sklearn",
    "great_expectations",
    "dvc",
    "matplotlib",
    "optuna",
    "scipy",
)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["trian"], ["train", "--model", "resnet152"], ["train", "--epochs", "x"], ["models"]]
)
def test_help_and_mistakes_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom cardium.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_python_without_the_libraries_is_one_line() -> None:
    code = "import sys; sys.path.insert(0, 'src'); from cardium.cli import main; sys.exit(main(['params']))"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: This Python (")
    assert "`source .venv/bin/activate`" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["trian"], 2, "unknown verb `trian`. Did you mean `train`?"),
        ([], 2, "the following arguments are required: verb"),
        (["train", "--model", "resnet152"], 1, "Unknown model `resnet152`. Did you mean `resnet152v2`?"),
        (["train", "--dataset", "cmrii"], 1, "Unknown dataset `cmrii`. Did you mean `cmri`?"),
        (["train", "--protocol", "onest"], 1, "--protocol: `onest` is not one of honest, published"),
        (["train", "--epochs", "2.5"], 2, "2.5 is not a whole number"),
        (["train", "--epochs", "many"], 2, "invalid whole number value"),
        (["train", "--epochs", "0"], 1, "cmri.train.epochs: 0 is too small"),
        (["train", "--weights", "imagnet"], 1, "`imagnet` is not one of imagenet, none, auto"),
        (["models", "*_nothing"], 1, "No model matches `*_nothing`"),
        (["evaluate", "--dataset", "cmr"], 1, "Unknown dataset `cmr`"),
        (["promote", "--rollback", "perhaps"], 2, "perhaps is neither true nor false"),
        (["stage", "train", "cmri-vgg"], 1, "Unknown run `cmri-vgg`"),
        (["predict", "nowhere.jpg", "--model", "nowhere"], 1, "nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARDIUM_ROOT", str(ROOT))
    try:
        got = cli.main(arguments)
    except SystemExit as stop:
        got = int(str(stop.code))
    said = capsys.readouterr().err
    assert got == code
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "x", "/p/a.npy"), "error: /p/a.npy cannot be written (No space left on device): make room"),
        (OSError(errno.EACCES, "x", b"/p/a\xff"), "(Permission denied): give yourself the right to it"),
        (OSError(errno.EIO, "x", "/p/a.npy"), "error: /p/a.npy: Input/output error: see to that, then run the same command"),
        (
            OSError(errno.EDQUOT, "x"),
            "error: A file of this project cannot be written (Disk quota exceeded): make room in your",
        ),
    ],
)
def test_what_the_system_refuses_is_one_line(
    error: OSError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(_: object) -> None:
        raise error

    monkeypatch.setitem(cli._VERBS, "params", (None, cli._nothing, refused))
    assert cli.main(["params"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


def test_an_error_that_names_no_file_is_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(_: object) -> None:
        raise OSError("h5py: unable to do this")

    monkeypatch.setitem(cli._VERBS, "params", (None, cli._nothing, failed))
    with pytest.raises(OSError, match="h5py"):
        cli.main(["params"])


def test_outside_a_project_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CARDIUM_ROOT", raising=False)
    assert cli.main(["evaluate"]) == 1
    assert "No cardium project in" in capsys.readouterr().err


def test_what_mlflow_passes_empty_is_not_given() -> None:
    arguments = cli._parser().parse_args(["train", "--epochs", "", "--learning-rate", "", "--protocol", "", "--weights", ""])
    assert (arguments.epochs, arguments.learning_rate) == (None, None)
    # ... and whole numbers come as floats from some clients.
    assert cli._parser().parse_args(["train", "--epochs", "3.0"]).epochs == 3


def test_models_lists_the_grid(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "*_spatial"]) == 0
    assert capsys.readouterr().out.split() == sorted(f"{backbone}_spatial" for backbone in BACKBONES)


def test_profile_says_and_changes_what_is_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    monkeypatch.setenv("CARDIUM_ROOT", str(tmp_path))
    assert cli.main(["profile"]) == 0
    assert capsys.readouterr().out.startswith("Profile demo: cmri, ecg4, ecg5, chd; ")
    assert cli.main(["profile", "study"]) == 0
    assert capsys.readouterr().out.startswith("Profile study: ")
    assert cli.main(["profile", "studdy"]) == 1
    assert "Did you mean `study`?" in capsys.readouterr().err


def test_params_prints_what_the_profile_comes_to(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    monkeypatch.setenv("CARDIUM_ROOT", str(ROOT))
    assert cli.main(["params"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert printed["cmri"]["train"]["epochs"] == raw["profiles"][raw["profile"]]["image"]["train"]["epochs"]
