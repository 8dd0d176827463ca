"""Which files are copies of others: the same bytes, the same pixels under another encoding, or nearly the same picture.

Near copies are looked for in two ways. In place: among each picture's nearest neighbours, by the backbone's vectors and by the
pictures themselves made coarse, which are then compared pixel by pixel: pictures without their slow changes of brightness,
sheets by the ink of their leads (grid and print, which all sheets share, are gone), each plane moved by up to three of its 64
pixels. On real data copies that were recoded, resized, turned by a degree, darkened or made grey come to 0.95 and more on
sheets, two different sheets to 0.91 at most; on cardiac MRI to 0.99 and more, pictures of two patients to 0.56, neighbouring
slices of one patient to 0.996.

Aligned: images of different groups are laid on each other first (registration.py), which finds what was cropped, padded, moved,
turned by some degrees, mirrored, inverted, equalised or written on. On real cardiac MRI such copies come to 0.84 and more,
pictures of two patients to 0.31; on sheets to 0.91 and more, two different sheets to 0.88. Mirrored and equalised sheets are
missed. Volumes are compared in place only.
benchmarks/near_copies.py counts what is found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cardium.audit import registration
from cardium.progress import progress

How = Literal["bytes", "pixels", "near"]
HOWS: tuple[How, ...] = ("bytes", "pixels", "near")
# Similarity from which two pictures, and two sheets, are near copies.
NEAR, NEAR_SHEETS = 0.96, 0.94
# The same of pictures that were laid on each other first.
ALIGNED, ALIGNED_SHEETS = 0.7, 0.9
# Neighbours of a picture that are compared with it: in other groups by each of the two embeddings, and in its own.
_OTHERS, _OWN = 5, 2
_DIMENSIONS = 128
# Neighbours of a picture's views that it is laid on, and views that each may be.
_ALIGNED, _LIKELY = 5, 5
# What whitening adds to each direction's spread, as a share of the largest.
_DAMPING = 0.01
# Rows of similarities held at once.
_BLOCK = 512
_REACH = 3
_PARTS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "validation", "valid": "validation", "validation": "validation",
}  # fmt: skip


@dataclass(frozen=True)
class Link:
    """Record `copy` is a copy of record `of`. how: in which way. similarity: 1 except for near copies."""

    copy: int
    of: int
    how: How
    similarity: float = 1.0


@dataclass(frozen=True)
class Held:
    """Files of a given folder with a copy among the training files. twins: their number, each file by its strongest way."""

    part: str
    files: int
    twins: dict[How, int]


def exact_links(sha256: Sequence[str], content: Sequence[str]) -> list[Link]:
    """Links each file to the first one with the same bytes, otherwise to the first one with the same content."""
    links = []
    first: dict[str, int] = {}
    shown: dict[str, int] = {}
    for record, (name, picture) in enumerate(zip(sha256, content, strict=True)):
        if name in first:
            links.append(Link(record, first[name], "bytes"))
            continue
        first[name] = record
        if picture in shown:
            links.append(Link(record, shown[picture], "pixels"))
        else:
            shown[picture] = record
    return links


def prepare(raster: NDArray[np.uint8], sheet: bool) -> NDArray[np.float32]:
    """Prepares a raster, uint8 (P, S, S), for comparison: float32, each plane of mean 0 and length 1, blank ones all 0."""
    from scipy.ndimage import gaussian_filter

    planes = raster.astype(np.float32)
    if sheet:
        planes = gaussian_filter(planes, (0, 0.8, 0.8))
    else:
        # Neighbouring brightness is alike in every picture of a kind: what is left are edges.
        planes -= gaussian_filter(planes, (0, 3, 3))
    planes -= planes.mean(axis=(1, 2), keepdims=True)
    length = np.sqrt(np.square(planes).sum(axis=(1, 2), keepdims=True))
    out: NDArray[np.float32] = np.divide(planes, length, out=np.zeros_like(planes), where=length > 1e-3)
    return out


def similarity(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> float:
    """How alike two prepared rasters are, -1 to 1.

    Per plane it is the best correlation under small shifts; of the planes that are not blank, the lesser of mean and median; 0
    if all are blank.
    """
    shown = a.any(axis=(1, 2)) | b.any(axis=(1, 2))
    if not shown.any():
        return 0.0
    spectrum = np.fft.rfft2(a[shown].astype(np.float32)) * np.conj(np.fft.rfft2(b[shown].astype(np.float32)))
    surface = np.fft.irfft2(spectrum, a.shape[1:])
    near = np.concatenate([surface[:, -_REACH:], surface[:, : _REACH + 1]], axis=1)
    near = np.concatenate([near[..., -_REACH:], near[..., : _REACH + 1]], axis=2)
    best = near.max(axis=(1, 2))
    return float(min(best.mean(), np.median(best)))


def near_links(
    records: NDArray[np.integer[Any]],
    rasters: NDArray[np.uint8],
    wholes: NDArray[np.uint8] | None,
    vectors: NDArray[np.float32],
    groups: Sequence[str],
    sheets: bool,
) -> list[Link]:
    """Finds near copies among different contents, the most alike first.

    records: (n,) their numbers, rising; rasters: uint8 (n, P, S, S); wholes: uint8 (n, side, side), the pictures that are
    laid on each other (registration.Scale), None for none; vectors: (n, C); groups: of these records.
    """
    if len(records) < 2:
        return []
    _, group = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    found = _alike_in_place(rasters, vectors, group, sheets)
    if wholes is not None:
        for pair, alike in _alike_aligned(wholes, group, sheets).items():
            found[pair] = max(alike, found.get(pair, 0.0))
    links = [Link(int(records[b]), int(records[a]), "near", round(alike, 4)) for (a, b), alike in found.items()]
    return sorted(links, key=lambda link: (-link.similarity, link.of, link.copy))


def _alike_in_place(
    rasters: NDArray[np.uint8], vectors: NDArray[np.float32], group: NDArray[np.integer[Any]], sheets: bool
) -> dict[tuple[int, int], float]:
    """Pairs (a < b) of rows that are near copies but for small shifts, and how alike they are."""
    spread = vectors.std(axis=0)
    scaled = (vectors - vectors.mean(axis=0)) / np.where(spread > 1e-6, spread, 1.0)
    # In half precision: of tens of thousands of pictures this is the largest thing that the audit holds.
    prepared = np.empty(rasters.shape, np.float16)
    for row, raster in enumerate(rasters):
        prepared[row] = prepare(raster, sheets)
    coarse = np.stack([_coarse(planes) for planes in prepared])
    pairs: set[tuple[int, int]] = set()
    for embedding in (_reduced(scaled), _reduced(coarse)):
        pairs |= _neighbours(embedding, group, _OTHERS, own=False)
        pairs |= _neighbours(embedding, group, _OWN, own=True)
    least = NEAR_SHEETS if sheets else NEAR
    ordered = sorted(pairs)
    found = {}
    for a, b in progress(ordered, total=len(ordered), desc="near copies", unit="pair"):
        alike = similarity(prepared[a], prepared[b])
        if alike >= least:
            found[a, b] = alike
    return found


def _alike_aligned(wholes: NDArray[np.uint8], group: NDArray[np.integer[Any]], sheets: bool) -> dict[tuple[int, int], float]:
    """Pairs (a < b) of rows of different groups that are near copies once laid on each other, and how alike they are."""
    scale = registration.SHEETS if sheets else registration.PICTURES
    normal = np.empty(wholes.shape, np.float16)
    for row, whole in enumerate(wholes):
        normal[row] = registration.normalise(whole, scale)
    own = np.concatenate(
        [registration.signatures(normal[start : start + _BLOCK], scale) for start in range(0, len(normal), _BLOCK)]
    )
    middle, directions = _whitening(own)
    index = _unit((own - middle) @ directions)
    least = ALIGNED_SHEETS if sheets else ALIGNED
    taken = min(_ALIGNED, len(normal) - 1)
    found: dict[tuple[int, int], float] = {}
    for row in progress(range(len(normal)), total=len(normal), desc="copies laid on each other", unit="picture"):
        views = _unit((registration.signatures_of_views(normal[row], scale) - middle) @ directions)
        alike = views @ index.T
        nearest = alike.max(axis=0)
        nearest[group == group[row]] = -np.inf
        for other in np.argpartition(-nearest, taken - 1)[:taken].tolist():
            pair = min(row, other), max(row, other)
            if not np.isfinite(nearest[other]) or found.get(pair, 0.0) >= least:
                continue
            likely = np.argsort(-alike[:, other])[:_LIKELY].tolist()
            reached = registration.similarity_aligned(normal[row], normal[other], likely, scale)
            if reached >= least:
                found[pair] = reached
    return found


def _whitening(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The mean (C,) and the directions (C, at most 128) of vectors (n, C), by which each varies about as much as the others."""
    middle = vectors.mean(axis=0)
    centred = (vectors - middle).astype(np.float64)
    variance, directions = np.linalg.eigh(centred.T @ centred / len(vectors))
    kept = np.argsort(-variance)[: min(_DIMENSIONS, len(vectors) - 1)]
    spread = np.sqrt(np.maximum(variance[kept], 0))
    return middle, (directions[:, kept] / (spread + _DAMPING * spread.max() + 1e-12)).astype(np.float32)


