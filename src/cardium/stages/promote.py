"""promote: the best run challenges the champion of the registered model `cardium-<dataset>`; the better one is served.

From reports/<dataset>/evaluation/ and MLflow's registry to reports/<dataset>/promotion/promotion.json, which holds the
decision, its reasons and numbers; the version's tags and description hold them too.

Who challenges is chosen on validation scores alone: the honest run with the highest balanced accuracy, of equals the smaller
one. Test predictions then decide, on the same records for both: the challenger becomes champion if its balanced accuracy is
higher and that of at least `promote.confidence` of the bootstrap's resamples of whole patients. A first champion has to beat
the naive row by the same rule. If data or split changed since the champion was trained, it is scored again, only on patients
it has never seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cardium import tracking
from cardium.atomic import replacing_folder, write_json
from cardium.config import Settings
from cardium.data.manifest import is_distinct, read_manifest
from cardium.data.splits import Parts
from cardium.errors import CardiumError
from cardium.evaluation.metrics import GroupBootstrap, paired_difference, score
from cardium.runs.predictions import mean_predictions, prediction_rows, probability_columns, read_evaluation
from cardium.tracking import registry
from cardium.tracking.registry import Version
from cardium.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

# How long a promotion waits for another one to end.
_WAIT_SECONDS = 120.0


class Incomparable(CardiumError):  # noqa: N818
    """Champion and challenger cannot be scored on the same records."""


@dataclass(frozen=True)
class Decision:
    """Whether the challenger becomes champion, and why, in one sentence."""

    promote: bool
    reason: str


def decide(
    challenger_score: float,
    champion_score: float | None,
    p_better: float,
    confidence: float,
    naive_score: float,
    rolled_back: bool = False,
) -> Decision:
    """The rule, pure. Scores are balanced accuracies on the same test records.

    champion_score: None where there is no champion yet; then the naive row stands for it. p_better: the probability that the
    challenger is better than that rival.
    """
    rival, rival_score = ("the naive row", naive_score) if champion_score is None else ("the champion", champion_score)
    if rolled_back:
        return Decision(
            False, "it was champion and was rolled back; train it anew, or delete its version's tag cardium.rolled_back"
        )
    if not challenger_score > naive_score:
        return Decision(False, f"its score {challenger_score:.3f} does not beat the naive row's {naive_score:.3f}")
    if not challenger_score > rival_score:
        return Decision(False, f"its score {challenger_score:.3f} is not higher than {rival}'s {rival_score:.3f}")
    if not p_better >= confidence:
        return Decision(
            False,
            f"its score {challenger_score:.3f} is higher than {rival}'s {rival_score:.3f}, but P(better) is {p_better:.2f}, "
            f"below promote.confidence {confidence:g}",
        )
    return Decision(
        True,
        f"its score {challenger_score:.3f} is higher than {rival}'s {rival_score:.3f} and P(better) is {p_better:.2f}, "
        f"at least promote.confidence {confidence:g}",
    )


def choose(runs: Mapping[str, dict[str, Any]]) -> str:
    """metrics.json's runs -> the challenger's name: honest, best validation balanced accuracy, of equals the fewest parameters.

    Raises CardiumError if no run qualifies.
    """
    able = {
        name: row
        for name, row in runs.items()
        if row["protocol"] == "honest" and row.get("run_id") and row.get("validation_balanced_accuracy") is not None
    }
    if not able:
        raise CardiumError(
            "No run of the honest protocol was evaluated: there is nothing to promote; train one, then `dvc repro`."
        )
    # Rounded: two runs with the same decisions may differ in the last bit.
    return min(
        able, key=lambda name: (-round(able[name]["validation_balanced_accuracy"], 9), able[name].get("parameters") or 0, name)
    )


def run(settings: Settings, dataset: str) -> None:
    """Promotes, or says why not; with the tracking store away, says so and lets the pipeline go on."""
    try:
        result = promote(settings, dataset)
    except tracking.StoreAway as error:
        away = str(error).partition(": nothing lost")[0]
        text = f"skipped, nothing was compared. {away}; later: `cardium promote --dataset {dataset}`."
        name = tracking.experiment_name(settings, dataset)
        result = {"dataset": dataset, "model": name, "action": "skipped", "summary": text, "reasons": [text]}
        _write(settings, dataset, result)
    _tell(result)
    print(f"Written: {(Workspace(settings.root).promotion(dataset) / 'promotion.json').relative_to(settings.root).as_posix()}")


def dry_run(settings: Settings, dataset: str) -> None:
    """Says what `promote` would do; changes neither registry nor files. Raises StoreAway."""
    _tell(promote(settings, dataset, dry=True))
    print("Dry run: nothing was changed.")


def promote(settings: Settings, dataset: str, dry: bool = False) -> dict[str, Any]:
    """Logs what is missing, registers the challenger, compares, decides, and writes promotion.json; returns its content.

    Promotions of one store run one after the other. Raises CardiumError without an evaluation, StoreAway without the store.
    """
    table = read_evaluation(settings, dataset)
    name = tracking.experiment_name(settings, dataset)
    best = choose(table["runs"])
    row = table["runs"][best]
    with tracking.store_lock(settings, f"promote-{dataset}", _WAIT_SECONDS):
        champion: Version | None = None
        challenger: Version | None = None
        if not dry:
            for line in tracking.sync(settings, dataset)["failed"]:
                print(f"warning: not logged: {line}")
        if tracking.store_exists(settings):
            with tracking.connected(settings) as client:
                champion = registry.by_alias(client, name, registry.CHAMPION)
                known = {version.id: version for version in registry.versions(client, name)}
                challenger = known.get(row["run_id"]) if dry else registry.register(client, name, row["run_id"])
        result: dict[str, Any] = {
            "dataset": dataset,
            "model": name,
            "action": "",
            "summary": "",
            "reasons": [],
            "challenger": {
                "run": best,
                "run_id": row["run_id"],
                "version": challenger.number if challenger else None,
                "validation_balanced_accuracy": row["validation_balanced_accuracy"],
                "parameters": row.get("parameters"),
                "weights": row.get("weights"),
                "warnings": row.get("warnings", []),
            },
            "champion": {"run": champion.run, "run_id": champion.id, "version": champion.number} if champion else None,
            "confidence": settings.promote.confidence,
        }
        if champion is not None and champion.id == row["run_id"]:
            why = champion.tags.get(registry.REASON, "")
            result |= {
                "action": "unchanged",
                "summary": f"{best} is champion already (version {champion.number})",
                "reasons": [why],
            }
        else:
            result |= _contest(settings, dataset, table, best, champion, challenger)
            if not dry and challenger is not None:
                _record(settings, name, result, champion, challenger)
        if not dry:
            _write(settings, dataset, result)
    return result


def rollback(settings: Settings, dataset: str, dry_run: bool = False) -> None:
    """Makes the previous champion the champion again; the one rolled back is not promoted again by itself.

    Raises CardiumError if there is no previous champion, StoreAway without the store.
    """
    name = tracking.experiment_name(settings, dataset)
    if not tracking.store_exists(settings):
        raise CardiumError(f"Nothing was promoted yet: run `cardium promote --dataset {dataset}` first.")
    with tracking.store_lock(settings, f"promote-{dataset}", _WAIT_SECONDS), tracking.connected(settings) as client:
        champion = registry.by_alias(client, name, registry.CHAMPION)
        previous = registry.by_alias(client, name, registry.PREVIOUS)
        if champion is None or previous is None or previous.number == champion.number:
            raise CardiumError(
                f"{name} has no previous champion to go back to: `cardium promote --dry-run` says what is champion."
            )
        before = previous.tags.get(registry.BEFORE)
        if not dry_run:
            client.set_model_version_tag(name, str(champion.number), registry.ROLLED_BACK, "true")
            still_there = {str(version.number) for version in registry.versions(client, name)}
            older = int(before) if before in still_there else None
            registry.set_aliases(client, name, {registry.CHAMPION: previous.number, registry.PREVIOUS: older})
    back, gone = (f"{version.run} (version {version.number})" for version in (previous, champion))
    print(f"{name}: {back} is champion again, in place of {gone}.")
    print("Dry run: nothing was changed." if dry_run else "A running server keeps its model: start it again to serve this one.")


# ------------------------------------------------------------------------------------------------------------- comparison


def _contest(
    settings: Settings, dataset: str, table: dict[str, Any], best: str, champion: Version | None, challenger: Version | None
) -> dict[str, Any]:
    """The part of promotion.json that comes out of the comparison."""
    classes = table["classes"]
    mine = _stored(settings, dataset, best)
    columns = probability_columns(classes)
    naive = float(table["runs"]["naive"]["image"]["balanced_accuracy"]["value"])
    how = "stored predictions of the naive row"
    try:
        if champion is None:
            other = _stored(settings, dataset, "naive")
        else:
            other, how = _champion_predictions(settings, dataset, table, champion)
        both = mine.merge(other[["record", *columns]], on="record", suffixes=("", "_other"))
        _check_comparable(both, len(classes))
    except Incomparable as error:
        text = f"{best} stays challenger: {error}"
        return {"action": "kept", "summary": text, "reasons": [str(error)], "comparison": None}
    labels, groups = both["label"].to_numpy(dtype=np.int64), both["group"].to_numpy(dtype=str)
    a, b = both[columns].to_numpy(), both[[f"{column}_other" for column in columns]].to_numpy()
    chosen = (settings.evaluate.threshold, settings.evaluate.interval)
    bootstrap = GroupBootstrap(groups, labels, settings.evaluate.bootstrap, settings.seed)
    difference = paired_difference(labels, groups, a, b, bootstrap, *chosen)
    scores = [score(labels, p, settings.evaluate.threshold)["balanced_accuracy"] for p in (a, b)]
    decision = decide(
        scores[0],
        None if champion is None else scores[1],
        difference["probability_better"],
        settings.promote.confidence,
        naive if champion is not None else scores[1],
        rolled_back=challenger is not None and registry.ROLLED_BACK in challenger.tags,
    )
    over = f"{champion.run} (version {champion.number})" if champion else "the naive row"
    comparison = {
        "rival": champion.run if champion else "naive",
        "rival_scored_by": how,
        "records": len(both),
        "groups": len(np.unique(groups)),
        "records_left_out": len(mine) - len(both),
        "challenger_balanced_accuracy": scores[0],
        "rival_balanced_accuracy": scores[1],
        "naive_balanced_accuracy": naive,
        "interval": settings.evaluate.interval,
        **difference,
    }
    numbers = (
        f"difference to {over} {difference['difference']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}] on "
        f"{len(both)} test images of {comparison['groups']} patients ({how})"
    )
    verdict = f"{best} is the champion" if decision.promote else f"{best} is not promoted"
    return {
        "action": "promoted" if decision.promote else "kept",
        "summary": f"{verdict}: {decision.reason}",
        "reasons": [decision.reason, numbers, *[f"note: {warning}" for warning in table["runs"][best].get("warnings", [])]],
        "comparison": comparison,
    }


def _check_comparable(both: pd.DataFrame, classes: int) -> None:
    groups = both.groupby("label")["group"].nunique()
    if len(groups) < classes or int(groups.min()) < 2:
        raise Incomparable(
            f"of the {both['group'].nunique()} patients that the champion has never seen there are not two of every class: "
            "the two cannot be compared; to begin anew, delete the alias champion in the MLflow UI"
        )


def _champion_predictions(
    settings: Settings, dataset: str, table: dict[str, Any], champion: Version
) -> tuple[pd.DataFrame, str]:
    """The champion's predictions of current test records, and how they were had. Raises Incomparable."""
    for name, row in table["runs"].items():
        if row.get("run_id") == champion.id:
            return _stored(settings, dataset, name), "both evaluated together"
    with tracking.connected(settings) as client:
        stored = _logged_predictions(client, champion, table)
        if stored is not None:
            return stored, "the champion's stored predictions: data and split are the same"
        try:
            folders = _model_folders(client, champion)
        except CardiumError as error:
            raise Incomparable(str(error)) from None
    frames = [_score_again(settings, dataset, table["classes"], folder) for folder in folders]
    again = "the champion scored again: data or split changed since its training"
    return mean_predictions(frames, table["classes"]), again


