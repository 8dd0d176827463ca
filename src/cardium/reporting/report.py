"""One dataset's results as a page for people: which model to use and how far to trust it, from files alone.

It reads reports/<dataset>/evaluation and promotion and the run folders, and reports/<dataset>/external, audit and explanations
if they exist. Every figure is an embedded PNG: the page needs no network.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from cardium.atomic import write_json
from cardium.config import Settings
from cardium.data.manifest import read_fingerprint, read_manifest
from cardium.datasets import Collection, get_collection
from cardium.errors import CardiumError
from cardium.evaluation import metrics
from cardium.evaluation.evaluation import CHOSEN, Evaluation, Interval, RunScores
from cardium.evaluation.experiments import with_experiments
from cardium.evaluation.promotion import Promotion
from cardium.evaluation.published import SOURCES
from cardium.evaluation.table import arrays
from cardium.imaging.kinds import family
from cardium.provenance import Provenance, dvc_md5
from cardium.reporting import plots
from cardium.reporting.page import embedded, render
from cardium.runs.predictions import by_patient
from cardium.runs.trained_run import NotTrainedError, TrainedRun
from cardium.workspace import PROTOCOLS, RunId, Workspace, suffix

# Wrong cases that are listed at most.
_WRONG = 30
# Runs whose curves and matrices are shown; the leaderboard has all.
_SHOWN = 3
# Shares of records that are answered, as the page's table has them.
_COVERAGES = (1.0, 0.9, 0.8, 0.5)
_INPUTS = {
    "image": "a picture (JPEG, PNG, DICOM), as the network takes it uint8 {shape}, 0-255, RGB",
    "leads": "an ECG sheet (JPEG, PNG, DICOM), as the network takes it uint8 {shape}, 0-255: its thirteen leads",
    "traces": "an ECG sheet (JPEG, PNG, DICOM), as the network takes it uint8 {shape}: its leads as signals",
    "heart": "all short-axis images of a patient (JPEG, PNG, DICOM), as the network takes them uint8 {shape}: measures",
    "slices": "a volume (NIfTI), as the network takes it uint8 {shape}, 1-255, frames of 0 are padding",
    "volume": "a volume (NIfTI), as the network takes it uint8 {shape}, 1-255, frames of 0 are padding",
}


@dataclass(frozen=True)
class Advice:
    """The page's first lines: which run is served or recommended, and what to expect of it.

    run: "" if none was trained. version: of the served one in the registry, None where none is served.
    served: whether it answers requests: it was promoted. current: whether it is the one that was evaluated last, and not an
    earlier training of the same name. clear: whether the lower end of what to expect is above chance level.
    score, patient_score: what to expect, per record and per patient (evaluation.nested). expected: the one of them that holds
    for the next patient. choices: the number of runs that were chosen from. between_folds: the standard deviation of the
    held-out folds' scores. own: the run's own score, per record. trained_on: what its models were trained on, in words. chance:
    chance level. other: the same model's score under `published`. reason: the promotion's summary, if it is news.
    """

    run: str
    model: str
    version: int | None
    served: bool
    current: bool
    clear: bool
    score: Interval | None
    patient_score: Interval | None
    expected: Interval | None
    choices: int
    between_folds: float | None
    own: Interval | None
    trained_on: str
    chance: float
    records: int
    groups: int
    other: Interval | None
    reason: str
    warnings: list[str]

    @property
    def use(self) -> bool:
        """Whether the run is recommended: it is served, and clear of chance level."""
        return self.served and self.clear

    @property
    def name(self) -> str:
        """The run, with its version where it is served."""
        return f"{self.run} (version {self.version})" if self.version else self.run


def write_page(settings: Settings, dataset: str, folder: Path) -> None:
    """Writes index.html, its figures, and report.json (the page's first lines as data) into `folder`.

    Raises CardiumError if the dataset has not been evaluated or its predictions are missing.
    """
    (folder / "figures").mkdir(parents=True)
    context = page_context(settings, dataset, folder / "figures")
    (folder / "index.html").write_text(render("report.html.j2", **_texts(), **context), encoding="utf-8")
    audit = {key: context["audit"][key] for key in ("headline", "said")} if context["audit"] else None
    content = {key: context[key] for key in ("dataset", "about", "generated", "advice", "data", "reproduce")}
    content["advice"] = {**asdict(context["advice"]), "use": context["advice"].use, "name": context["advice"].name}
    write_json(folder / "report.json", {**content, "said": " ".join(context["said"]).strip(), "audit": audit})


def words(advice: Advice, patients: bool) -> tuple[str, str]:
    """Formats the advice: which run to use, or none; and what to expect of it."""
    if not advice.run:
        return "No model is recommended yet.", "None has been trained under the honest protocol."
    value, chance = _score_text(advice.expected), f"chance level is {advice.chance:.3f}"
    whose = f"The score is of models trained on {advice.trained_on}" if advice.trained_on else "The score is out of fold"
    if advice.choices > 1:
        whose += f", chosen by validation among {advice.choices} runs for each held-out fold"
    whose += "; a model trained on more of the data should do no worse."
    if advice.between_folds is not None:
        whose += f" Held-out folds differ by {advice.between_folds:.3f} (standard deviation)."
    whom = "patient" if patients else "record of this collection"
    if not advice.served:
        chosen = f"Validation chooses {advice.run}, with a balanced accuracy of {value}{' by patient' if patients else ''}"
        return "No model is recommended yet.", f"{chosen}; {chance}. {whose}"
    if advice.expected is None:
        return f"{advice.name} is served.", "What to expect of it was not recorded when it was promoted: promote it again."
    expected = f"For the next {whom}, expect a balanced accuracy of {value}"
    if not advice.clear:
        return (
            f"{advice.name} is served, but its score cannot be told from chance level.",
            f"{expected}: the interval includes chance level, {advice.chance:.3f}. {whose}",
        )
    return f"Use {advice.name}.", f"{expected}; {chance}. {whose}"


def index_page(settings: Settings) -> str:
    """Renders reports/index.html, which links every dataset's page that exists and is not being made anew just now."""
    rows = []
    for dataset in settings.active:
        page = Workspace(settings.root).report(dataset) / "index.html"
        if not page.is_file():
            continue
        with contextlib.suppress(CardiumError):  # Evaluated again at this moment: its own report follows.
            evaluation = _read_evaluation(settings, dataset)
            advice, generated = _advice(settings, evaluation), evaluation.data.generated
            row = {"dataset": dataset, "about": get_collection(dataset).about(generated), "generated": generated}
            rows.append({**row, "advice": advice, "said": words(advice, evaluation.patients), "patients": evaluation.patients})
    return render("report_index.html.j2", **_texts(), rows=rows, active=settings.active)


def page_context(settings: Settings, dataset: str, figures: Path) -> dict[str, Any]:
    """Collects everything that the template shows; figures of the page's own are drawn into the folder `figures`."""
    workspace = Workspace(settings.root)
    evaluation = _read_evaluation(settings, dataset)
    fingerprint = read_fingerprint(workspace.manifest(dataset))
    advice = _advice(settings, evaluation)
    collection = get_collection(dataset)
    shown = _runs_to_show(evaluation, advice.run)
    # Of an earlier training that is served still, the evaluation has no row.
    details = advice.run if advice.current else next(iter(shown), "")
    curves = {name: _coverage_curve(workspace, evaluation, name) for name in shown}
    plots.coverage([(name, *curve) for name, curve in curves.items()], figures / "coverage.png")
    folder = workspace.evaluation(dataset)
    trained = _read_run(workspace, evaluation, advice.run) if advice.current else None
    made = trained.provenance if trained else Provenance("", False, {}, "")
    return {
        "dataset": dataset,
        "about": collection.about(bool(fingerprint.get("generated"))),
        "generated": bool(fingerprint.get("generated")),
        "said": words(advice, evaluation.patients),
        "classes": evaluation.classes,
        "advice": advice,
        "blocks": _leaderboard_blocks(with_experiments(settings, evaluation)),
        "picture_of_leaderboard": embedded(folder / "leaderboard.png"),
        "interval": f"{evaluation.interval:.0%}",
        "served_as_scored": evaluation.served_as_scored(),
        "patients": evaluation.patients,
        "source": SOURCES.get(dataset, ""),
        "details": details,
        "wrong": _wrong_cases(workspace, evaluation, details),
        "per_class": _per_class(evaluation, details),
        "balance": _sensitivity(evaluation, details if advice.current else ""),
        "runs": [
            {
                "name": name,
                "curves": embedded(_run_folder(workspace, evaluation, name) / "history.png"),
                "confusion": embedded(folder / "figures" / f"confusion-{name}.png"),
                "reliability": embedded(folder / "figures" / f"reliability-{name}.png"),
            }
            for name in shown
        ],
        "roc": [
            {"name": protocol, "figure": embedded(folder / "figures" / f"roc{suffix(protocol)}.png")} for protocol in PROTOCOLS
        ],
        "coverage": embedded(figures / "coverage.png"),
        "coverages": [
            {"name": name, "accuracy": [_at(curve, share) for share in _COVERAGES]} for name, curve in curves.items()
        ],
        "shares": [f"{share:.0%}" for share in _COVERAGES],
        "sets": evaluation.runs[details].sets if details else None,
        "calibration": _calibration(evaluation.runs.get(details)),
        "external": _external(workspace, dataset),
        "audit": _audit(workspace, dataset, "patients" if evaluation.patients else "groups"),
        "galleries": _galleries(workspace, dataset, advice.run),
        "card": _card(trained, fingerprint, collection) if trained else {},
        "data": {
            "records": fingerprint["records"],
            "groups": fingerprint["groups"],
            "copies": fingerprint["copies"],
            "conflicts": len(fingerprint["conflicts"]),
            "rejected": fingerprint["rejected"]["total"],
            "counts": fingerprint["counts"],
        },
        "reproduce": {
            "commit": made.commit,
            "dirty": made.dirty,
            "data": dvc_md5(settings.root) or "untracked",
            "manifest": evaluation.data.manifest_sha256,
            "split": evaluation.data.split_sha256,
            "profile": settings.profile,
            "created": made.created,
            "versions": made.versions,
        },
    }


def _read_evaluation(settings: Settings, dataset: str) -> Evaluation:
    return Evaluation.read(Workspace(settings.root).evaluation(dataset), dataset)


def _advice(settings: Settings, evaluation: Evaluation) -> Advice:
    """Takes the version that is served; without one, the honest run that was put forward or has the best validation score."""
    promotion = Promotion.read(Workspace(settings.root).promotion(evaluation.dataset))
    served = promotion.serving if promotion else None
    challenger = promotion.challenger.run if promotion and promotion.challenger else ""
    run = served.run if served else challenger
    if not served and run not in evaluation.runs:
        honest = [row for row in evaluation.runs.values() if row.protocol == "honest" and row.is_run]
        best = max(honest, key=lambda row: row.validation_balanced_accuracy or 0.0, default=None)
        run = best.name if best else ""
    row = evaluation.runs.get(run)
    current = row is not None and (not served or row.run_id == served.run_id)
    row = row if current else None
    chosen = evaluation.runs.get(CHOSEN, row)
    score = chosen.balanced_accuracy if chosen else None
    patient_score = chosen.patient.get("balanced_accuracy") if chosen else None
    choices = sum(one.is_run and one.protocol == "honest" for one in evaluation.runs.values())
    if served and served.expected:
        score, patient_score, choices = served.expected.record, served.expected.group, served.expected.candidates
    elif served and not current:
        score = patient_score = None  # The evaluation is of another training.
    expected = patient_score if evaluation.patients else score
    chance = 1 / len(evaluation.classes)
    twin = evaluation.runs.get(RunId(evaluation.dataset, row.model, "published").name) if row else None
    trained = _read_run(Workspace(settings.root), evaluation, run) if current else None
    unchanged = promotion is not None and promotion.challenger and served and promotion.challenger.run_id == served.run_id
    return Advice(
        run=run,
        model=RunId.parse(run).model if run else "",
        version=served.version if served else None,
        served=served is not None,
        current=current,
        clear=expected is not None and (expected.low or 0.0) > chance,
        score=score,
        patient_score=patient_score,
        expected=expected,
        choices=choices,
        between_folds=chosen.between_folds if chosen and current else None,
        own=row.balanced_accuracy if row else None,
        trained_on=f"{trained.folds - 2} of {trained.folds} folds" if trained and trained.folds else "",
        chance=chance,
        records=row.records if row else 0,
        groups=row.groups if row else 0,
        other=twin.balanced_accuracy if twin else None,
        # What is served was put forward: nothing that a reader has to know, but of how it became so.
        reason=promotion.summary if promotion and not (unchanged and promotion.action != "promoted") else "",
        warnings=row.warnings if row else [],
    )


def _best_first(rows: Iterable[RunScores]) -> list[RunScores]:
    return sorted(rows, key=lambda row: -(row.balanced_accuracy.value or 0.0))


def _runs_to_show(evaluation: Evaluation, first: str) -> list[str]:
    """Chooses the advised run, then the best others under `honest`, or under `published` if there are none."""
    runs = [row for row in evaluation.runs.values() if row.is_run]
    own = _best_first([row for row in runs if row.protocol == "honest"] or runs)
    names = [row.name for row in runs]
    return list(dict.fromkeys(([first] if first in names else []) + [row.name for row in own]))[:_SHOWN]


def _coverage_curve(workspace: Workspace, evaluation: Evaluation, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Computes the shares of records answered and the accuracy on them, if the least certain are referred."""
    import pandas as pd

    path = workspace.evaluation(evaluation.dataset) / "predictions" / f"{name}.parquet"
    if not path.is_file():
        raise CardiumError(f"The test predictions of {name} are missing: run `dvc repro -f evaluate@{evaluation.dataset}`.")
    labels, probabilities, _ = arrays(pd.read_parquet(path), evaluation.classes)
    return metrics.coverage_curve(labels, probabilities, evaluation.threshold)


def _leaderboard_blocks(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Groups the leaderboard by protocol, best first."""
    blocks = []
    for protocol in PROTOCOLS:
        rows = _best_first(row for row in evaluation.runs.values() if row.protocol == protocol)
        if rows:
            blocks.append({"protocol": protocol, "rows": rows, "chosen_on_test": any(row.chosen_on_test for row in rows)})
    return blocks


def _per_class(evaluation: Evaluation, run: str) -> list[dict[str, Any]]:
    """Lists precision, recall and F1 of every class and their means, with intervals, and how many of a class there are.

    Of patients where they are known, otherwise of records.
    """
    row = evaluation.runs.get(run)
    if row is None:
        return []
    found, matrix = (row.patient, row.patient_confusion) if evaluation.patients else (row.image, row.confusion)
    support = [sum(cells) for cells in matrix or row.confusion]
    lines = [(name, name, count) for name, count in zip(evaluation.classes, support, strict=True)]
    lines += [("mean", "macro", sum(support)), ("weighted mean", "weighted", sum(support))]
    return [
        {
            "name": shown,
            "records": count,
            "scores": [found.get(f"{metric}_{key}") for metric in ("precision", "recall", "f1")],
        }
        for shown, key, count in lines
    ]


def _wrong_cases(workspace: Workspace, evaluation: Evaluation, run: str) -> dict[str, Any]:
    """Lists the test cases that a run decides wrongly, the surest first: patients where they are known; {} for none.

    Each with a link from the page to its (first) file in data/.
    """
    import pandas as pd

    path = workspace.evaluation(evaluation.dataset) / "predictions" / f"{run}.parquet"
    if not path.is_file():
        return {}
    table = pd.read_parquet(path)
    if evaluation.patients:
        table = by_patient(table, evaluation.classes)
    labels, probabilities, groups = arrays(table, evaluation.classes)
    decided = metrics.decide(probabilities, evaluation.threshold)
    order = [int(at) for at in np.argsort(-probabilities.max(axis=1), kind="stable") if decided[at] != labels[at]]
    by_group, by_record = _files(workspace, evaluation.dataset)
    rows = []
    for at in order[:_WRONG]:
        # A record of a model of whole patients is none of the manifest's: patients go by their name.
        record, key = int(table["record"].iloc[at]), (groups[at], evaluation.classes[labels[at]])
        file = by_group.get(key, "") if evaluation.patients else by_record.get(record, "")
        rows.append(
            {
                "name": groups[at] if evaluation.patients else file.rpartition("/")[2] or str(record),
                "file": quote(f"../../../data/{evaluation.dataset}/{file}") if file else "",
                "reference": evaluation.classes[labels[at]],
                "predicted": evaluation.classes[int(decided[at])],
                "probability": float(probabilities[at].max()),
            }
        )
    return {"rows": rows, "total": len(order), "of": len(table)} if order else {}


def _files(workspace: Workspace, dataset: str) -> tuple[dict[tuple[str, str], str], dict[int, str]]:
    """Paths below a dataset's folder in data/: the first by group and label, and each by record; none without a manifest."""
    try:
        manifest = read_manifest(workspace.manifest(dataset))
    except CardiumError:
        return {}, {}
    paths = manifest["path"].astype(str)
    firsts = manifest.drop_duplicates(["group", "label"])
    by_group = dict(zip(zip(firsts["group"], firsts["label"], strict=True), paths[firsts.index], strict=True))
    return by_group, dict(enumerate(paths))


def _sensitivity(evaluation: Evaluation, run: str) -> list[dict[str, Any]]:
    """Sensitivity and specificity of a run of two classes, the second of which is the finding: [{name, score}]; or []."""
    row = evaluation.runs.get(run)
    if row is None or len(evaluation.classes) != 2:
        return []
    found, (without, finding) = row.patient if evaluation.patients else row.image, evaluation.classes
    lines = ((f"Sensitivity: {finding} recognized", finding), (f"Specificity: {without} recognized", without))
    return [{"name": name, "score": found[f"recall_{key}"]} for name, key in lines if f"recall_{key}" in found]


def _calibration(row: RunScores | None) -> str:
    """Says how far the advised run's probabilities are from the shares that they promise, before and after scaling."""
    error = row.image.get("calibration_error") if row else None
    if row is None or error is None or error.value is None or row.calibration_error_before is None:
        return ""
    return (
        f"Expected calibration error of {row.name} on test records: {error.value:.3f}, "
        f"{row.calibration_error_before:.3f} before its logits were scaled on validation"
    )


def _at(curve: tuple[np.ndarray, np.ndarray], share: float) -> float | None:
    """Returns the accuracy at which at least `share` of the records is answered."""
    answered, accuracy = curve
    there = np.flatnonzero(answered >= share - 1e-9)
    return float(accuracy[there[0]]) if len(there) else None


def _external(workspace: Workspace, dataset: str) -> list[dict[str, Any]]:
    """Lists the scores on other collections: name, number of records, and the runs, best first."""
    found = []
    for path in sorted((workspace.root / "reports" / dataset / "external").glob("*/external.json")):
        evaluation = Evaluation.from_json(_json(path))
        assert evaluation.external is not None
        records = sum(evaluation.external.records.values())
        found.append({"name": path.parent.name, "records": records, "rows": _best_first(evaluation.runs.values())})
    return found


def _audit(workspace: Workspace, dataset: str, units: str) -> dict[str, Any]:
    """Reads the audit's verdict, and what its leaks are to the page's own scores; {} if there was no audit.

    units: what the honest protocol keeps apart.
    """
    folder = workspace.audit(dataset)
    found = _json(folder / "audit.json")
    if not found:
        return {}
    verdict = found["verdict"]
    reaching = [leak for leak in found.get("leaks", []) if leak["name"] == "across_groups"]
    untouched = f"The scores on this page are not affected: {units} are kept apart, and copies are counted once."
    if reaching:
        untouched = f"{reaching[0]['count']:,} of these copies lie in different groups, and raise the scores on this page too."
    return {
        "untouched": untouched,
        "verdict": verdict["verdict"],
        "headline": verdict["headline"],
        "said": verdict["said"],
        "scores": embedded(folder / "figures" / "scores.png"),
        "page": "../audit/audit.html" if (folder / "audit.html").is_file() else "",
    }


def _galleries(workspace: Workspace, dataset: str, first: str) -> list[dict[str, Any]]:
    """Lists the explanations' galleries: a figure per run and method, and the tests of that method on that run; the run `first`
    first."""
    folder = workspace.root / "reports" / dataset / "explanations"
    return [
        {
            "name": path.relative_to(folder).parent.as_posix().replace("/", ", "),
            "figure": embedded(path),
            "tested": _tested(_json(path.parent / "faithfulness.json").get("methods", {}), path.parent.name),
        }
        for path in sorted(folder.rglob("*.png"), key=lambda path: (path.relative_to(folder).parts[0] != first, path))
        if path.stem.startswith("gallery")
    ]


def _tested(methods: Mapping[str, Mapping[str, float]], method: str) -> str:
    """Describes deletion and insertion of `method` beside random places; "" if they were not measured."""
    own, chance = methods.get(method, {}), methods.get("random", {})
    if not {"deletion", "insertion"} <= own.keys() & chance.keys():
        return ""
    emptied, shown = (f"{own[name]:.2f} (places at random: {chance[name]:.2f})" for name in ("deletion", "insertion"))
    found = f"Mean probability while what it points at is emptied: {emptied}; while only that is shown: {shown}."
    if own["deletion"] < chance["deletion"] and own["insertion"] > chance["insertion"]:
        return found
    return f"{found} That is not better than random places in both: do not rely on this picture."


def _card(run: TrainedRun, fingerprint: Mapping[str, Any], collection: Collection) -> dict[str, Any]:
    """Builds the model card of the advised run."""
    sides, form = [run.size.height, run.size.width], family(run.rendering)
    shape = {"image": [*sides, 3], "leads": [13, *sides], "traces": sides, "heart": sides}.get(form, [run.size.frames, *sides])
    return {
        "run": run.name,
        "input": _INPUTS[form].format(shape=tuple(shape)),
        "parameters": run.parameters,
        "bytes": run.model_bytes,
        "weights": run.weights.used,
        "licence": collection.licence,
        "page": collection.page,
        "patients_named": fingerprint.get("names_patients", True),
        "test_folds": len(run.test_folds),
        "engine": run.engine,
        "served_by": run.served_by,
    }


def _read_run(workspace: Workspace, evaluation: Evaluation, run: str) -> TrainedRun | None:
    """Reads the advised run; None if there is none or its folder is gone."""
    if run not in evaluation.runs:
        return None
    try:
        return TrainedRun.read(_run_folder(workspace, evaluation, run))
    except NotTrainedError:
        return None


def _run_folder(workspace: Workspace, evaluation: Evaluation, run: str) -> Path:
    row = evaluation.runs[run]
    return workspace.run(RunId(evaluation.dataset, row.model, row.protocol))


def _json(path: Path) -> dict[str, Any]:
    """Reads a JSON file; {} if there is none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError):
        raise CardiumError(f"{path.parent.name}/{path.name} is damaged: make it again.") from None


def _texts() -> dict[str, Any]:
    """Returns the functions with which templates write scores and numbers."""
    return {"score_text": _score_text, "number_text": lambda value: "-" if value is None else f"{value:.3f}"}


def _score_text(score: Interval | None) -> str:
    return score.text if score else "-"
