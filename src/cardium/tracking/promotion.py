"""Promotion in the registry: the best run challenges the champion of `cardium-<dataset>`; the better one is served.

The rule is evaluation.promotion's. The decision, its reasons and numbers stand in the version's tags and description. If data
or split changed since the champion was trained, it is scored again, only on patients it has never seen.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cardium.config import Settings
from cardium.data.manifest import class_numbers, read_manifest
from cardium.data.splits import Parts
from cardium.data.units import unit_table
from cardium.errors import CardiumError
from cardium.evaluation.evaluation import CHOSEN, NAIVE, Evaluation, Interval, RunScores
from cardium.evaluation.experiments import scored_experiments, stored_predictions, with_experiments
from cardium.evaluation.nested import Candidate
from cardium.evaluation.promotion import (
    Attempt,
    Challenger,
    Champion,
    Comparison,
    Expected,
    Incomparable,
    Promotion,
    Served,
    Verdict,
    choose,
    compare,
    decide,
    expect,
    needed_in,
    unseen_records,
)
from cardium.imaging.spec import Render
from cardium.runs.data_version import DataVersion
from cardium.runs.predictions import VALIDATION, mean_predictions, prediction_rows
from cardium.runs.trained_run import TrainedRun
from cardium.tracking import registry
from cardium.tracking.mlflow_run import ID, find_run
from cardium.tracking.models import model_of, run_folder_of
from cardium.tracking.pseudonyms import FOLDS, folds_of, pseudonym_key
from cardium.tracking.registry import Version
from cardium.tracking.run_values import DATA
from cardium.tracking.runs import trained_runs
from cardium.tracking.store import StoreAway, connected, experiment_name, store_exists, store_lock
from cardium.tracking.sync import sync
from cardium.workspace import RunId, Workspace

if TYPE_CHECKING:
    import pandas
    from mlflow import MlflowClient

# The tag that says what to expect of a version.
EXPECTATION = "cardium.expected"
# The number of runs that it was chosen among.
_CANDIDATES = "expected_candidates"
# How long a promotion waits for another one to end.
_WAIT_SECONDS = 120.0
# The numbers of a comparison that a version's tags hold.
_TAGGED = (
    "challenger_balanced_accuracy",
    "rival_balanced_accuracy",
    "difference",
    "low",
    "high",
    "probability_better",
)


@contextlib.contextmanager
def one_at_a_time(settings: Settings, dataset: str) -> Iterator[None]:
    """Holds the lock of the dataset's promotions. Raises CardiumError if another one does not end."""
    with store_lock(settings, f"promote-{dataset}", _WAIT_SECONDS):
        yield


