"""The stages that DVC targets need: which of them have something to do, and in which order, from DVC's own comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import networkx as nx

Chain = tuple[str, ...]


@dataclass(frozen=True)
class Outdated:
    """checks: the stages that run every time. stages: what may have to run beside them.

    Its nodes are names, `verb@item`; an edge leads from a stage to one that waits for it.
    """

    checks: list[str]
    stages: nx.DiGraph


def outdated(root: Path, targets: Sequence[str]) -> Outdated | None:
    """Asks DVC which of the stages that `targets` (none: all of dvc.yaml) need are changed; all that follow one may be, too.

    A target is a stage, or the name before the @ of many. None where DVC cannot say, or a target is anything else.
    """
    import networkx as nx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.reproduce import get_active_graph

    try:
        with Repo(str(root)) as repo, repo.lock:
            graph = get_active_graph(repo.index.graph)
            stages = {str(getattr(stage, "name", "")): stage for stage in graph if stage.path_in_repo == "dvc.yaml"}
            found = {target: {name for name in stages if target in (name, name.partition("@")[0])} for target in targets}
            if not all(found.values()):
                return None
            wanted = set().union(*found.values()) if targets else set(stages)
            order = nx.relabel_nodes(graph.subgraph(stages.values()).reverse(), {stage: name for name, stage in stages.items()})
            needed = wanted.union(*(nx.ancestors(order, name) for name in wanted))
            checks = {name for name in needed if stages[name].always_changed}
            changed = {name for name in needed - checks if stages[name].status()}
    except DvcException:
        return None
    follow = changed.union(*(nx.descendants(order, name) for name in changed))
    return Outdated(sorted(checks), order.subgraph(needed & follow))


def chains(stages: nx.DiGraph) -> dict[Chain, set[Chain]]:
    """Joins stages that can only come one after the other; returns each chain, in order, with the chains that it waits for."""
    import networkx as nx

    reduced = nx.transitive_reduction(stages)
    of: dict[str, list[str]] = {}
    for name in nx.lexicographical_topological_sort(reduced):
        before = list(reduced.predecessors(name))
        follows = len(before) == 1 and reduced.out_degree(before[0]) == 1
        of[name] = of[before[0]] if follows else []
        of[name].append(name)
    return {tuple(chain): {tuple(of[name]) for name in reduced.predecessors(chain[0])} for chain in of.values()}
