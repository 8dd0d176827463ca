"""The checks that a manifest and its splits must pass before anything is trained on them, as Great Expectations expectations.

The input are the tables of the stored files, the output is one outcome per check. Every pass or failure is the result of a
Great Expectations run; the checks look at the files alone, not at how the splits were made.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from cardium.config import Validate
from cardium.data.manifest import is_distinct
from cardium.data.splits import LEFT_OUT, rotate

# Read when the library is imported: no report of its use goes anywhere.
os.environ["GX_ANALYTICS_ENABLED"] = "false"

import great_expectations as gx
import great_expectations.expectations as gxe
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import ColumnPairMapExpectation
from great_expectations.expectations.metrics.map_metric_provider import (
    ColumnPairMapMetricProvider,
    column_pair_condition_partial,
)

Severity = Literal["critical", "warning", "info"]
Frames = dict[str, pd.DataFrame]

# Offending rows that are named; of the others only the number is reported.
NAMED = 1000
# Pillow's modes of still images, and DICOM's photometric interpretations as the decoder names them.
_MODES = r"^(?:1|L|La|LA|P|PA|RGB|RGBA|RGBa|RGBX|CMYK|YCbCr|LAB|HSV|I|F|I;16[BLNS]*|DICOM-[A-Z0-9_ ]+)$"
# numpy's names of the types that a volume's voxels may have.
_TYPES = r"^(?:u?int(?:8|16|32|64)|float(?:32|64))$"
# A folder with less than half or more than one and a half times the published files is not the published collection.
_SAME_COLLECTION = (0.5, 1.5)


class _OneValuePerKey(ColumnPairMapMetricProvider):
    """Whether a row has the same column_B as every row with the same column_A."""

    condition_metric_name = "column_pair_values.one_value_per_key"
    condition_domain_keys = (
        "batch_id",
        "table",
        "column_A",
        "column_B",
        "row_condition",
        "condition_parser",
        "ignore_row_if",
    )
    condition_value_keys = ()

    @column_pair_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column_A: pd.Series, column_B: pd.Series, **kwargs: Any) -> pd.Series:  # noqa: ARG002, N805
        return column_B.groupby(column_A).transform("nunique") <= 1


class ExpectOneValuePerKey(ColumnPairMapExpectation):
    """Expect column_A to determine column_B: no two rows with the same key differ in it. Rows missing either are left out."""

    map_metric = "column_pair_values.one_value_per_key"
    domain_keys = (*ColumnPairMapExpectation.domain_keys, "ignore_row_if")  # type: ignore[assignment]
    ignore_row_if: Literal["both_values_are_missing", "either_value_is_missing", "neither"] = "either_value_is_missing"


@dataclass(frozen=True)
class Check:
    """One rule in plain words, and the expectations that decide it.

    expectations: pairs (name of a frame, expectation); the check passes if all of them do. describe: a row of that frame ->
    (where, what was found there). observed: a summary of the data, shown whether the check passes or not. A check without
    expectations is a statement.
    """

    name: str
    title: str
    severity: Severity
    meaning: str
    remedy: str
    expectations: list[tuple[str, Any]]
    describe: Callable[[Any], tuple[str, str]]
    observed: str = ""
    # What failures are counted in, in the plural.
    unit: str = "files"


@dataclass(frozen=True)
class Outcome:
    """The result of a check. count: number of offending rows. rows: (where, found) of the first ones, in order."""

    check: Check
    passed: bool
    count: int = 0
    rows: list[tuple[str, str]] = field(default_factory=list)
    expectations: list[dict[str, Any]] = field(default_factory=list)


def assemble(
    manifest: pd.DataFrame,
    honest: pd.DataFrame,
    published: pd.DataFrame,
    rejected: pd.DataFrame,
    classes: Sequence[str],
    published_counts: Mapping[str, int],
    folds: int,
) -> Frames:
    """The tables that the expectations look at, from the tables as stored.

    records: the manifest and, per record, its fold (NaN where it takes no part), its part in every rotation, and its part and
    side under `published`; folds: honest.csv; parts: records of each class in each part; groups: sides of the published split
    that each is on; classes: counts; rejected: rejected.csv.
    """
    records = manifest.copy()
    # Identical files take part once, and those of two labels never; what has no part is left out of the rules about parts.
    conflict = records["conflict"].to_numpy(dtype=bool)
    first_fold = honest.drop_duplicates("group").set_index("group")["fold"]
    records["fold"] = records["group"].map(first_fold).where(is_distinct(records)).astype("float64")
    rows_of = {"honest": records["group"].map(honest["group"].value_counts())}
    rows_of["published"] = records["record"].map(published["record"].value_counts())
    for protocol, counted in rows_of.items():
        records[f"{protocol}_rows"] = counted.fillna(0).astype("float64").mask(conflict)
    part_of = published.drop_duplicates("record").set_index("record")["part"]
    records["published_part"] = records["record"].map(part_of.mask(part_of == LEFT_OUT))
    records["published_side"] = records["published_part"].replace({"validation": "held out", "test": "held out"})
    takes_part = records["fold"].notna() | records["published_part"].notna()
    records["used_label"] = records["label"].where(takes_part, None)
    records["used_in_conflict"] = records["used_label"].where(conflict, None)
    records["known_patient"] = records["patient"].where(records["patient"] != "", None)
    records["aspect"] = records[["width", "height"]].max(axis=1) / records[["width", "height"]].min(axis=1)
    by_record = records["path"].tolist()
    records["first"] = [by_record[copy] if 0 <= copy < len(by_record) else "" for copy in records["copy_of"]]

    parts: list[dict[str, Any]] = []
    for test_fold in range(folds):
        part = pd.Series(rotate(records["fold"].fillna(-1).to_numpy(dtype=np.int64), folds, test_fold), index=records.index)
        part = part.where(records["fold"].notna(), None)
        records[f"rotation_{test_fold}"] = part
        for name in ("train", "validation", "test"):
            parts += _parts(records[part == name], f"test fold {test_fold}, {name}", "honest", classes)
    for name in ("train", "validation", *(["test"] if "test" in set(published["part"]) else [])):
        parts += _parts(records[records["published_part"] == name], f"published, {name}", "published", classes)
    part_table = pd.DataFrame(parts)

    sides = records.groupby("group", sort=True)
    groups = pd.DataFrame(
        {"published_sides": sides["published_side"].nunique(), "records": sides.size(), "first": sides["path"].min()}
    ).reset_index()

    of_class = records.groupby("label").size()
    counts = np.array([int(of_class.get(name, 0)) for name in classes])
    table = pd.DataFrame({"label": list(classes), "records": counts})
    table["groups"] = [int(records.loc[records["label"] == name, "group"].nunique()) for name in classes]
    # A class without records is another check's failure: no ratio.
    table["imbalance"] = np.where(counts > 0, counts.max(initial=0) / np.maximum(counts, 1), np.nan)
    table["published"] = [published_counts.get(name, np.nan) for name in classes]
    table["deviation"] = (table["records"] - table["published"]).abs() / table["published"]
    return {
        "records": records.reset_index(drop=True),
        "folds": honest.reset_index(drop=True),
        "honest_parts": part_table[part_table["protocol"] == "honest"].reset_index(drop=True),
        "published_parts": part_table[part_table["protocol"] == "published"].reset_index(drop=True),
        "groups": groups,
        "classes": table,
        "rejected": rejected.reset_index(drop=True),
    }


def _parts(records: pd.DataFrame, name: str, protocol: str, classes: Sequence[str]) -> list[dict[str, Any]]:
    counts = records.groupby("label").size()
    return [{"protocol": protocol, "part": name, "label": label, "records": int(counts.get(label, 0))} for label in classes]


def make_checks(
    frames: Frames, limits: Validate, classes: Sequence[str], folds: int, names_patients: bool = True, kind: str = "image"
) -> list[Check]:
    """All checks, in the order of the page: which files there are, what is in them, who is on which side.

    names_patients: whether the publisher says which patient a file belongs to. kind: of a record, image or volume.
    """
    what = f"{kind}s"
    records, table, rejected = frames["records"], frames["classes"], frames["rejected"]
    groups = records["group"].nunique()
    return [
        Check(
            "classes_known",
            "Every label is a known class",
            "critical",
            "A label outside the collection's classes has no place in a model's output.",
            "Move these files into a class folder, or take them out of data/, and run ingest again.",
            [("records", gxe.ExpectColumnValuesToBeInSet(column="label", value_set=list(classes)))],
            lambda row: (row["path"], f"label {row['label']}"),
            f"classes: {', '.join(classes)}",
        ),
        Check(
            "classes_present",
            f"Every class has {what}",
            "critical",
            f"A class without {what} cannot be learnt, and every score over classes would be undefined.",
            f"Add {what} of this class to data/; a misspelt class folder shows among the rejected files.",
            [("classes", gxe.ExpectColumnValuesToBeBetween(column="records", min_value=1))],
            lambda row: (row["label"], f"no readable {kind}"),
            ", ".join(f"{row.label} {row.records:,}" for row in table.itertuples()),
            "classes",
        ),
        Check(
            "listed_once",
            "Every file is listed once",
            "critical",
            "A path that stands twice in the manifest would count twice.",
            "The manifest is damaged: run ingest again.",
            [("records", gxe.ExpectColumnValuesToBeUnique(column=name)) for name in ("path", "record")],
            lambda row: (row["path"], f"record {row['record']}"),
            f"{len(records):,} files",
        ),
        *(_voxels(records, limits) if kind == "volume" else _pixels(records, limits)),
        Check(
            "copies_within_class",
            "No file occurs twice in a class",
            "warning",
            "Identical files weigh double. Under the protocol honest one of them takes part and their patients stay"
            " together; under published all take part, as in the original.",
            "Nothing, if the collection is published so. Otherwise remove the copies.",
            [("records", gxe.ExpectCompoundColumnsToBeUnique(column_list=["label", "sha256"]))],
            lambda row: (row["path"], f"same bytes as {row['first']}" if row["first"] else "the first of its copies"),
            f"{int((records['copy_of'] != -1).sum()):,} copies of files that are there already",
        ),
        Check(
            "copies_across_classes",
            "No file stands under two classes",
            "warning",
            f"The same {kind} with two labels: one of them is wrong, and no model can be right on both. Such {what} are left"
            " out of training, validation and test.",
            "Find out which label is right and remove the other file from data/; then run ingest again.",
            [("records", ExpectOneValuePerKey(column_A="sha256", column_B="label"))],
            lambda row: (row["path"], f"{row['label']}; content {row['sha256'][:12]}"),
            f"{int(records['conflict'].sum()):,} files left out",
        ),
        Check(
            "conflicts_left_out",
            "No file of two classes takes part",
            "critical",
            "A file with two labels in training, validation or test teaches a model, or counts against it, what is wrong.",
            "The manifest or the split is damaged: run ingest and split again.",
            [
                ("records", ExpectOneValuePerKey(column_A="sha256", column_B="used_label")),
                ("records", gxe.ExpectColumnValuesToBeNull(column="used_in_conflict")),
            ],
            lambda row: (row["path"], f"{row['label']}; content {row['sha256'][:12]}"),
            f"{int(records['used_label'].notna().sum()):,} files take part",
        ),
        Check(
            "balance",
            "Classes are balanced",
            "warning",
            f"The largest class has more than {limits.max_imbalance:g} times the {what} of another.",
            "Read balanced accuracy rather than accuracy; keep class_weights: balanced.",
            [("classes", gxe.ExpectColumnValuesToBeBetween(column="imbalance", max_value=limits.max_imbalance))],
            lambda row: (row["label"], f"{row['records']:,} {what}: {row['imbalance']:.1f} times fewer than the largest class"),
            f"largest to smallest {table['imbalance'].max():.2f} : 1" if table["imbalance"].notna().any() else "",
            "classes",
        ),
        _published_counts(table, limits.label_tolerance, what),
        _patients_known(records, names_patients, kind),
        Check(
            "rejected",
            "Every file could be used",
            "info",
            f"Files that are no readable {kind} are left out; ingest stops when a class loses more of them than"
            " ingest.max_bad.",
            "Nothing, if these files are expected. Otherwise fetch them again.",
            [("rejected", gxe.ExpectTableRowCountToEqual(value=0))],
            lambda row: (row["path"], row["reason"]),
            f"{len(rejected):,} of {len(records) + len(rejected):,} files left out"
            f" ({len(rejected) / max(1, len(records) + len(rejected)):.1%})",
        ),
        Check(
            "one_fold",
            "Every record is in exactly one fold",
            "critical",
            "A record in no fold is never tested, one in two folds may be trained and tested on; a fold or group that the"
            " manifest does not know comes from another manifest.",
            "The split does not belong to this manifest: run the split again.",
            [
                ("records", gxe.ExpectColumnValuesToBeInSet(column="honest_rows", value_set=[1])),
                ("records", gxe.ExpectColumnValuesToBeInSet(column="published_rows", value_set=[1])),
                ("folds", gxe.ExpectColumnValuesToBeUnique(column="group")),
                ("folds", gxe.ExpectColumnValuesToBeInSet(column="group", value_set=sorted(set(records["group"])))),
                ("folds", gxe.ExpectColumnValuesToBeBetween(column="fold", min_value=0, max_value=folds - 1)),
            ],
            lambda row: (
                (row["path"], f"{row['honest_rows']:.0f} rows in honest.csv, {row['published_rows']:.0f} in published.csv")
                if "path" in row
                else (row["group"], f"fold {row['fold']} in honest.csv")
            ),
            f"{folds} folds",
            "rows",
        ),
        Check(
            "groups_across_splits",
            "No patient is on two sides of a split",
            "critical",
            "A patient, group or file content on both sides of training, validation and test lets a model recognise the person"
            " instead of the disease. Checked for every choice of the test fold.",
            "The split is damaged or was edited: run the split again.",
            [
                ("records", ExpectOneValuePerKey(column_A=key, column_B=f"rotation_{test_fold}"))
                for test_fold in range(folds)
                for key in ("group", "known_patient", "sha256")
            ]
            + [("folds", ExpectOneValuePerKey(column_A="group", column_B="fold"))],
            lambda row: (
                (row["path"], f"group {row['group']}, fold {row['fold']:.0f}")
                if "path" in row
                else (row["group"], f"fold {row['fold']} in honest.csv")
            ),
            f"{groups:,} groups, {folds} choices of the test fold",
        ),
        Check(
            "parts_have_classes",
            "Every part has every class",
            "critical",
            "Without a class in training, validation or test, a score of that part is undefined.",
            "Use fewer folds (split.folds in params.yaml), or add patients of this class.",
            [("honest_parts", gxe.ExpectColumnValuesToBeBetween(column="records", min_value=1))],
            lambda row: (row["part"], f"no record of {row['label']}"),
            f"smallest part of a class: {_least(frames['honest_parts'])} records",
            "parts",
        ),
        Check(
            "published_groups",
            "No patient is on both sides of the published split",
            "warning",
            "The original's split cuts through patients: its score partly measures whether a patient is recognised.",
            "Nothing: it is reproduced on purpose. For the next patient's score, read the protocol honest.",
            [("groups", gxe.ExpectColumnValuesToBeBetween(column="published_sides", max_value=1))],
            lambda row: (
                row["first"] if row["group"].startswith("sha256:") else row["group"],
                f"{row['records']:,} records, some on each side",
            ),
            f"{int((frames['groups']['published_sides'] > 1).sum())} of {groups:,} groups cross it",
            "groups",
        ),
        Check(
            "published_copies",
            "No file is on both sides of the published split",
            "warning",
            f"An identical {kind} to train on and to be scored on.",
            "Nothing: it is reproduced on purpose. Under the protocol honest identical files take part once.",
            [("records", ExpectOneValuePerKey(column_A="sha256", column_B="published_side"))],
            lambda row: (row["path"], f"{row['published_part']}; content {row['sha256'][:12]}"),
        ),
        Check(
            "published_parts",
            "Every part of the published split has every class",
            "warning",
            "With few files the original's split holds out none of a class, and the protocol published cannot be scored.",
            f"Use the protocol honest, or add {what}.",
            [("published_parts", gxe.ExpectColumnValuesToBeBetween(column="records", min_value=1))],
            lambda row: (row["part"], f"no record of {row['label']}"),
            f"smallest part of a class: {_least(frames['published_parts'])} records",
            "parts",
        ),
    ]


def _sides(limits: Validate) -> list[tuple[str, Any]]:
    """What width and height of a picture or of a volume's slices are expected to be, as `imaging.spec.Sides` judges them."""
    return [
        *(
            ("records", gxe.ExpectColumnValuesToBeBetween(column=side, min_value=limits.min_side, max_value=limits.max_side))
            for side in ("width", "height")
        ),
        ("records", gxe.ExpectColumnValuesToBeBetween(column="aspect", max_value=limits.max_aspect)),
    ]


