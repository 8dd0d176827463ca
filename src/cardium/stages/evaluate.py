"""models/<dataset>/* -> reports/<dataset>/evaluation/: every run and ensemble scored on the test records, once, side by side.

    predictions/<run>.parquet   test predictions; all that follows is a pure function of them and of run.json
    metrics.json                every score per image and per patient, with intervals; confusion matrices; cost; warnings
    summary.json                the same in five numbers a run, for `dvc metrics show`
    leaderboard.csv, .png       sorted by balanced accuracy per image, a block a protocol
    figures/                    per run a confusion matrix and a reliability diagram, per protocol the ROC curves

This is the only verb that opens the test fold. All runs of a protocol share one bootstrap over whole patients, so two runs'
intervals come from the same resamples. A naive row stands in every block: the class shares of the training records, for all.
Where the original's test records chose its weights too, `published` rows are marked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cardium.atomic import replacing, replacing_folder, write_json, write_text
from cardium.config import Evaluate, Settings
from cardium.data.splits import Parts
from cardium.errors import CardiumError
from cardium.evaluation import metrics
from cardium.evaluation.published import published_score
from cardium.reporting import plots
from cardium.runs.predictions import mean_predictions, prediction_rows, probability_columns
from cardium.workspace import RunId, Workspace, run_name, suffix

# (settings, run folder, run.json, manifest, test fold -> parts) -> predictions
Predict = Callable[[Settings, Path, dict[str, Any], pd.DataFrame, Callable[[int], Parts]], pd.DataFrame]

PROTOCOLS = ("honest", "published")
HEADINGS = {
    "honest": "honest: groups kept apart, copies counted once",
    "published": "published: the original's way to split, files as they are",
}
# Scores that carry their interval into leaderboard.csv.
WITH_INTERVAL = ("accuracy", "balanced_accuracy", "loss", "roc_auc", "brier", "calibration_error", "f1_macro")
PATIENT = ("balanced_accuracy", "accuracy", "roc_auc")


@dataclass(frozen=True)
class Entry:
    """A run or an ensemble that params.yaml names for the dataset, and its run.json."""

    name: str
    folder: Path
    protocol: str
    kind: str  # train | fuse | ensemble
    info: dict[str, Any]

    @property
    def command(self) -> str:
        return f"dvc repro {self.kind}@{self.name}"


def run(settings: Settings, dataset: str, predict: Predict | None = None) -> None:
    """Scores what params.yaml names for `dataset`. predict: stands in for `cardium.scoring.predict_test` in tests.

    Raises CardiumError if a run is not trained, or was trained on other data or another split; the line names the command.
    """
    from cardium.data.manifest import read_fingerprint, read_manifest
    from cardium.data.splits import read_parts
    from cardium.progress import progress

    if predict is None:
        from cardium.evaluation.scoring import predict_test

        predict = predict_test
    places = Workspace(settings.root)
    manifest = read_manifest(places.manifest(dataset))
    fingerprint = read_fingerprint(places.manifest(dataset))
    classes: list[str] = list(fingerprint["classes"])
    data = data_of(places, dataset)
    entries = find_entries(settings, dataset, data)

    def parts_of(protocol: str) -> Callable[[int], Parts]:
        return lambda test_fold: read_parts(places.split(dataset), manifest, protocol, test_fold)

    frames: dict[str, pd.DataFrame] = {}
    infos = {entry.name: entry.info for entry in entries}
    trained = [entry for entry in entries if entry.kind != "ensemble"]
    for entry in progress(trained, total=len(trained), desc="evaluate", unit="run"):
        frames[entry.name] = predict(settings, entry.folder, entry.info, manifest, parts_of(entry.protocol))
    for entry in entries:
        if entry.kind == "ensemble":
            frames[entry.name] = mean_predictions([frames[member] for member in entry.info["members"]], classes)
    for entry in entries:
        first = parts_of(entry.protocol)(entry.info["test_folds"][0])
        entry.info["chosen_on_test"] = np.array_equal(first.validation, first.test)
    for protocol in dict.fromkeys(entry.protocol for entry in entries):
        folds = _folds_of([entry for entry in entries if entry.protocol == protocol], settings)
        name = "naive" + suffix(protocol)
        frames[name] = naive_predictions(manifest, classes, [(fold, parts_of(protocol)(fold)) for fold in folds])
        infos[name] = _naive_info(protocol, folds)
    for name, frame in frames.items():
        _check_frame(name, frame, manifest, classes, [parts_of(infos[name]["protocol"])(f) for f in infos[name]["test_folds"]])
    order = [entry.name for entry in entries] + [name for name in frames if name.startswith("naive")]
    patients = bool((manifest["patient"] != "").any())
    ordered = {name: frames[name] for name in order}
    table = evaluate(dataset, classes, ordered, infos, settings.evaluate, settings.seed, data, patients)

    out = places.evaluation(dataset)
    with replacing_folder(out) as folder:
        for name in order:
            with replacing(folder / "predictions" / f"{name}.parquet") as part:
                frames[name].to_parquet(part, index=False)
        write_json(folder / "metrics.json", table)
        write_json(folder / "summary.json", summary(table))
        write_text(folder / "leaderboard.csv", leaderboard_table(table).to_csv(index=False, lineterminator="\n"))
        draw(folder, table, frames)
    print(leaderboard_text(table))
    print(f"Scored {len(entries)} runs of {dataset}. Written: {out.relative_to(settings.root).as_posix()}")


def find_entries(settings: Settings, dataset: str, data: Mapping[str, str]) -> list[Entry]:
    """The runs and ensembles of `dataset` in params.yaml's order, checked against the current data.

    data: manifest_sha256 and split_sha256 as they are now. Raises CardiumError naming the command for the first run that is
    missing, of other data, another split or other test folds, and for an ensemble of members that are not there.
    """
    places = Workspace(settings.root)
    named = [(name, run.model, run.protocol, "train") for name, run in settings.plan.runs.items() if run.dataset == dataset]
    made: list[tuple[str, str, str, list[str], str]] = []
    for name, joint in settings.plan.joints.items():
        if joint.id.dataset == dataset:
            made.append((name, joint.id.model, joint.id.protocol, [member.model for member in joint.members], joint.kind))
    entries: list[Entry] = []
    for name, model, protocol, kind in named:
        entries.append(_entry(settings, name, places.run(RunId(dataset, model, protocol)), protocol, kind, data))
    known = {entry.name for entry in entries}
    for name, model, of_protocol, of, kind in made:
        entry = _entry(settings, name, places.run(RunId(dataset, model, of_protocol)), of_protocol, kind, data)
        members = [run_name(dataset, member, of_protocol) for member in of]
        if sorted(entry.info.get("members", [])) != sorted(members) or not set(members) <= known:
            raise CardiumError(f"{name} was made of other members than params.yaml names now: run `{entry.command}`.")
        ids = [next(e.info["id"] for e in entries if e.name == member) for member in entry.info["members"]]
        if entry.info.get("member_ids", ids) != ids:
            raise CardiumError(f"{name} was made of members that have been trained again since: run `{entry.command}`.")
        entries.append(entry)
    if not entries:
        raise CardiumError(f"params.yaml names no run of `{dataset}`: add a model to its study.")
    return entries


def evaluate(
    dataset: str,
    classes: list[str],
    frames: Mapping[str, pd.DataFrame],
    infos: Mapping[str, dict[str, Any]],
    settings: Evaluate,
    seed: int,
    data: Mapping[str, Any],
    patients: bool = True,
) -> dict[str, Any]:
    """Test predictions and run.json's -> the content of metrics.json. Pure.

    frames: name -> predictions; all of one protocol hold the same records. seed draws the bootstrap, one a protocol.
    """
    bootstraps: dict[str, metrics.GroupBootstrap] = {}
    rows: dict[str, Any] = {}
    for name, frame in frames.items():
        info = infos[name]
        labels, probabilities, groups = arrays(frame, classes)
        if info["protocol"] not in bootstraps:
            bootstraps[info["protocol"]] = metrics.GroupBootstrap(groups, labels, settings.bootstrap, seed)
        bootstrap = bootstraps[info["protocol"]]
        chosen = (bootstrap, settings.threshold, settings.interval, classes)
        of_group, means, names = metrics.per_group(labels, probabilities, groups)
        warnings = list(info.get("warnings", []))
        if bootstrap.single:
            unit = "patient" if patients else "group"
            warnings.append(f"a class has one {unit} only: intervals do not tell how it varies")
        phases = info.get("phases", [])
        rows[name] = {
            "model": info["model"],
            "protocol": info["protocol"],
            "kind": info["kind"],
            "weights": info.get("weights", {}).get("used", ""),
            "records": len(frame),
            "groups": len(np.unique(groups)),
            "test_folds": info["test_folds"],
            "chosen_on_test": bool(info.get("chosen_on_test", False)),
            "image": metrics.score_with_intervals(labels, probabilities, groups, *chosen),
            "patient": metrics.score_with_intervals(of_group, means, names, *chosen),
            "confusion": metrics.confusion(labels, probabilities, settings.threshold).tolist(),
            "patient_confusion": metrics.confusion(of_group, means, settings.threshold).tolist(),
            "published_balanced_accuracy": published_score(dataset, info["model"]),
            "published_accuracy": published_score(dataset, info["model"], "accuracy"),
            "seconds": info.get("seconds", {}),
            "epochs": sum(phase["epochs"] for phase in phases) / len({p["test_fold"] for p in phases}) if phases else None,
            "parameters": info.get("parameters"),
            "trainable_parameters": info.get("trainable_parameters"),
            "model_bytes": info.get("model_bytes"),
            "validation_balanced_accuracy": info.get("validation", {}).get("balanced_accuracy"),
            "warnings": warnings,
            "run_id": info.get("id"),
        }
    return {
        "dataset": dataset,
        "classes": classes,
        "interval": settings.interval,
        "bootstrap": settings.bootstrap,
        "threshold": settings.threshold,
        "data": dict(data),
        "patients": patients,
        "runs": rows,
    }


def arrays(frame: pd.DataFrame, classes: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions -> (n,) labels, (n, C) probabilities, (n,) group names."""
    probabilities = frame[probability_columns(classes)].to_numpy(dtype=np.float64)
    return frame["label"].to_numpy(dtype=np.int64), probabilities, frame["group"].to_numpy(dtype=str)