def promote(
    settings: Settings, evaluation: Evaluation, dry: bool = False, experiment: str = "", by_hand: str = ""
) -> Promotion:
    """Logs what is missing, registers the challenger, compares, decides, and writes the decision into the registry.

    dry: nothing is logged, registered or changed. experiment: the name of the scored experiment that is put forward in place of
    the best run. by_hand: why the challenger is to be champion whatever the rule says; kept with the version.
    Call it under `one_at_a_time`. Raises StoreAway without the store.
    """
    dataset, name = evaluation.dataset, experiment_name(settings, evaluation.dataset)
    if experiment:
        evaluation = with_experiments(settings, evaluation)
    best = experiment or choose(evaluation.runs)
    row = evaluation.runs[best]
    if not dry:
        for line in sync(settings, dataset)["failed"]:
            print(f"warning: not logged: {line}")
    champion, challenger, gone = _registered(settings, name, row, dry)
    if gone and champion is not None and champion.id == row.run_id:
        raise CardiumError(
            f"The model of {champion} is gone from MLflow, and its run folder too: run `dvc repro evaluate@{dataset}`, then "
            "this again."
        )
    earlier = _earlier_attempts(settings, name, evaluation, row)
    attempt = Attempt(len(earlier) + 1, needed_in(len(earlier) + 1, settings.promote.better))
    expected = expect(settings, evaluation.classes, _candidates(settings, evaluation, earlier, experiment))
    if champion is not None and champion.id == row.run_id:
        reason = champion.tags.get(registry.REASON, "")
        verdict = Verdict("unchanged", f"{best} is champion already (version {champion.number})", [reason])
        if not dry:
            _expect_of(settings, name, champion, expected)
    else:
        verdict = _contest(settings, evaluation, row, None if gone else champion, challenger, attempt)
        if experiment:
            verdict.reasons.append(
                "note: put forward by name; where its test score was seen before, the comparison flatters it"
            )
        if by_hand and verdict.action == "kept":
            reasons = [f"promoted by hand: {by_hand}", f"the rule would not have promoted it: {verdict.summary}"]
            summary = f"{best} is the champion, promoted by hand: {by_hand}"
            verdict = Verdict("promoted", summary, [*reasons, *verdict.reasons[1:]], verdict.comparison)
        if gone:
            verdict.reasons.append(
                f"note: {champion} was champion and cannot be served any more: its model is gone from MLflow"
            )
        if attempt.number > settings.promote.attempts:
            verdict.reasons.append(
                f"note: this is attempt {attempt.number} on the same test records, and promote.attempts is "
                f"{settings.promote.attempts}: add patients, or change split.seed, before the next one"
            )
        if not dry and challenger is not None:
            recorded = _recorded(evaluation, attempt, expected)
            if by_hand:
                recorded[registry.BY_HAND] = by_hand
            _record(settings, name, verdict, champion, challenger, recorded, gone=gone)
    return Promotion(
        dataset=dataset,
        model=name,
        action=verdict.action,
        summary=verdict.summary,
        reasons=verdict.reasons,
        challenger=Challenger(
            run=best,
            run_id=row.run_id or "",
            version=challenger.number if challenger else None,
            validation_balanced_accuracy=row.validation_balanced_accuracy,
            parameters=row.parameters,
            weights=row.weights,
            warnings=row.warnings,
        ),
        champion=Champion(champion.run, champion.id, champion.number) if champion else None,
        confidence=settings.promote.confidence,
        comparison=verdict.comparison,
        attempt=attempt,
        better=verdict.better,
        expected=expected,
        served=_served(verdict, row, challenger, None if gone else champion, expected),
    )


def _served(
    verdict: Verdict, row: RunScores, challenger: Version | None, champion: Version | None, expected: Expected
) -> Served | None:
    """The version that is champion after the verdict; None without one. row: the challenger's scores."""
    if verdict.action == "promoted":
        return Served(row.name, row.run_id or "", challenger.number if challenger else None, expected)
    if champion is None:
        return None
    told = expected if verdict.action == "unchanged" else expected_of(champion)
    return Served(champion.run, champion.id, champion.number, told)


def skipped(settings: Settings, dataset: str, error: StoreAway) -> Promotion:
    """The promotion that did not take place, since the store is away."""
    away = str(error).partition(": nothing lost")[0]
    summary = f"skipped, nothing was compared. {away}; later: `cardium promote --dataset {dataset}`."
    return Promotion(dataset, experiment_name(settings, dataset), "skipped", summary, [summary])


def put_forward(settings: Settings, dataset: str, *, dry: bool = False, experiment: str = "", by_hand: str = "") -> None:
    """Promotes, or says why not, and prints it; writes no file. Arguments as of `promote`. Raises StoreAway."""
    evaluation = Evaluation.read(Workspace(settings.root).evaluation(dataset), dataset)
    with one_at_a_time(settings, dataset):
        promotion = promote(settings, evaluation, dry, experiment, by_hand)
    print_promotion(promotion)
    if dry:
        print("Dry run: nothing was changed.")


def dry_run(settings: Settings, dataset: str) -> None:
    """Prints what `promote` would do; changes neither registry nor files. Raises StoreAway."""
    put_forward(settings, dataset, dry=True)


