"""Findings over several leads and beats: leads and beats made here, with one thing at a time that the finding is about."""

from __future__ import annotations

import numpy as np
import pytest

from cardium.imaging import findings, trace_format
from cardium.imaging.kinds import LEADS

ONSET, END, P_BEGIN, T_END = 28, 37, 4, 80
UNREMARKABLE = {"R": 1.0, "S": -0.2, "Q_ms": 0.0, "Q_share": 0.0, "R_share": 0.8, "J": 0.0, "ST": 0.0, "T": 0.3, "span": 1.2}


def bump(samples: int, centre: float, width: float, height: float = 1.0) -> np.ndarray:
    return height * np.exp(-(((np.arange(samples) - centre) / width) ** 2) / 2)


def across(changes: dict[str, dict[str, float]], beats: np.ndarray | None = None, interval: float = 100.0) -> dict[str, float]:
    leads = {lead: UNREMARKABLE | changes.get(lead, {}) for lead in LEADS[:12]}
    leads["aVR"] = leads["aVR"] | ({} if "aVR" in changes else {"T": -0.3})
    if beats is None:
        one = bump(96, 14, 2, 0.1) + bump(96, 32, 1.5) + bump(96, 58, 5, 0.3)
        beats = np.stack([one * (0.5 + 0.1 * number) for number in range(12)])
    return findings.across_leads(leads, beats, ONSET, END, P_BEGIN, T_END, interval)


def test_every_name_has_a_value() -> None:
    assert tuple(across({})) == tuple(name for name, _, _ in trace_format.ACROSS_LEADS)
    strip = sum(bump(1000, at, 2) for at in range(60, 1000, 80))
    found = findings.beat_to_beat(np.asarray(strip), np.arange(60, 1000, 80))
    assert tuple(found) == tuple(name for name, _, _ in findings.BEAT_TO_BEAT)


def test_raised_st_counts_where_neighbours_share_it() -> None:
    alone = across({"V2": {"ST": 0.4}})
    both = across({"V2": {"ST": 0.4}, "V3": {"ST": 0.25}})
    assert alone["ST_high_chest"] == 0
    assert both["ST_high_chest"] == 0.25
    assert both["ST_high_limb"] == 0
    # II and aVF are neighbours, I and aVF are not; aVR stands upside down between I and II.
    assert across({"II": {"ST": 0.2}, "aVF": {"ST": 0.3}})["ST_high_limb"] == 0.2
    assert across({"I": {"ST": 0.2}, "aVF": {"ST": 0.3}})["ST_high_limb"] == 0
    assert across({"I": {"ST": 0.2}, "aVR": {"ST": -0.3}})["ST_high_limb"] == 0.2
    assert across({"V5": {"ST": -0.2}, "V6": {"ST": -0.1}})["ST_low_chest"] == -0.1


def test_high_qrs_takes_from_its_st() -> None:
    low = across({lead: {"ST": 0.3, "span": 0.9} for lead in ("V2", "V3")})
    high = across({lead: {"ST": 0.3, "span": 2.9} for lead in ("V2", "V3")})
    assert low["ST_share_high_chest"] == pytest.approx(0.3)
    assert high["ST_share_high_chest"] == pytest.approx(0.1)


def test_q_waves_count_when_wide_and_shared() -> None:
    deep = {"Q_share": 0.5, "Q_ms": 40.0}
    found = across({"II": deep, "aVF": deep})
    assert found["Q_two_inferior"] == 0.5
    assert found["Q_leads"] == 2
    assert found["Q_both_lateral"] == 0
    assert across({"II": deep, "aVF": {"Q_share": 0.5, "Q_ms": 10.0}})["Q_two_inferior"] == 0
    assert across({"V1": deep, "V2": deep})["Q_two_anterior"] == 0.5
    assert across({"V5": deep, "V6": deep})["Q_two_left"] == 0.5
    assert across({"V2": {"R_share": 0.0}, "V3": {"R_share": 0.0}})["QS_leads"] == 2


def test_r_wave_grows_over_the_chest() -> None:
    growing = {lead: {"R_share": share} for lead, share in zip(LEADS[6:12], (0.1, 0.2, 0.4, 0.6, 0.8, 0.9), strict=True)}
    found = across(growing)
    assert found["R_transition"] == pytest.approx(2.5)
    assert found["R_growth"] == pytest.approx(np.polyfit(range(6), (0.1, 0.2, 0.4, 0.6, 0.8, 0.9), 1)[0])
    assert found["R_loss"] == pytest.approx(0.1)
    assert across({lead: {"R_share": 0.3} for lead in LEADS[6:12]})["R_transition"] == 6
    assert across(growing | {"V3": {"R_share": 0.05}})["R_loss"] == pytest.approx(-0.15)


