"""Stages that do not wait for each other run at once; what comes of it is what `dvc repro` makes, one after the other."""

from __future__ import annotations

import shutil
from pathlib import Path

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_processes import dvc

from cardium import cli
from cardium.errors import CardiumError
from cardium.pipeline.dvc import reproduce, would_run
from cardium.pipeline.graph import chains, outdated

# left and right each wait for the other to have begun: one after the other they never end.
PIPELINE = """
stages:
  tracked:
    cmd: cp source.txt first.txt && echo tracked >> log.txt
    always_changed: true
    outs: [first.txt]
  meet:
    foreach: {left: right, right: left}
    do:
      cmd: touch began-${key} && for i in $(seq 400); do [ -e began-${item} ] && break; sleep 0.05; done;
        [ -e began-${item} ] && cat first.txt > ${key}.txt && echo ${key} >> log.txt && echo met ${item}
      deps: [first.txt]
      outs: ["${key}.txt"]
  after:
    cmd: cat left.txt > after.txt && echo after >> log.txt
    deps: [left.txt]
    outs: [after.txt]
  joined:
    cmd: cat after.txt right.txt > joined.txt && echo joined >> log.txt
    deps: [after.txt, right.txt]
    outs: [joined.txt]
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "source.txt").write_text("1\n")
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    dvc(tmp_path, "init", "--no-scm", "-q")
    return tmp_path


def ran(root: Path) -> list[str]:
    log = root / "log.txt"
    lines = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return [line for line in lines if line != "tracked"]


def test_independent_stages_run_at_once_and_leave_what_dvc_would(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce(root, [], jobs=2)
    order = ran(root)
    assert sorted(order) == ["after", "joined", "left", "right"]
    assert order.index("left") < order.index("after") < order.index("joined")
    assert (root / "joined.txt").read_text() == "1\n1\n"
    assert "left | met right\n" in capsys.readouterr().out
    lock = (root / "dvc.lock").read_text()
    # DVC itself finds nothing to do, and keeps the lock file as it is.
    dvc(root, "repro", "-q")
    assert ran(root) == []
    assert (root / "dvc.lock").read_text() == lock
    assert not reproduce(root, [], jobs=2)
    assert ran(root) == []


def test_what_would_run_is_said_and_not_run(root: Path) -> None:
    shutil.rmtree(root / "data")
    assert would_run(root, "joined") == ["meet@left", "after", "meet@right", "joined"]
    assert would_run(root, "meet@right") == ["meet@right"]
    assert ran(root) == []
    assert not (root / "data").exists()
    with pytest.raises(CardiumError, match="lefty"):
        would_run(root, "lefty")


def test_only_what_changed_and_what_is_asked_for_runs(root: Path) -> None:
    reproduce(root, ["after", "meet"], jobs=2)
    assert sorted(ran(root)) == ["after", "left", "right"]
    reproduce(root, [], jobs=2)
    assert ran(root) == ["joined"]
    (root / "source.txt").write_text("2\n")  # What the check lets in changes all that follows it.
    for name in ("left", "right"):
        (root / f"began-{name}").unlink()
    assert reproduce(root, [], jobs=2)
    assert sorted(ran(root)) == ["after", "joined", "left", "right"]
    assert (root / "joined.txt").read_text() == "2\n2\n"


def test_a_failure_ends_what_waits_for_it_and_nothing_else(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = PIPELINE.replace("cat left.txt > after.txt", "echo began after >> $CARDIUM_JOURNAL && false")
    text = text.replace("touch began-${key}", "test ${key} = left || sleep 3; touch began-left began-right")
    (root / "dvc.yaml").write_text(text)
    with pytest.raises(CardiumError, match=r"^after stopped for the reason above"):
        reproduce(root, [], jobs=2)
    assert "waiting for 1 that is running" in capsys.readouterr().out
    assert sorted(ran(root)) == ["left", "right"]
    (root / "dvc.yaml").write_text(PIPELINE)
    reproduce(root, [], jobs=2)
    assert sorted(ran(root)) == ["after", "joined", "left", "right"]  # left and right: their commands are others now.


def test_dvc_explains_what_it_refuses(root: Path) -> None:
    with pytest.raises(CardiumError, match=r"`dvc repro lefty`.*lefty"):
        reproduce(root, ["lefty"], jobs=2)


def test_the_project_is_the_one_asked_about_wherever_the_process_stands(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    found = outdated(root, ["meet@left"])
    assert found is not None
    assert found.checks == ["tracked"]
    assert set(found.stages) == {"meet@left"}
    assert outdated(root, ["nothing"]) is None


def test_a_bad_number_of_jobs_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["repro", "--jobs", "0"]) == 1
    assert capsys.readouterr().err == "error: --jobs: 0 is too few; the least is 1.\n"
    for jobs, said in (("none", "--jobs"), ("1.5", "whole number")):
        with pytest.raises(SystemExit, match="2"):
            cli.main(["repro", "--jobs", jobs])
        assert said in capsys.readouterr().err


@st.composite
def graphs(draw: st.DrawFn) -> nx.DiGraph:
    nodes = draw(st.integers(1, 9))
    edges = [(first, second) for second in range(nodes) for first in range(second) if draw(st.booleans())]
    graph = nx.DiGraph()
    graph.add_nodes_from(str(node) for node in range(nodes))
    graph.add_edges_from((str(first), str(second)) for first, second in edges)
    return graph


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_chains_hold_every_stage_once_and_every_order(graph: nx.DiGraph) -> None:
    waits = chains(graph)
    place = {name: (chain, at) for chain in waits for at, name in enumerate(chain)}
    assert sorted(place) == sorted(graph)
    order = nx.DiGraph((before, chain) for chain, befores in waits.items() for before in befores)
    order.add_nodes_from(waits)
    assert nx.is_directed_acyclic_graph(order)
    for first, second in graph.edges:
        (one, at), (other, later) = place[first], place[second]
        assert at < later if one == other else other in nx.descendants(order, one)
