"""Files of one upload -> an answer each: read in processes that can be stopped, classified by the champion of their dataset.

All images of a patient that are not in an archive are one answer of a model of whole patients. Nothing is written anywhere.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from cardium import __version__
from cardium.app.champions import Champion
from cardium.app.looked import LookedAt, Looker
from cardium.app.seen import ALONE, NO_READER, Seen, see, see_any, sort_of, zipped
from cardium.config import Settings
from cardium.errors import CardiumError
from cardium.imaging.kinds import of_patients, of_volumes
from cardium.parallel import cores
from cardium.serving.classifier import UNSURE
from cardium.serving.render_pool import FILE, Reader, RenderPool, Request
from cardium.serving.request import Refusal
from cardium.tracking.signature import example_file

INTENDED_USE = "Intended use: research only; not a medical device"
# Answers to one upload: each has a picture, and a page of more is of no use.
MOST_ANSWERS = 24
# Seconds of the upload's whole work; a volume may take long.
_SECONDS = 120.0


class TooMany(CardiumError):  # noqa: N818 - it is told to whoever sent them
    """More answers than a page has room for."""

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} files: send at most {MOST_ANSWERS} at once")
        self.count = count


@dataclass(frozen=True)
class Upload:
    """A file as it was sent: its name there, and its bytes."""

    name: str
    data: bytes


class Work:
    """The time that one upload has, over the pools that read its files: each knows a request of its own."""

    def __init__(self, seconds: float = _SECONDS) -> None:
        until = time.monotonic() + seconds
        self._requests = {volumes: Request(until) for volumes in (False, True)}

    def of(self, volumes: bool) -> Request:
        """The request of the pool that reads volumes, or of the other one."""
        return self._requests[volumes]

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        for request in self._requests.values():
            request.cancelled = True


@dataclass(frozen=True)
class Answer:
    """The answer to a file or to a patient's files.

    row: as Classifier.classify gives it, or its `error` alone. champion: who answered. chosen: whether the dataset was chosen
    from the file; others: further datasets whose champions read such files, where it was. looked: which regions influenced the
    answer, where that was asked.
    """

    file: str
    row: dict[str, Any]
    champion: Champion | None = None
    seen: Seen | None = None
    chosen: bool = False
    looked: LookedAt | None = None
    others: tuple[str, ...] = ()

    @property
    def error(self) -> str:
        """Why there is no answer, "" where there is one."""
        return str(self.row.get("error", ""))

    @property
    def decided(self) -> str:
        """The class of the highest probability, whatever the label says."""
        shares = self.row["probabilities"]
        return next((name for name in shares if shares[name] == self.row["probability"]), self.row["label"])

    @property
    def unsure(self) -> bool:
        """Whether more than the decided class, or none at all, is in the prediction set."""
        return self.row["label"] == UNSURE or (self.row["set"] is not None and self.row["set"] != [self.decided])

    @property
    def doubts(self) -> list[str]:
        """What makes the answer doubtful, in plain words."""
        return [] if self.row["quality"] == "ok" else str(self.row["quality"]).split("; ")


@dataclass
class _Task:
    """A file on its way. dataset: "" to choose from the file."""

    name: str
    data: bytes
    dataset: str = ""
    seen: Seen | Refusal | None = None
    chosen: bool = field(default=False)


class Answering:
    """The champions with the processes that read files for them. settings: for explanations; None: there are none.

    processes: that read pictures; volumes have one or two of their own. Raises CardiumError if they do not start.
    """

    def __init__(self, champions: Sequence[Champion], settings: Settings | None = None, processes: int = 0) -> None:
        self.champions = {champion.dataset: champion for champion in champions}
        self._known = [champion.reads for champion in champions]
        self._looker = Looker(settings) if settings else None
        self._pools: dict[bool, RenderPool] = {}
        try:
            for volumes in (False, True):
                some = [one for one in champions if of_volumes(one.reads.kind) == volumes]
                if some:
                    many = processes or (min(2, cores()) if volumes else cores() + 1)
                    self._pools[volumes] = _pool(some, many)
        except BaseException:
            self.close()
            raise

    @property
    def max_bytes(self) -> int:
        """Bytes that an upload may have."""
        return max(one.limits.request_bytes(one.kind) for one in self._known)

    @property
    def max_files(self) -> int:
        """Files that an upload may have: a patient's images are many."""
        study = [one.limits.max_study_files for one in self._known if of_patients(one.kind)]
        return max([MOST_ANSWERS, *study])

    def close(self) -> None:
        """Ends the processes."""
        for pool in self._pools.values():
            pool.close()

    def answer(
        self, uploads: Sequence[Upload], dataset: str = "", look: bool = False, work: Work | None = None
    ) -> list[Answer]:
        """An answer a file, or a patient, in the order of the files.

        dataset: whose champion is asked, "" to choose from each file. look: say which regions influenced the answers, too.
        Raises TooMany for more answers than a page has room for.
        """
        work = work or Work()
        tasks = self._tasks(uploads, dataset)
        if dataset or not any(of_patients(one.kind) for one in self._known):
            _check_count(tasks)
        self._see(work, tasks)
        tasks = self._joined(tasks)
        _check_count(tasks)
        self._see(work, [task for task in tasks if task.seen is None])
        return [self._answer(task, look) for task in tasks]

    def _tasks(self, uploads: Sequence[Upload], dataset: str) -> list[_Task]:
        if not dataset or not of_patients(self.champions[dataset].reads.kind):
            return [_Task(one.name, one.data, dataset, chosen=not dataset) for one in uploads]
        archives = [_Task(one.name, one.data, dataset) for one in uploads if sort_of(one.data) == "archive"]
        singles = [(one.name, one.data) for one in uploads if sort_of(one.data) != "archive"]
        return archives + ([_of_patient(singles, dataset, chosen=False)] if singles else [])

    def _joined(self, tasks: list[_Task]) -> list[_Task]:
        """Pictures that are of a study, by the dataset that takes it, become one task."""
        parts: dict[str, list[tuple[str, bytes]]] = {}
        whole = []
        for task in tasks:
            if isinstance(task.seen, Seen) and task.seen.rendered is None:
                parts.setdefault(task.seen.dataset, []).append((task.name, task.data))
            else:
                whole.append(task)
        for dataset, files in parts.items():
            study = _of_patient(files, dataset, chosen=True)
            if len(files) == 1 and any(one.of_sheets for one in self._known):
                study.seen = Refusal(ALONE)
            whole.append(study)
        return whole

    def _see(self, work: Work, tasks: Sequence[_Task]) -> None:
        """Has all of the files read. They are handed over at once: the pools know then whose turn it is."""
        begun: list[tuple[_Task, Callable[[], Any]]] = []
        for task in tasks:
            kind = self.champions[task.dataset].reads.kind if task.dataset else ""
            volumes = of_volumes(kind) if kind else sort_of(task.data) == "volume"
            pool = self._pools.get(volumes)
            if not task.data:
                task.seen = Refusal("empty file")
            elif pool is None:
                task.seen = Refusal(NO_READER)
            else:
                begun.append((task, pool.begin(work.of(volumes), task.dataset or FILE, task.data)))
        for task, wait in begun:
            task.seen = wait()

    def _answer(self, task: _Task, look: bool) -> Answer:
        seen = task.seen
        if not isinstance(seen, Seen) or seen.rendered is None:
            reason = seen.reason if isinstance(seen, Refusal) else "it cannot be read"
            return Answer(task.name, {"error": reason}, self.champions.get(task.dataset), chosen=task.chosen)
        champion, rendered = self.champions[seen.dataset], seen.rendered
        [row] = champion.classifier.classify([b""], lambda _: [rendered])
        row["data"] = champion.data
        takes = champion.reads.takes
        others = [one.dataset for one in self._known if one.takes == takes and one.dataset != seen.dataset]
        answer = Answer(task.name, row, champion, seen, task.chosen, others=tuple(others) if task.chosen else ())
        if not look or self._looker is None:
            return answer
        run = champion.classifier.run
        return replace(answer, looked=self._looker.look(run, rendered.array, run.classes.index(answer.decided)))


