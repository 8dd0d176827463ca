"""tune: searches the settings of one run -> configs/tuned/<run>.yaml, and what was tried in reports/<dataset>/tuning/<run>/.

A trial trains the run's model as `train` does, with other settings, once for every fold but the hold-out: validated on that
fold, trained on the rest. Its score is the mean over the folds of the validation balanced accuracy. The hold-out, the first
fold that `evaluate` tests on, is neither trained nor validated on: nothing here depends on its labels. On a bank a trial costs
seconds, since no image is looked at again.

    trials.csv          every trial: number, state, score, seconds, each fold's score, what it set
    study.json          what was searched, the best trial, its gain over the run's own settings, importance
    history.png, importance.png, slices.png
    defaults.parquet, best.parquet     validation predictions (test_fold: the fold that was validated on)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cardium import atomic, config, provenance
from cardium.config import RunSpec, Settings, Train, run_spec
from cardium.data.splits import Parts, read_parts
from cardium.errors import CardiumError, unknown
from cardium.evaluation.metrics import GroupBootstrap, paired_difference, score
from cardium.models import is_spatial
from cardium.progress import progress
from cardium.reporting import plots
from cardium.runs.predictions import prediction_rows, probability_columns
from cardium.stages.train import Inputs, new_head, read_inputs, source_of, train_fold, whole_model
from cardium.training.bank import average_places
from cardium.tuning import queue
from cardium.tuning.search_space import SearchSpace, search_space
from cardium.workspace import RunId, Workspace, run_name

if TYPE_CHECKING:
    import optuna
    import pandas
    from optuna.trial import FrozenTrial

# Rounds in which workers die and no trial ends, before it is said that they will not live.
_ROUNDS = 3


@dataclass(frozen=True)
class Plan:
    """A search before its first trial. folds: those validated on in turn, each with its parts; none holds `held_out`.

    with_views: (N,) bool, the records that have augmented views in the bank. name: the study's, which holds a hash of all that
    determines a trial's score: other data or other settings are another study.
    """

    settings: Settings
    spec: RunSpec
    reads: Path
    space: SearchSpace
    inputs: Inputs
    held_out: int
    folds: dict[int, Parts]
    with_views: np.ndarray
    split_sha256: str
    name: str

    @property
    def run(self) -> str:
        return self.spec.name

    @property
    def scratch(self) -> Path:
        """Where the search keeps its journal, its lock and its trials' predictions."""
        return Workspace(self.settings.root).scratch() / "tune"


def run(settings: Settings, item: str) -> None:
    """Searches the line `item` of params.yaml's `runs` as `tune` there says; its bank or rendering must be there."""
    if item not in settings.plan.runs:
        raise unknown("run", item, list(settings.plan.runs))
    spec = settings.plan.runs[item]
    tune_run(settings, spec, settings.root / spec.reads)


def tune_run(
    settings: Settings, spec: RunSpec, reads: Path, *, trials: int = 0, workers: int = 0, space: str = "", storage: str = ""
) -> dict[str, Any]:
    """Goes on with the search of `line` until `trials` have ended in all, and returns study.json.

    reads: the folder with the bank or the rendering. trials, workers: 0: as params.yaml says. storage: an SQLAlchemy URL that
    several machines share, or a journal's path; "": the project's own journal.
    """
    trials, workers = trials or settings.tune.trials, workers or settings.tune.workers
    plan = plan_search(settings, spec, reads, space)
    began = time.perf_counter()
    with queue.answering():
        study = open_search(plan, storage)
        before = queue.standing(study)
        if before.ended:
            print(f"{plan.run}: {before.ended} trials are done already.")
        steps, total = _steps(plan, study, trials, workers, storage), max(trials, before.ended)
        for _ in progress(steps, total=total, desc=f"tune {plan.run}", unit="trial", note=lambda: queue.standing(study).text()):
            pass
        return conclude(plan, study, trials, time.perf_counter() - began)


