"""score: a row a file, whatever is killed meanwhile; the answers of predict; a table that grows by what is new."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from run_folders import make_project, run_folder

from cardium.batch import local, score
from cardium.batch.answers import Answers
from cardium.batch.source import Item, read_source
from cardium.batch.worker import read_file
from cardium.errors import CardiumError
from cardium.imaging.spec import Limits
from cardium.serving import predict_files

MODEL = "models/cmri/honest/mobilenetv2"
CLASSES = ["Normal", "Sick"]


ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings = make_project(tmp_path_factory.mktemp("batch") / "project")
    run_folder(settings, "mobilenetv2")
    return settings


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures and three files that are none, two of them in a folder."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "ward [3]").mkdir()
    rng = np.random.default_rng(1)
    for number in range(6):
        pixels = rng.integers(0, 255, (4, 6, 3), dtype=np.uint8).repeat(10, axis=0).repeat(10, axis=1)
        Image.fromarray(pixels).save(folder / ("ward [3]" if number % 2 else ".") / f"sheet {number}.png")
    (folder / "ward [3]" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes((folder / "sheet 0.png").read_bytes()[:90])
    (folder / "notes.txt").write_text("litter")
    return folder


def rows_of(table: Path) -> dict[str, dict[str, Any]]:
    read = pd.read_parquet(table).astype(object)
    return {row["path"]: row for row in read.where(read.notna(), None).to_dict("records")}


def said_by_predict(settings: Any, folder: Path, paths: Sequence[str]) -> dict[str, dict[str, Any]]:
    rows = predict_files(settings, [folder / path for path in paths], str(settings.root / MODEL))
    return dict(zip(paths, rows, strict=True))


def check_as_predicted(table: Path, settings: Any, folder: Path) -> None:
    """Every row says what predict says of the file: to the last digit of float32, as a batch may round otherwise."""
    rows = rows_of(table)
    for path, told in said_by_predict(settings, folder, list(rows)).items():
        row = rows[path]
        assert row["error"] == told.get("error"), path
        if "error" in told:
            assert row["label"] is None
            continue
        assert row["label"] == told["label"]
        assert list(row["set"]) == told["set"]
        assert row["quality"] == told["quality"]
        for name in CLASSES:
            assert row[f"p_{name}"] == pytest.approx(told["probabilities"][name], abs=1e-6)


# ------------------------------------------------------------------------------------------------------------ this machine


@pytest.fixture(scope="module")
def scored(settings: Any, files: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, score.Scored]:
    out = tmp_path_factory.mktemp("out") / "answers.parquet"
    return out, score.score_files(settings, str(files), out, str(settings.root / MODEL))


def test_a_row_a_file_with_the_answer_of_predict(scored: Any, settings: Any, files: Path) -> None:
    out, told = scored
    rows = rows_of(out)
    assert list(rows) == sorted(path.relative_to(files).as_posix() for path in files.rglob("*.[pj][np]g"))
    check_as_predicted(out, settings, files)
    assert (told.items, told.answered, told.errors) == (9, 9, 3)
    assert "ward [3]/broken.jpg: damaged JPEG file" in told.text
    assert not out.with_name("answers.parquet.parts").exists()


# --------------------------------------------------------------------------------------------- what is answered, and when

ANSWER = {"label": "Sick", "probability": 0.75, "probabilities": {"Normal": 0.25, "Sick": 0.75}, "set": ["Sick"],
          "set_coverage": 0.9, "quality": "ok", "run": "cmri-mobilenetv2", "model_version": "3",
          "data": "generated demo data"}  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that an engine was asked of, one that gives every file the same answer."""
    paths: list[str] = []

    def answers(model: Any, place: str, chunks: Sequence[Sequence[Item]], master: str) -> Iterator[Any]:
        for chunk in chunks:
            paths.extend(item.path for item in chunk)
            yield chunk, [ANSWER] * len(chunk)

    monkeypatch.setattr(local, "answers", answers)
    return paths


