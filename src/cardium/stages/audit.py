"""data + manifest -> reports/<dataset>/audit/: how much of a score on this dataset is real, asked before anyone trains.

    audit.json             every figure: copies, leaks, optimism, shortcuts, label issues, the verdict
    audit.html             the same as one page, self-contained
    figures/scores.png     the probe with files at random and with groups apart, and every shortcut, against chance
    figures/copies.png, label_issues.png    galleries, where there is something to show

It looks at all records, those of the test fold too: it scores data, by a probe that is thrown away, and chooses no model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cardium.atomic import replacing_folder, write_json, write_text
from cardium.audit import duplicates, verdict
from cardium.audit.encoder import Encoder, open_encoder
from cardium.audit.label_issues import Issue, find_label_issues
from cardium.audit.optimism import Optimism, measure_optimism
from cardium.audit.shortcuts import Shortcut, Tested, known_of_files, measure_shortcuts
from cardium.audit.survey import SIDE, Work, border_only, survey
from cardium.config import Settings
from cardium.data.manifest import read_fingerprint, read_manifest
from cardium.imaging.decode import decode
from cardium.reporting import plots
from cardium.reporting.page import embedded_photograph, render
from cardium.workspace import Workspace

# Slices of a volume that stand for it where volumes are compared, and where only their border is looked at.
_SLICES = 8
# Pairs and records that audit.json names; the page shows fewer.
_NAMED, _SHOWN = 500, 8
# Longest side of a picture on the page, in pixels.
_THUMBNAIL = 320

Pictures = NDArray[np.uint8]


def run(settings: Settings, item: str) -> None:
    """Audits dataset `item`. A leak is no error here: `cardium audit --strict` makes one of it."""
    space = Workspace(settings.root)
    manifest = read_manifest(space.manifest(item))
    fingerprint = read_fingerprint(space.manifest(item))
    volumes = fingerprint["kind"] == "volume"
    sheets = not volumes and settings.datasets[item].render["image"].area == "paper"
    classes: list[str] = fingerprint["classes"]

    encoder = open_encoder(settings, item, manifest, volumes)
    probed = choose_records(manifest, settings.audit.records, settings.seed)
    once = probed & ~manifest["sha256"].where(pd.Series(probed)).duplicated().to_numpy()
    found = _survey(settings, item, manifest, encoder, once, volumes, sheets)
    content = [found.content[name] for name in manifest["sha256"]]
    copies = audit_copies(manifest, content, found, encoder, sheets)

    labels = manifest["label"].map({name: number for number, name in enumerate(classes)}).to_numpy(dtype=np.int64)
    groups = manifest["group"].tolist()
    options = settings.audit
    optimism = measure_optimism(
        encoder.vectors[probed],
        labels[probed],
        [groups[record] for record in np.flatnonzero(probed)],
        once[probed],
        classes,
        options.folds,
        options.repeats,
        settings.evaluate.bootstrap,
        settings.seed,
    )
    encoding = np.array([found.encoding[name] for name in manifest["sha256"]], dtype=np.float32)
    shortcuts = known_of_files(manifest, encoding, volumes, copies["patients"])
    shortcuts = [_rows(shortcut, once) for shortcut in shortcuts] + found.pictured
    tested = measure_shortcuts(
        shortcuts,
        labels[once],
        [groups[record] for record in np.flatnonzero(once)],
        classes,
        options.folds,
        options.repeats,
        settings.evaluate.bootstrap,
        settings.seed,
        settings.evaluate.interval,
    )
    issues = find_label_issues(labels[probed], optimism.probabilities) if optimism else []
    report = make_report(
        settings,
        item,
        manifest,
        fingerprint,
        classes,
        encoder,
        copies,
        optimism,
        tested,
        issues,
        np.flatnonzero(probed),
        sheets,
    )
    show = _Show(settings, item, manifest, encoder, volumes)
    out = space.audit(item)
    with replacing_folder(out) as folder:
        write_json(folder / "audit.json", report)
        write_text(folder / "audit.html", page(report, show))
        draw(folder / "figures", report, show)
    print(verdict.text(report))
    print(f"wrote {out.relative_to(settings.root).as_posix()}: open audit.html. Next: cardium train --dataset {item}")


def choose_records(manifest: pd.DataFrame, most: int, seed: int) -> NDArray[np.bool_]:
    """(N,) which records are probed: all without a conflict, or `most` of them, drawn in turn from every group."""
    taken = ~manifest["conflict"].to_numpy(dtype=bool)
    if taken.sum() <= most:
        return taken
    shuffled = manifest[taken].sample(frac=1, random_state=seed)
    turn = shuffled.groupby("group").cumcount()
    chosen = shuffled.assign(turn=turn).sort_values("turn", kind="stable")["record"].to_numpy()[:most]
    return np.isin(manifest["record"].to_numpy(), chosen)


class _Found:
    """What the survey gave, by a file's sha256; rasters by row of `first`, the first record of every sha256."""

    def __init__(self) -> None:
        self.content: dict[str, str] = {}
        self.encoding: dict[str, tuple[float, ...]] = {}
        self.first: list[int] = []
        self.rasters: NDArray[np.uint8] = np.empty((0, 0, SIDE, SIDE), np.uint8)
        self.pictured: list[Shortcut] = []