def plan_search(settings: Settings, spec: RunSpec, reads: Path, space: str = "") -> Plan:
    """Opens what a search needs. Raises CardiumError under `published`, whose validation records are also its test's."""
    if spec.protocol != "honest":
        raise CardiumError("Under `published` the test records choose the weights already: tune works under `honest` alone.")
    spec = dataclasses.replace(spec, train=spec.untuned, tuned="")
    searched = search_space(settings, spec, space)
    inputs = read_inputs(settings, spec, reads)
    folder = Workspace(settings.root).split(spec.dataset)
    split = json.loads((folder / "split.json").read_text(encoding="utf-8"))
    test_folds, count = settings.test_folds(spec.dataset), int(split["folds"])
    held_out = test_folds[0]
    # Fold f validates where fold f - 1 is the test.
    records = {
        f: read_parts(folder, inputs.manifest, "honest", (f - 1) % count).validation for f in range(count) if f != held_out
    }
    nothing = np.empty(0, dtype=np.int64)
    folds = {
        f: Parts(np.sort(np.concatenate([records[other] for other in records if other != f])), records[f], nothing)
        for f in records
    }
    with_views = np.zeros(len(inputs.labels), dtype=bool)
    for fold in test_folds:
        with_views[read_parts(folder, inputs.manifest, "honest", fold).train] = True
    origin = inputs.bank.info if inputs.bank else inputs.rendered
    determined = {
        "space": searched.as_dict(),
        "origin": [origin.get(name) for name in ("key", "manifest_sha256", "pixels_sha256")],
        "split": split["sha256"],
        "folds": [held_out, count],
        "seed": settings.seed,
        "augment": asdict(settings.datasets[spec.dataset].augment),
        "protocol": asdict(settings.protocols[spec.protocol]),
        "size": inputs.size.as_dict(),
    }
    digest = hashlib.sha256(json.dumps(determined, sort_keys=True).encode()).hexdigest()[:12]
    name = f"{spec.name}-{searched.name}-{digest}"
    return Plan(settings, spec, reads, searched, inputs, held_out, folds, with_views, split["sha256"], name)


def open_search(plan: Plan, storage: str) -> optuna.Study:
    """The search's study, with its id."""
    import filelock

    plan.scratch.mkdir(parents=True, exist_ok=True)
    # A new database must be made by one process alone.
    with filelock.FileLock(plan.scratch / "storage.lock"):
        store = queue.open_storage(storage, plan.scratch / f"{plan.run}.journal")
        study = queue.open_study(store, plan.name, plan.space.defaults, plan.settings.seed, plan.settings.tune.startup)
        if "id" not in study.user_attrs:
            study.set_user_attr("id", uuid.uuid4().hex)
    return study


# ---------------------------------------------------------------------------------------------------------------- one trial


def validate_folds(plan: Plan, model: str, train: Train) -> Iterator[tuple[int, np.ndarray, float]]:
    """Trains `model` with the settings `train`, fold after fold; yields fold, validation probabilities (n, C), seconds.

    model: the run's, or the same backbone with another block. Nothing is written.
    """
    import keras
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    keras.utils.clear_session()
    spec = dataclasses.replace(plan.spec, id=dataclasses.replace(plan.spec.id, model=model))
    frozen = plan.inputs.bank is not None
    inputs = plan.inputs if is_spatial(model) or train.fine_tune else _averaged(plan)
    source = source_of(plan.settings, spec, inputs, train, plan.with_views)
    whole = whole_model(plan.settings, spec, source, plan.inputs.size) if train.fine_tune or not frozen else None
    learner = new_head(spec, source, plan.settings.seed) if frozen else whole
    assert learner is not None
    models = [one for one in (learner, whole if whole is not learner else None) if one is not None]
    pristine = [one.get_weights() for one in models]
    for fold, parts in plan.folds.items():
        began = time.perf_counter()
        for one, weights in zip(models, pristine, strict=True):
            one.set_weights(weights)
        _, probabilities, _ = train_fold(source, parts, fold, learner, whole, None, "", show=lambda _: None)
        yield fold, probabilities, time.perf_counter() - began


def _averaged(plan: Plan) -> Inputs:
    """The inputs with a bank averaged over places, which a head that does not tell them apart learns the same from, faster."""
    import filelock

    bank = plan.inputs.bank
    assert bank is not None
    plan.scratch.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(plan.scratch / "averaged.lock"):
        averaged = average_places(bank, plan.scratch / "averaged" / str(bank.info["key"])[:16])
    return dataclasses.replace(plan.inputs, bank=averaged)


