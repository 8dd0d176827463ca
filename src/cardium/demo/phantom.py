"""Short-axis cine phantoms of the heart with their true masks, drawn from numbers alone: the demo data's images.

A phantom is a bSSFP-like slice (bright blood and fat, grey muscle, dark lung) seen as the clinic shows it: chest wall to the
left, right ventricle left of the left one, lung above, liver and abdomen below. `cohort` draws patients, `phantom` draws one
frame of one slice of one patient, from end-diastole (frame 0) round the cardiac cycle.

A Sick patient differs in the left ventricle only: it is larger, its wall is thinner, it empties less, and one segment
does not move (a dilated, ischaemic heart). Everything else about a patient (torso, fat, position, rotation, pixel size, coil,
brightness, noise, the right ventricle) is drawn for the whole cohort before anyone has a class, in strata, so that even a small
cohort fills each range evenly.

The same bytes on every machine. Random numbers are PCG64's raw words, which NumPy guarantees never to change for a seed (unlike
the methods of Generator). Arrays see only + - * / sqrt, comparisons, minimum, maximum and floor: one correctly rounded IEEE
operation each, the same with every SIMD width. Sines are Python's, of a few angles a patient, rounded to nine decimals.
No sums over arrays, no BLAS, no np.sin, np.exp or np.interp: their last bits vary with the processor.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cardium.demo.draws import Array, RandomStream, direction, paint, raw_words, stratified
from cardium.errors import CardiumError

Mask = NDArray[np.bool_]

CLASSES = ("Normal", "Sick")
SLICES = 3  # base, middle, apex
FRAMES = 8  # one cardiac cycle; frame 0 is end-diastole
END_SYSTOLE = 3
SEED = 2024

# How far the ventricles have contracted in each frame, of their patient's own most.
_CONTRACTION = (0.0, 0.34, 0.80, 1.0, 0.84, 0.46, 0.20, 0.07)
# The slice's size relative to the middle one, by level: left ventricle, right ventricle, papillary muscles.
_LEVEL_LEFT = (1.06, 1.0, 0.78)
_LEVEL_RIGHT = (1.10, 1.0, 0.66)
_LEVEL_PAPILLARY = (0.55, 1.0, 0.7)

# (width, height) of pair k of patients, one of each class, is _SIZES[k % 8]: mostly 240 x 240, as in the CAD collection.
_SIZES = ((240, 240), (240, 240), (256, 224), (240, 240), (240, 240), (240, 240), (224, 256), (240, 240))

# Ranges of the features that are the same in both classes; lengths in mm, angles in degrees, grey levels 0-255. They are narrow
# enough for networks with random weights to classify the hearts of sixteen patients: the demo must do without pretrained ones.
_COMMON = {
    "pixel": (0.936, 0.984),
    "shift_x": (-2.8, 2.8),
    "shift_y": (-2.8, 2.8),
    "turn": (-4.8, 4.8),
    "torso_depth": (107.8, 118.2),
    "torso_height": (131.6, 144.4),
    "torso_square": (-0.027, 0.017),
    "torso_lean": (-0.028, 0.028),
    "fat": (7.4, 10.6),
    "wall": (10.5, 12.5),
    "diaphragm": (33.6, 38.4),
    "slope": (-0.052, 0.092),
    "heart_turn": (-6.0, 6.0),
    "oval": (-0.02, 0.02),
    "right": (31.1, 34.5),
    "right_emptying": (0.382, 0.438),
    "papillary": (0.87, 1.03),
    "blood": (156.4, 167.6),
    "muscle": (52.2, 57.8),
    "fat_level": (129.8, 140.2),
    "liver": (62.2, 75.8),
    "lung": (10.9, 16.1),
    "gain": (0.912, 1.008),
    "coil": (153.5, 171.5),
    "noise": (2.2, 3.0),
    "segment": (0.0, 360.0),
}
# Ranges of the features that make the class: the left ventricle's outer radius (mm), its wall at end-diastole as a share of it,
# the share of the cavity's area that is emptied, how still the segment is (0 moves, 1 does not), how much of its thickness it
# keeps.
_HEART = {
    "Normal": {
        "heart": (29.5, 34.5),
        "thickness": (0.275, 0.355),
        "emptying": (0.52, 0.68),
        "still": (0.0, 0.12),
        "kept": (0.94, 1.0),
    },
    "Sick": {
        "heart": (31.5, 37.5),
        "thickness": (0.125, 0.190),
        "emptying": (0.18, 0.34),
        "still": (0.90, 1.0),
        "kept": (0.60, 0.80),
    },
}


@dataclass(frozen=True)
class Patient:
    """One patient of a cohort: number (1..n, unique over both classes), label, image size in pixels, and all that is drawn."""

    number: int
    label: str
    width: int
    height: int
    seed: int
    values: tuple[tuple[str, float], ...]

    def __getitem__(self, name: str) -> float:
        return dict(self.values)[name]


def cohort(patients: int, seed: int = SEED) -> list[Patient]:
    """`patients` patients in the order of their numbers, half of them Normal, half Sick.

    Numbers 2k+1 and 2k+2 are one of each class, by a coin, and have the same image size.
    Raises CardiumError if `patients` is odd or below 2.
    """
    if patients < 2 or patients % 2:
        raise CardiumError(f"Demo patients come in pairs, one of each class: {patients} is not an even number from 2 up.")
    pairs = patients // 2
    coins = [int(word) & 1 for word in raw_words(seed, 1, 0, 0, 0, count=pairs)]
    # What is common is drawn for the whole cohort, by number, before anyone has a class.
    common = {
        name: stratified(low, high, patients, raw_words(seed, 2, 0, column, 0, count=2 * patients))
        for column, (name, (low, high)) in enumerate(_COMMON.items())
    }
    drawn: list[Patient] = []
    for kind, label in enumerate(CLASSES, start=1):
        heart = {
            name: stratified(low, high, pairs, raw_words(seed, 2, kind, column, 0, count=2 * pairs))
            for column, (name, (low, high)) in enumerate(_HEART[label].items())
        }
        for pair in range(pairs):
            place = 2 * pair + (coins[pair] ^ (kind - 1))
            width, height = _SIZES[pair % len(_SIZES)]
            values = {name: column[place] for name, column in common.items()}
            values.update({name: column[pair] for name, column in heart.items()})
            drawn.append(Patient(place + 1, label, width, height, seed, tuple(values.items())))
    return sorted(drawn, key=lambda patient: patient.number)


def phantom(patient: Patient, level: int, frame: int) -> tuple[NDArray[np.uint8], dict[str, Mask]]:
    """One image and its truth.

    level: 0 base, 1 middle, 2 apex; frame: 0..7. Returns the image, uint8 (height, width), and three bool masks of the same
    shape that do not overlap: `lv` (the left ventricle's cavity, papillary muscles included, as clinics contour it),
    `myocardium` (its wall), `rv` (the right ventricle's cavity). Raises ValueError for a level or frame that does not exist.
    """
    if not 0 <= level < SLICES or not 0 <= frame < FRAMES:
        raise ValueError(f"level 0..{SLICES - 1} and frame 0..{FRAMES - 1} exist; got {level} and {frame}")
    scene = _torso(patient, level)
    canvas, masks = _beat(patient, level, frame, scene)
    canvas = canvas * scene.gain
    # Thermal noise of a magnitude image is Rician: noise in both channels, then the length.
    noise = patient["noise"]
    real = canvas + noise * _grain(patient, level, frame, 0)
    imaginary = noise * _grain(patient, level, frame, 1)
    length = np.sqrt(real * real + imaginary * imaginary)
    return np.minimum(np.floor(length + 0.5), 255.0).astype(np.uint8), masks


@dataclass(frozen=True)
class _Scene:
    """The static part: the slice without the heart, the coil's gain, and the pixels' places in the heart's own frame."""

    canvas: Array
    gain: Array
    x: Array
    y: Array
    texture: Array


@functools.lru_cache(maxsize=2)
def _torso(patient: Patient, level: int) -> _Scene:
    """The body of one slice: fat, muscle, ribs, lung, liver, spleen, stomach, spine, aorta; in mm from the left ventricle."""
    rng = _stream(patient, level)
    p = dict(patient.values)
    rows, columns = np.mgrid[0 : patient.height, 0 : patient.width].astype(np.float64)
    # Slices of one patient differ by a breath.
    x = (columns - (patient.width - 1) / 2) * p["pixel"] - p["shift_x"] + 9.0 - rng.between(-2, 2)
    y = (rows - (patient.height - 1) / 2) * p["pixel"] - p["shift_y"] + 8.0 - rng.between(-2, 2)
    x, y = _turned(x, y, p["turn"])
    soft = p["pixel"] * 1.7
    fine, coarse = 0.6 * _cloud(x, y, 7.0, rng) + 0.5 * _cloud(x, y, 3.2, rng), _cloud(x, y, 34.0, rng)

    depth, height = p["torso_depth"], p["torso_height"]
    front = -(72.0 + p["wall"] + p["fat"])
    centre_x, centre_y = front + depth, 22.0
    bumps = [(0.0, 0.0), (p["torso_square"], p["torso_lean"]), (rng.between(-0.025, 0.025), rng.between(-0.025, 0.025))]
    bumps.append((rng.between(-0.02, 0.02), rng.between(-0.02, 0.02)))
    skin = _blob(x, y, centre_x, centre_y, depth, height, 0.0, bumps)

    canvas = np.zeros_like(x)
    # Subcutaneous fat is thicker towards the belly and the back than over the ribs.
    fat = p["fat"] * np.minimum(np.maximum(1.0 + (y - 20.0) * 0.004 + coarse * 0.35, 0.45), 1.8)
    canvas = paint(canvas, skin, p["fat_level"] * (1.0 + 0.10 * coarse + 0.05 * fine), soft)
    canvas = paint(canvas, skin - 1.6, p["fat_level"] * (0.95 + 0.12 * coarse), soft)
    canvas = paint(canvas, skin - fat, p["muscle"] * (0.92 + 0.25 * fine), soft)
    # Fat planes between the muscle layers.
    plane = 1.3 - np.abs(skin - fat - 0.55 * p["wall"] + 2.0 * coarse)
    canvas = paint(canvas, plane, 0.62 * p["fat_level"], soft, 0.8)
    inside = skin - fat - p["wall"]
    canvas = paint(canvas, inside, p["lung"] * (1.0 + 0.5 * fine), soft)

    # Ribs, cut across: a dark cortex around grey marrow.
    for number in range(9):
        angle = 96.0 + number * 24.0 + rng.between(-5, 5)
        cos, sin = direction(angle)
        reach_x, reach_y = depth - p["fat"] - 0.55 * p["wall"], height - p["fat"] - 0.55 * p["wall"]
        rib_x, rib_y = centre_x + reach_x * cos, centre_y + reach_y * sin
        rib = _blob(x, y, rib_x, rib_y, 3.4 + rng.between(0, 1), 6.6 + rng.between(0, 2), angle)
        rib = np.minimum(rib, skin - fat)
        canvas = paint(canvas, rib, 16.0, soft)
        canvas = paint(canvas, rib - 1.7, 0.55 * p["fat_level"], soft)

    # Vessels of the lung: they run out from the hilum behind the heart, thinner and fainter as they go.
    for _ in range(60):
        angle, away = rng.between(-160, 45), rng.between(0, 1)
        cos, sin = direction(angle)
        reach = 30.0 + 76.0 * away
        size = 1.9 - 1.2 * away
        vessel = _blob(
            x, y, 18.0 + reach * cos, -4.0 + reach * sin, size * rng.between(1.0, 5.5), size, angle + rng.between(-30, 30)
        )
        canvas = paint(canvas, np.minimum(vessel, inside), p["blood"] * (0.55 - 0.38 * away), soft, rng.between(0.3, 0.9))

    # The diaphragm's dome and what lies below it.
    dome = y - p["diaphragm"] - p["slope"] * x - 0.0032 * (x - 8.0) * (x - 8.0) - 3.0 * coarse
    belly = np.minimum(dome, inside)
    canvas = paint(canvas, belly + 1.4, 0.7 * p["muscle"], soft)
    canvas = paint(canvas, belly - 1.0, 0.78 * p["fat_level"] * (0.9 + 0.25 * coarse + 0.1 * fine), soft)
    liver_x = -30.0 + rng.between(-10, 12)
    liver = np.minimum(
        _blob(x, y, liver_x, 84.0 + rng.between(-6, 6), 58.0, 52.0, rng.between(-12, 12), [(0.0, 0.0), (0.06, 0.05)]),
        belly - 1.5,
    )
    canvas = paint(canvas, liver, p["liver"] * (1.0 + 0.12 * fine + 0.08 * coarse), soft)
    for _ in range(9):
        vein = _blob(
            x,
            y,
            liver_x + rng.between(-36, 36),
            80.0 + rng.between(-28, 34),
            rng.between(1.4, 2.4),
            rng.between(2, 8),
            rng.between(0, 180),
        )
        canvas = paint(canvas, np.minimum(vein, liver - 3.0), 0.72 * p["blood"], soft, 0.7)
    # Stomach: a dark wall, contents of any brightness.
    stomach = np.minimum(
        _blob(
            x,
            y,
            30.0 + rng.between(-8, 8),
            66.0 + rng.between(-8, 8),
            24.0,
            15.0,
            rng.between(-25, 25),
            [(0.0, 0.0), (0.1, 0.05)],
        ),
        belly - 2.0,
    )
    canvas = paint(canvas, stomach, 0.8 * p["muscle"], soft)
    canvas = paint(canvas, stomach - 2.6, rng.between(18, 120) * (1.0 + 0.45 * fine), soft)
    spleen = _blob(
        x,
        y,
        76.0 + rng.between(-6, 6),
        56.0 + rng.between(-8, 8),
        17.0,
        31.0,
        rng.between(-20, 20),
        [(0.0, 0.0), (0.1, 0.0)],
    )
    canvas = paint(canvas, np.minimum(spleen, belly - 1.5), 1.15 * p["liver"] * (1.0 + 0.06 * fine), soft)
    kidney = np.minimum(
        _blob(x, y, 66.0 + rng.between(-8, 8), 112.0 + rng.between(-8, 8), 16.0, 23.0, rng.between(-30, 10)), belly - 1.5
    )
    canvas = paint(canvas, kidney, 1.3 * p["liver"], soft)
    canvas = paint(canvas, kidney - 8.0, 0.8 * p["fat_level"], soft)
    for _ in range(6):  # bowel
        loop = _blob(
            x, y, rng.between(-40, 60), rng.between(112, 146), rng.between(6, 11), rng.between(6, 12), rng.between(0, 180)
        )
        canvas = paint(canvas, np.minimum(loop, belly - 2.0), 0.75 * p["muscle"], soft)
        canvas = paint(canvas, np.minimum(loop - 2.0, belly - 2.0), rng.between(10, 100) * (1.0 + 0.3 * fine), soft)

    # Spine: vertebral bodies and discs behind everything, muscles behind them.
    back = centre_x + depth - p["fat"] - 30.0
    for number in range(7):
        level_y = -84.0 + 29.0 * number + rng.between(-2, 2)
        body = np.minimum(
            _blob(
                x,
                y,
                back,
                level_y,
                12.5 + rng.between(0, 3),
                11.0,
                rng.between(-6, 6),
                [(0.0, 0.0), (0.05, 0.0), (0.0, 0.0), (-0.06, 0.0)],
            ),
            skin - fat,
        )
        canvas = paint(canvas, np.minimum(body + 2.6, skin - fat), 30.0, soft)
        canvas = paint(canvas, body, 0.42 * p["fat_level"] * (1.0 + 0.3 * fine + 0.15 * coarse), soft)
    # Descending aorta, in the fat before the spine.
    aorta_x, aorta_y = back - 25.0 + rng.between(-3, 3), -6.0 + rng.between(-12, 12)
    around = _blob(x, y, aorta_x + 5.0, aorta_y + 4.0, 13.5, 24.0, rng.between(-12, 12), [(0.0, 0.0), (0.0, 0.0), (0.1, 0.06)])
    canvas = paint(canvas, np.minimum(around, inside), 0.55 * p["fat_level"] * (1.0 + 0.3 * fine), soft)
    aorta = _blob(x, y, aorta_x, aorta_y, 9.2, 11.5, rng.between(-15, 15))
    canvas = paint(canvas, aorta + 1.6, 0.7 * p["muscle"], soft)
    canvas = paint(canvas, aorta, 0.96 * p["blood"] * (1.0 + 0.05 * fine), soft)

    # Fat between the chest wall and the heart.
    pad_x = front + p["fat"] + p["wall"] + 7.0
    pad = _blob(
        x, y, pad_x, 10.0 + rng.between(-10, 10), 12.0, 42.0, rng.between(-8, 8), [(0.0, 0.0), (0.12, 0.0), (0.05, 0.05)]
    )
    canvas = paint(canvas, np.minimum(pad + 3.0 * coarse, inside), 0.66 * p["fat_level"] * (1.0 + 0.25 * fine), soft)

    # Surface coils in front of the chest and, weaker, behind the back; beyond the body only noise.
    coil = p["coil"] * p["coil"]
    ahead = (x - front + 30.0) * (x - front + 30.0) + (y + 10.0) * (y + 10.0)
    behind_x = x - (centre_x + depth + 40.0)
    behind = behind_x * behind_x + (y - 20.0) * (y - 20.0)
    gain = p["gain"] * (1.55 / (1.0 + ahead / coil) + 0.65 / (1.0 + behind / coil)) * (1.0 + 0.10 * _cloud(x, y, 80.0, rng))
    # The slice's profile: signal fades at the ends of the field, up and down.
    beyond = np.maximum(np.abs(y) - 96.0, 0.0) / 60.0
    gain = gain / (1.0 + beyond * beyond * 3.0)
    heart_x, heart_y = _turned(x, y, p["heart_turn"])
    return _Scene(canvas, gain, heart_x, heart_y, fine)


def _beat(patient: Patient, level: int, frame: int, scene: _Scene) -> tuple[Array, dict[str, Mask]]:
    """The slice with the heart in it as it stands in `frame`, and the masks; see `phantom`."""
    p = dict(patient.values)
    rng = _stream(patient, level + 16)
    soft = p["pixel"] * 1.7
    phase = _CONTRACTION[frame]
    outer = p["heart"] * _LEVEL_LEFT[level]

    # All of the heart lies within two and a half radii of the left ventricle's centre: the rest stays as it is.
    reach = 2.6 * p["heart"]
    near = np.maximum(np.abs(scene.x), np.abs(scene.y)) < reach
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    x, y, texture = scene.x[window], scene.y[window], scene.texture[window]
    canvas = scene.canvas[window]

    # Left ventricle, in polar form about its own centre. The wall keeps its area along every ray as the cavity empties
    # (muscle does not compress), so a segment that moves thickens and one that stands still does not.
    length = np.sqrt(x * x + y * y) + 1e-6
    ux, uy = x / length, y / length
    oval = 1.0 + p["oval"] * (ux * ux - uy * uy) + rng.between(-0.02, 0.02) * (ux * ux * ux - 3.0 * ux * uy * uy)
    segment_x, segment_y = direction(p["segment"])
    share = np.minimum(np.maximum((ux * segment_x + uy * segment_y + 0.10) / 0.75, 0.0), 1.0)
    share = share * share * (3.0 - 2.0 * share)
    thickness = p["thickness"] * outer * (1.0 - (1.0 - p["kept"]) * share)
    outer_rest = outer * oval
    inner_rest = outer_rest - thickness
    area = outer_rest * outer_rest - inner_rest * inner_rest
    squeeze = 1.0 - math.sqrt(1.0 - p["emptying"])
    inner_now = inner_rest * (1.0 - squeeze * phase * (1.0 - p["still"] * share))
    outer_now = np.sqrt(inner_now * inner_now + area)
    cavity, heart = inner_now - length, outer_now - length

    # Right ventricle: a crescent around the septum, at the left; it empties towards the septum.
    hold = 1.0 - (1.0 - math.sqrt(1.0 - p["right_emptying"])) * phase
    size = p["right"] * _LEVEL_RIGHT[level]
    right_x = -0.84 * outer + 0.20 * size * (1.0 - hold)
    right = _blob(
        x, y, right_x, -0.10 * outer, 0.80 * size * hold, 1.05 * size * (0.55 + 0.45 * hold), 8.0, [(0.06, 0.0), (-0.05, 0.06)]
    )
    trabeculae = 1.3 * texture

    # Epicardial fat, patchy, thickest in the grooves between the ventricles.
    envelope = np.maximum(heart, right + 3.2)
    groove = np.minimum(heart, right) + 9.0
    padding = np.maximum(1.2 + 1.3 * texture, 0.0) + np.minimum(np.maximum(groove, 0.0), 7.0) * 0.7
    canvas = paint(canvas, envelope + padding + 1.3, 0.45 * p["muscle"], soft)
    canvas = paint(canvas, envelope + padding, 0.80 * p["fat_level"] * (0.85 + 0.3 * texture), soft)

    muscle = p["muscle"] * (1.0 + 0.09 * texture)
    canvas = paint(canvas, right + 3.2, muscle, soft)
    blood = p["blood"] * (1.0 + 0.045 * texture)
    canvas = paint(canvas, right + trabeculae, 0.95 * blood, soft)
    # The moderator band and trabeculae of the right ventricle.
    for _ in range(8):
        angle = rng.between(115, 275)
        cos, sin = direction(angle)
        depth = rng.between(0.80, 1.0)
        knot_x, knot_y = right_x + 0.80 * depth * size * hold * cos, -0.1 * outer + 1.0 * depth * size * hold * sin
        knot = _blob(x, y, knot_x, knot_y, rng.between(2.0, 6.0), rng.between(1.0, 1.9), angle + rng.between(-35, 35))
        canvas = paint(canvas, np.minimum(knot, right), 1.2 * muscle, soft, rng.between(0.4, 0.9))

    canvas = paint(canvas, heart, muscle, soft)
    canvas = paint(canvas, cavity + 0.45 * trabeculae, blood, soft)
    # Two papillary muscles, on the wall's inner side, pushed together as the cavity empties.
    for angle in (38.0 + rng.between(-12, 12), 128.0 + rng.between(-12, 12)):
        cos, sin = direction(angle)
        rest = outer * (1.0 - p["thickness"])
        place = rest * (1.0 - squeeze * phase) * 0.74
        size_now = 4.1 * p["papillary"] * _LEVEL_PAPILLARY[level] * (1.0 + 0.12 * phase)
        papillary = _blob(x, y, place * cos, place * sin, 1.25 * size_now, size_now, angle, [(0.0, 0.0), (0.12, 0.08)])
        canvas = paint(canvas, np.minimum(papillary, cavity), 1.08 * muscle, soft)

    whole = scene.canvas.copy()
    whole[window] = canvas
    masks = {name: np.zeros(whole.shape, dtype=bool) for name in ("lv", "myocardium", "rv")}
    masks["lv"][window] = cavity > 0
    masks["myocardium"][window] = (heart > 0) & ~(cavity > 0)
    masks["rv"][window] = (right > 0) & ~(heart > 0)
    return whole, masks


def _blob(
    x: Array,
    y: Array,
    centre_x: float,
    centre_y: float,
    radius_x: float,
    radius_y: float,
    angle: float,
    bumps: Sequence[tuple[float, float]] = (),
) -> Array:
    """About how far (mm) each point lies inside an ellipse, negative outside; bumps: (cos, sin) of its harmonics, from 1."""
    u, v = _turned(x - centre_x, y - centre_y, angle)
    u, v = u / radius_x, v / radius_y
    length = np.sqrt(u * u + v * v) + 1e-9
    edge: Array | float = 1.0
    if bumps:
        cos = first = u / length
        sin = second = v / length
        for a, b in bumps:
            edge = edge + a * cos + b * sin
            cos, sin = cos * first - sin * second, sin * first + cos * second
    # The ellipse's own slope along this ray turns the ratio into millimetres.
    scale = np.sqrt((u * radius_x) * (u * radius_x) + (v * radius_y) * (v * radius_y)) / length
    return (edge - length) * np.minimum(scale, 1.6 * min(radius_x, radius_y))


def _turned(x: Array, y: Array, angle: float) -> tuple[Array, Array]:
    """The points' places in axes turned by `angle` degrees."""
    if angle == 0.0:
        return x, y
    cos, sin = direction(angle)
    return x * cos + y * sin, y * cos - x * sin


def _cloud(x: Array, y: Array, size: float, rng: RandomStream) -> Array:
    """Smooth noise in [-1, 1] whose spots are about `size` mm wide: a random grid with smooth steps between its points."""
    side = 64
    grid = rng.uniform(side * side).reshape(side, side) * 2.0 - 1.0
    column, row = x / size + side / 2, y / size + side / 2
    left, top = np.floor(column), np.floor(row)
    right, down = column - left, row - top
    right, down = right * right * (3.0 - 2.0 * right), down * down * (3.0 - 2.0 * down)
    i, j = top.astype(np.int64) % side, left.astype(np.int64) % side
    i1, j1 = (i + 1) % side, (j + 1) % side
    above = grid[i, j] + (grid[i, j1] - grid[i, j]) * right
    below = grid[i1, j] + (grid[i1, j1] - grid[i1, j]) * right
    return above + (below - above) * down


def _grain(patient: Patient, level: int, frame: int, channel: int) -> Array:
    """Noise of unit deviation, (height, width): sums of four random bytes, blurred a little as scanners that interpolate do."""
    height, width = patient.height + 2, patient.width + 2
    words = raw_words(patient.seed, 4, patient.number, level, frame * 2 + channel, count=(height * width + 1) // 2)
    total = np.zeros((words.size, 2), dtype=np.int64)
    for byte in range(4):
        for half in range(2):
            total[:, half] += ((words >> np.uint64(8 * (4 * half + byte))) & np.uint64(255)).astype(np.int64)
    plain = total.reshape(-1)[: height * width].reshape(height, width) - 510
    tall = plain[:-2] + 3 * plain[1:-1] + plain[2:]
    both = tall[:, :-2] + 3 * tall[:, 1:-1] + tall[:, 2:]
    # 147.8 is the deviation of a sum of four bytes; a blur by 1 3 1 multiplies it by sqrt(1 + 9 + 1), in each direction once.
    return both.astype(np.float64) / (147.8 * 11.0)


def _stream(patient: Patient, level: int) -> RandomStream:
    """The random numbers of one slice of one patient."""
    return RandomStream(patient.seed, 3, patient.number, level, 0)
