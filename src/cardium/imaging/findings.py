"""Findings that need several leads or beats of an ECG: numbers from the leads' measurements and the rhythm strip.

A raised ST segment or a Q wave means an infarction if two leads that are neighbours on the heart show it
(`across_leads`; Thygesen et al. 2018, Fourth Universal Definition of Myocardial Infarction, Circulation 138:e618); an ectopic
beat looks unlike the others and comes early, and in fibrillation no P wave repeats (`beat_to_beat`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cardium.imaging.kinds import LEADS
from cardium.imaging.trace_format import BEAT_TO_BEAT

Array = NDArray[np.float64]

# Leads in the order in which they look at the heart: the limbs' from the left shoulder to the right foot (aVR turned over).
_LIMB: tuple[tuple[str, float], ...] = (("aVL", 1.0), ("I", 1.0), ("aVR", -1.0), ("II", 1.0), ("aVF", 1.0), ("III", 1.0))
_CHEST = LEADS[6:12]
_INDEPENDENT = [LEADS.index(lead) for lead in ("I", "II", *_CHEST)]


def _shared_high(values: Sequence[float]) -> float:
    return max(min(pair) for pair in itertools.pairwise(values))


def _shared_low(values: Sequence[float]) -> float:
    return min(max(pair) for pair in itertools.pairwise(values))


def across_leads(
    leads: Mapping[str, Mapping[str, float]], beats: Array, onset: int, end: int, p_begin: int, t_end: int, interval: float
) -> dict[str, float]:
    """The findings ACROSS_LEADS (trace_format.py) by name.

    leads: the measurements of each of the twelve (traces.py). beats: their median beats (12, n), mV, 10 ms a sample. The QRS
    is from `onset` to `end`; P is searched from `p_begin`, T until `t_end`. interval: between beats, samples.
    """

    def limb(name: str) -> list[float]:
        return [sign * leads[lead][name] for lead, sign in _LIMB]

    def chest(name: str) -> list[float]:
        return [leads[lead][name] for lead in _CHEST]

    out: dict[str, float] = {}
    for name in ("J", "ST"):
        out |= {f"{name}_high_limb": _shared_high(limb(name)), f"{name}_high_chest": _shared_high(chest(name))}
        out |= {f"{name}_low_limb": _shared_low(limb(name)), f"{name}_low_chest": _shared_low(chest(name))}
    height = {lead: values["span"] + 0.1 for lead, values in leads.items()}
    limb_share = [sign * leads[lead]["ST"] / height[lead] for lead, sign in _LIMB]
    chest_share = [leads[lead]["ST"] / height[lead] for lead in _CHEST]
    out |= {"ST_share_high_limb": _shared_high(limb_share), "ST_share_high_chest": _shared_high(chest_share)}
    out["ST_share_low"] = min(_shared_low(limb_share), _shared_low(chest_share))
    q = {lead: values["Q_share"] if values["Q_ms"] >= 20 else 0.0 for lead, values in leads.items()}
    out["Q_both_lateral"] = min(q["aVL"], q["I"])
    out["Q_two_inferior"] = sorted(q[lead] for lead in ("II", "aVF", "III"))[1]
    out["Q_two_left"] = _shared_high([q[lead] for lead in _CHEST[2:]])
    out["Q_two_anterior"] = _shared_high([q[lead] for lead in _CHEST[:4]])
    out["Q_leads"] = float(sum(share > 0.25 for lead, share in q.items() if lead != "aVR"))
    out["QS_leads"] = float(sum(values["R_share"] < 0.12 for lead, values in leads.items() if lead not in ("aVR", "V1")))
    out |= {
        "T_low_limb": _shared_low(limb("T")),
        "T_low_chest": _shared_low(chest("T")[1:]),
        "T_high_chest": _shared_high(chest("T")),
    }
    # T may point down in these three without any disease.
    out["T_inverted"] = float(sum(values["T"] < -0.05 for lead, values in leads.items() if lead not in ("aVR", "V1", "III")))
    out["T_share"] = float(np.median([abs(values["T"]) / height[lead] for lead, values in leads.items()]))
    r = chest("R_share")
    out["R_growth"] = float(np.polyfit(range(6), r, 1)[0])
    out["R_transition"] = float(np.interp(0.5, np.maximum.accumulate(r), range(6))) if max(r) > 0.5 else 6.0
    out["R_V2_V3"] = max(leads["V2"]["R"], leads["V3"]["R"])
    out["R_loss"] = min(after - before for before, after in itertools.pairwise(r))
    out["chest_voltage"] = max(chest("span"))
    return out | _of_all_leads(beats, onset, end, p_begin, t_end, interval)


def _of_all_leads(beats: Array, onset: int, end: int, p_begin: int, t_end: int, interval: float) -> dict[str, float]:
    """The findings on the leads' signals together."""
    turns = 0
    for steps in np.diff(beats[:, onset : end + 1], axis=1):
        signs = np.sign(steps[np.abs(steps) >= 0.02])
        turns += int((signs[:-1] * signs[1:] < 0).sum())
    independent = beats[_INDEPENDENT]
    # Three samples at least, so that there is a third value.
    qrs = np.linalg.svd(independent[:, onset : max(end, onset + 2) + 1], compute_uv=False)
    st_t = np.linalg.svd(independent[:, end + 5 : t_end], compute_uv=False)
    before = independent[:, p_begin : onset - 3]
    p = np.sqrt(((before - np.median(before, axis=1, keepdims=True)) ** 2).sum(axis=0))
    t = np.sqrt((independent[:, end + 8 : t_end] ** 2).sum(axis=0))
    peak = int(np.argmax(t))
    over = peak
    while over < len(t) - 1 and t[over] > 0.25 * t[peak]:
        over += 1
    qt = 10.0 * (end + 8 + over - onset)
    return {
        "turns": turns / len(beats),
        "QRS_third": float(np.log(qrs[2] / max(qrs[0], 1e-6) + 1e-3)),
        "T_second": float(np.log(st_t[1] / max(st_t[0], 1e-6) + 1e-3)),
        "P_to_QRS_ms": 10.0 * (onset - p_begin - int(np.argmax(p))),
        "QT_ms": qt,
        "QT_corrected": qt / float(np.sqrt(interval / 100)),
        "T_left": float(t[-1] / (t[peak] + 0.02)),
    }


