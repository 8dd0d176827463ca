"""The verdict on audit.json's figures in plain words: the leaks first, then all else that a reader of scores must know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A gap below this is within what two splits of the same data differ by.
_NOTED_GAP = 0.02


def find_leaks(copies: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Copies that a split can tear apart: [{name, count, of, said, remedy}, ...]; empty for a clean dataset.

    copies: the part `copies` of audit.json.
    """
    leaks: list[dict[str, Any]] = []
    for held in copies["given"]:
        total = sum(held["twins"].values())
        if total:
            ways = {"bytes": "identical to", "pixels": "of the same pixels as", "near": "nearly a copy of"}
            parts = [f"{count:,} {ways[how]} a training file" for how, count in held["twins"].items() if count]
            leaks.append(
                {
                    "name": f"given_{held['part']}",
                    "count": total,
                    "of": held["files"],
                    "said": f"{total:,} of {held['files']:,} files in the given {held['part']} folder are also in the training"
                    f" folder: {', '.join(parts)}.",
                    "remedy": "Scores on this folder measure memory: take the folds of `cardium split`, of whole groups.",
                }
            )
    links = copies["links"]
    torn = {how: links[how]["across_units"] for how in links}
    if torn["bytes"]:
        count = copies["files"] - copies["distinct"]
        said = (
            f"{count:,} of {copies['files']:,} files are copies of others, byte for byte: {copies['distinct']:,} are distinct."
        )
        if copies["patients"]:
            said = f"{torn['bytes']:,} files are identical to a file of another patient."
        chance = copies["twins_by_chance"]
        leaks.append(
            {
                "name": "identical_files",
                "count": torn["bytes"],
                "of": copies["files"],
                "said": f"{said} With 20 % of the files drawn as a test, {chance:.0%} of them"
                " have an identical twin in training.",
                "remedy": "Protocol honest counts them once and keeps them together; a split by files does not.",
            }
        )
    crossing = {how: links[how]["across_classes"] for how in links}
    if sum(crossing.values()):
        leaks.append(
            {
                "name": "two_classes",
                "count": sum(crossing.values()),
                "of": copies["files"],
                "said": f"Under another class than the file that they repeat: {_sum_of(crossing)}; one of two labels is wrong.",
                "remedy": "Identical files of two classes are excluded; correct the label or remove the file.",
            }
        )
    apart = {how: links[how]["across_groups"] for how in ("pixels", "near")}
    if sum(apart.values()):
        leaks.append(
            {
                "name": "across_groups",
                "count": sum(apart.values()),
                "of": copies["files"],
                "said": f"In another group than the file that they repeat: {_sum_of(apart)}. Protocol honest goes by bytes and"
                " patients, and does not hold them together.",
                "remedy": "Remove one of each pair (audit.json lists them), then run `cardium ingest` again.",
            }
        )
    return leaks


def _sum_of(counts: Mapping[str, int]) -> str:
    words = {"bytes": "identical", "pixels": "of the same pixels", "near": "near"}
    said = [f"{count:,} {words[how]}" for how, count in counts.items() if count]
    return f"{' and '.join(said)} {'copy' if sum(counts.values()) == 1 else 'copies'}"


def judge(report: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict: `leak`, `warnings` or `clean`; its headline, one sentence; `said`, the findings, one sentence each."""
    said = [leak["said"] for leak in report["leaks"]]
    optimism = report["optimism"]
    warned = False
    if optimism is not None:
        gap, chance = optimism["gap"], report["chance"]
        random, grouped = optimism["random"]["value"], optimism["grouped"]["value"]
        above = gap["low"] > 0 and gap["value"] >= _NOTED_GAP
        warned |= above
        kept = "patients" if report["copies"]["patients"] else "distinct files"
        said.append(
            f"The same cheap probe scores {random:.3f} with files split at random and {grouped:.3f} with {kept} kept apart"
            f" (chance level {chance:.3f}): a score from a split by files is {gap['value']:.2f}"
            f" [{gap['low']:.2f}, {gap['high']:.2f}] too high."
            if above
            else f"The same cheap probe scores {random:.3f} with files split at random, {grouped:.3f} with {kept} kept apart:"
            f" a split by files gains {gap['value']:.2f} [{gap['low']:.2f}, {gap['high']:.2f}], no more than chance would."
        )
    clear = [line for line in report["shortcuts"] if line["clear"]]
    if clear:
        warned = True
        named = ", ".join(f"{line['title']} ({line['score']['value']:.2f})" for line in clear)
        said.append(
            f"Labels are predictable from non-cardiac cues, each clearly above chance level ({report['chance']:.2f}): {named}."
        )
    elif any(line["score"] for line in report["shortcuts"]):
        said.append("No non-cardiac cue that was tried predicts the label clearly above chance level.")
    issues = report["label_issues"]
    if issues["conflicts"]:
        said.append(f"{issues['conflicts']:,} files are filed under two classes and are excluded.")
    if optimism is not None and not issues["able"]:
        said.append("The probe is not accurate enough to judge labels: none is named.")
    elif issues["count"]:
        said.append(
            f"{issues['count']:,} of {issues['judged']:,} labels are probably wrong by the probe's held-out probabilities:"
            " worth a look, the most probable first."
        )
    verdict = "leak" if report["leaks"] else "warnings" if warned else "clean"
    headline = {
        "leak": "Leaks: scores from a split by files are not to be believed.",
        "warnings": "No leak, but scores need care.",
        "clean": "No leak was found.",
    }[verdict]
    return {"verdict": verdict, "headline": headline, "said": said}


def text(report: Mapping[str, Any]) -> str:
    """The verdict as plain text."""
    judged = report["verdict"]
    return "\n".join([f"{report['dataset']}: {judged['headline']}", *(f"- {line}" for line in judged["said"])])
