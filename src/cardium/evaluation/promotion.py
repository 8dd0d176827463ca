"""Who is promoted: the rule, pure, and the file that says what it came to, promotion.json. No registry is known here.

Who challenges is chosen on validation scores alone: the honest run with the highest balanced accuracy, of equals the smaller
one. The test predictions of the nested choice (nested.py) stand for it, since its own records have validated other folds'
models. On the same records as its rival's it has to have the higher balanced accuracy, in the share P(better) of resamples of
whole patients:

    promote.confidence     it is probably better than the champion, and served
    promote.better         it is better; a first champion has to be, than the naive row. Every attempt on one split looks at the
                           same test records, so 1 - promote.better is spent over the attempts: of attempt k the share
                           1 / (k (k + 1)), which add up to 1 (alpha spending: Lan and DeMets 1983; Foster and Stine 2008)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cardium import atomic
from cardium.config import Settings
from cardium.data.manifest import is_distinct
from cardium.data.splits import folds_it_had
from cardium.errors import CardiumError
from cardium.evaluation.evaluation import NAIVE, Interval, RunScores
from cardium.evaluation.intervals import score_with_intervals
from cardium.evaluation.metrics import GroupBootstrap, paired_difference, per_group, score
from cardium.evaluation.nested import Candidate, best, choose_by_fold
from cardium.runs.predictions import by_patient, probability_columns, same_units

if TYPE_CHECKING:
    import pandas

FILE = "promotion.json"
# The naive row, in prose.
_BASELINE = "the majority-class baseline"
# promoted: the challenger is champion now; kept: it is not; unchanged: it was champion already; skipped: nothing was compared.
Action = Literal["promoted", "kept", "unchanged", "skipped"]


class Incomparable(CardiumError):  # noqa: N818
    """Champion and challenger cannot be scored on the same records."""


@dataclass(frozen=True)
class Decision:
    """Whether the challenger becomes champion, and why, in one sentence. better: whether it may be called better."""

    promote: bool
    reason: str
    better: bool = False


@dataclass(frozen=True)
class Comparison:
    """Challenger and rival (the champion, or the naive row) on the same test records; scores are balanced accuracies.

    The challenger's is that of the nested choice. rival_scored_by: where the rival's predictions come from. records_left_out:
    the challenger's test records that the rival cannot be scored on. low, high: the interval of the difference, which holds the
    share `interval` of the resamples. probability_better: the share of the resamples in which the challenger is better.
    """

    rival: str
    rival_scored_by: str
    records: int
    groups: int
    records_left_out: int
    challenger_balanced_accuracy: float
    rival_balanced_accuracy: float
    naive_balanced_accuracy: float
    interval: float
    difference: float
    low: float
    high: float
    probability_better: float


@dataclass(frozen=True)
class Challenger:
    """The run that challenges. version: in the registry, None where a dry run found it unregistered."""

    run: str
    run_id: str
    version: int | None
    validation_balanced_accuracy: float | None
    parameters: int | None
    weights: str
    warnings: list[str]


@dataclass(frozen=True)
class Champion:
    """The run that was champion before this promotion, and its version in the registry."""

    run: str
    run_id: str
    version: int


@dataclass(frozen=True)
class Attempt:
    """A promotion's number among those on one split, and the P(better) that it takes to be called better."""

    number: int
    needed: float


@dataclass(frozen=True)
class Expected:
    """What to expect of the run that is promoted: the balanced accuracy of the nested choice among all runs that were put
    forward on this split. record, group: per record and per group (patient). candidates: their number."""

    record: Interval
    group: Interval
    candidates: int


@dataclass(frozen=True)
class Served:
    """The version that answers requests after a promotion, and what to expect of it.

    expected: of one promoted now, what is expected now; of one that stays, what its own promotion wrote down, None where that
    is not known. version: None where a dry run found it unregistered.
    """

    run: str
    run_id: str
    version: int | None
    expected: Expected | None


@dataclass(frozen=True)
class Verdict:
    """What a contest came to. comparison: None where the two could not be compared. better: more than probably better."""

    action: Action
    summary: str
    reasons: list[str]
    comparison: Comparison | None = None
    better: bool = False