def _pool(champions: Sequence[Champion], processes: int) -> RenderPool:
    """Processes that read the files of these champions, each by its dataset's name or as the first that reads such files."""
    reads = [champion.reads for champion in champions]
    readers: dict[str, Reader] = {one.dataset: partial(see, reads=one) for one in reads}
    readers[FILE] = partial(see_any, known=tuple(reads))
    seconds = max(one.limits.seconds(one.kind) for one in reads)
    memory = max(champion.classifier.memory_of_a_file for champion in champions)
    return RenderPool(readers, seconds, memory, example_file(reads[0].kind), processes, processes)


def _check_count(tasks: Sequence[_Task]) -> None:
    if len(tasks) > MOST_ANSWERS:
        raise TooMany(len(tasks))


def _of_patient(files: Sequence[tuple[str, bytes]], dataset: str, *, chosen: bool) -> _Task:
    name = files[0][0] if len(files) == 1 else f"{files[0][0]} + {len(files) - 1}"
    return _Task(name, zipped(files), dataset, chosen=chosen)


def as_json(answers: Sequence[Answer]) -> str:
    """The answers as a JSON file, with what the models are and what they were trained on."""
    champions = {answer.champion.dataset: answer.champion for answer in answers if answer.champion}
    content = {
        "intended_use": INTENDED_USE,
        "made_by": f"cardium {__version__}",
        "models": [champion.facts() for champion in champions.values()],
        "answers": [
            {
                "file": answer.file,
                **({"dataset": answer.champion.dataset} if answer.champion else {}),
                **answer.row,
                **_measured(answer),
            }
            for answer in answers
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _measured(answer: Answer) -> dict[str, Any]:
    """What was measured on a sheet; of a heart the answer itself has it."""
    measured = answer.seen.measured if answer.seen and "measures" not in answer.row else ()
    return {"measured": {one.name: {"value": round(one.value, 1), "unit": one.unit} for one in measured}} if measured else {}


def as_csv(answers: Sequence[Answer]) -> str:
    """The answers as a table, a line a file: its name, the answer, a column `p_<class>` a class, quality, model, error."""
    classes = list(dict.fromkeys(f"p_{name}" for one in answers for name in one.row.get("probabilities", {})))
    columns = ["file", "dataset", "label", "probability", *classes, "set", "set_coverage", "quality"]
    columns += ["run", "model_version", "data", "error"]
    target = io.StringIO()
    table = csv.DictWriter(target, columns, restval="", lineterminator="\r\n", extrasaction="ignore")
    table.writeheader()
    for answer in answers:
        row = dict(answer.row)
        line = {**row, **{f"p_{name}": value for name, value in row.get("probabilities", {}).items()}, "file": answer.file}
        if answer.champion:
            line["dataset"] = answer.champion.dataset
        if row.get("set") is not None:
            line["set"] = " | ".join(row["set"])
        table.writerow({key: _cell(value) for key, value in line.items()})
    return target.getvalue()


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula is marked as a text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
