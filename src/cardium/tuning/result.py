"""The result of a search: the best trial, its gain over the run's own settings with a bound, and all trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cardium.config import run_spec
from cardium.evaluation.metrics import GroupBootstrap
from cardium.provenance import Provenance
from cardium.runs.predictions import probability_columns
from cardium.tuning import queue
from cardium.tuning.gain import gain_of_best
from cardium.tuning.search import Search, kept_predictions, predictions_of
from cardium.workspace import RunId, Workspace, run_name

if TYPE_CHECKING:
    import optuna
    import pandas
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class SearchResult:
    """info: the content of study.json. trials: one row per trial. defaults, best: validation predictions of both trials."""

    info: dict[str, Any]
    trials: pandas.DataFrame
    defaults: pandas.DataFrame
    best: pandas.DataFrame


def conclude(search: Search, study: optuna.Study, asked: int, seconds: float) -> SearchResult:
    """Computes the result of a study.

    asked: the number of trials that were asked for. seconds: the time of this session.
    """
    counts = queue.count_trials(study)
    trials = study.get_trials(deepcopy=False)
    defaults = next(t for t in trials if t.user_attrs.get(queue.DEFAULTS) and t.state in queue.ENDED)
    best = counts.best
    assert best is not None  # The defaults are never cut short.
    own, found = predictions_of(search, defaults), predictions_of(search, best)
    challengers = [
        trial for trial in trials if trial.state in queue.ENDED and trial.number not in (defaults.number, best.number)
    ]
    gain = gain_of(search, own, found, _others(search, challengers), len(challengers) + 1)
    model, _ = search.space.applied(best.params)
    root, spec = search.settings.root, search.spec
    seconds_of_trials = round(
        sum(float(trial.user_attrs.get("seconds", 0.0)) for trial in trials if trial.state in queue.ENDED), 1
    )
    provenance = Provenance.now(root)
    info: dict[str, Any] = {
        "id": study.user_attrs["id"],
        **provenance.as_dict(),
        "run": search.run,
        "dataset": spec.dataset,
        "model": spec.model,
        "protocol": spec.protocol,
        "kind": "tune",
        "classes": search.inputs.classes,
        "space": search.space.name,
        "study": search.study_name,
        "objective": "mean validation balanced accuracy over the folds",
        "held_out": search.held_out,
        "folds": list(search.folds),
        "trials": {"asked": asked, "completed": counts.completed, "cut_short": counts.pruned},
        "dimensions": {name: _values(value) for name, value in search.space.as_dict()["dimensions"].items()},
        "defaults": {"trial": defaults.number, "score": defaults.value, "settings": search.space.defaults},
        "best": {
            "trial": best.number,
            "score": best.value,
            "model": model,
            "settings": {} if best.number == defaults.number else settings_to_take_over(search, best),
            "values": best.params,
        },
        "gain": gain,
        "verdict": verdict(best.number == defaults.number, gain, counts.ended),
        "importance": queue.importance(study, search.settings.seed),
        "seconds": {"trials": seconds_of_trials, "this_time": round(seconds, 1)},
        "seconds_per_trial": round(seconds_of_trials / max(1, counts.ended), 2),
        "data": asdict(search.data),
        "warnings": provenance.warnings,
    }
    return SearchResult(info, _table(search, trials), own, found)


def _others(search: Search, trials: list[FrozenTrial]) -> list[pandas.DataFrame]:
    """Reads the predictions of those `trials` that were completed on this machine."""
    import pandas as pd

    files = [kept_predictions(search, trial.number) for trial in trials]
    return [pd.read_parquet(file) for file in files if file.is_file()]


def gain_of(
    search: Search, own: pandas.DataFrame, found: pandas.DataFrame, others: Sequence[pandas.DataFrame] = (), tried: int = 1
) -> dict[str, float]:
    """Compares the best trial with the defaults on all validation records; as `gain.gain_of_best`, which see.

    others: the predictions of the other completed trials that are at hand. tried: all trials but the defaults.
    """
    columns = probability_columns(search.inputs.classes)
    tables = [table.sort_values(["test_fold", "record"], ignore_index=True) for table in (own, found, *others)]
    labels, groups = tables[0]["label"].to_numpy(), tables[0]["group"].to_numpy()
    defaults, *trials = (table[columns].to_numpy() for table in tables)
    evaluate = search.settings.evaluate
    bootstrap = GroupBootstrap(groups, labels, evaluate.bootstrap, search.settings.seed)
    return gain_of_best(
        labels, groups, defaults, trials, 0, bootstrap,
        threshold=evaluate.threshold, interval=evaluate.interval, challengers=tried,
    )  # fmt: skip


def verdict(none_better: bool, gain: dict[str, float], trials: int) -> str:
    """States the gain in a sentence."""
    if none_better:
        return f"No gain: of {trials} trials none beat the run's own settings."
    interval = f"{gain['difference']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
    if gain["low"] <= 0:
        return f"No gain that can be told from chance: {interval}; the best of {trials} equal trials would look as good."
    return f"A gain of {interval}; its lower end allows for the best of {trials} having been picked, the rest is optimistic."


def settings_to_take_over(search: Search, best: FrozenTrial) -> dict[str, Any]:
    """Returns the settings for the run that takes over the best trial: all searched ones, and those it has otherwise.

    If the block was searched, that run may be another one than the searched run.
    """
    model, train = search.space.applied(best.params)
    spec, settings = search.spec, search.settings
    own = asdict(run_spec(settings, RunId(spec.dataset, model, spec.protocol)).untuned)
    searched = search.space.searched()
    return {name: value for name, value in asdict(train).items() if name in searched or value != own[name]}


def _values(dimension: dict[str, Any]) -> dict[str, Any]:
    """Describes a dimension for study.json: its choices or its range."""
    if dimension["sets"]:
        return {"choices": list(dimension["sets"])}
    if dimension["choices"]:
        return {"choices": dimension["choices"]}
    return {"low": dimension["low"], "high": dimension["high"], "log": dimension["log"]}


def _table(search: Search, trials: list[FrozenTrial]) -> pandas.DataFrame:
    """Builds trials.csv: one row per trial with its settings and its score on each fold."""
    import pandas as pd

    rows = []
    for trial in trials:
        scores = trial.user_attrs.get("scores", [])
        rows.append(
            {
                "trial": trial.number,
                "state": trial.state.name.lower(),
                "score": trial.value if trial.state in queue.ENDED else None,
                "defaults": bool(trial.user_attrs.get(queue.DEFAULTS)),
                "seconds": trial.user_attrs.get("seconds"),
                "started": trial.datetime_start.isoformat(timespec="seconds") if trial.datetime_start else "",
                "retry_of": trial.user_attrs.get(queue.RETRY_OF),
                "note": trial.user_attrs.get(queue.NOTE, ""),
                **{f"fold_{fold}": value for fold, value in zip(search.folds, scores, strict=False)},
                **{f"set.{name}": trial.params.get(name) for name in search.space.dimensions},
            }
        )
    return pd.DataFrame(rows).astype({"retry_of": "Int64"})


_HEAD = """\
# What `cardium tune` found for {run}; `tuned: configs/tuned/{run}.yaml` in a run's line of params.yaml makes `train` take it.
# {verdict}
# `settings` are laid over the line's own; `cardium evaluate` gives the score that holds.
"""


def tuned_text(info: dict[str, Any]) -> str:
    """Builds the content of configs/tuned/<run>.yaml, the settings that a run takes over. info: study.json."""
    import yaml

    table = {
        "run": info["run"],
        "dataset": info["dataset"],
        "model": info["best"]["model"],
        "settings": info["best"]["settings"],
        "score": {"defaults": round(info["defaults"]["score"], 6), "best": round(info["best"]["score"], 6)},
        "gain": {name: round(value, 6) for name, value in info["gain"].items()},
        "verdict": info["verdict"],
        "trials": info["trials"],
        "space": info["space"],
        "held_out": info["held_out"],
        "study": info["study"],
        "commit": info["commit"] + ("-dirty" if info["dirty"] else ""),
        "data": info["data"],
        "created": info["created"],
    }
    head = _HEAD.format(run=info["run"], verdict=info["verdict"])
    return head + yaml.safe_dump(table, sort_keys=False, width=120)


def result_text(search: Search, info: dict[str, Any]) -> str:
    """Builds what the terminal shows: the result and the next command. info: study.json."""
    counts, best, root = info["trials"], info["best"], search.settings.root
    workspace = Workspace(root)
    tuned = workspace.tuned(search.run).relative_to(root)
    lines = [
        f"{search.run}: {counts['completed']} trials completed, {counts['cut_short']} cut short, "
        f"{info['seconds_per_trial']:.1f} s a trial; best {best['score']:.3f}, defaults {info['defaults']['score']:.3f} "
        f"(validation, mean over folds {', '.join(map(str, search.folds))}).",
        info["verdict"],
    ]
    written = f"Wrote {tuned} and {workspace.tuning(search.spec.dataset, search.run).relative_to(root)}/."
    if not best["settings"] and best["model"] == search.spec.model:
        return "\n".join([*lines, f"{written} Next: leave the run as it is, or search on with more --trials."])
    name = run_name(search.spec.dataset, best["model"], search.spec.protocol)
    place = f"studies.{search.settings.profile}.{search.spec.dataset}.models"
    lines.append(
        f"{written} Next: write `{best['model']}: {{tuned: {tuned}}}` into {place} of params.yaml, then `cardium plan` and "
        f"`dvc repro train@{name}`."
    )
    return "\n".join(lines)