@dataclass(frozen=True)
class Promotion:
    """A promotion: promotion.json. model: the registered model's name. challenger: None where it was skipped.

    better: whether the challenger may be called better than its rival, and not only probably so. served: None where nothing is.
    """

    dataset: str
    model: str
    action: Action
    summary: str
    reasons: list[str]
    challenger: Challenger | None = None
    champion: Champion | None = None
    confidence: float | None = None
    comparison: Comparison | None = None
    attempt: Attempt | None = None
    better: bool = False
    expected: Expected | None = None
    served: Served | None = None

    @classmethod
    def read(cls, folder: Path) -> Promotion | None:
        """The promotion in `folder`; None where there is none yet. Raises CardiumError where it is damaged."""
        try:
            table = json.loads((folder / FILE).read_text(encoding="utf-8"))
            parts = {"challenger": Challenger, "champion": Champion, "comparison": Comparison, "attempt": Attempt}
            read = {name: part(**table[name]) for name, part in parts.items() if table.get(name)}
            if table.get("expected"):
                read["expected"] = _expected(table["expected"])
            if served := table.get("served"):
                read["served"] = Served(**{**served, "expected": served["expected"] and _expected(served["expected"])})
            return cls(**{**table, **read})
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CardiumError(f"{folder.name}/{FILE} is damaged: make it again with `cardium promote`.") from None

    @property
    def serving(self) -> Served | None:
        """The version that answers requests after it; of a file of an older version, as its other parts tell."""
        if self.served is not None or self.action == "skipped":
            return self.served
        if self.action == "promoted" and self.challenger is not None:
            return Served(self.challenger.run, self.challenger.run_id, self.challenger.version, self.expected)
        if self.champion is None:
            return None
        expected = self.expected if self.action == "unchanged" else None
        return Served(self.champion.run, self.champion.run_id, self.champion.version, expected)

    def to_json(self) -> dict[str, Any]:
        """The content of promotion.json. A skipped promotion has no challenger, an unchanged one no comparison."""
        content = asdict(self)
        if self.action == "skipped":
            return {key: content[key] for key in ("dataset", "model", "action", "summary", "reasons")}
        if self.action == "unchanged":
            del content["comparison"]
        return content

    def write(self, folder: Path) -> None:
        """Writes promotion.json into `folder`."""
        atomic.write_json(folder / FILE, self.to_json())


def _expected(table: Mapping[str, Any]) -> Expected:
    record, group = (Interval(**table[name]) for name in ("record", "group"))
    return Expected(record, group, table["candidates"])


def decide(
    challenger_score: float,
    champion_score: float | None,
    p_better: float,
    confidence: float,
    needed: float,
    naive_score: float,
    rolled_back: bool = False,
) -> Decision:
    """The rule. Scores are balanced accuracies on the same test records.

    champion_score: None where there is no champion yet; then the naive row stands for it. p_better: the probability that the
    challenger is better than that rival. confidence: promote.confidence; needed: of a first champion, and to be called better.
    """
    rival, rival_score = (_BASELINE, naive_score) if champion_score is None else ("the champion", champion_score)
    if rolled_back:
        return Decision(
            False, "it was rolled back or replaced by hand; train it anew, or delete its version's tag cardium.rolled_back"
        )
    if not challenger_score > naive_score:
        return Decision(False, f"its score {challenger_score:.3f} does not exceed {_BASELINE}'s {naive_score:.3f}")
    if not challenger_score > rival_score:
        return Decision(False, f"its score {challenger_score:.3f} is not higher than {rival}'s {rival_score:.3f}")
    higher = f"its score {challenger_score:.3f} is higher than {rival}'s {rival_score:.3f}"
    if champion_score is None and not p_better >= needed:
        return Decision(
            False,
            f"{higher}, but its probability of being better is {p_better:.4g} (required of a first champion: {needed:.4g})",
        )
    if not p_better >= confidence:
        return Decision(False, f"{higher}, but its probability of being better is {p_better:.2f} (required: {confidence:g})")
    if not p_better >= needed:
        return Decision(
            True,
            f"it is probably better: {higher}, with probability {p_better:.2f} (required: {confidence:g}; to be called better "
            f"in this attempt: {needed:.4g})",
        )
    return Decision(True, f"it is better: {higher}, with probability {p_better:.4g} (required: {needed:.4g})", better=True)


def needed_in(attempt: int, better: float) -> float:
    """The P(better) that the attempt of this number, from 1, has to reach: of all attempts together, 1 - `better` err."""
    return 1 - (1 - better) / (attempt * (attempt + 1))