def make_champion(settings: Settings, dataset: str, number: int, why: str, dry_run: bool = False) -> None:
    """Makes a version champion by hand, whatever the rule says; `why` is kept with it.

    The one it takes the place of does not come back by itself. Raises CardiumError if there is no such version or its model is
    gone, StoreAway without the store.
    """
    name = experiment_name(settings, dataset)
    if not store_exists(settings):
        raise CardiumError(f"Nothing was promoted yet: run `cardium promote --dataset {dataset}` first.")
    with one_at_a_time(settings, dataset), connected(settings) as client:
        known = {version.number: version for version in registry.versions(client, name)}
        champion = registry.by_alias(client, name, registry.CHAMPION)
        if number not in known:
            there = ", ".join(map(str, known)) or "none"
            raise CardiumError(f"{name} has no version {number}; it has: {there}.")
        version = known[number]
        if champion is not None and champion.number == number:
            raise CardiumError(f"{version} is champion already.")
        if not registry.is_there(client, version):
            raise CardiumError(f"The model of {version} is gone from MLflow: `cardium sync` logs it if its run folder is left.")
        if not dry_run:
            told = client.get_model_version(name, str(number)).description or ""
            tags = {registry.BY_HAND: why, **({registry.BEFORE: str(champion.number)} if champion else {})}
            if registry.ROLLED_BACK in version.tags:
                client.delete_model_version_tag(name, str(number), registry.ROLLED_BACK)
            registry.describe(client, name, version, tags, f"**Promoted by hand: {why}.**\n\n{told}")
            if champion is not None:
                client.set_model_version_tag(name, str(champion.number), registry.ROLLED_BACK, "true")
            wanted = {registry.CHAMPION: number, registry.PREVIOUS: champion.number if champion else None}
            have = registry.aliases(client, name)
            if have.get(registry.CHALLENGER) == number:
                wanted[registry.CHALLENGER] = None
            registry.set_aliases(client, name, wanted)
    print(f"{name}: {version} is champion{f' in place of {champion}' if champion else ''}, promoted by hand: {why}.")
    print("Dry run: nothing was changed." if dry_run else "A running server keeps its model: start it again to serve this one.")


def rollback(settings: Settings, dataset: str, dry_run: bool = False) -> None:
    """Makes the previous champion the champion again; the one rolled back is not promoted again by itself.

    Raises CardiumError if there is no previous champion, StoreAway without the store.
    """
    name = experiment_name(settings, dataset)
    if not store_exists(settings):
        raise CardiumError(f"Nothing was promoted yet: run `cardium promote --dataset {dataset}` first.")
    with one_at_a_time(settings, dataset), connected(settings) as client:
        champion = registry.by_alias(client, name, registry.CHAMPION)
        previous = registry.by_alias(client, name, registry.PREVIOUS)
        if champion is None or previous is None or previous.number == champion.number:
            raise CardiumError(
                f"{name} has no previous champion to go back to: `cardium promote --dry-run` says what is champion."
            )
        if not registry.is_there(client, previous):
            raise CardiumError(
                f"The model of {previous} is gone from MLflow: `cardium sync` logs it if its run folder is left."
            )
        before = previous.tags.get(registry.BEFORE)
        if not dry_run:
            client.set_model_version_tag(name, str(champion.number), registry.ROLLED_BACK, "true")
            numbers = {str(version.number) for version in registry.versions(client, name)}
            older = int(before) if before in numbers else None
            registry.set_aliases(client, name, {registry.CHAMPION: previous.number, registry.PREVIOUS: older})
    print(f"{name}: {previous} is champion again, in place of {champion}.")
    print("Dry run: nothing was changed." if dry_run else "A running server keeps its model: start it again to serve this one.")


def print_promotion(promotion: Promotion) -> None:
    """Prints the decision, its reasons and, where there is a champion, how to serve it."""
    print(f"{promotion.model}: {promotion.summary}")
    for reason in promotion.reasons[1:]:
        print(f"  {reason}")
    if promotion.expected:
        print(f"  {_expectation(promotion.expected)}")
    if promotion.action in ("promoted", "unchanged"):
        print(f"Next: mlflow models serve -m models:/{promotion.model}@champion --env-manager local -p 5001")
    if promotion.action == "promoted" and promotion.champion is not None:
        print("A server that is running keeps its model: start it again to serve this one.")