def objective_of(plan: Plan) -> Callable[[optuna.Trial], float]:
    """A trial: the mean validation balanced accuracy over the folds, told fold by fold, so that it may be cut short."""
    threshold = plan.settings.evaluate.threshold

    def objective(trial: optuna.Trial) -> float:
        import optuna

        model, train = plan.space.applied(plan.space.suggest(trial))
        scores: list[float] = []
        tables = []
        seconds = 0.0
        for fold, probabilities, took in validate_folds(plan, model, train):
            records = plan.folds[fold].validation
            seconds += took
            tables.append(_rows(plan, fold, probabilities))
            scores.append(score(plan.inputs.labels[records], probabilities, threshold)["balanced_accuracy"])
            trial.set_user_attr("scores", scores)
            trial.set_user_attr("seconds", round(seconds, 2))
            trial.report(float(np.mean(scores)), len(scores))
            last = len(scores) == len(plan.folds)
            # Without the defaults' score there is nothing to compare with.
            if not last and not trial.user_attrs.get(queue.DEFAULTS) and trial.should_prune():
                raise optuna.TrialPruned
        _keep(plan, trial.number, tables)
        return float(np.mean(scores))

    return objective


def _rows(plan: Plan, fold: int, probabilities: np.ndarray) -> pandas.DataFrame:
    inputs = plan.inputs
    return prediction_rows(inputs.manifest, plan.folds[fold].validation, fold, inputs.labels, probabilities, inputs.classes)


def _kept(plan: Plan, number: int) -> Path:
    return plan.scratch / plan.name / f"{number}.parquet"


def _keep(plan: Plan, number: int, tables: list[pandas.DataFrame]) -> pandas.DataFrame:
    import pandas as pd

    table = pd.concat(tables, ignore_index=True)
    with atomic.replacing(_kept(plan, number)) as part:
        table.to_parquet(part, index=False)
    return table


def predictions_of(plan: Plan, trial: FrozenTrial) -> pandas.DataFrame:
    """A completed trial's validation predictions; trained again where another machine has them."""
    import pandas as pd

    path = _kept(plan, trial.number)
    if path.is_file():
        return pd.read_parquet(path)
    model, train = plan.space.applied(trial.params)
    print(f"Trial {trial.number} was another machine's: training it again for its predictions.")
    return _keep(plan, trial.number, [_rows(plan, fold, p) for fold, p, _ in validate_folds(plan, model, train)])


# ------------------------------------------------------------------------------------------------------------------ workers


def _steps(plan: Plan, study: optuna.Study, trials: int, workers: int, storage: str) -> Iterator[None]:
    """Runs the search; yields once for every trial that has ended, those of other machines and of earlier times too."""
    shown = 0

    def news() -> Iterator[None]:
        nonlocal shown
        ended = queue.standing(study).ended
        while shown < ended:
            shown += 1
            yield None

    lock = plan.scratch / f"{plan.run}.lock"
    barren = 0
    yield from news()
    while queue.standing(study).ended < trials:
        before = queue.standing(study).ended
        if workers == 1:
            for _ in queue.run_trials(study, trials, objective_of(plan), lock):
                yield from news()
        else:
            for _ in _with_workers(plan, trials, workers, storage):
                yield from news()
        queue.recover(study)
        yield from news()
        now = queue.standing(study)
        barren = 0 if now.ended > before or now.running else barren + 1
        if barren >= _ROUNDS:
            raise CardiumError(
                "The workers are killed before a trial ends, most likely for want of memory: use fewer --workers."
            )
        if now.ended < trials and now.running:
            time.sleep(1.0)  # Another machine is at the last trials.


def _with_workers(plan: Plan, trials: int, workers: int, storage: str) -> Iterator[None]:
    """Starts processes that take trials until enough are taken; yields now and then while they do."""
    # Spawned: TensorFlow's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    job = (plan.settings.root, plan.run, plan.spec, plan.reads, plan.space.name, storage, trials, workers, os.getpid())
    processes = [context.Process(target=_work, args=job, daemon=True) for _ in range(workers)]
    for process in processes:
        process.start()
    try:
        while any(process.is_alive() for process in processes):
            time.sleep(0.5)
            yield None
    finally:
        for process in processes:
            process.terminate()
            process.join()
    # Killed ones are made up for; one that failed has said why.
    if any(process.exitcode and process.exitcode > 0 for process in processes):
        raise CardiumError("A worker failed; its words are above. What the others have tried is kept.")