def test_a_table_grows_by_what_is_new_or_changed(settings: Any, files: Path, tmp_path: Path, asked: list[str]) -> None:
    folder, out, model = tmp_path / "files", tmp_path / "answers.parquet", str(settings.root / MODEL)
    shutil.copytree(files, folder)
    score.score_files(settings, str(folder), out, model)
    assert len(asked) == 9
    before = out.read_bytes()
    asked.clear()
    assert "Nothing to do" in score.score_files(settings, str(folder), out, model).text
    assert (asked, out.read_bytes()) == ([], before)
    (folder / "new.png").write_bytes(b"new")
    (folder / "cut.png").write_bytes(b"another")
    (folder / "empty.png").unlink()
    told = score.score_files(settings, str(folder), out, model)
    assert (asked, told.items) == (["cut.png", "new.png"], 9)
    assert list(rows_of(out)) == [item.path for item in read_source(folder, False).items]
    # Sets of another coverage are other answers.
    asked.clear()
    score.score_files(make_project(tmp_path / "project", **{"serve.coverage": 0.8}), str(folder), out, model)
    assert len(asked) == 9


# Answers three chunks and is gone in the fourth, as by `kill -9`.
_KILLED = """
import json, os, signal, sys
from pathlib import Path
from cardium import config
from cardium.batch import local, score

def answers(model, place, chunks, master):
    for number, chunk in enumerate(chunks):
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        with open(sys.argv[4], "a") as log:
            log.writelines(f"{item.path}\\n" for item in chunk)
        yield chunk, [json.loads(sys.argv[5])] * len(chunk)

local.answers = answers
score.score_files(config.load(Path(sys.argv[1])), sys.argv[2], Path(sys.argv[3]), sys.argv[6])
"""