def _survey(
    settings: Settings,
    item: str,
    manifest: pd.DataFrame,
    encoder: Encoder,
    once: NDArray[np.bool_],
    volumes: bool,
    sheets: bool,
) -> _Found:
    found = _Found()
    found.first = manifest.index[~manifest["sha256"].duplicated()].tolist()
    kind = "volume" if volumes else "image"
    work = Work(
        where=f"data/{item}",
        again=f"run `cardium ingest --dataset {item}`",
        folder=Workspace(settings.root).data(item),
        kind="volume" if volumes else "image",
        sheets=sheets,
        limits=settings.ingest.limits,
        height=encoder.size.height,
        width=encoder.size.width,
    )
    # A sha256's first record is probed, or a later one in its place.
    wanted = set(manifest["sha256"][once])
    items = [(manifest["path"][record], manifest["sha256"][record] in wanted) for record in found.first]
    border, outside = _Vectors(encoder), _Vectors(encoder)
    rasters: list[Pictures] = []
    for record, one in zip(found.first, survey(work, items), strict=True):
        name = manifest["sha256"][record]
        found.content[name], found.encoding[name] = one.content, one.encoding
        if volumes:
            slices = _some_slices(encoder.pixels[record])
            rasters.append(np.stack([_small(frame, SIDE) for frame in slices]))
            if name in wanted:
                border.add(name, np.stack([border_only(frame) for frame in slices]))
        else:
            rasters.append(one.raster)
            if one.border is not None:
                border.add(name, one.border[None])
            if one.outside is not None:
                outside.add(name, one.outside[None])
    found.rasters = np.stack(rasters)
    names = manifest["sha256"][once].tolist()
    meaning = f"the outer part of the {kind}s, the rest grey: table, coil, margin, marks"
    found.pictured.append(Shortcut("border", "border pixels", meaning, border.of(names), "logistic"))
    if sheets:
        meaning = "what is printed around the leads: numbers, date, rate, sometimes the diagnosis; the leads grey"
        found.pictured.append(Shortcut("header_footer", "header and footer", meaning, outside.of(names), "logistic"))
    return found