# ------------------------------------------------------------------------------------------------------------- comparison


def _registered(settings: Settings, name: str, row: RunScores, dry: bool) -> tuple[Version | None, Version | None, bool]:
    """Champion and challenger in the registry, and whether the champion's model is gone; the challenger is registered unless
    dry. While its run folder is there a model is not gone: `sync` logs it again."""
    if not store_exists(settings):
        return None, None, False
    run_id = row.run_id or ""
    with connected(settings) as client:
        champion = registry.by_alias(client, name, registry.CHAMPION)
        gone = champion is not None and not registry.is_there(client, champion)
        if not dry:
            return champion, registry.register(client, name, run_id), gone
        gone = gone and champion is not None and champion.id not in {one.id for one in trained_runs(settings.root)}
        known = next((version for version in registry.versions(client, name) if version.id == run_id), None)
        return champion, known, gone


def _contest(
    settings: Settings,
    evaluation: Evaluation,
    row: RunScores,
    champion: Version | None,
    challenger: Version | None,
    attempt: Attempt,
) -> Verdict:
    """Compares the challenger `row`, by the nested choice, with the champion, or with the naive row, and decides."""
    naive = float(evaluation.runs[NAIVE].balanced_accuracy.value or 0.0)
    own = stored_predictions(settings, evaluation, row.name if "/" in row.name else CHOSEN)
    try:
        if champion is None:
            rival = stored_predictions(settings, evaluation, NAIVE)
            source = "stored predictions of the baseline"
        else:
            rival, source = _champion_predictions(settings, evaluation, champion)
        comparison = compare(
            settings,
            evaluation.classes,
            own,
            rival,
            rival_name=champion.run if champion else NAIVE,
            rival_scored_by=source,
            naive_score=naive,
        )
    except Incomparable as error:
        return Verdict("kept", f"{row.name} stays challenger: {error}", [str(error)])
    decision = decide(
        comparison.challenger_balanced_accuracy,
        None if champion is None else comparison.rival_balanced_accuracy,
        comparison.probability_better,
        settings.promote.confidence,
        attempt.needed,
        naive if champion is not None else comparison.rival_balanced_accuracy,
        rolled_back=challenger is not None and registry.ROLLED_BACK in challenger.tags,
    )
    numbers = (
        f"difference to {champion or 'the majority-class baseline'} {comparison.difference:+.3f} "
        f"[{comparison.low:+.3f}, {comparison.high:+.3f}] on {_records(comparison)} "
        f"({source})"
    )
    outcome = f"{row.name} is the champion" if decision.promote else f"{row.name} is not promoted"
    return Verdict(
        "promoted" if decision.promote else "kept",
        f"{outcome}: {decision.reason}",
        [decision.reason, numbers, *[f"note: {warning}" for warning in row.warnings]],
        comparison,
        decision.better,
    )


def _earlier_attempts(settings: Settings, name: str, evaluation: Evaluation, row: RunScores) -> list[Version]:
    """The versions that were put forward on the evaluation's split before, without the challenger `row` itself."""
    if not store_exists(settings):
        return []
    split = evaluation.data.split_sha256
    with connected(settings) as client:
        known = registry.versions(client, name)
    return [version for version in known if version.tags.get(registry.SPLIT) == split and version.id != row.run_id]


