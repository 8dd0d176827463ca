"""The part `copies` of the audit: how many files are copies, what they cross, and which pairs are worth a look."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from cardium.audit import duplicates
from cardium.audit.encoder import Encoder
from cardium.audit.survey import Survey

# Pairs that audit.json names at most.
_NAMED = 500


def audit_copies(manifest: pd.DataFrame, survey: Survey, encoder: Encoder, sheets: bool) -> dict[str, Any]:
    """The part `copies` of audit.json; the pairs that cross given parts, classes or groups come first."""
    sha256, paths, labels, groups, patients = (
        manifest[name].tolist() for name in ("sha256", "path", "label", "group", "patient")
    )
    content = [survey.content[name] for name in sha256]
    exact = duplicates.exact_links(sha256, content)
    copied = {link.copy for link in exact}
    rows = [row for row, record in enumerate(survey.first) if record not in copied]
    firsts = np.array([survey.first[row] for row in rows], dtype=np.int64)
    own = [groups[record] for record in firsts]
    wholes = survey.wholes[rows] if survey.wholes is not None else None
    near = duplicates.near_links(firsts, survey.rasters[rows], wholes, encoder.vectors[firsts], own, sheets)
    links = exact + near
    units = [patient or path for patient, path in zip(patients, paths, strict=True)]
    parts = [duplicates.given_part(path) for path in paths]
    given = duplicates.held_in_training(parts, sha256, content, near)

    seen: Counter[tuple[str, str, str]] = Counter()

    def severity(link: duplicates.Link) -> tuple[bool, bool, bool, int]:
        a, b = link.copy, link.of
        # In turn from every class: a gallery of one class's copies shows little.
        kind = (link.how, labels[a], labels[b])
        seen[kind] += 1
        return parts[a] == parts[b], labels[a] == labels[b], groups[a] == groups[b] and link.how != "bytes", seen[kind]

    links.sort(key=severity)
    return {
        "files": len(manifest),
        "distinct": len(set(sha256)),
        "distinct_contents": len(set(content)),
        "patients": any(patients),
        "twins_by_chance": round(duplicates.twins_by_chance(sha256), 4),
        "links": duplicates.count_links(links, labels, groups, units, parts),
        "near_within_groups": len({link.copy for link in near if groups[link.copy] == groups[link.of]}),
        "given": [{"part": held.part, "files": held.files, "twins": dict(held.twins)} for held in given],
        "pairs": [duplicates.describe(link, paths, labels, groups) for link in links[:_NAMED]],
    }