def naive_predictions(manifest: pd.DataFrame, classes: list[str], parts: list[tuple[int, Parts]]) -> pd.DataFrame:
    """The class shares of the training records, the same for every test record; of several folds, the mean of their shares.

    Not each fold's own: a fold's training records have less of what its test records have more of, so a share near the
    threshold tips over with the fold, and knowing nothing would score below chance.
    """
    index = {name: i for i, name in enumerate(classes)}
    labels = manifest["label"].map(index).to_numpy(dtype=np.int64)
    shares = np.mean([np.bincount(labels[part.train], minlength=len(classes)) / len(part.train) for _, part in parts], axis=0)
    frames = [
        prediction_rows(manifest, part.test, fold, labels, np.tile(shares, (len(part.test), 1)), classes)
        for fold, part in parts
    ]
    return pd.concat(frames).sort_values("record", ignore_index=True)


def ranked(table: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """metrics.json's runs in the order of the leaderboard: honest first, then by balanced accuracy per image, then by name."""

    def place(item: tuple[str, dict[str, Any]]) -> tuple[int, float, str]:
        name, row = item
        return PROTOCOLS.index(row["protocol"]), -row["image"]["balanced_accuracy"]["value"], name

    return sorted(table["runs"].items(), key=place)


def summary(table: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """metrics.json -> run -> the five numbers that `dvc metrics show` prints."""
    return {
        name: {
            "balanced_accuracy": _rounded(row["image"]["balanced_accuracy"]["value"]),
            "low": _rounded(row["image"]["balanced_accuracy"]["low"]),
            "high": _rounded(row["image"]["balanced_accuracy"]["high"]),
            "patient_balanced_accuracy": _rounded(row["patient"]["balanced_accuracy"]["value"]),
            "roc_auc": _rounded(row["image"]["roc_auc"]["value"]),
        }
        for name, row in ranked(table)
    }


def leaderboard_table(table: Mapping[str, Any]) -> pd.DataFrame:
    """metrics.json -> leaderboard.csv: a row a run, scores to 6 digits, empty where a score is not defined."""
    rows = []
    for name, row in ranked(table):
        line: dict[str, Any] = {"run": name, "protocol": row["protocol"], "weights": row["weights"]}
        for metric, score in row["image"].items():
            line[metric] = _rounded(score["value"], 6)
            if metric in WITH_INTERVAL:
                line |= {f"{metric}_low": _rounded(score["low"], 6), f"{metric}_high": _rounded(score["high"], 6)}
        for metric in PATIENT:
            score = row["patient"][metric]
            line[f"patient_{metric}"] = _rounded(score["value"], 6)
            line |= {f"patient_{metric}_low": _rounded(score["low"], 6), f"patient_{metric}_high": _rounded(score["high"], 6)}
        line |= {
            "published_balanced_accuracy": row["published_balanced_accuracy"],
            "published_accuracy": row.get("published_accuracy"),
            "other_protocol_balanced_accuracy": _rounded(_other_protocol(table, row), 6),
            "records": row["records"],
            "groups": row["groups"],
            "train_seconds": _rounded(row["seconds"].get("train"), 1),
            "features_seconds": _rounded(row["seconds"].get("features"), 1),
            "parameters": row["parameters"],
            "model_mb": _rounded(_megabytes(row), 2),
            "epochs": _rounded(row["epochs"], 1),
            "scored_on": "the records that chose the weights" if row["chosen_on_test"] else "records held out",
            "warnings": "; ".join(row["warnings"]),
        }
        rows.append(line)
    frame = pd.DataFrame(rows)
    for column in ("parameters", "records", "groups"):
        frame[column] = frame[column].astype("Int64")
    return frame


def _other_protocol(table: Mapping[str, Any], row: Mapping[str, Any]) -> float | None:
    """The balanced accuracy of the same model under the other protocol, where it was run."""
    twin = run_name(table["dataset"], row["model"], "honest" if row["protocol"] == "published" else "published")
    if row["kind"] == "naive":
        twin = "naive" + suffix("honest" if row["protocol"] == "published" else "published")
    other = table["runs"].get(twin)
    value: float | None = other["image"]["balanced_accuracy"]["value"] if other else None
    return value


# A column of the text: heading, width, and what it shows of (table, row).
Column = tuple[str, int, Callable[[Mapping[str, Any], Mapping[str, Any]], str]]


def _score(metric: str, digits: int = 3) -> Callable[[Mapping[str, Any], Mapping[str, Any]], str]:
    return lambda _table, row: _number(row["image"][metric]["value"], digits)


_BALANCED: Column = ("balanced accuracy", -20, lambda _t, row: metrics.score_text(row["image"]["balanced_accuracy"]))
_WEIGHTS: Column = ("weights", -8, lambda _t, row: "mixed" if "+" in row["weights"] else row["weights"] or "-")
_TRAIN: Column = ("train s", 7, lambda _t, row: _number(row["seconds"].get("train"), 0))
_OTHER: Column = ("other", 5, lambda table, row: _number(_other_protocol(table, row), 3))
# Where patients are known and the classes are two: as system 000 compares.
_BY_PATIENT: tuple[Column, ...] = (
    _BALANCED,
    ("patient", 7, lambda _t, row: _number(row["patient"]["balanced_accuracy"]["value"], 3)),
    ("ROC AUC", 7, _score("roc_auc")),
    ("loss", 5, _score("loss")),
    _WEIGHTS,
    _TRAIN,
    ("MB", 5, lambda _t, row: _number(_megabytes(row), 0 if (row["model_bytes"] or 0) >= 1e9 else 1)),
    _OTHER,
    ("published", 9, lambda _t, row: _number(row["published_balanced_accuracy"], 4)),
)
# ECG sheets: the columns of systems 001, 003 and 004; their pages give accuracy.
_BY_RECORD: tuple[Column, ...] = (
    _BALANCED,
    ("acc.", 5, _score("accuracy")),
    ("prec.", 5, _score("precision_macro")),
    ("recall", 6, _score("recall_macro")),
    ("F1", 5, _score("f1_macro")),
    ("AUC", 5, _score("roc_auc")),
    _WEIGHTS,
    _OTHER,
    ("published", 9, lambda _t, row: _number(row.get("published_accuracy"), 4)),
)


# Volumes, one a patient: system 002's report, plain and weighted means over the classes.
_BY_VOLUME: tuple[Column, ...] = (*_BY_RECORD[:5], ("wgt F1", 6, _score("f1_weighted")), *_BY_RECORD[5:])

_TEXT_WIDTH = 120


def leaderboard_text(table: Mapping[str, Any]) -> str:
    """metrics.json -> the leaderboard as plain text, at most 120 columns wide, a block a protocol, then footnotes."""
    scores = ranked(table)
    share = f"{table['interval']:.0%}"
    patients = table.get("patients", True)
    columns = _BY_PATIENT if patients else _BY_RECORD
    # A patient's one volume: per patient is per record.
    one_each = patients and len(table["classes"]) > 2
    if one_each:
        columns = _BY_VOLUME
    unit = "patients" if patients else "distinct groups"
    # The mark of a warning takes two.
    room = _TEXT_WIDTH - sum(abs(w) + 2 for _, w, _ in columns) - 2
    width = min(room, max(len(name) for name, _ in scores))
    lines: list[str] = []
    for protocol in PROTOCOLS:
        block = [(name, row) for name, row in scores if row["protocol"] == protocol]
        if not block:
            continue
        first = block[0][1]
        folds = "every record tested once, out of fold" if len(first["test_folds"]) > 1 else "one fold held out"
        if protocol == "published":
            chosen = any(row["chosen_on_test"] for _, row in block)
            folds = "the held-out part, which chose the weights too" if chosen else "the held-out part"
        heading = "  ".join(f"{text:<{-w}}" if w < 0 else f"{text:>{w}}" for text, w, _ in columns)
        lines += [
            f"{table['dataset']}, {HEADINGS[protocol]}",
            f"{first['records']:,} {'volumes' if one_each else 'images'} of {first['groups']:,} {unit}: {folds}.",
            f"{'run':<{width}}  {heading}",
        ]
        for name, row in block:
            shown = name if len(name) <= width else name[: width - 1] + "~"
            cells = [f"{shown:<{width}}"]
            for _, w, show in columns:
                text = show(table, row)
                cells.append(f"{text:<{-w}}" if w < 0 else f"{text:>{w}}")
            mark = " !" if row["warnings"] else ""
            lines.append(("  ".join(cells) + mark).rstrip())
        lines.append("")
    lines.append(
        f"[ ]: {share} interval over {table['bootstrap']:,} resamples of whole {unit.split()[-1]}, the same for all runs."
    )
    if patients and not one_each:
        lines += [
            "patient: balanced accuracy of the mean probability per patient. naive: the class shares, for all.",
            "other: balanced accuracy under the other protocol. published: the original's, on its own split.",
        ]
    else:
        lines += [
            "prec., recall, F1: plain means over the classes"
            + ("; wgt: weighted by their records." if one_each else ".")
            + " naive: the training records' class shares, for all.",
            "other: balanced accuracy under the other protocol. published: the original's accuracy, on its own split.",
        ]
    warned: dict[str, list[str]] = {}
    for name, row in scores:
        for warning in row["warnings"]:
            warned.setdefault(warning, []).append(name)
    for warning, names in warned.items():
        who = "all runs" if len(names) == len(scores) else ", ".join(names)
        lines += _wrapped(f"! {who}: {warning}")
    return "\n".join(lines)


def draw(folder: Path, table: Mapping[str, Any], frames: Mapping[str, pd.DataFrame]) -> None:
    """leaderboard.png and figures/ below `folder`."""
    dataset, classes, threshold = table["dataset"], table["classes"], table["threshold"]
    rows = []
    for name, row in ranked(table):
        score = row["image"]["balanced_accuracy"]
        rows.append(
            plots.Row(
                name=name,
                group=HEADINGS[row["protocol"]],
                value=score["value"],
                low=score["low"],
                high=score["high"],
                weak="random" in row["weights"],
                naive=row["kind"] == "naive",
                reference=row["published_balanced_accuracy"],
            )
        )
    plots.leaderboard(rows, folder / "leaderboard.png", f"{dataset}: balanced accuracy per image", table["interval"])
    curves: dict[str, list[tuple[str, np.ndarray, np.ndarray, float]]] = {}
    for name, row in ranked(table):
        if row["kind"] == "naive":
            continue
        labels, probabilities, _ = arrays(frames[name], classes)
        matrices = [("per image", row["confusion"])]
        if table["patients"]:
            matrices.append(("per patient", row["patient_confusion"]))
        figures = folder / "figures"
        plots.confusion_matrix(matrices, classes, figures / f"confusion-{name}.png", f"{name}: test records")
        bins = metrics.calibration_curve(labels, probabilities, threshold)
        error = row["image"]["calibration_error"]["value"]
        plots.reliability(*bins, error, figures / f"reliability-{name}.png", f"{name}: test records")
        area = row["image"]["roc_auc"]["value"]
        if area is not None:
            curves.setdefault(row["protocol"], []).append((name, *metrics.roc_points(labels, probabilities), area))
    for protocol, own in curves.items():
        plots.roc(own, folder / "figures" / f"roc{suffix(protocol)}.png", f"{dataset}, {protocol}: test records")


def _entry(settings: Settings, name: str, folder: Path, protocol: str, kind: str, data: Mapping[str, str]) -> Entry:
    command = f"dvc repro {kind}@{name}"
    path = folder / "run.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CardiumError(f"{name} is not trained ({path.relative_to(settings.root)} is missing): run `{command}`.") from None
    except json.JSONDecodeError as error:
        raise CardiumError(f"{path.relative_to(settings.root)} is broken ({error}): run `{command}`.") from None
    for key, what in (("manifest_sha256", "data"), ("split_sha256", "a split")):
        if info["data"].get(key) != data[key]:
            raise CardiumError(f"{name} was trained on {what} that has changed since: run `{command}`.")
    if protocol == "honest" and sorted(info["test_folds"]) != settings.test_folds(info["dataset"]):
        has, asked = (", ".join(map(str, folds)) for folds in (info["test_folds"], settings.test_folds(info["dataset"])))
        raise CardiumError(f"{name} was trained for test folds {has}, params.yaml asks for {asked}: run `{command}`.")
    return Entry(name, folder, protocol, kind, info)


def data_of(places: Workspace, dataset: str) -> dict[str, str]:
    """The hashes of the dataset's manifest and split as they are now; CardiumError where one is missing."""
    from cardium.data.manifest import read_fingerprint

    manifest_sha256 = read_fingerprint(places.manifest(dataset))["manifest_sha256"]
    return {"manifest_sha256": manifest_sha256, "split_sha256": _split_hash(places.split(dataset), dataset)}


def _split_hash(folder: Path, dataset: str) -> str:
    try:
        return str(json.loads((folder / "split.json").read_text(encoding="utf-8"))["sha256"])
    except FileNotFoundError:
        raise CardiumError(f"There is no split of {dataset}: run `dvc repro split@{dataset}`.") from None


def _folds_of(entries: list[Entry], settings: Settings) -> list[int]:
    """The test folds that all entries of a protocol share: `published` has its own single one."""
    if entries[0].protocol == "honest":
        return settings.test_folds(entries[0].info["dataset"])
    return sorted(entries[0].info["test_folds"])


def _naive_info(protocol: str, folds: list[int]) -> dict[str, Any]:
    return {"model": "naive", "protocol": protocol, "kind": "naive", "test_folds": folds}


def _check_frame(name: str, frame: pd.DataFrame, manifest: pd.DataFrame, classes: list[str], parts: list[Parts]) -> None:
    """The predictions are of the test records, once each, with the manifest's labels, and finite. Raises CardiumError."""
    expected = np.sort(np.concatenate([part.test for part in parts]))
    if not np.array_equal(np.sort(frame["record"].to_numpy()), expected):
        raise CardiumError(f"{name}: predictions of {len(frame)} records where {len(expected)} are to be tested, once each.")
    labels, probabilities, _ = arrays(frame, classes)
    true = manifest["label"].to_numpy()[frame["record"].to_numpy()]
    if not np.array_equal(np.asarray(classes, dtype=object)[labels], true):
        raise CardiumError(f"{name}: predictions with other labels than the manifest's: run `dvc repro`.")
    broken = int((~np.isfinite(probabilities).all(axis=1)).sum())
    if broken:
        raise CardiumError(
            f"{name}: {broken} of {len(frame)} predictions are not finite: train it again at a lower learning rate."
        )


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(float(value), digits)


def _megabytes(row: Mapping[str, Any]) -> float | None:
    return None if row["model_bytes"] is None else row["model_bytes"] / 1e6


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 118, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