def beat_to_beat(strip: Array, beats: NDArray[np.int64]) -> dict[str, float]:
    """The findings BEAT_TO_BEAT (trace_format.py) by name.

    strip: a lead in mV, 10 ms a sample, NaN where it is hidden. beats: the samples at which its beats are.

    With too few beats to compare (3 whole ones; 5 for the intervals), every value is its usual middle.
    """
    out = {name: middle for name, middle, _ in BEAT_TO_BEAT}
    if len(beats) >= 5:
        intervals = np.diff(beats) / np.median(np.diff(beats))
        out["premature"] = float(((intervals[:-1] < 0.88) & (intervals[1:] > 1.08)).mean())
        out |= {"RR_shortest": float(intervals.min()), "RR_longest": float(intervals.max())}
        out["RR_middle_spread"] = float(np.percentile(intervals, 80) - np.percentile(intervals, 20))
    seen = np.flatnonzero(~np.isnan(strip))
    whole = [beat for beat in beats.tolist() if beat >= 30 and beat + 45 <= len(strip)]
    if not seen.size or len(whole) < 3:
        return out
    lead = np.interp(np.arange(len(strip)), seen, strip[seen])
    pieces = np.stack([lead[beat - 30 : beat + 45] for beat in whole])
    pieces = pieces - np.median(pieces[:, 18:25], axis=1, keepdims=True)
    qrs, before = pieces[:, 18:48], pieces[:, 2:24]
    usual = np.median(qrs, axis=0)
    alike = [float(np.corrcoef(one, usual)[0, 1]) if min(one.std(), usual.std()) > 1e-6 else 0.0 for one in qrs]
    away = np.sqrt(((qrs - usual) ** 2).mean(axis=1)) / (np.ptp(usual) + 0.05)
    height = np.ptp(qrs, axis=1)
    before = before - before.mean(axis=1, keepdims=True)
    usual_before = np.median(before, axis=0)
    return out | {
        "beat_alike": min(alike),
        "beat_unlike_share": float(np.mean(np.array(alike) < 0.8)),
        "beat_away": float(away.max()),
        "beat_away_median": float(np.median(away)),
        "height_deviation": float(height.std() / (height.mean() + 0.05)),
        "P_repeats": float(before.mean(axis=0).var() / (before.var() + 1e-5)),
        "P_strip": float(np.ptp(usual_before)),
        "P_rest": float(np.median(np.abs(before - usual_before))),
    }