def _pixels(records: pd.DataFrame, limits: Validate) -> list[Check]:
    """Checks of the images' sizes, modes and grey levels."""
    return [
        Check(
            "dimensions",
            "Image sides are in range",
            "critical",
            f"A side below {limits.min_side} or above {limits.max_side} pixels, or one more than {limits.max_aspect:g} times as"
            " long as the other, means another kind of picture.",
            "Take these files out of data/, or move validate.min_side, max_side or max_aspect in params.yaml.",
            _sides(limits),
            lambda row: (row["path"], f"{row['width']} × {row['height']} pixels"),
            _sizes(records),
        ),
        Check(
            "modes",
            "Image modes are known",
            "warning",
            "A pixel mode that is neither Pillow's nor DICOM's may have been read with the wrong grey levels.",
            "Look at these files; convert them to 8-bit grey or RGB if they look wrong.",
            [("records", gxe.ExpectColumnValuesToMatchRegex(column="mode", regex=_MODES))],
            lambda row: (row["path"], f"mode {row['mode']}"),
            _most(records["mode"]),
        ),
        Check(
            "blank",
            "No image is blank",
            "warning",
            f"The grey levels (0-255) of a blank image vary by less than {limits.blank_std:g}; it teaches a model nothing.",
            "Look at these files and take those that are really blank out of data/.",
            [("records", gxe.ExpectColumnValuesToBeBetween(column="std", min_value=limits.blank_std))],
            lambda row: (row["path"], f"standard deviation {row['std']:.2f}, mean {row['mean']:.1f}"),
            f"smallest standard deviation {records['std'].min():.1f}" if len(records) else "",
        ),
    ]


