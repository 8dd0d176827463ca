"""`cardium status`: what of each dataset is made, what is out of date, what is at work, and which version is served.

From files and DVC's own comparison; the registry is not asked: promotion.json says what the last promotion came to.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cardium.config import Settings
from cardium.errors import CardiumError
from cardium.evaluation.evaluation import FILE, Evaluation
from cardium.evaluation.experiments import scored_experiments
from cardium.evaluation.promotion import Promotion
from cardium.pipeline.dvc import check_dvc
from cardium.pipeline.graph import outdated
from cardium.pipeline.turn import at_work
from cardium.workspace import Workspace


@dataclass(frozen=True)
class DatasetStatus:
    """to_do: the stages that are to be made or out of date, in no order. runs: trained ones, of `planned`.

    served: the version that is served and what to expect of it, in words; "" for none. promotion: what the last one came to, ""
    before the first. experiments: the number that were scored on the test records. report: the page, "" without one.
    """

    to_do: list[str]
    runs: int
    planned: int
    served: str
    promotion: str
    experiments: int
    report: str


@dataclass(frozen=True)
class Status:
    """at_work: the commands that hold a turn of the project. data: whether data/ is there."""

    profile: str
    data: bool
    at_work: list[str]
    datasets: dict[str, DatasetStatus]

    def to_json(self) -> dict[str, Any]:
        """The status as data."""
        return asdict(self)


def project_status(settings: Settings) -> Status:
    """Asks files and DVC. Raises CardiumError where DVC cannot say."""
    check_dvc(settings.root)
    found = outdated(settings.root, [])
    if found is None:
        raise CardiumError("DVC cannot say what is out of date: `dvc status` tells why.")
    stages = list(found.stages)
    datasets = {dataset: _of_dataset(settings, dataset, stages) for dataset in settings.active}
    return Status(settings.profile, (settings.root / "data").is_dir(), at_work(settings.root), datasets)


def _of_dataset(settings: Settings, dataset: str, stages: list[str]) -> DatasetStatus:
    places = Workspace(settings.root)
    promotion = Promotion.read(places.promotion(dataset))
    served = promotion.serving if promotion else None
    told = ""
    experiments = 0
    if (places.evaluation(dataset) / FILE).is_file():
        evaluation = Evaluation.read(places.evaluation(dataset), dataset)
        experiments = len(scored_experiments(settings, evaluation))
        if served and served.expected:
            told = (served.expected.group if evaluation.patients else served.expected.record).text
            told = f", expected {told} by {'patient' if evaluation.patients else 'record'}"
    page = places.report(dataset) / "index.html"
    ids = settings.plan.ids(dataset)
    return DatasetStatus(
        to_do=sorted(name for name in stages if name.partition("@")[2].partition("-")[0] == dataset),
        runs=sum((places.run(run) / "run.json").is_file() for run in ids),
        planned=len(ids),
        served=f"{served.run} (version {served.version}){told}" if served else "",
        promotion=promotion.summary if promotion else "",
        experiments=experiments,
        report=page.relative_to(settings.root).as_posix() if page.is_file() else "",
    )


def status_text(status: Status) -> str:
    """Formats the status for a terminal."""
    lines = [
        f"Profile {status.profile}. {'data/ is there' if status.data else 'No data/ yet: `cardium demo-data` makes some'}."
    ]
    lines += [f"At work: {command}." for command in status.at_work]
    for name, one in status.datasets.items():
        made = "up to date" if not one.to_do else f"{len(one.to_do)} stages to make"
        scored = f"; experiments scored: {one.experiments}" if one.experiments else ""
        lines += ["", f"{name}: {made}; {one.runs} of {one.planned} runs trained{scored}"]
        if one.to_do:
            more = f" and {len(one.to_do) - 3} more" if len(one.to_do) > 3 else ""
            lines.append(f"  to make:  {', '.join(one.to_do[:3])}{more}")
        lines.append(f"  served:   {one.served or 'no model'}")
        if one.promotion and not one.served:
            lines.append(f"  because:  {one.promotion}")
        if one.report:
            lines.append(f"  report:   {one.report}")
    waiting = any(one.to_do for one in status.datasets.values())
    lines += ["", "Next: cardium repro" if waiting else "Nothing to do: data, code and settings are as they were."]
    return "\n".join(lines)