def _candidates(settings: Settings, evaluation: Evaluation, earlier: list[Version], experiment: str) -> list[Candidate]:
    """The evaluation's honest runs, the experiment that is put forward, and earlier versions whose predictions are in the store
    and of the same records."""
    import mlflow
    import pandas as pd

    workspace, found = Workspace(settings.root), []
    experiments = scored_experiments(settings, evaluation)
    for row in evaluation.runs.values():
        if row.is_run and row.protocol == "honest" and (row.name not in experiments or row.name == experiment):
            folder = experiments.get(row.name, workspace.run(RunId(evaluation.dataset, row.model, row.protocol)))
            validation, test = pd.read_parquet(folder / VALIDATION), stored_predictions(settings, evaluation, row.name)
            found.append(Candidate(row.name, row.parameters or 0, validation, test))
    now = {row.run_id for row in evaluation.runs.values()}
    earlier = [version for version in earlier if version.id not in now]
    if not earlier:
        return found
    with connected(settings) as client:
        for version in earlier:
            stored = _logged_predictions(client, version, evaluation)
            place = f"predictions/{VALIDATION}"
            if stored is None or place not in {item.path for item in client.list_artifacts(version.mlflow_run, "predictions")}:
                continue
            validation = pd.read_parquet(mlflow.artifacts.download_artifacts(f"runs:/{version.mlflow_run}/{place}"))
            found.append(Candidate(str(version), 0, validation, stored))
    return found


def _expectation(expected: Expected) -> str:
    """What to expect, as a sentence."""
    among = f", chosen by validation for each held-out fold among {expected.candidates} runs" if expected.candidates > 1 else ""
    score = f"{expected.record.text} by record"
    if expected.group != expected.record:
        score = f"{expected.group.text} by patient, {score}"
    return f"to expect: balanced accuracy {score}, out of fold{among}; a model trained on more of the data should do no worse"


def _recorded(evaluation: Evaluation, attempt: Attempt, expected: Expected) -> dict[str, str]:
    """What a version's tags hold of an attempt, and the description of what to expect."""
    tags = {registry.SPLIT: evaluation.data.split_sha256, "cardium.attempt": str(attempt.number)}
    return tags | _expectation_tags(expected)


def _expectation_tags(expected: Expected) -> dict[str, str]:
    """What is to be expected, as `expected_of` reads it, and as a sentence."""
    tags = {_CANDIDATES: str(expected.candidates)}
    for unit, score in (("patient", expected.group), ("record", expected.record)):
        ends = {"": score.value, "_low": score.low, "_high": score.high}
        tags |= {f"expected_{unit}_balanced_accuracy{end}": f"{value:.4f}" for end, value in ends.items() if value is not None}
    return {**tags, EXPECTATION: _expectation(expected)}


def expected_of(version: Version) -> Expected | None:
    """What a version's tags say is to be expected of it; None where they do not."""
    scores = {}
    for unit in ("patient", "record"):
        values = [version.tags.get(f"expected_{unit}_balanced_accuracy{end}") for end in ("", "_low", "_high")]
        if values[0] is None:
            return None
        scores[unit] = Interval(*(None if value is None else float(value) for value in values))
    return Expected(scores["record"], scores["patient"], int(version.tags.get(_CANDIDATES, 1)))


def _expect_of(settings: Settings, name: str, champion: Version, expected: Expected) -> None:
    """Renews what the champion's tags and description say is to be expected: more runs may have been put forward since."""
    before = champion.tags.get(EXPECTATION, "")
    with connected(settings) as client:
        told = client.get_model_version(name, str(champion.number)).description or ""
        description = told.replace(before, _expectation(expected)) if before else f"{told}\n\n{_expectation(expected)}"
        registry.describe(client, name, champion, _expectation_tags(expected), description)
        _describe_model(client, name, champion, _expectation(expected))


def _describe_model(client: MlflowClient, name: str, champion: Version, expectation: str) -> None:
    """The registered model's own page: which version is served, what to expect of it, what it was trained on."""
    run = next(iter(find_run(client, ID, champion.id)), None)
    data = run.data.tags.get(DATA, "") if run else ""
    lines = [f"**{champion} is served (alias champion).**", expectation[:1].upper() + expectation[1:] + "."]
    lines += [f"Trained on {data}."] if data else []
    lines += ["Each version's description says why it was promoted or not. Research only; not a medical device."]
    client.update_registered_model(name, description="\n\n".join(lines))


