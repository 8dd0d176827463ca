"""The format of the rendering `traces`: the rows and cells of its arrays, and their units.

An array is uint8 (16, 96). Rows 0-12 are the median heartbeats of the leads (kinds.LEADS), 10 ms a sample, with the QRS at
sample 32; a level stands for (level - MIDDLE) * STEP millivolts. Rows 13-15, read as one line, are MEASUREMENTS, each as
MIDDLE + LEVELS * (value - middle) / unit, then MIDDLE up to the last cell: 255 if heartbeats were read, 0 if not.

traces.py makes such arrays from sheets. Models, augmentation and explanations depend on the format alone, so that a change of
that reader does not retrain models of other renderings.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardium.imaging.kinds import LEADS

# (name, usual value, spread) of a measurement.
Unit = tuple[str, float, float]

BEFORE, AFTER = 32, 64  # samples of a median beat before its QRS and from it on
BEAT = BEFORE + AFTER
# 13 median beats, then the measurements, filled up with the middle grey.
SHAPE = (len(LEADS) + 3, BEAT)
MIDDLE = 128
# Voltage of one grey level of the beats, mV.
STEP = 0.02
# Grey levels of one unit of a measurement.
LEVELS = 36.0

UNREADABLE = "no heartbeats could be read from the traces"

# The measurements of each of the twelve leads, as (name, middle, unit); mV, ms or ratios. The middle and the unit are fixed
# numbers near the values' usual mean and spread: the rendering stores (value - middle) / unit.
_PER_LEAD: tuple[tuple[str, float, float], ...] = (
    ("R", 0.6, 0.6),  # highest point of the QRS
    ("Q", -0.2, 0.4),  # lowest point before it
    ("S", -0.4, 0.6),  # lowest point after it
    ("Q_ms", 20.0, 30.0),
    ("J", 0.0, 0.12),  # the QRS's end
    ("ST", 0.05, 0.15),  # 60 ms later
    ("ST_slope", 0.08, 0.18),  # 100 ms later, from J
    ("T_high", 0.25, 0.3),
    ("T_low", -0.08, 0.15),
    ("T", 0.15, 0.35),  # the larger of the two
    ("T_ms", 150.0, 70.0),
    ("T_mean", 0.06, 0.12),
    ("P_high", 0.08, 0.06),
    ("P_low", -0.05, 0.05),
    ("net", 0.2, 0.7),  # R + (Q or S)
    ("span", 1.0, 0.7),  # R - (Q or S)
    ("Q_share", 0.15, 0.25),
    ("R_share", 0.55, 0.3),
)
WHOLE: tuple[tuple[str, float, float], ...] = (
    ("rate", 4.4, 0.3),  # logarithm of beats a minute, from the median interval
    ("rate_mean", 4.4, 0.3),
    ("RR_deviation", 0.05, 0.08),  # of the logarithms of the intervals
    ("RR_spread", 0.02, 0.03),  # median distance from the median
    ("RR_step", 0.03, 0.05),  # median change from beat to beat
    ("RR_step_mean", 0.05, 0.08),
    ("RR_uneven", 0.1, 0.2),  # share of intervals 12 % off the median
    ("RR_short", 0.05, 0.1),
    ("RR_long", 0.05, 0.1),
    ("QRS_ms", 100.0, 25.0),
    ("axis_x", 0.5, 0.5),
    ("axis_y", 0.5, 0.6),
    ("T_axis_x", 0.5, 0.5),
    ("T_axis_y", 0.5, 0.6),
    ("QRS_T_angle", 0.5, 0.6),  # its cosine
    ("limb_voltage", 0.9, 0.45),
    ("Sokolow", 1.8, 0.9),
    ("ST_anterior", 0.3, 0.4),
    ("ST_inferior", 0.05, 0.25),
    ("ST_lateral", 0.05, 0.25),
    ("Q_anterior", 0.7, 0.8),
    ("Q_inferior", 0.4, 0.5),
    ("Q_lateral", 0.3, 0.4),
    ("ST_highest", 0.15, 0.12),
    ("ST_lowest", -0.06, 0.08),
)
# Findings that several leads show together, and findings that several beats show together (findings.py).
ACROSS_LEADS: tuple[Unit, ...] = (
    # mV. "high": the most that two neighbours share (the lower of the two); "low": the least that they share.
    ("J_high_limb", 0.014, 0.031),
    ("J_high_chest", 0.049, 0.058),
    ("J_low_limb", -0.012, 0.033),
    ("J_low_chest", 0.0, 0.059),
    ("ST_high_limb", 0.028, 0.039),
    ("ST_high_chest", 0.11, 0.083),
    ("ST_low_limb", 0.0, 0.037),
    ("ST_low_chest", 0.037, 0.067),
    # ST as a share of the QRS's height: a high QRS raises ST without any infarction.
    ("ST_share_high_limb", 0.042, 0.059),
    ("ST_share_high_chest", 0.079, 0.056),
    ("ST_share_low", -0.007, 0.055),
    # Shares of the QRS, of Q waves of 20 ms or more.
    ("Q_both_lateral", 0.0, 0.026),
    ("Q_two_inferior", 0.0, 0.075),
    ("Q_two_left", 0.0, 0.068),
    ("Q_two_anterior", 0.0, 0.1),
    ("Q_leads", 1.0, 1.5),  # how many leads have one
    ("QS_leads", 0.0, 1.0),  # how many have hardly any R
    ("T_low_limb", 0.079, 0.12),
    ("T_low_chest", 0.21, 0.18),
    ("T_high_chest", 0.37, 0.21),
    ("T_inverted", 1.0, 1.5),  # leads
    ("T_share", 0.21, 0.093),  # of the QRS's height, median over the leads
    ("R_growth", 0.12, 0.058),  # of R's share from V1 to V6, a lead
    ("R_transition", 2.1, 1.6),  # where it passes a half: 0 V1, 5 V6, 6 never
    ("R_V2_V3", 0.66, 0.49),
    ("R_loss", -0.02, 0.067),  # the largest step down
    ("chest_voltage", 1.7, 0.62),
    ("turns", 1.8, 0.33),  # of the QRS, a lead
    # The twelve leads' QRS and ST-T as patterns in space and time: how far from one that only rises and falls.
    ("QRS_third", -2.2, 0.4),  # logarithm of the third singular value over the first
    ("T_second", -1.6, 0.65),
    # Times, ms, over all leads together.
    ("P_to_QRS_ms", 90.0, 35.0),
    ("QT_ms", 360.0, 65.0),
    ("QT_corrected", 430.0, 84.0),  # for the rate, after Bazett
    ("T_left", 0.17, 0.13),  # what is left of T where its window ends
)
BEAT_TO_BEAT: tuple[Unit, ...] = (
    ("beat_alike", 0.89, 0.2),  # correlation of the most unlike QRS with the median one
    ("beat_unlike_share", 0.0, 0.061),  # beats whose QRS correlates by less than 0.8
    ("beat_away", 0.12, 0.3),  # distance of the most unlike QRS, as a share of the median one's height
    ("beat_away_median", 0.063, 0.06),
    ("height_deviation", 0.082, 0.075),  # of the beats' heights, as a share
    ("P_repeats", 0.79, 0.26),  # share of what comes before the QRS that every beat has alike
    ("P_strip", 0.12, 0.054),  # mV
    ("P_rest", 0.0083, 0.0042),  # mV, what the beats have not alike
    ("premature", 0.0, 0.015),  # share of intervals that are short before a long one
    ("RR_shortest", 0.97, 0.038),
    ("RR_longest", 1.0, 0.083),
    ("RR_middle_spread", 0.034, 0.037),  # from the 20th to the 80th percentile
)
UNITS: tuple[tuple[str, float, float], ...] = (
    *WHOLE,
    *((f"{lead}_{name}", middle, unit) for lead in LEADS[:12] for name, middle, unit in _PER_LEAD),
    *ACROSS_LEADS,
    *BEAT_TO_BEAT,
)
# The names of the measurements, in the order of `measure`'s values and of the rendering's cells from row 13 on.
MEASUREMENTS: tuple[str, ...] = tuple(name for name, _, _ in UNITS)


def was_read(array: NDArray[np.uint8]) -> bool:
    """Whether an array (16, 96) holds heartbeats; if not, the warning UNREADABLE applies."""
    return bool(array[-1, -1] == 255)