class _Vectors:
    """Pictures, given a few at a time, to one vector a name: the mean over its pictures."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._waiting: list[tuple[str, Pictures]] = []
        self._found: dict[str, NDArray[np.float32]] = {}

    def add(self, name: str, pictures: Pictures) -> None:
        """pictures: uint8 (n, h, w, 3), or grey (n, h, w)."""
        self._waiting.append((name, pictures if pictures.ndim == 4 else np.repeat(pictures[..., None], 3, axis=-1)))
        if sum(len(some) for _, some in self._waiting) >= 64:
            self._encode()

    def of(self, names: Sequence[str]) -> NDArray[np.float32]:
        self._encode()
        return np.stack([self._found[name] for name in names])

    def _encode(self) -> None:
        if not self._waiting:
            return
        vectors = self._encoder.encode(np.concatenate([some for _, some in self._waiting]))
        start = 0
        for name, some in self._waiting:
            self._found[name] = vectors[start : start + len(some)].mean(axis=0)
            start += len(some)
        self._waiting = []


def _some_slices(volume: Pictures) -> Pictures:
    """Slices (T, H, W) -> `_SLICES` of those that hold anything, spread evenly."""
    filled = np.flatnonzero(volume.any(axis=(1, 2)))
    places = filled if len(filled) else np.zeros(1, np.int64)
    return np.asarray(volume[places[np.linspace(0, len(places) - 1, _SLICES).round().astype(int)]])


def _small(grey: Pictures, side: int) -> Pictures:
    return np.asarray(Image.fromarray(grey).resize((side, side), Image.Resampling.BOX))


def _rows(shortcut: Shortcut, rows: NDArray[np.bool_]) -> Shortcut:
    own = {name: getattr(shortcut, name) for name in ("name", "title", "meaning", "kind", "of_groups")}
    return Shortcut(**own, values=shortcut.values[rows])


def audit_copies(
    manifest: pd.DataFrame, content: Sequence[str], found: _Found, encoder: Encoder, sheets: bool
) -> dict[str, Any]:
    """The part `copies` of audit.json; the pairs that cross given parts, classes or groups first."""
    sha256, paths, labels, groups = (manifest[name].tolist() for name in ("sha256", "path", "label", "group"))
    exact = duplicates.exact_links(sha256, content)
    copied = {link.copy for link in exact}
    rows = [row for row, record in enumerate(found.first) if record not in copied]
    firsts = np.array([found.first[row] for row in rows], dtype=np.int64)
    own = [groups[record] for record in firsts]
    near = duplicates.near_links(firsts, found.rasters[rows], encoder.vectors[firsts], own, sheets)
    links = exact + near
    patients = manifest["patient"].tolist()
    units = [patient or path for patient, path in zip(patients, paths, strict=True)]
    parts = [duplicates.given_part(path) for path in paths]
    given = duplicates.held_in_training(parts, sha256, content, near)

    seen: Counter[tuple[str, str, str]] = Counter()

    def worst(link: duplicates.Link) -> tuple[bool, bool, bool, int]:
        a, b = link.copy, link.of
        # In turn from every class: a gallery of one class's copies shows little.
        kind = (link.how, labels[a], labels[b])
        seen[kind] += 1
        return parts[a] == parts[b], labels[a] == labels[b], groups[a] == groups[b] and link.how != "bytes", seen[kind]

    links.sort(key=worst)
    within = {link.copy for link in near if groups[link.copy] == groups[link.of]}
    told = [duplicates.describe(link, paths, labels, groups) for link in links[:_NAMED]]
    return {
        "files": len(manifest),
        "distinct": len(set(sha256)),
        "distinct_contents": len(set(content)),
        "patients": any(patients),
        "twins_by_chance": round(duplicates.twins_by_chance(sha256), 4),
        "links": duplicates.count_links(links, labels, groups, units, parts),
        "near_within_groups": len(within),
        "given": [{"part": held.part, "files": held.files, "twins": dict(held.twins)} for held in given],
        "pairs": told,
    }


def make_report(
    settings: Settings,
    item: str,
    manifest: pd.DataFrame,
    fingerprint: Mapping[str, Any],
    classes: Sequence[str],
    encoder: Encoder,
    copies: dict[str, Any],
    optimism: Optimism | None,
    tested: Sequence[Tested],
    issues: Sequence[Issue],
    probed: NDArray[np.integer[Any]],
    sheets: bool,
) -> dict[str, Any]:
    """What audit.json holds, and all that the page shows. issues: their rows are places in `probed`."""
    share = settings.evaluate.interval
    paths, groups = manifest["path"].tolist(), manifest["group"].tolist()
    labels = manifest["label"].tolist()
    # A patient whom the probe takes for another class fills a list with every slice: of each group the strongest first.
    seen: set[str] = set()
    later: list[Issue] = []
    ordered: list[Issue] = []
    for issue in issues:
        group = groups[probed[issue.row]]
        (later if group in seen else ordered).append(issue)
        seen.add(group)
    told = [
        {
            "path": paths[probed[issue.row]],
            "group": groups[probed[issue.row]],
            "label": labels[probed[issue.row]],
            "suggested": classes[issue.suggested],
            "probability_of_label": round(issue.given, 4),
            "probability_of_suggested": round(issue.instead, 4),
        }
        for issue in ordered + later
    ]
    judged = int(np.isfinite(optimism.probabilities).all(axis=1).sum()) if optimism else 0
    report: dict[str, Any] = {
        "dataset": item,
        "kind": fingerprint["kind"],
        "manifest_sha256": fingerprint["manifest_sha256"],
        "classes": list(classes),
        "chance": round(1 / len(classes), 4),
        "groups": int(manifest["group"].nunique()),
        "probe": {
            "backbone": encoder.backbone,
            "weights": encoder.weights,
            "rendering": encoder.rendering,
            "sheets": sheets,
            "records": len(probed),
            "of": len(manifest),
            "folds": optimism.folds if optimism else 0,
            "repeats": settings.audit.repeats,
            "resamples": settings.evaluate.bootstrap,
            "interval": share,
        },
        "copies": copies,
        "optimism": optimism.as_dict(share) if optimism else None,
        "shortcuts": [
            {
                "name": one.shortcut.name,
                "title": one.shortcut.title,
                "meaning": one.shortcut.meaning,
                "score": one.score.as_dict(share) if one.score else None,
                "clear": one.clear,
            }
            for one in tested
        ],
        "label_issues": {
            "conflicts": int(manifest["conflict"].sum()),
            "judged": judged,
            "count": len(issues),
            "groups": len(ordered),
            "records": told[:_NAMED],
        },
    }
    report["leaks"] = verdict.find_leaks(copies)
    return report | {"verdict": verdict.judge(report)}


class _Show:
    """A record's picture for people: a file's own, of a volume its middle slice; uint8 (h, w, 3), `_THUMBNAIL` at most."""

    def __init__(self, settings: Settings, item: str, manifest: pd.DataFrame, encoder: Encoder, volumes: bool) -> None:
        self._folder, self._limits = Workspace(settings.root).data(item), settings.ingest.limits
        self._record = dict(zip(manifest["path"], manifest["record"], strict=True))
        self._encoder, self._volumes = encoder, volumes

    def __call__(self, path: str) -> Pictures:
        if self._volumes:
            slices = _some_slices(self._encoder.pixels[self._record[path]])
            pixels = np.repeat(slices[len(slices) // 2][..., None], 3, axis=-1)
        else:
            pixels = decode((self._folder / path).read_bytes(), self._limits.max_pixels, self._limits.max_bytes).pixels
        image = Image.fromarray(pixels)
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        return np.asarray(image)


def page(report: Mapping[str, Any], show: Any) -> str:
    """The report as one HTML page."""
    return render("audit.html.j2", report=report, picture=lambda path: embedded_photograph(show(path)), shown=_SHOWN)


def draw(folder: Path, report: Mapping[str, Any], show: Any) -> None:
    """The figures below `folder`."""
    item, chance = report["dataset"], report["chance"]
    rows = []

    def add(group: str, name: str, score: Mapping[str, float], note: str = "") -> None:
        rows.append(plots.Row(name, group, score["value"], score["low"], score["high"], note))

    if report["optimism"]:
        for name, said in (("random", "files at random"), ("grouped", "groups kept apart")):
            add("the same probe", said, report["optimism"][name])
    for one in report["shortcuts"]:
        if one["score"]:
            add("without the heart", one["title"], one["score"], "!" if one["clear"] else "")
    for group in list(dict.fromkeys(row.group for row in rows)):
        rows.append(plots.Row("chance", group, chance, None, None, naive=True))
    if rows:
        interval = report["probe"]["interval"]
        plots.leaderboard(rows, folder / "scores.png", f"{item}: what a score is made of", interval)
    pairs = report["copies"]["pairs"][:_SHOWN]
    if pairs:
        pictures = []
        for pair in pairs:
            how = "identical" if pair["how"] == "bytes" else pair["how"]
            for end, label in zip(("copy", "of"), pair["classes"], strict=True):
                pictures.append((f"{label}, {how} {pair['similarity']:.2f}\n{_end(pair[end])}", show(pair[end])))
        plots.gallery(pictures, folder / "copies.png", f"{item}: copies, two by two", columns=4)
    issues = report["label_issues"]["records"][:_SHOWN]
    if issues:
        pictures = [
            (
                f"label {one['label']} {one['probability_of_label']:.2f}\n"
                f"probe {one['suggested']} {one['probability_of_suggested']:.2f}\n{_end(one['path'])}",
                show(one["path"]),
            )
            for one in issues
        ]
        plots.gallery(pictures, folder / "label_issues.png", f"{item}: labels that the probe contradicts most", columns=4)


def _end(path: str, most: int = 30) -> str:
    return path if len(path) <= most else f"...{path[-most:]}"