def _records(comparison: Comparison) -> str:
    if comparison.records == comparison.groups:
        return f"{comparison.groups} test patients"
    return f"{comparison.records} test images of {comparison.groups} patients"


def _champion_predictions(settings: Settings, evaluation: Evaluation, champion: Version) -> tuple[pandas.DataFrame, str]:
    """The champion's predictions of current test records, and where they come from. Raises Incomparable."""
    for name, row in evaluation.runs.items():
        if row.run_id == champion.id:
            return stored_predictions(settings, evaluation, name), "both evaluated together"
    with connected(settings) as client:
        stored = _logged_predictions(client, champion, evaluation)
        if stored is not None:
            return stored, "the champion's stored predictions: data and split are the same"
        try:
            folders = _model_folders(client, champion)
        except CardiumError as error:
            raise Incomparable(str(error)) from None
    tables = [_score_again(settings, evaluation, folder) for folder in folders]
    source = "the champion scored again: data or split changed since its training"
    return mean_predictions(tables, evaluation.classes), source


def _logged_predictions(client: MlflowClient, champion: Version, evaluation: Evaluation) -> pandas.DataFrame | None:
    """The champion's test predictions as they were logged, if they are of the same data and split as now."""
    import mlflow
    import pandas as pd

    if "evaluation.json" not in {item.path for item in client.list_artifacts(champion.mlflow_run)}:
        return None
    logged = mlflow.artifacts.load_dict(f"runs:/{champion.mlflow_run}/evaluation.json")
    same_data = DataVersion.from_json(logged.get("data") or {}).same_records(evaluation.data)
    if not same_data or logged.get("classes") != evaluation.classes:
        return None
    path = f"predictions/test/{champion.run}.parquet"
    if path not in {item.path for item in client.list_artifacts(champion.mlflow_run, "predictions/test")}:
        return None
    return pd.read_parquet(mlflow.artifacts.download_artifacts(f"runs:/{champion.mlflow_run}/{path}"))


def _model_folders(client: MlflowClient, champion: Version) -> list[Path]:
    """The logged model of the champion; of an ensemble its members', which hold the weights of every fold, if all are there."""
    own = registry.fetch(client, champion.mlflow_run)
    members = []
    for member in TrainedRun.read(run_folder_of(own)).member_ids:
        runs = find_run(client, ID, member)
        if not runs or model_of(client, runs[0].info.run_id) is None:
            return [own]
        members.append(registry.fetch(client, runs[0].info.run_id))
    return members or [own]


def _score_again(settings: Settings, evaluation: Evaluation, model_folder: Path) -> pandas.DataFrame:
    """A logged model's predictions of today's records, each by weights that never saw its patient. Raises Incomparable."""
    from cardium.evaluation.scoring import predict_test
    from cardium.runs.reading import open_reader, predict_records

    champion = TrainedRun.read(run_folder_of(model_folder))
    workspace, dataset, classes = Workspace(settings.root), evaluation.dataset, evaluation.classes
    rendering = workspace.rendering(dataset, champion.rendering)
    if champion.classes != classes:
        raise Incomparable(f"the champion knows the classes {', '.join(champion.classes)}, the data has {', '.join(classes)}")
    _check_rendering(champion, rendering, dataset)
    folds = champion.test_folds if champion.has_folds else champion.test_folds[:1]
    manifest = unit_table(read_manifest(workspace.manifest(dataset)), champion.rendering)
    unseen = unseen_records(manifest, _folds_then(settings, dataset, model_folder, manifest), folds)
    if not unseen:
        raise Incomparable("the champion has been trained on every patient that is there now")
    # From pixels: the bank of these features may be of other data by now.
    scored = dataclasses.replace(champion, scored_from="pixels", test_folds=list(unseen))
    if champion.has_folds:
        none = np.empty(0, np.int64)
        return predict_test(settings, scored, manifest, lambda fold: Parts(none, none, unseen[fold]))
    model, pixels = open_reader(settings, scored, manifest)
    [(fold, records)] = unseen.items()
    probabilities = predict_records(model, pixels, records)
    return prediction_rows(manifest, records, fold, class_numbers(manifest, classes), probabilities, classes)