def test_a_killed_command_goes_on_and_does_nothing_twice(settings: Any, tmp_path: Path, asked: list[str]) -> None:
    folder, out, log = tmp_path / "many", tmp_path / "answers.parquet", tmp_path / "log"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number:03d}.png").write_bytes(b"x")
    given = [str(settings.root), str(folder), str(out), str(log), json.dumps(ANSWER), str(settings.root / MODEL)]
    done = subprocess.run([sys.executable, "-c", _KILLED, *given], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    first = log.read_text().split()
    assert len(first) == 192
    told = score.score_files(settings, str(folder), out, str(settings.root / MODEL))
    assert sorted(first + asked) == sorted(path.name for path in folder.iterdir())
    assert (told.items, told.answered, told.labels) == (300, 108, {"Sick": 300})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.parquet", "log", "many"]


def test_a_journal_that_was_cut_anywhere_keeps_its_whole_answers(tmp_path: Path) -> None:
    items = [Item(f"{number}.png", bytes=1, modified=number + 1) for number in range(6)]
    out = tmp_path / "a.parquet"
    with Answers(out, CLASSES, "model", False) as answers:
        sizes = []
        for item in items:
            answers.add([item], [ANSWER])
            sizes.append((tmp_path / "a.parquet.parts" / "000000.arrows").stat().st_size)
    whole = (tmp_path / "a.parquet.parts" / "000000.arrows").read_bytes()
    for cut in {0, 5, sizes[0] - 1, sizes[0], sizes[2] + 7, sizes[3] - 8, sizes[5] - 1, sizes[5]}:
        (tmp_path / "a.parquet.parts").mkdir(exist_ok=True)
        (tmp_path / "a.parquet.parts" / "000000.arrows").write_bytes(whole[:cut])
        with Answers(out, CLASSES, "model", False) as answers:
            kept = sum(size <= cut for size in sizes)
            assert answers.missing(items) == items[kept:], cut


def test_one_command_at_a_time_and_no_other_file_is_written_over(tmp_path: Path) -> None:
    out = tmp_path / "a.parquet"
    other = Answers(out, CLASSES, "model", False)
    with Answers(out, CLASSES, "model", False), pytest.raises(CardiumError, match="Another command writes"):
        other.__enter__()
    assert list(tmp_path.iterdir()) == []
    pd.DataFrame({"x": [1]}).to_parquet(out)
    with pytest.raises(CardiumError, match="holds no answers"), Answers(out, CLASSES, "model", False):
        pass
    with pytest.raises(CardiumError, match=r"ends in \.parquet"), Answers(tmp_path / "a.csv", CLASSES, "model", False):
        pass


# ----------------------------------------------------------------------------------------------------------- what is given


def test_a_table_names_files_beside_it(files: Path, tmp_path: Path) -> None:
    table = files.parent / "table.csv"
    table.write_text(f"path,ward\n{files.name}/sheet 0.png,3\n{files.name}/gone.png,3\n{files.name}/sheet 0.png,4\n")
    source = read_source(table, False)
    assert [item.path for item in source.items] == [f"{files.name}/sheet 0.png", f"{files.name}/gone.png"]
    assert (source.repeated, source.items[0].bytes > 0, source.items[1].bytes) == (1, True, -1)
    limits = Limits(1000, 1000, 1000, 1000)
    assert read_file(files.parent / source.items[1].path, limits).reason == "no such file or directory"  # type: ignore[union-attr]
    assert "too many bytes" in read_file(files / "sheet 0.png", Limits(9, 9, 9, 9)).reason  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone", None, "There is no "),
        ("list.txt", "a.png", "list.txt is no table"),
        ("a.csv", "file\nx.png\n", "Unknown column `path`"),
        ("b.csv", "path\n", "has no rows"),
        ("c.csv", "path,x\n,1\n", "`path` of row 0 is empty"),
        ("d.parquet", "no parquet", "d.parquet cannot be read as a table"),
    ],
)
def test_what_is_no_source_is_one_line(tmp_path: Path, name: str, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(CardiumError, match=says) as caught:
        read_source(tmp_path / name, False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "engine", "master", "says"),
    [
        ("files", "flink", "", "Unknown engine `flink`"),
        ("files", "local", "yarn", "--master: the local engine has none"),
        ("", "local", "", "There is nothing to score"),
        ("s3a://bucket/folder", "local", "", "add --engine spark"),
    ],
)
def test_an_engine_that_is_not_there_is_one_line(
    settings: Any, tmp_path: Path, given: str, engine: str, master: str, says: str
) -> None:
    with pytest.raises(CardiumError, match=says):
        score.score_files(settings, given, tmp_path / "a.parquet", str(settings.root / MODEL), engine, master)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------------------- clusters


@pytest.mark.parametrize(("engine", "library"), [("spark", "pyspark"), ("ray", "ray")])
def test_a_cluster_says_what_predict_says(settings: Any, files: Path, tmp_path: Path, engine: str, library: str) -> None:
    pytest.importorskip(library, reason=f"{library} is an extra: requirements-{engine}.lock")
    if engine == "spark" and shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    out = tmp_path / "answers.parquet"
    told = score.score_files(settings, str(files), out, str(settings.root / MODEL), engine)
    assert (told.items, told.errors) == (9, 3)
    check_as_predicted(out, settings, files)
    if engine == "spark":  # An address is listed by Spark itself.
        told = score.score_files(settings, files.as_uri(), tmp_path / "b.parquet", str(settings.root / MODEL), engine)
        rows, others = rows_of(tmp_path / "b.parquet"), rows_of(out)
        assert rows.keys() == others.keys() - {"empty.png"}
        shares = [row["p_Sick"] for row in rows.values() if row["error"] is None]
        expected = [others[path]["p_Sick"] for path, row in rows.items() if row["error"] is None]
        assert shares == pytest.approx(expected, abs=1e-6)
