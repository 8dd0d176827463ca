"""The leaderboard of an evaluation, as text for a terminal and as a table with every score."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cardium.evaluation.evaluation import CHOSEN, Evaluation, RunScores, rounded
from cardium.workspace import PROTOCOLS

if TYPE_CHECKING:
    import pandas

HEADINGS = {
    "honest": "honest: groups kept apart, copies counted once",
    "published": "published: the original's way to split, files as they are",
}
# Scores that carry their interval into leaderboard.csv.
WITH_INTERVAL = ("accuracy", "balanced_accuracy", "loss", "roc_auc", "brier", "calibration_error", "f1_macro")
PATIENT = ("balanced_accuracy", "accuracy", "roc_auc")

_TEXT_WIDTH = 120


def leaderboard_table(evaluation: Evaluation) -> pandas.DataFrame:
    """Builds leaderboard.csv: one row per run, scores to 6 digits, empty if a score is not defined."""
    import pandas as pd

    rows = []
    for row in evaluation.ranked():
        line: dict[str, Any] = {"run": row.name, "protocol": row.protocol, "weights": row.weights}
        for metric, score in row.image.items():
            line[metric] = rounded(score.value, 6)
            if metric in WITH_INTERVAL:
                line |= {f"{metric}_low": rounded(score.low, 6), f"{metric}_high": rounded(score.high, 6)}
        for metric in PATIENT:
            score = row.patient[metric]
            line[f"patient_{metric}"] = rounded(score.value, 6)
            line |= {f"patient_{metric}_low": rounded(score.low, 6), f"patient_{metric}_high": rounded(score.high, 6)}
        line |= {
            "published_balanced_accuracy": row.published_balanced_accuracy,
            "published_accuracy": row.published_accuracy,
            "other_protocol_balanced_accuracy": rounded(_other_protocol(evaluation, row), 6),
            "records": row.records,
            "groups": row.groups,
            "train_seconds": rounded(row.seconds.train, 1) if row.seconds else None,
            "features_seconds": rounded(row.seconds.features, 1) if row.seconds else None,
            "parameters": row.parameters,
            "model_mb": rounded(_megabytes(row), 2),
            "epochs": rounded(row.epochs, 1),
            "scored_on": "the records that chose the weights" if row.chosen_on_test else "records held out",
            "between_folds": rounded(row.between_folds, 6),
            "warnings": "; ".join(row.warnings),
        }
        rows.append(line)
    frame = pd.DataFrame(rows)
    for column in ("parameters", "records", "groups"):
        frame[column] = frame[column].astype("Int64")
    return frame


# A column of the text: heading, width (negative: set to the left), and what it shows of a row.
Column = tuple[str, int, Callable[[Evaluation, RunScores], str]]


def _score(metric: str, digits: int = 3) -> Callable[[Evaluation, RunScores], str]:
    return lambda _, row: _number(row.image[metric].value, digits)


_BALANCED: Column = ("balanced accuracy", -20, lambda _, row: row.balanced_accuracy.text)
_WEIGHTS: Column = ("weights", -8, lambda _, row: "mixed" if "+" in row.weights else row.weights or "-")
_TRAIN: Column = ("train s", 7, lambda _, row: _number(row.seconds.train if row.seconds else None, 0))
_OTHER: Column = ("other", 5, lambda evaluation, row: _number(_other_protocol(evaluation, row), 3))
# Where patients are known and the classes are two: as system 000 compares.
_BY_PATIENT: tuple[Column, ...] = (
    _BALANCED,
    ("patient", 7, lambda _, row: _number(row.patient["balanced_accuracy"].value, 3)),
    ("ROC AUC", 7, _score("roc_auc")),
    ("loss", 5, _score("loss")),
    _WEIGHTS,
    _TRAIN,
    ("MB", 5, lambda _, row: _number(_megabytes(row), 0 if (row.model_bytes or 0) >= 1e9 else 1)),
    _OTHER,
    ("published", 9, lambda _, row: _number(row.published_balanced_accuracy, 4)),
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
    ("published", 9, lambda _, row: _number(row.published_accuracy, 4)),
)
# Volumes, one a patient: system 002's report, plain and weighted means over the classes.
_BY_VOLUME: tuple[Column, ...] = (*_BY_RECORD[:5], ("wgt F1", 6, _score("f1_weighted")), *_BY_RECORD[5:])


def leaderboard_text(evaluation: Evaluation) -> str:
    """Formats the leaderboard as text, at most 120 columns wide: one block per protocol, then footnotes."""
    ranked = evaluation.ranked()
    columns = _BY_PATIENT if evaluation.patients else _BY_RECORD
    # A patient's one volume: per patient is per record.
    one_each = evaluation.patients and len(evaluation.classes) > 2
    if one_each:
        columns = _BY_VOLUME
    unit = "patients" if evaluation.patients else "distinct groups"
    # The mark of a warning takes two.
    room = _TEXT_WIDTH - sum(abs(w) + 2 for _, w, _ in columns) - 2
    width = min(room, max(len(row.name) for row in ranked))
    lines = ["Generated demo data: these scores say nothing about real patients.", ""] if evaluation.data.generated else []
    for protocol in PROTOCOLS:
        block = [row for row in ranked if row.protocol == protocol]
        if not block:
            continue
        first = max(block, key=lambda row: row.records)  # A model of whole patients has a row a patient.
        folds = "every record tested once, out of fold" if len(first.test_folds) > 1 else "one fold held out"
        if protocol == "published":
            chosen = any(row.chosen_on_test for row in block)
            folds = "the held-out part, which chose the weights too" if chosen else "the held-out part"
        heading = "  ".join(f"{text:<{-w}}" if w < 0 else f"{text:>{w}}" for text, w, _ in columns)
        lines += [
            f"{evaluation.dataset}, {HEADINGS[protocol]}",
            f"{first.records:,} {'volumes' if one_each else 'images'} of {first.groups:,} {unit}: {folds}.",
            f"{'run':<{width}}  {heading}",
        ]
        for row in block:
            shown = row.name if len(row.name) <= width else row.name[: width - 1] + "~"
            cells = [f"{shown:<{width}}"]
            for _, w, show in columns:
                text = show(evaluation, row)
                cells.append(f"{text:<{-w}}" if w < 0 else f"{text:>{w}}")
            mark = " !" if row.warnings else ""
            lines.append(("  ".join(cells) + mark).rstrip())
        lines.append("")
    return "\n".join([*lines, *_footnotes(evaluation, unit, one_each)])


def _footnotes(evaluation: Evaluation, unit: str, one_each: bool) -> list[str]:
    """Explains the columns, and lists every warning with its runs."""
    lines = [f"[ ]: {evaluation.interval:.0%} interval, by the number of {unit} and how alike the records of one are."]
    if any("/" in name for name in evaluation.runs):
        lines.append("<run>/<overrides>: an experiment beside the pipeline, in experiments/.")
    if CHOSEN in evaluation.runs:
        lines.append(
            "chosen: for each held-out fold the run that its validation chooses; what to expect of the run that is promoted."
        )
    if evaluation.patients and not one_each:
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
    if said := evaluation.served_as_scored():
        lines += textwrap.wrap(said, 118, subsequent_indent="  ")
    ranked = evaluation.ranked()
    warned: dict[str, list[str]] = {}
    for row in ranked:
        for warning in row.warnings:
            warned.setdefault(warning, []).append(row.name)
    for warning, names in warned.items():
        who = "all runs" if len(names) == len(ranked) else ", ".join(names)
        text = f"! {who}: {warning}"
        lines += textwrap.wrap(text, 118, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
    return lines


def _other_protocol(evaluation: Evaluation, row: RunScores) -> float | None:
    """Returns the balanced accuracy of the same model under the other protocol, None if it was not run."""
    other = evaluation.under_other_protocol(row)
    return other.balanced_accuracy.value if other else None


def _megabytes(row: RunScores) -> float | None:
    return None if row.model_bytes is None else row.model_bytes / 1e6


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