def _folds_then(settings: Settings, dataset: str, model_folder: Path, manifest: pandas.DataFrame) -> Mapping[str, int]:
    """Group or patient of today's manifest -> the fold that a logged model's split had it in. Raises Incomparable."""
    import pandas as pd

    names = {str(name) for column in ("group", "patient") for name in manifest[column].unique()}
    place = model_folder / "artifacts"
    if (place / FOLDS).is_file():
        with connected(settings) as client:
            key = pseudonym_key(client, settings, dataset)
        known = folds_of(place / FOLDS, key, names)
        if known:
            return known
        raise Incomparable("data or split changed, and none of the patients that the champion was trained on is known here")
    if (place / "honest.csv").is_file():  # A model that an earlier version logged.
        table = pd.read_csv(place / "honest.csv", dtype={"group": str})
        return dict(zip(table["group"], table["fold"], strict=True))
    raise Incomparable("data or split changed, and which patients the champion was trained on was not logged with it")


def _check_rendering(champion: TrainedRun, folder: Path, dataset: str) -> None:
    """Raises Incomparable if what is prepared now is not what the champion takes."""
    table = json.loads((folder / "render.json").read_text(encoding="utf-8"))
    prepared = Render(**{name: table[name] for name in Render.__dataclass_fields__ if name in table})
    if table["kind"] != champion.rendering or prepared != champion.size:
        raise Incomparable(
            f"the champion takes images of {champion.size.height}x{champion.size.width}, prepared are "
            f"{prepared.height}x{prepared.width}: set {dataset}.render back, or delete the alias champion in the MLflow UI"
        )


# --------------------------------------------------------------------------------------------------------------- registry


def _record(
    settings: Settings,
    name: str,
    verdict: Verdict,
    champion: Version | None,
    challenger: Version,
    recorded: dict[str, str],
    *,
    gone: bool,
) -> None:
    """Writes the decision into the registry: the version's tags and description first, the alias champion last.

    recorded: further tags.

    gone: the champion's model cannot be served any more, so nobody can go back to it.
    """
    tags = {registry.REASON: verdict.reasons[0], "cardium.decision": verdict.action, **recorded}
    if verdict.comparison is not None:
        compared = dataclasses.asdict(verdict.comparison)
        tags |= {name: f"{compared[name]:.4f}" for name in _TAGGED}
        tags["rival"] = verdict.comparison.rival
    promoted = verdict.action == "promoted"
    if promoted and champion is not None and not gone:
        tags[registry.BEFORE] = str(champion.number)
    description = "\n\n".join([f"**{verdict.summary}.**", *verdict.reasons[1:], recorded[EXPECTATION]])
    with connected(settings) as client:
        now = registry.by_alias(client, name, registry.CHAMPION)
        if (now.number if now else None) != (champion.number if champion else None):
            # Another machine, which the lock of this one's files does not hold back.
            raise CardiumError(f"Another promotion changed the champion of {name} meanwhile: run this again.")
        registry.describe(client, name, challenger, tags, description)
        if promoted:
            _describe_model(client, name, challenger, recorded[EXPECTATION])
        if promoted and registry.BY_HAND in recorded:
            if registry.ROLLED_BACK in challenger.tags:
                client.delete_model_version_tag(name, str(challenger.number), registry.ROLLED_BACK)
            if champion is not None:
                client.set_model_version_tag(name, str(champion.number), registry.ROLLED_BACK, "true")
        if promoted:
            wanted: dict[str, int | None] = {registry.CHALLENGER: None}
            if champion is not None and not gone:
                wanted[registry.PREVIOUS] = champion.number
            registry.set_aliases(client, name, {**wanted, registry.CHAMPION: challenger.number})
        else:
            registry.set_aliases(client, name, {registry.CHALLENGER: challenger.number})