def _voxels(records: pd.DataFrame, limits: Validate) -> list[Check]:
    """Checks of the volumes' sizes and types; their values are in the file's units, so grey levels 0-255 do not apply."""
    return [
        Check(
            "dimensions",
            "Volume sides are in range",
            "critical",
            f"Slices with a side below {limits.min_side} or above {limits.max_side} voxels, or one more than"
            f" {limits.max_aspect:g} times as long as the other, or more than {limits.max_side} slices, mean another kind of"
            " volume.",
            "Take these files out of data/, or move validate.min_side, max_side or max_aspect in params.yaml.",
            [
                *_sides(limits),
                ("records", gxe.ExpectColumnValuesToBeBetween(column="depth", min_value=2, max_value=limits.max_side)),
            ],
            lambda row: (row["path"], f"{row['width']} × {row['height']} × {row['depth']} voxels"),
            _sizes(records, depth=True),
        ),
        Check(
            "modes",
            "Voxel types are known",
            "warning",
            "Voxels of a type that is neither a whole nor a real number may have been read with the wrong values.",
            "Look at these files; write them again as int16 or float32 if they look wrong.",
            [("records", gxe.ExpectColumnValuesToMatchRegex(column="mode", regex=_TYPES))],
            lambda row: (row["path"], f"type {row['mode']}"),
            _most(records["mode"]),
        ),
        Check(
            "blank",
            "No volume is blank",
            "warning",
            "A volume of one value teaches a model nothing.",
            "Look at these files and take those that are really blank out of data/.",
            [("records", gxe.ExpectColumnValuesToBeBetween(column="std", min_value=0, strict_min=True))],
            lambda row: (row["path"], f"standard deviation {row['std']:.2f}, mean {row['mean']:.1f}"),
            f"smallest standard deviation {records['std'].min():.1f} in the files' own units" if len(records) else "",
        ),
    ]