def test_inverted_t_waves_are_counted_where_they_mean_something() -> None:
    assert across({lead: {"T": -0.2} for lead in ("aVR", "V1", "III")})["T_inverted"] == 0
    assert across({lead: {"T": -0.2} for lead in ("V4", "V5", "V6")})["T_inverted"] == 3


def test_qt_and_pr_follow_the_waves() -> None:
    def beats(p: float, t: float) -> np.ndarray:
        one = bump(96, p, 2, 0.1) + bump(96, 32, 1.5) + bump(96, t, 5, 0.3)
        return np.stack([one] * 12)

    early, late = across({}, beats(14, 52)), across({}, beats(10, 60))
    assert late["QT_ms"] - early["QT_ms"] == pytest.approx(80, abs=10)
    assert late["P_to_QRS_ms"] - early["P_to_QRS_ms"] == pytest.approx(40, abs=10)
    assert across({}, beats(14, 52), interval=64)["QT_corrected"] == pytest.approx(early["QT_ms"] / 0.8)


def test_a_notched_qrs_turns_more_often() -> None:
    plain = bump(96, 32, 1.5)
    notched = bump(96, 30.5, 0.8) + bump(96, 34.5, 0.8)
    assert across({}, np.stack([plain] * 12))["turns"] == 1
    assert across({}, np.stack([notched] * 12))["turns"] == 3


def strip_of(times: list[int], odd: int = -1, p: float = 0.1) -> np.ndarray:
    out = np.zeros(1000)
    for number, at in enumerate(times):
        if number == odd:
            out += bump(1000, at, 6, -0.8)
        else:
            out += bump(1000, at - 16, 2, p) + bump(1000, at, 1.5)
    return out


def test_an_ectopic_beat_is_unlike_the_others_and_early() -> None:
    even = list(range(50, 1000, 90))
    uneven = [*even[:5], even[5] - 30, *even[6:]]
    same = findings.beat_to_beat(strip_of(even), np.array(even))
    odd = findings.beat_to_beat(strip_of(uneven, odd=5), np.array(uneven))
    assert same["beat_alike"] > 0.99
    assert odd["beat_alike"] < 0
    assert odd["beat_unlike_share"] == pytest.approx(1 / len(even))
    assert odd["beat_away"] > 5 * max(same["beat_away"], 0.01)
    assert (same["premature"], same["RR_shortest"]) == (0, 1)
    assert odd["premature"] == pytest.approx(1 / (len(even) - 2))
    assert odd["RR_shortest"] == pytest.approx(60 / 90)


def test_p_waves_repeat_and_flutter_does_not() -> None:
    times = list(range(50, 1000, 90))
    draw = np.random.default_rng(1)
    noise = draw.normal(0, 0.01, 1000)
    sinus = findings.beat_to_beat(strip_of(times) + noise, np.array(times))
    waves = 0.1 * np.sin(np.arange(1000) * 2 * np.pi / 17)
    fibrillating = findings.beat_to_beat(strip_of(times, p=0) + waves + noise, np.array(times))
    assert sinus["P_repeats"] > 0.9
    assert fibrillating["P_repeats"] < 0.5
    assert sinus["P_strip"] == pytest.approx(0.1, abs=0.03)
    assert fibrillating["P_rest"] > 3 * sinus["P_rest"]


@pytest.mark.parametrize("beats", [[], [500], [10, 990], [3, 9, 500]])
def test_too_few_beats_are_unremarkable(beats: list[int]) -> None:
    found = findings.beat_to_beat(np.zeros(1000), np.array(beats, np.int64))
    assert found == {name: middle for name, middle, _ in findings.BEAT_TO_BEAT}


def test_strip_that_is_not_seen_leaves_the_intervals() -> None:
    beats = np.arange(50, 1000, 90)
    found = findings.beat_to_beat(np.full(1000, np.nan), beats)
    assert found["RR_longest"] == 1
    assert found["beat_alike"] == {name: middle for name, middle, _ in findings.BEAT_TO_BEAT}["beat_alike"]


def test_one_sample_of_qrs_is_enough() -> None:
    leads = {lead: dict(UNREMARKABLE) for lead in LEADS[:12]}
    found = findings.across_leads(leads, np.zeros((12, 96)), 30, 30, 20, 60, 100.0)
    assert np.isfinite(list(found.values())).all()
