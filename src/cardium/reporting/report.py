"""One dataset's results as a page for people: what to use and how far to trust it; from the files of the other verbs alone.

Read are reports/<dataset>/evaluation and promotion, the run folders, and, where they are, reports/<dataset>/external,
audit and explanations. Every figure is a PNG that plots.py has drawn, embedded: the page needs no network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cardium import provenance
from cardium.atomic import write_json
from cardium.config import Settings
from cardium.data.manifest import read_fingerprint
from cardium.datasets import get_collection
from cardium.errors import CardiumError
from cardium.evaluation import metrics
from cardium.evaluation.published import SOURCES
from cardium.imaging.kinds import family
from cardium.reporting import plots
from cardium.reporting.page import embedded, render
from cardium.runs.predictions import probability_columns, read_evaluation
from cardium.workspace import RunId, Workspace, run_name, suffix

# Runs whose curves and matrices are shown; the leaderboard has all.
_SHOWN = 3
# Shares of records that are answered, as the page's table has them.
_COVERAGES = (1.0, 0.9, 0.8, 0.5)
_INPUTS = {
    "image": "a picture (JPEG, PNG, DICOM), as the network takes it uint8 {shape}, 0-255, RGB",
    "leads": "an ECG sheet (JPEG, PNG, DICOM), as the network takes it uint8 {shape}, 0-255: its thirteen leads",
    "traces": "an ECG sheet (JPEG, PNG, DICOM), as the network takes it uint8 {shape}: its leads as signals",
    "slices": "a volume (NIfTI), as the network takes it uint8 {shape}, 1-255, frames of 0 are padding",
    "volume": "a volume (NIfTI), as the network takes it uint8 {shape}, 1-255, frames of 0 are padding",
}


def write_page(settings: Settings, dataset: str, folder: Path) -> None:
    """index.html, what is drawn for it, and report.json (the page's first lines as data), into `folder`.

    Raises CardiumError where the dataset has not been evaluated or its runs are gone.
    """
    (folder / "figures").mkdir(parents=True)
    context = page_context(settings, dataset, folder / "figures")
    (folder / "index.html").write_text(render("report.html.j2", **_texts(), **context), encoding="utf-8")
    audit = {key: context["audit"][key] for key in ("headline", "said")} if context["audit"] else None
    told = {key: context[key] for key in ("dataset", "advice", "data", "reproduce")}
    write_json(folder / "report.json", {**told, "said": " ".join(context["said"]).strip(), "audit": audit})


def words(advice: Mapping[str, Any], patients: bool) -> tuple[str, str]:
    """The advice as text: which run to use, or none; and what to expect of it."""
    if not advice["run"]:
        return "No model has been trained under the honest protocol yet.", ""
    value, guessing = metrics.score_text(advice["score"]), f"guessing has {advice['chance']:.3f}"
    if not advice["use"]:
        chosen = f"The best one that validation chose, {advice['run']}, has a balanced accuracy of {value}"
        return "Use none of these models yet.", f"{chosen}; {guessing}."
    whom = "patient" if patients else "record of this collection"
    return f"Use {advice['run']}.", f"For the next {whom} expect a balanced accuracy of {value}; {guessing}."


def index_page(settings: Settings) -> str:
    """The page that leads to every dataset's, for reports/index.html; rows for those that have one."""
    rows = []
    for dataset in settings.active:
        page = Workspace(settings.root).report(dataset) / "index.html"
        if page.is_file():
            table = read_evaluation(settings, dataset)
            rows.append({"dataset": dataset, "title": get_collection(dataset).title, **_advice(settings, dataset, table)})
    return render("report_index.html.j2", **_texts(), rows=rows, active=settings.active)


def page_context(settings: Settings, dataset: str, figures: Path) -> dict[str, Any]:
    """All that the page says, as the template takes it; figures of its own are drawn into the folder `figures`."""
    workspace = Workspace(settings.root)
    table = read_evaluation(settings, dataset)
    fingerprint = read_fingerprint(workspace.manifest(dataset))
    advice = _advice(settings, dataset, table)
    patients = table.get("patients", True)
    collection = get_collection(dataset)
    shown = _runs_to_show(table, advice["run"])
    tables = {name: _predictions(workspace, dataset, name) for name in shown}
    curves = {
        name: metrics.coverage_curve(
            frame["label"].to_numpy(), frame[probability_columns(table["classes"])].to_numpy(), table["threshold"]
        )
        for name, frame in tables.items()
    }
    plots.coverage([(name, *curve) for name, curve in curves.items()], figures / "coverage.png")
    evaluation = workspace.evaluation(dataset)
    info = _run_info(settings, table, advice["run"])
    return {
        "dataset": dataset,
        "title": collection.title,
        "said": words(advice, patients),
        "classes": table["classes"],
        "advice": advice,
        "blocks": _leaderboard_blocks(table),
        "picture_of_leaderboard": embedded(evaluation / "leaderboard.png"),
        "interval": f"{table['interval']:.0%}",
        "bootstrap": table["bootstrap"],
        "patients": patients,
        "source": SOURCES.get(dataset, ""),
        "per_class": _per_class(table, advice["run"]),
        "runs": [
            {
                "name": name,
                "curves": embedded(_folder(settings, table["runs"][name], dataset) / "history.png"),
                "confusion": embedded(evaluation / "figures" / f"confusion-{name}.png"),
                "reliability": embedded(evaluation / "figures" / f"reliability-{name}.png"),
            }
            for name in shown
        ],
        "roc": [
            {"name": protocol, "figure": embedded(evaluation / "figures" / f"roc{suffix(protocol)}.png")}
            for protocol in ("honest", "published")
        ],
        "coverage": embedded(figures / "coverage.png"),
        "coverages": [
            {"name": name, "accuracy": [_at(curve, share) for share in _COVERAGES]} for name, curve in curves.items()
        ],
        "shares": [f"{share:.0%}" for share in _COVERAGES],
        "external": _external(workspace, dataset),
        "audit": _audit(workspace, dataset),
        "galleries": _galleries(workspace, dataset),
        "card": _card(info, fingerprint, collection.licence, collection.page),
        "data": {
            "records": fingerprint["records"],
            "groups": fingerprint["groups"],
            "copies": fingerprint["copies"],
            "conflicts": len(fingerprint["conflicts"]),
            "rejected": fingerprint["rejected"]["total"],
            "counts": fingerprint["counts"],
        },
        "reproduce": {
            "commit": info.get("commit", ""),
            "dirty": info.get("dirty", False),
            "data": provenance.dvc_md5(settings.root) or "untracked",
            "manifest": table["data"]["manifest_sha256"],
            "split": table["data"]["split_sha256"],
            "profile": settings.profile,
            "created": info.get("created", ""),
            "versions": info.get("versions", {}),
        },
    }


def _advice(settings: Settings, dataset: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """Which run to use, whether it is to be used at all, and what it scores: the page's first lines.

    The promotion decides where there is one; without, the honest run that validation chose. run: "" where none was trained.
    """
    promotion = _json(Workspace(settings.root).promotion(dataset) / "promotion.json")
    challenger, champion = promotion.get("challenger") or {}, promotion.get("champion") or {}
    honest = {name: row for name, row in table["runs"].items() if row["protocol"] == "honest" and row["kind"] != "naive"}
    newly = promotion.get("action") == "promoted"
    promoted = newly or bool(champion)
    named = challenger if newly or not champion else champion
    defended = bool(champion) and not newly and challenger.get("run") == champion.get("run")
    run = named.get("run", "")
    if run not in table["runs"]:
        run = max(honest, key=lambda name: honest[name]["validation_balanced_accuracy"] or 0.0, default="")
    row = table["runs"].get(run, {})
    score = row.get("image", {}).get("balanced_accuracy")
    return {
        "run": run,
        "model": row.get("model", ""),
        "use": promoted,
        "score": score,
        "patient_score": row.get("patient", {}).get("balanced_accuracy"),
        "chance": 1 / len(table["classes"]),
        "records": row.get("records", 0),
        "groups": row.get("groups", 0),
        "other": _twin_score(table, dataset, row),
        # A champion that challenges itself is "not promoted": nothing that a reader has to know.
        "reason": "" if defended else promotion.get("summary", ""),
        "warnings": row.get("warnings", []),
    }


def _twin_score(table: Mapping[str, Any], dataset: str, row: Mapping[str, Any]) -> Mapping[str, float] | None:
    """The same model's score under `published`, where it was run."""
    twin = table["runs"].get(run_name(dataset, row.get("model", ""), "published"))
    return twin["image"]["balanced_accuracy"] if twin else None


def _runs_to_show(table: Mapping[str, Any], first: str) -> list[str]:
    """The advised run, then the best others under `honest`; without any, the best under `published`."""
    runs = {name: row for name, row in table["runs"].items() if row["kind"] != "naive"}
    own = [name for name, row in runs.items() if row["protocol"] == "honest"] or list(runs)
    own.sort(key=lambda name: -runs[name]["image"]["balanced_accuracy"]["value"])
    return list(dict.fromkeys(([first] if first in runs else []) + own))[:_SHOWN]


def _predictions(workspace: Workspace, dataset: str, name: str) -> Any:
    import pandas as pd

    path = workspace.evaluation(dataset) / "predictions" / f"{name}.parquet"
    if not path.is_file():
        raise CardiumError(f"The test predictions of {name} are missing: run `dvc repro -f evaluate@{dataset}`.")
    return pd.read_parquet(path)


def _leaderboard_blocks(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The leaderboard by protocol, best first."""
    blocks = []
    for protocol in ("honest", "published"):
        rows = [{"name": name, **row} for name, row in table["runs"].items() if row["protocol"] == protocol]
        rows.sort(key=lambda row: -row["image"]["balanced_accuracy"]["value"])
        if rows:
            blocks.append(
                {"protocol": protocol, "rows": rows, "chosen_on_test": any(row.get("chosen_on_test") for row in rows)}
            )
    return blocks


def _per_class(table: Mapping[str, Any], run: str) -> list[dict[str, Any]]:
    """Precision, recall and F1 of every class and their means, each with its interval; the true records of the class."""
    if run not in table["runs"]:
        return []
    row = table["runs"][run]
    support = [sum(cells) for cells in row["confusion"]]
    lines = [(name, name, count) for name, count in zip(table["classes"], support, strict=True)]
    lines += [("mean", "macro", sum(support)), ("weighted mean", "weighted", sum(support))]
    return [
        {
            "name": shown,
            "records": count,
            "scores": [row["image"].get(f"{metric}_{key}") for metric in ("precision", "recall", "f1")],
        }
        for shown, key, count in lines
    ]


def _at(curve: tuple[np.ndarray, np.ndarray], share: float) -> float | None:
    """The accuracy where at least `share` of the records is answered."""
    answered, accuracy = curve
    there = np.flatnonzero(answered >= share - 1e-9)
    return float(accuracy[there[0]]) if len(there) else None


def _external(workspace: Workspace, dataset: str) -> list[dict[str, Any]]:
    """Scores on other collections: name, records, and the runs, best first."""
    found = []
    for path in sorted((workspace.root / "reports" / dataset / "external").glob("*/external.json")):
        table = _json(path)
        rows = [{"name": name, **row["image"]["balanced_accuracy"]} for name, row in table.get("runs", {}).items()]
        rows.sort(key=lambda row: -row["value"])
        found.append({"name": path.parent.name, "records": sum(table["external"]["records"].values()), "rows": rows})
    return found


def _audit(workspace: Workspace, dataset: str) -> dict[str, Any]:
    """The audit's verdict in its own words; empty where none was made."""
    folder = workspace.audit(dataset)
    found = _json(folder / "audit.json")
    if not found:
        return {}
    verdict = found["verdict"]
    return {
        "verdict": verdict["verdict"],
        "headline": verdict["headline"],
        "said": verdict["said"],
        "scores": embedded(folder / "figures" / "scores.png"),
        "page": "../audit/audit.html" if (folder / "audit.html").is_file() else "",
    }


def _galleries(workspace: Workspace, dataset: str) -> list[dict[str, str]]:
    """The explanations' galleries: one figure a run and method, and what the tests of that method on that run say of it."""
    folder = workspace.root / "reports" / dataset / "explanations"
    return [
        {
            "name": path.relative_to(folder).parent.as_posix().replace("/", ", "),
            "figure": embedded(path),
            "tested": _tested(_json(path.parent / "faithfulness.json").get("methods", {}), path.parent.name),
        }
        for path in sorted(folder.rglob("*.png"))
        if path.stem.startswith("gallery")
    ]


def _tested(methods: Mapping[str, Mapping[str, float]], method: str) -> str:
    """The deletion and insertion of `method` beside those of places at random, in words; "" where they were not measured."""
    own, chance = methods.get(method, {}), methods.get("random", {})
    if not {"deletion", "insertion"} <= own.keys() & chance.keys():
        return ""
    emptied, shown = (f"{own[name]:.2f} (places at random: {chance[name]:.2f})" for name in ("deletion", "insertion"))
    found = f"Mean probability while what it points at is emptied: {emptied}; while only that is shown: {shown}."
    if own["deletion"] < chance["deletion"] and own["insertion"] > chance["insertion"]:
        return found
    return f"{found} That is not better than random places in both: do not rely on this picture."


def _card(info: Mapping[str, Any], fingerprint: Mapping[str, Any], licence: str, page: str) -> dict[str, Any]:
    """The model card of the advised run; empty where there is none."""
    if not info:
        return {}
    rendering = dict(info["rendering"])
    kind = rendering.pop("kind")
    sides = [rendering[side] for side in ("height", "width")]
    form = family(kind)
    shape = {"image": [*sides, 3], "leads": [13, *sides], "traces": sides}.get(form, [rendering.get("frames", 0), *sides])
    return {
        "run": info["run"],
        "input": _INPUTS[form].format(shape=tuple(shape)),
        "parameters": info.get("parameters"),
        "bytes": info.get("model_bytes"),
        "weights": info["weights"].get("used", ""),
        "licence": licence,
        "page": page,
        "patients_named": fingerprint.get("names_patients", True),
        "test_folds": len(info["test_folds"]),
        "engine": info.get("engine", ""),
    }


def _run_info(settings: Settings, table: Mapping[str, Any], run: str) -> dict[str, Any]:
    if run not in table["runs"]:
        return {}
    return _json(_folder(settings, table["runs"][run], table["dataset"]) / "run.json")


def _folder(settings: Settings, row: Mapping[str, Any], dataset: str) -> Path:
    return Workspace(settings.root).run(RunId(dataset, row["model"], row["protocol"]))


def _json(path: Path) -> dict[str, Any]:
    """A JSON file's table; {} where there is none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError):
        raise CardiumError(f"{path.parent.name}/{path.name} is damaged: make it again.") from None


def _texts() -> dict[str, Any]:
    """What the templates write scores and numbers with."""
    return {"score_text": metrics.score_text, "number_text": lambda value: "-" if value is None else f"{value:.3f}"}