def _patients_known(records: pd.DataFrame, names_patients: bool, kind: str) -> Check:
    """A warning about files without a patient; a statement if the publisher names none, since nothing can be done about it."""
    groups = records["group"].nunique()
    known = records.loc[records["patient"] != "", "patient"].nunique()
    expectations = [("records", gxe.ExpectColumnValuesToNotBeInSet(column="patient", value_set=[""]))] if names_patients else []
    return Check(
        "patients_known",
        f"Every {kind} has a patient",
        "warning" if names_patients else "info",
        f"Where no patient is known each file stands for itself, so {kind}s of one person may land on both sides of a split.",
        "Lay the files out as the collection is published (<class>/Directory_<patient>/<series>/<file>).",
        expectations,
        lambda row: (row["path"], "no patient in its path"),
        f"{known:,} patients, {groups:,} groups"
        if names_patients
        else f"the publisher names no patients: {groups:,} groups of identical files",
    )


def _published_counts(table: pd.DataFrame, tolerance: float, what: str = "images") -> Check:
    """Compares with the collection's published label counts, if they are known and this is that collection."""
    known = table["published"].notna().all() and len(table) > 0
    there, wanted = int(table["records"].sum()), int(table["published"].sum())
    same = known and _SAME_COLLECTION[0] * wanted <= there <= _SAME_COLLECTION[1] * wanted
    observed = "no counts are published"
    if known:
        pairs = zip(table["label"], table["records"], table["published"], strict=True)
        observed = ", ".join(f"{label} {records:,} of {published:,.0f}" for label, records, published in pairs)
        if not same:
            observed = f"not the published collection: {there:,} of {wanted:,} {what}"
    expectations = [("classes", gxe.ExpectColumnValuesToBeBetween(column="deviation", max_value=tolerance))] if same else []
    return Check(
        "published_counts",
        "Label counts are the published ones",
        "warning" if same else "info",
        f"Counts more than {tolerance:.0%} away from the published ones mean missing, added or misfiled {what}.",
        "Compare with the collection's page; download it again if files are missing.",
        expectations,
        lambda row: (
            row["label"],
            f"{row['records']:,} {what}, published {int(row['published']):,} ({row['deviation']:.1%} away)",
        ),
        observed,
        "classes",
    )