def _unit(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), dtype=np.float32)


def _coarse(planes: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """(P, S, S) -> (P * (S/4)^2,): absolute levels averaged over 4 x 4, so that small shifts change little."""
    count, side = planes.shape[:2]
    levels = np.abs(planes.astype(np.float32))
    return levels.reshape(count, side // 4, 4, side // 4, 4).mean(axis=(2, 4)).ravel()


def _reduced(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, C) -> (n, at most 128) of length 1, along the directions of largest variance."""
    from sklearn.decomposition import PCA

    dimensions = min(_DIMENSIONS, len(vectors) - 1, vectors.shape[1])
    reduced = PCA(dimensions, svd_solver="randomized", random_state=0).fit_transform(vectors)
    return _unit(reduced)


def _neighbours(
    vectors: NDArray[np.float32], group: NDArray[np.integer[Any]], count: int, *, own: bool
) -> set[tuple[int, int]]:
    """Pairs (a < b) of rows, one among the other's `count` nearest ones within its own group, or outside of it."""
    pairs: set[tuple[int, int]] = set()
    for start in range(0, len(vectors), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(vectors)))
        alike = vectors[rows] @ vectors.T
        together = group[rows, None] == group[None]
        alike[together != own] = -np.inf
        alike[np.arange(len(rows)), rows] = -np.inf
        taken = min(count, len(vectors) - 1)
        nearest = np.argpartition(-alike, taken - 1, axis=1)[:, :taken]
        for row, others in zip(rows.tolist(), nearest, strict=True):
            found = others[np.isfinite(alike[row - start, others])]
            pairs |= {(min(row, other), max(row, other)) for other in found.tolist()}
    return pairs


def given_part(path: str) -> str:
    """The part that a path's folders name, the innermost first: train, test or validation; "" for none."""
    return next((_PARTS[folder] for folder in reversed(path.lower().split("/")[:-1]) if folder in _PARTS), "")


def held_in_training(parts: Sequence[str], sha256: Sequence[str], content: Sequence[str], near: Sequence[Link]) -> list[Held]:
    """Counts the files of the publisher's own test and validation folders that have a copy below the training folder."""
    trained = {name for name, part in zip(sha256, parts, strict=True) if part == "train"}
    shown = {picture for picture, part in zip(content, parts, strict=True) if part == "train"}
    beside: dict[str, set[str]] = {}
    for link in near:
        beside.setdefault(content[link.copy], set()).add(content[link.of])
        beside.setdefault(content[link.of], set()).add(content[link.copy])
    found = []
    for part in ("test", "validation"):
        held = [record for record, own in enumerate(parts) if own == part]
        if not held or not trained:
            continue
        twins: Counter[How] = Counter()
        for record in held:
            if sha256[record] in trained:
                twins["bytes"] += 1
            elif content[record] in shown:
                twins["pixels"] += 1
            elif beside.get(content[record], set()) & shown:
                twins["near"] += 1
        found.append(Held(part, len(held), {how: twins[how] for how in HOWS}))
    return found


def twins_by_chance(sha256: Sequence[str], share: float = 0.2) -> float:
    """The expected share of test files with a byte-identical training file, if `share` of all files are drawn as a test."""
    sizes = Counter(sha256)
    return sum(1 - share ** (sizes[name] - 1) for name in sha256) / len(sha256)


def count_links(
    links: Sequence[Link], labels: Sequence[str], groups: Sequence[str], units: Sequence[str], parts: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Counts links by their way, and how many of them cross classes, units, groups and given parts.

    units: the patient that a file's path names, otherwise the file itself.
    """
    counts: dict[str, dict[str, int]] = {}
    for how in HOWS:
        own = [link for link in links if link.how == how]

        def crossing(values: Sequence[str], own: Sequence[Link] = own) -> int:
            return sum(values[link.copy] != values[link.of] for link in own)

        counts[how] = {
            "links": len(own),
            "files": len({end for link in own for end in (link.copy, link.of)}),
            "across_classes": crossing(labels),
            "across_units": crossing(units),
            "across_groups": crossing(groups),
            "across_parts": crossing(parts),
        }
    return counts


def describe(link: Link, paths: Sequence[str], labels: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
    """A link's entry in audit.json."""
    return {
        "copy": paths[link.copy],
        "of": paths[link.of],
        "how": link.how,
        "similarity": link.similarity,
        "classes": [labels[link.copy], labels[link.of]],
        "groups": [groups[link.copy], groups[link.of]],
    }