def _logged_predictions(client: MlflowClient, champion: Version, table: dict[str, Any]) -> pd.DataFrame | None:
    """The champion's test predictions as they were logged, if they are of the same data and split as now."""
    import mlflow

    listed = {item.path for item in client.list_artifacts(champion.mlflow_run)}
    if "evaluation.json" not in listed:
        return None
    logged = mlflow.artifacts.load_dict(f"runs:/{champion.mlflow_run}/evaluation.json")
    if logged.get("data") != table["data"] or logged.get("classes") != table["classes"]:
        return None
    path = f"predictions/test/{champion.run}.parquet"
    if path not in {item.path for item in client.list_artifacts(champion.mlflow_run, "predictions/test")}:
        return None
    return pd.read_parquet(mlflow.artifacts.download_artifacts(f"runs:/{champion.mlflow_run}/{path}"))


def _model_folders(client: MlflowClient, champion: Version) -> list[Path]:
    """The logged model of the champion; of an ensemble its members', which hold the weights of every fold, if all are there."""
    own = registry.fetch(client, champion.mlflow_run)
    info = tracking.read_info(tracking.run_folder_of(own))
    members = []
    for member in info.get("member_ids", []):
        runs = tracking.find_run(client, tracking.ID, member)
        if not runs or tracking.model_of(client, runs[0].info.run_id) is None:
            return [own]
        members.append(registry.fetch(client, runs[0].info.run_id))
    return members or [own]