def run_checks(checks: Sequence[Check], frames: Frames) -> list[Outcome]:
    """Validates the frames with Great Expectations, one suite a frame, in an ephemeral context; outcomes in the order given."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    source = context.data_sources.add_pandas("cardium")
    found: dict[tuple[int, int], tuple[str, Any]] = {}
    for name, frame in frames.items():
        suite = gx.ExpectationSuite(name=name)
        for number, check in enumerate(checks):
            for place, (of, expectation) in enumerate(check.expectations):
                if of == name:
                    expectation.severity = check.severity
                    expectation.meta = {"check": check.name, "number": number, "place": place}
                    suite.add_expectation(expectation)
        if not suite.expectations:
            continue
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
        # The query would repeat every index as text.
        wanted = {"result_format": "COMPLETE", "return_unexpected_index_query": False}
        for result in batch.validate(suite, result_format=wanted).results:
            meta: dict[str, Any] = result.expectation_config.meta  # type: ignore[union-attr,assignment]
            found[meta["number"], meta["place"]] = (name, result)
    return [
        _outcome(check, [found[number, place] for place in range(len(check.expectations))], frames)
        for number, check in enumerate(checks)
    ]


def _outcome(check: Check, results: Sequence[tuple[str, Any]], frames: Frames) -> Outcome:
    rows: dict[tuple[str, int], None] = {}
    expectations: list[dict[str, Any]] = []
    for name, result in results:
        if not result.result:
            # An expectation that could not be computed comes back as a failure without a result.
            raise RuntimeError(f"{check.name}: Great Expectations could not compute {result.expectation_config.type}: {result}")
        unexpected = result.result.get("unexpected_index_list")
        if unexpected is None:  # An expectation about the table as a whole: every row is what it is about.
            unexpected = [] if result.success else range(len(frames[name]))
        rows.update(dict.fromkeys((name, int(row)) for row in unexpected))
        config = result.expectation_config
        kwargs = {key: value for key, value in config.kwargs.items() if key in _SHOWN}
        counts = {"success": bool(result.success), "unexpected": len(unexpected)}
        expectations.append({"type": config.type, "on": name, **kwargs, **counts})
    described = [check.describe(frames[name].iloc[row]) for name, row in sorted(rows)[:NAMED]]
    return Outcome(check, all(result.success for _, result in results), len(rows), described, expectations)


# The arguments of an expectation that the report shows; the value sets of groups would fill it.
_SHOWN = ("column", "column_A", "column_B", "column_list", "min_value", "max_value", "value", "regex")


def _sizes(records: pd.DataFrame, depth: bool = False) -> str:
    if not len(records):
        return ""
    sizes = records["width"].astype(str) + " × " + records["height"].astype(str)
    if depth:
        sizes = sizes + " × " + records["depth"].astype(str)
    return _most(sizes)


def _most(values: pd.Series) -> str:
    """The three most frequent values with their counts."""
    counts = values.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    shown = ", ".join(f"{value} ({count:,})" for value, count in counts.head(3).items())
    return shown + (f" and {len(counts) - 3} more" if len(counts) > 3 else "")


def _least(parts: pd.DataFrame) -> int:
    return int(parts["records"].min()) if len(parts) else 0