def _work(
    root: Path, name: str, spec: RunSpec, reads: Path, space: str, storage: str, trials: int, workers: int, parent: int
) -> None:
    """A worker's life, in a process of its own."""
    import sys

    from cardium.parallel import cores
    from cardium.tensorflow_import import import_tensorflow

    queue.leave_with(parent)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import_tensorflow()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(max(1, cores() // workers))
    try:
        plan = plan_search(config.load(root), spec, reads, space)
        with queue.answering():
            study = open_search(plan, storage)
            for _ in queue.run_trials(study, trials, objective_of(plan), plan.scratch / f"{name}.lock"):
                pass
    except CardiumError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


# ------------------------------------------------------------------------------------------------------------------- result


def conclude(plan: Plan, study: optuna.Study, asked: int, seconds: float) -> dict[str, Any]:
    """Writes what the search came to and returns study.json."""
    standing = queue.standing(study)
    trials = study.get_trials(deepcopy=False)
    defaults = next(t for t in trials if t.user_attrs.get(queue.DEFAULTS) and t.state in queue.ENDED)
    best = standing.best
    assert best is not None  # The defaults are never cut short.
    own, found = predictions_of(plan, defaults), predictions_of(plan, best)
    gain = _gain(plan, own, found)
    model, _ = plan.space.applied(best.params)
    root, spec = plan.settings.root, plan.spec
    stamp = provenance.stamp(root)
    inputs = plan.inputs
    info: dict[str, Any] = {
        **stamp,
        "id": study.user_attrs["id"],
        "run": plan.run,
        "dataset": spec.dataset,
        "model": spec.model,
        "protocol": spec.protocol,
        "kind": "tune",
        "classes": inputs.classes,
        "space": plan.space.name,
        "study": plan.name,
        "objective": "mean validation balanced accuracy over the folds",
        "held_out": plan.held_out,
        "folds": list(plan.folds),
        "trials": {"asked": asked, "completed": standing.completed, "cut_short": standing.pruned},
        "dimensions": {name: _said(value) for name, value in plan.space.as_dict()["dimensions"].items()},
        "defaults": {"trial": defaults.number, "score": defaults.value, "settings": plan.space.defaults},
        "best": {
            "trial": best.number,
            "score": best.value,
            "model": model,
            "settings": {} if best.number == defaults.number else _to_take_over(plan, best),
            "values": best.params,
        },
        "gain": gain,
        "verdict": verdict(best.number == defaults.number, gain, standing.ended),
        "importance": queue.importance(study, plan.settings.seed),
        "seconds": {"trials": _seconds(trials), "this_time": round(seconds, 1)},
        "seconds_per_trial": round(_seconds(trials) / max(1, standing.ended), 2),
        "data": {
            "dvc_md5": provenance.dvc_md5(root),
            "manifest_sha256": inputs.manifest_sha256,
            "split_sha256": plan.split_sha256,
        },
        "warnings": [],
    }
    workspace = Workspace(root)
    out = workspace.tuning(spec.dataset, plan.run)
    with atomic.replacing_folder(out) as part:
        _write_trials(plan, trials, part / "trials.csv")
        own.to_parquet(part / "defaults.parquet", index=False)
        found.to_parquet(part / "best.parquet", index=False)
        atomic.write_json(part / "study.json", info)
        plots.search_history(part / "trials.csv", part / "history.png", title=f"{plan.run}: trials")
        plots.search_importance(info["importance"], part / "importance.png", title=f"{plan.run}: what the score depends on")
        plots.search_slices(
            part / "trials.csv", info["dimensions"], part / "slices.png", title=f"{plan.run}: settings and scores"
        )
    _write_tuned(workspace.tuned(plan.run), info)
    _say(plan, info, workspace)
    return info


def _gain(plan: Plan, own: pandas.DataFrame, found: pandas.DataFrame) -> dict[str, float]:
    """Balanced accuracy of the best trial less the defaults', over all validation records: paired grouped bootstrap."""
    order = ["test_fold", "record"]
    own, found = own.sort_values(order, ignore_index=True), found.sort_values(order, ignore_index=True)
    columns = probability_columns(plan.inputs.classes)
    labels, groups = own["label"].to_numpy(), own["group"].to_numpy()
    evaluate = plan.settings.evaluate
    bootstrap = GroupBootstrap(groups, labels, evaluate.bootstrap, plan.settings.seed)
    a, b = found[columns].to_numpy(), own[columns].to_numpy()
    return paired_difference(labels, groups, a, b, bootstrap, evaluate.threshold, evaluate.interval)


def verdict(none_better: bool, gain: dict[str, float], trials: int) -> str:
    """What the search is worth, plainly."""
    if none_better:
        return f"No gain: of {trials} trials none beat the run's own settings."
    said = f"{gain['difference']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
    hope = f"optimistic, since the best of {trials} is scored on what chose it"
    if gain["low"] <= 0:
        return f"No gain that can be told from chance: {said}, {hope}."
    return f"A gain of {said}, {hope}."


def _to_take_over(plan: Plan, best: FrozenTrial) -> dict[str, Any]:
    """All settings that were searched, and those in which the line that is to take them over differs besides."""
    model, train = plan.space.applied(best.params)
    spec, settings = plan.spec, plan.settings
    own = asdict(run_spec(settings, RunId(spec.dataset, model, spec.protocol)).untuned)
    searched = plan.space.searched()
    return {name: value for name, value in asdict(train).items() if name in searched or value != own[name]}


def _seconds(trials: list[FrozenTrial]) -> float:
    return round(sum(float(trial.user_attrs.get("seconds", 0.0)) for trial in trials if trial.state in queue.ENDED), 1)


def _said(dimension: dict[str, Any]) -> dict[str, Any]:
    """A dimension as a file has it: what it is made of alone."""
    if dimension["sets"]:
        return {"choices": list(dimension["sets"])}
    if dimension["choices"]:
        return {"choices": dimension["choices"]}
    return {"low": dimension["low"], "high": dimension["high"], "log": dimension["log"]}


def _write_trials(plan: Plan, trials: list[FrozenTrial], out: Path) -> None:
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
                **{f"fold_{fold}": value for fold, value in zip(plan.folds, scores, strict=False)},
                **{f"set.{name}": trial.params.get(name) for name in plan.space.dimensions},
            }
        )
    pd.DataFrame(rows).astype({"retry_of": "Int64"}).to_csv(out, index=False)


