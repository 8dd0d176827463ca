"""Changed data is reported, and never filed under another hash: in scratch DVC repositories, through `dvc repro` too."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cardium.data.tracked import check_tracked, recorded_md5
from cardium.datasets.demos import TRACKED_MD5
from cardium.errors import CardiumError
from cardium.pipeline import dvc as pipeline

PROJECT = Path(__file__).resolve().parents[1]
# The shape in which dvc.yaml asks: a stage that always runs and has no dependency below data/, and readers of what it writes.
PIPELINE = """
stages:
  tracked:
    cmd: python tracked.py
    always_changed: true
    outs: [tracked.txt]
  read:
    cmd: python -c "import shutil; shutil.copy('data/cmri/a.txt', 'out.txt')"
    deps: [tracked.txt]
    outs: [out.txt]
"""
ASK = """
import pathlib, sys
from cardium.data.tracked import check_tracked
from cardium.errors import CardiumError
try:
    pathlib.Path("tracked.txt").write_text(check_tracked(pathlib.Path.cwd()))
except CardiumError as error:
    sys.exit(str(error))
"""


def dvc(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src"), "DVC_NO_ANALYTICS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, env=environment, capture_output=True, text=True)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "data/cmri").mkdir(parents=True)
    (tmp_path / "data/cmri/a.txt").write_text("one")
    assert dvc(tmp_path, "init", "--no-scm", "-q").returncode == 0
    assert dvc(tmp_path, "add", "-q", "data").returncode == 0
    return tmp_path


def test_as_tracked_changed_accepted(root):
    md5 = check_tracked(root)
    assert md5 == recorded_md5(root)
    assert md5.endswith(".dir")
    assert len(md5) == 36
    (root / "data/cmri/b.txt").write_text("two")
    recorded = (root / "data.dvc").read_bytes()
    with pytest.raises(CardiumError, match=r"data/ is not what data\.dvc tracks.*`dvc add data`.*`dvc checkout data\.dvc`"):
        check_tracked(root)
    assert (root / "data.dvc").read_bytes() == recorded
    dvc(root, "add", "-q", "data")
    assert check_tracked(root) not in ("", md5)


def test_a_fresh_clone_whose_cache_is_empty_is_no_difference(root):
    for folder in ("cache", "tmp"):
        subprocess.run(["rm", "-rf", root / ".dvc" / folder], check=True)
    assert "not in cache" in dvc(root, "status", "data.dvc").stdout
    assert check_tracked(root) == recorded_md5(root)


@pytest.mark.parametrize("change", ["changed", "added", "deleted"])
def test_other_data_in_a_fresh_clone_is_a_difference(root, change):
    for folder in ("cache", "tmp"):
        subprocess.run(["rm", "-rf", root / ".dvc" / folder], check=True)
    (root / "data/cmri/b.txt").write_text("two")
    if change != "added":
        (root / "data/cmri/a.txt").unlink()
    if change == "changed":
        (root / "data/cmri/b.txt").rename(root / "data/cmri/a.txt")
    with pytest.raises(CardiumError, match=r"data/ is not what data\.dvc tracks"):
        check_tracked(root)
    assert not (root / ".dvc/cache").exists(), "looking puts nothing into the cache"


def test_data_dvc_in_the_repository_is_the_demos():
    assert recorded_md5(PROJECT) == TRACKED_MD5


@pytest.mark.parametrize("make", [pipeline.ensure_data, pipeline.make_demo_data])
def test_no_demo_data_is_made_where_data_dvc_tracks_other_data(root, make):
    (root / "data").rename(root / "elsewhere")
    with pytest.raises(CardiumError, match=r"tracks data of your own.*`dvc pull`"):
        make(root)
    assert not (root / "data").exists()
    assert not list(root.glob(".cardium/demo*"))


def test_an_archive_without_git_says_what_helps(root):
    (root / ".dvc/config").write_text("")
    with pytest.raises(CardiumError, match=r"`git init`.*core\.no_scm true"):
        check_tracked(root)
    for stopped in (pipeline.accept_demo, pipeline.check_dvc, lambda root: pipeline.reproduce(root, [])):
        with pytest.raises(CardiumError, match=r"`git init`.*core\.no_scm true"):
            stopped(root)
    (root / ".dvc").rename(root / "elsewhere")
    with pytest.raises(CardiumError, match=r"`dvc init --no-scm`"):
        pipeline.reproduce(root, [])


def test_missing_untracked_and_damaged(root, tmp_path_factory):
    (root / "data").rename(root / "moved")
    with pytest.raises(CardiumError, match=r"data/ is missing, though data\.dvc tracks it: go back with"):
        check_tracked(root)
    (root / "data.dvc").write_text("outs: [")
    with pytest.raises(CardiumError, match=r"data\.dvc"):
        check_tracked(root)
    assert check_tracked(tmp_path_factory.mktemp("plain")) == ""


def test_what_dvc_is_told_to_ignore_is_read_all_the_same_and_stops(root):
    (root / "data/cmri/more").mkdir()
    (root / "data/cmri/more/b.txt").write_text("foreign")
    (root / ".dvcignore").write_text("data/cmri/more\n")
    with pytest.raises(CardiumError, match=r"data/cmri/more is left out of data/'s hash by \.dvcignore"):
        check_tracked(root)
    (root / ".dvcignore").unlink()
    shutil.rmtree(root / "data/cmri/more")
    assert check_tracked(root) == recorded_md5(root)
    (root / "data/cmri/.dvcignore").write_text("*.txt\n")
    with pytest.raises(CardiumError, match=r"DVC cannot compare data/ .*\.dvcignore") as caught:
        check_tracked(root)
    assert "\n" not in str(caught.value)


def test_repro_reports_changed_data_and_leaves_data_dvc_alone(root):
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "tracked.py").write_text(ASK)
    first = dvc(root, "repro")
    assert first.returncode == 0, first.stderr
    assert (root / "tracked.txt").read_text() == recorded_md5(root)
    again = dvc(root, "repro")
    assert "Stage 'read' didn't change, skipping" in again.stdout

    (root / "data/cmri/a.txt").unlink()
    (root / "data/cmri/a.txt").write_text("changed")
    recorded = (root / "data.dvc").read_bytes()
    stopped = dvc(root, "repro")
    assert stopped.returncode != 0
    assert "accept it with `dvc add data`" in stopped.stderr
    assert (root / "data.dvc").read_bytes() == recorded
    assert (root / "out.txt").read_text() == "one"

    dvc(root, "add", "-q", "data")
    accepted = dvc(root, "repro")
    assert accepted.returncode == 0, accepted.stderr
    assert (root / "out.txt").read_text() == "changed"