def choose(runs: Mapping[str, RunScores]) -> str:
    """An evaluation's runs -> the challenger's name.

    It is honest, has the best validation balanced accuracy and, of equals, the fewest parameters. Raises CardiumError if no run
    qualifies.
    """
    validated = {
        name: row.validation_balanced_accuracy
        for name, row in runs.items()
        if row.protocol == "honest" and row.run_id and row.validation_balanced_accuracy is not None
    }
    if not validated:
        raise CardiumError(
            "No run of the honest protocol was evaluated: there is nothing to promote; train one, then `dvc repro`."
        )
    return best(validated, {name: runs[name].parameters or 0 for name in validated})


def compare(
    settings: Settings,
    classes: Sequence[str],
    challenger: pandas.DataFrame,
    rival: pandas.DataFrame,
    *,
    rival_name: str,
    rival_scored_by: str,
    naive_score: float,
) -> Comparison:
    """Both scored on the test records that both tables of predictions hold; a model of whole patients and one of images patient
    by patient, the images' mean probability.

    Raises Incomparable if these are not of `evaluate.least_groups` patients of every class at least.
    """
    columns = probability_columns(list(classes))
    key = ["record"]
    if not same_units(challenger, rival):
        key = ["group", "label"]
        challenger, rival = by_patient(challenger, classes), by_patient(rival, classes)
    both = challenger.merge(rival[[*key, *columns]], on=key, suffixes=("", "_rival"))
    patients = both.groupby("label")["group"].nunique()
    least = settings.evaluate.least_groups
    if len(patients) < len(classes) or int(patients.min()) < least:
        begin = "" if rival_name == NAIVE else "; to begin anew, delete the alias champion in the MLflow UI"
        raise Incomparable(
            f"of the {both['group'].nunique()} patients that both can be scored on there are not {least} of every class "
            f"(evaluate.least_groups), and fewer prove nothing: add patients{begin}"
        )
    labels, groups = both["label"].to_numpy(dtype=np.int64), both["group"].to_numpy(dtype=str)
    p, q = both[columns].to_numpy(), both[[f"{column}_rival" for column in columns]].to_numpy()
    threshold, interval = settings.evaluate.threshold, settings.evaluate.interval
    bootstrap = GroupBootstrap(groups, labels, settings.evaluate.bootstrap, settings.seed)
    own_score, rival_score = (score(labels, each, threshold)["balanced_accuracy"] for each in (p, q))
    return Comparison(
        rival=rival_name,
        rival_scored_by=rival_scored_by,
        records=len(both),
        groups=len(np.unique(groups)),
        records_left_out=len(challenger) - len(both),
        challenger_balanced_accuracy=own_score,
        rival_balanced_accuracy=rival_score,
        naive_balanced_accuracy=naive_score,
        interval=interval,
        **paired_difference(labels, groups, p, q, bootstrap, threshold, interval),
    )


def expect(settings: Settings, classes: Sequence[str], candidates: Sequence[Candidate]) -> Expected:
    """The score of the nested choice among `candidates`, which were all tested on the same records."""
    chosen, _ = choose_by_fold(candidates, classes, settings.evaluate.threshold)
    labels, groups = chosen["label"].to_numpy(dtype=np.int64), chosen["group"].to_numpy(dtype=str)
    probabilities = chosen[probability_columns(list(classes))].to_numpy()
    of_group, means, names = per_group(labels, probabilities, groups)
    how = settings.evaluate

    def scored(labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray) -> Interval:
        found = score_with_intervals(labels, probabilities, groups, how.threshold, how.interval)
        return Interval(**found["balanced_accuracy"])

    return Expected(scored(labels, probabilities, groups), scored(of_group, means, names), len(candidates))


def unseen_records(manifest: pandas.DataFrame, fold_of: Mapping[str, int], test_folds: list[int]) -> dict[int, np.ndarray]:
    """Which of today's records the weights of each test fold have never seen: fold -> sorted record numbers, no empty ones.

    fold_of: group -> fold, of the split that the model was trained on. Known patients keep the fold they had then, whatever
    today's split says; new ones go to the first fold. A group that today joins patients of several folds (identical files were
    found) is left out: part of it was trained on by every fold's weights.
    """
    distinct = manifest[is_distinct(manifest)]
    records = {str(group): rows["record"].tolist() for group, rows in distinct.groupby("group")}
    chosen: dict[int, list[int]] = {}
    for group, had in folds_it_had(distinct, fold_of).items():
        fold, *others = had or [test_folds[0]]
        if not others and fold in test_folds:
            chosen.setdefault(fold, []).extend(records[group])
    return {fold: np.sort(np.array(chosen[fold], dtype=np.int64)) for fold in test_folds if fold in chosen}