_HEAD = """\
# What `cardium tune` found for {run}; `tuned: configs/tuned/{run}.yaml` in a run's line of params.yaml makes `train` take it.
# {verdict}
# `settings` are laid over the line's own; `cardium evaluate` gives the score that holds.
"""


def _write_tuned(path: Path, info: dict[str, Any]) -> None:
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
    text = yaml.safe_dump(table, sort_keys=False, width=120)
    atomic.write_text(path, _HEAD.format(run=info["run"], verdict=info["verdict"]) + text)


def _say(plan: Plan, info: dict[str, Any], workspace: Workspace) -> None:
    counts, best = info["trials"], info["best"]
    print(
        f"{plan.run}: {counts['completed']} trials completed, {counts['cut_short']} cut short, "
        f"{info['seconds_per_trial']:.1f} s a trial; best {best['score']:.3f}, defaults {info['defaults']['score']:.3f} "
        f"(validation, mean over folds {', '.join(map(str, plan.folds))})."
    )
    print(info["verdict"])
    root = plan.settings.root
    tuned = workspace.tuned(plan.run).relative_to(root)
    written = f"Wrote {tuned} and {workspace.tuning(plan.spec.dataset, plan.run).relative_to(root)}/."
    if not best["settings"] and best["model"] == plan.spec.model:
        print(f"{written} Next: leave the run as it is, or search on with more --trials.")
        return
    name = run_name(plan.spec.dataset, best["model"], plan.spec.protocol)
    place = f"studies.{plan.settings.profile}.{plan.spec.dataset}.models"
    print(
        f"{written} Next: write `{best['model']}: {{tuned: {tuned}}}` into {place} of params.yaml, then `cardium plan` and "
        f"`dvc repro train@{name}`."
    )
