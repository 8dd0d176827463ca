"""`cardium sync`: everything that the files have and the tracking store lacks is logged, each thing once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from cardium.config import Settings
from cardium.errors import CardiumError, first_line, printable
from cardium.evaluation.evaluation import FILE as EVALUATION
from cardium.evaluation.experiments import FOLDER as EXPERIMENT
from cardium.tracking.evaluations import add_evaluation, add_experiment, add_explanations
from cardium.tracking.pages import add_audit, add_report
from cardium.tracking.runs import add_run, run_folders
from cardium.tracking.searches import FILE as STUDY
from cardium.tracking.searches import add_search
from cardium.tracking.store import connected, in_words, probe, tracking_uri


class Synced(TypedDict):
    """What `sync` did.

    logged, known: folders below the project's root that were logged now, and before. evaluated: the names of the runs that got
    test scores. failed: what could not be logged, each with the reason.
    """

    logged: list[str]
    known: list[str]
    evaluated: list[str]
    failed: list[str]


def sync(settings: Settings, dataset: str | None = None) -> Synced:
    """Logs every run folder, search, page, evaluation and explanation (of one dataset, or all) that the store lacks.

    Raises StoreAway.
    """
    from cardium.progress import progress

    synced = Synced(logged=[], known=[], evaluated=[], failed=[])
    folders = list(run_folders(settings.root, dataset))
    reports, of_dataset = settings.root / "reports", dataset or "*"

    @contextlib.contextmanager
    def noting_failure(name: str) -> Iterator[None]:
        """One item's trouble must not keep the others out of the store; that of the store itself goes on up."""
        try:
            yield
        except CardiumError as error:
            probe(tracking_uri(settings))
            synced["failed"].append(f"{name}: {error}")
        except Exception as error:
            probe(tracking_uri(settings))
            told = in_words(error, tracking_uri(settings)) or f"{type(error).__name__}: {first_line(error)}"
            synced["failed"].append(f"{name}: {told}")

    def relative(folder: Path) -> str:
        return folder.relative_to(settings.root).as_posix()

    def note(folder: Path, new: bool) -> None:
        synced["logged" if new else "known"].append(relative(folder))

    with connected(settings) as client:
        for folder in progress(folders, total=len(folders), desc="sync", unit="run"):
            with noting_failure(relative(folder)):
                note(folder, add_run(client, settings, folder)[1])
        for path in sorted(reports.glob(f"{of_dataset}/tuning/*/{STUDY}")):
            with noting_failure(relative(path.parent)):
                note(path.parent, add_search(client, settings, path.parent)[1])
        for kind, add_page in (("audit", add_audit), ("report", add_report)):
            for path in sorted(reports.glob(f"{of_dataset}/{kind}/{kind}.json")):
                with noting_failure(relative(path.parent)):
                    note(path.parent, add_page(client, settings, path.parents[1].name))
        for path in sorted(reports.glob(f"{of_dataset}/evaluation/{EVALUATION}")):
            with noting_failure(f"evaluation of {path.parents[1].name}"):
                synced["evaluated"] += add_evaluation(client, settings, path.parents[1].name)
        for path in sorted(settings.root.glob(f"experiments/{of_dataset}-*/*/{EXPERIMENT}/{EVALUATION}")):
            with noting_failure(relative(path.parent)):
                synced["evaluated"] += add_experiment(client, path.parents[1])
        for path in sorted(reports.glob(f"{of_dataset}/explanations/*/*/explanations.json")):
            with noting_failure(relative(path.parent)):
                add_explanations(client, path.parent)
    return synced


def sync_text(settings: Settings, synced: Synced) -> str:
    """What `sync` did, in a line or two."""
    place = printable(tracking_uri(settings))
    lines = [
        f"Logged {len(synced['logged'])} runs and {len(synced['evaluated'])} evaluations to {place}; "
        f"{len(synced['known'])} runs were there."
    ]
    lines += [f"not logged: {line}" for line in synced["failed"]]
    return "\n".join(lines)