def _score_again(settings: Settings, dataset: str, classes: list[str], model_folder: Path) -> pd.DataFrame:
    """A logged model's predictions of today's records, each by weights that never saw its patient. Raises Incomparable."""
    from cardium.data.rendering import read_pixels
    from cardium.evaluation.scoring import predict_arrays, predict_test
    from cardium.models import load_model

    folder = tracking.run_folder_of(model_folder)
    info = tracking.read_info(folder)
    places = Workspace(settings.root)
    manifest = read_manifest(places.manifest(dataset))
    kind = info["rendering"]["kind"]
    rendered = json.loads((places.rendering(dataset, kind) / "render.json").read_text(encoding="utf-8"))
    if info["classes"] != classes:
        raise Incomparable(f"the champion knows the classes {', '.join(info['classes'])}, the data has {', '.join(classes)}")
    if any(rendered.get(name) != value for name, value in info["rendering"].items()):
        raise Incomparable(
            f"the champion takes images of {info['rendering']['height']}x{info['rendering']['width']}, prepared are "
            f"{rendered['height']}x{rendered['width']}: set {dataset}.render back, or delete the alias champion in the MLflow "
            "UI"
        )
    split = model_folder / "artifacts" / "honest.csv"
    if not split.is_file():
        raise Incomparable("data or split changed, and which patients the champion was trained on was not logged with it")
    table = pd.read_csv(split, dtype={"group": str})
    folds = info["test_folds"] if (folder / "folds").is_dir() else info["test_folds"][:1]
    unseen = unseen_records(manifest, dict(zip(table["group"], table["fold"], strict=True)), folds)
    if not unseen:
        raise Incomparable("the champion has been trained on every patient that is there now")
    if not (folder / "folds").is_dir():
        pixels, _ = read_pixels(places.rendering(dataset, kind), manifest)
        records = unseen[folds[0]]
        p = predict_arrays(load_model(folder / "model.keras"), pixels, records)
        labels = manifest["label"].map({label: i for i, label in enumerate(classes)}).to_numpy(dtype=np.int64)
        return prediction_rows(manifest, records, folds[0], labels, p, classes)
    none = np.empty(0, np.int64)
    return predict_test(
        settings,
        folder,
        # From pixels: the bank of these features may be of other data by now.
        {**info, "scored_from": "pixels", "test_folds": list(unseen)},
        manifest,
        lambda fold: Parts(none, none, unseen[fold]),
    )


def unseen_records(manifest: pd.DataFrame, fold_of: Mapping[str, int], test_folds: list[int]) -> dict[int, np.ndarray]:
    """Which of today's records the weights of each test fold have never seen: fold -> sorted record numbers, no empty ones.

    fold_of: group -> fold, of the split that the model was trained on. Known patients keep the fold they had then, whatever
    today's split says; new ones go to the first fold. A group that today joins patients of several folds (identical files were
    found) is left out: part of it was trained on by every fold's weights.
    """
    distinct = manifest[is_distinct(manifest)]
    chosen: dict[int, list[int]] = {}
    for group, rows in distinct.groupby("group", sort=True):
        names = {str(group), *(patient for patient in rows["patient"] if patient)}
        folds = {int(fold_of[name]) for name in names if name in fold_of}
        if not folds:
            folds = {test_folds[0]}
        fold = folds.pop()
        if not folds and fold in test_folds:
            chosen.setdefault(fold, []).extend(int(record) for record in rows["record"])
    return {fold: np.sort(np.array(chosen[fold], dtype=np.int64)) for fold in test_folds if fold in chosen}


# --------------------------------------------------------------------------------------------------------- files, registry


def _record(settings: Settings, name: str, result: dict[str, Any], champion: Version | None, challenger: Version) -> None:
    """Writes the decision into the registry: the version's tags and description first, the alias champion last."""
    compared = result["comparison"] or {}
    tags = {registry.REASON: result["reasons"][0], "cardium.decision": result["action"]}
    for key in ("challenger_balanced_accuracy", "rival_balanced_accuracy", "difference", "low", "high", "probability_better"):
        if key in compared:
            tags[key] = f"{compared[key]:.4f}"
    if compared:
        tags["rival"] = compared["rival"]
    promoted = result["action"] == "promoted"
    if promoted and champion is not None:
        tags[registry.BEFORE] = str(champion.number)
    description = "\n\n".join([f"**{result['summary']}.**", *result["reasons"][1:]])
    with tracking.connected(settings) as client:
        now = registry.by_alias(client, name, registry.CHAMPION)
        if (now.number if now else None) != (champion.number if champion else None):
            # Another machine, which the lock of this one's files does not hold back.
            raise CardiumError(f"Another promotion changed the champion of {name} meanwhile: run this again.")
        registry.describe(client, name, challenger, tags, description)
        if promoted:
            wanted: dict[str, int | None] = {registry.CHALLENGER: None}
            if champion is not None:
                wanted[registry.PREVIOUS] = champion.number
            registry.set_aliases(client, name, {**wanted, registry.CHAMPION: challenger.number})
        else:
            registry.set_aliases(client, name, {registry.CHALLENGER: challenger.number})


def _stored(settings: Settings, dataset: str, name: str) -> pd.DataFrame:
    path = Workspace(settings.root).evaluation(dataset) / "predictions" / f"{name}.parquet"
    if not path.is_file():
        raise CardiumError(f"{path.relative_to(settings.root)} is missing: run `dvc repro -f evaluate@{dataset}`.")
    return pd.read_parquet(path)


def _write(settings: Settings, dataset: str, result: dict[str, Any]) -> None:
    with replacing_folder(Workspace(settings.root).promotion(dataset)) as folder:
        write_json(folder / "promotion.json", result)


def _tell(result: dict[str, Any]) -> None:
    print(f"{result['model']}: {result['summary']}")
    for reason in result["reasons"][1:]:
        print(f"  {reason}")
    if result["action"] in ("promoted", "unchanged"):
        print(f"Next: mlflow models serve -m models:/{result['model']}@champion --env-manager local -p 5001")
