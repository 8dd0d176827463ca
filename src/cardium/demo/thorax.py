"""CT-like volumes of children's chests, with and without congenital heart disease, and their truth: the demo of `chd`.

A volume is a contrast-enhanced chest in Hounsfield units: skin, ribs, spine, lungs with their vessels, the domes of the
diaphragm with liver, stomach and spleen below, the scanner's table under the back, and a heart of four chambers with its great
vessels. `cohort` draws patients, `volume` one patient's voxels, `truth` where heart and defect are.

A class differs in the heart and its vessels only (Moss and Adams, Heart Disease in Infants, Children, and Adolescents).
Non-Cyanotic: a hole in the septum of the atria or of the ventricles, or a duct between aorta and pulmonary artery; so much
blood flows to the lungs that the pulmonary arteries are wide and the aorta is slender. Cyanotic: the great vessels transposed
(the aorta in front, from the right ventricle), or a narrow or absent pulmonary trunk with a wide aorta over a high ventricular
hole.
Normal: neither. The classes hold about as much blood, so that no histogram separates them.

Everything else (size and number of voxels, orientation, body, position, contrast, noise, table) is drawn for the whole cohort
before anyone has a class: by strata, or the same for three patients, one of each class.

The same bytes on every machine by phantom.py's rules: PCG64's raw words, and on arrays only + - * / sqrt, comparisons, minimum,
maximum and floor.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cardium.demo.draws import Array, RandomStream, direction, paint, raw_words, stratified
from cardium.errors import CardiumError

Mask = NDArray[np.bool_]
Point = tuple[float, float, float]
Voxel = TypeVar("Voxel", bound=np.generic)

CLASSES = ("Cyanotic", "Non-Cyanotic", "Normal")
SEED = 2002
# What the label table's columns are called, in their order.
FLAGS = (
    *("ASD", "VSD", "AVSD", "ToF", "TGA", "DORV", "CAT", "CA"),
    *("AAH", "DAA", "IAA", "PA", "APVC", "DSVC", "PDA", "PAS"),
)

# What a heart has -> its flags in the label table.
_KINDS: dict[str, tuple[str, ...]] = {
    "transposition": ("TGA",),
    "tetralogy": ("ToF",),
    "atresia": ("VSD", "PA"),
    "atrial": ("ASD",),
    "ventricular": ("VSD",),
    "both": ("ASD", "VSD"),
    "duct": ("PDA",),
    "none": (),
}
# Class -> its patients' kinds, in turn.
_TURNS = {
    "Cyanotic": ("tetralogy", "transposition", "atresia", "transposition"),
    "Non-Cyanotic": ("ventricular", "atrial", "both", "duct", "ventricular", "atrial"),
    "Normal": ("none",),
}
# The ids that the original's lists name (system 002); the drawn patients share nothing but the number with them. 1047 is in
# its Non-Cyanotic one, but its VSD is 0 in the table.
_IDS = {
    "Cyanotic": (1010, 1012, 1015, 1028, 1037, 1050, 1064, 1074, 1085, 1092, 1099, 1111, 1113, 1120, 1129, 1145, 1146, 1147),
    "Non-Cyanotic": (
        *(1001, 1002, 1007, 1011, 1014, 1018, 1019, 1020, 1025, 1029),
        *(1033, 1035, 1036, 1041, 1061, 1070, 1079, 1103, 1132),
    ),
    "Normal": (
        *(1047, 1003, 1005, 1032, 1051, 1062, 1063, 1066, 1067, 1072),
        *(1078, 1080, 1083, 1101, 1116, 1117, 1127, 1128, 1143, 1144),
    ),
}
EXPLICIT_ZERO = 1047
# Above all published ids: patients beyond the lists.
_MORE = {"Cyanotic": 2000, "Non-Cyanotic": 3000, "Normal": 4000}
# Patients of no class, by their flags, and what their heart is drawn with: as many as the table of the demo excludes.
_EXCLUDED = ((1008, ("DORV",), "ventricular"), (1048, ("ASD", "DAA"), "atrial"), (1121, ("APVC",), "none"))

# (columns, rows) and the orientation as stored, of three patients each, one of a class: what grows along the file's axes.
_SIZES = ((64, 64), (68, 60), (64, 60), (60, 64), (64, 64))
_ORIENTATIONS = ("LPS", "RAS", "LPI")

# Ranges of what is the same in all classes: mm, degrees, Hounsfield units, shares.
_COMMON = {
    "field": (147.0, 154.0),  # the width that the columns cover
    "thickness": (2.3, 3.0),
    "height": (98.0, 106.0),  # what the slices cover, about
    "origin_x": (-40.0, 40.0),
    "origin_y": (-60.0, 60.0),
    "origin_z": (-900.0, 300.0),
    "shift_x": (-2.0, 2.0),
    "shift_y": (-2.0, 2.0),
    "shift_z": (-2.0, 2.0),
    "turn": (-2.5, 2.5),
    "size": (0.97, 1.03),
    "width": (0.97, 1.03),
    "fat": (3.0, 5.5),
    "rib": (0.0, 1.0),
    "dome": (-2.5, 2.5),
    "heart": (0.96, 1.04),
    "heart_turn": (-3.0, 3.0),
    "heart_x": (-1.5, 1.5),
    "heart_y": (-1.0, 1.5),
    "left": (0.95, 1.05),
    "right": (0.95, 1.05),
    "aorta": (0.95, 1.05),
    "veins": (0.84, 1.16),
    "descending": (4.1, 5.5),
    "blood": (290.0, 410.0),
    "blood_right": (0.92, 1.08),
    "muscle": (52.0, 78.0),
    "fat_level": (-115.0, -85.0),
    "lung": (-860.0, -780.0),
    "liver": (85.0, 125.0),
    "bone": (330.0, 480.0),
    "gap": (1.0, 5.0),  # between back and table
    "table": (40.0, 140.0),
    "noise": (10.0, 18.0),
}


@dataclass(frozen=True)
class Patient:
    """One patient of a cohort.

    It has the collection's id, a class ("" if the label rule excludes it), its defect, its flags in the label table, the
    volume's size, its orientation as nibabel writes it, and all that is drawn.
    """

    id: int
    label: str
    kind: str
    flags: tuple[str, ...]
    columns: int
    rows: int
    orientation: str
    seed: int
    values: tuple[tuple[str, float], ...]

    def __getitem__(self, name: str) -> float:
        return dict(self.values)[name]

    @property
    def slices(self) -> int:
        return int(self["height"] / self["thickness"])

    @property
    def spacing(self) -> Point:
        """mm between voxels, towards the left, the back and the head; multiples of 1/1024, which float32 holds exactly."""
        pixel = int(self["field"] / self.columns * 1024) / 1024
        return pixel, pixel, int(self["thickness"] * 1024) / 1024


def cohort(count: int, seed: int = SEED) -> list[Patient]:
    """`count` patients of each class and three that the label rule excludes, by their ids.

    Raises CardiumError if `count` is below 2.
    """
    if count < 2:
        raise CardiumError(f"Demo volumes come by two or more patients a class: {count} is too few.")
    common = _common(seed, 1, 3 * count)
    patients = []
    starts = [int(word) % len(_TURNS[label]) for label, word in zip(CLASSES, raw_words(seed, 30, count=3), strict=True)]
    for three in range(count):
        # Which of the three has which class is the only thing that the class decides before the heart is drawn.
        order = np.argsort(raw_words(seed, 31, three, count=3), kind="stable")
        for label, start, within in zip(CLASSES, starts, order, strict=True):
            kind = _TURNS[label][(start + three) % len(_TURNS[label])]
            known = _IDS[label]
            number = known[three] if three < len(known) else _MORE[label] + three
            values = common[3 * three + int(within)]
            patients.append(_patient(number, label, kind, _KINDS[kind], three, seed, values))
    for place, ((number, flags, kind), values) in enumerate(zip(_EXCLUDED, _common(seed, 2, len(_EXCLUDED)), strict=True)):
        patients.append(_patient(number, "", kind, flags, place, seed, values))
    return sorted(patients, key=lambda patient: patient.id)


def _common(seed: int, part: int, patients: int) -> list[tuple[tuple[str, float], ...]]:
    """The features that are common to both classes, of so many patients."""
    columns = [
        stratified(low, high, patients, raw_words(seed, 32, part, column, count=2 * patients))
        for column, (low, high) in enumerate(_COMMON.values())
    ]
    return [tuple(zip(_COMMON, row, strict=True)) for row in zip(*columns, strict=True)]


def _patient(
    number: int, label: str, kind: str, flags: tuple[str, ...], place: int, seed: int, values: tuple[tuple[str, float], ...]
) -> Patient:
    columns, rows = _SIZES[place % len(_SIZES)]
    return Patient(number, label, kind, flags, columns, rows, _ORIENTATIONS[place % len(_ORIENTATIONS)], seed, values)


def volume(patient: Patient) -> NDArray[np.int16]:
    """The voxels in Hounsfield units, -1024 to 3071, along the file's own three axes (`patient.orientation`)."""
    canvas, _ = _drawn(patient)
    canvas = canvas + patient["noise"] * _grain(patient, canvas.shape)
    whole = np.minimum(np.maximum(np.floor(canvas + 0.5), -1024.0), 3071.0)
    return _as_stored(whole.astype(np.int16), patient.orientation)


def truth(patient: Patient) -> dict[str, Mask]:
    """Masks along the file's own axes, of `volume`'s shape, for testing explanations and measuring.

    heart: chambers, walls and great vessels. defect: the holes, the duct, the transposed vessels, or the trunk's place and the
    aorta beside it; empty where the heart has none. lv: the left ventricle's cavity. The rest are small places in every heart:
    trunk, where the pulmonary trunk is of a heart without cyanosis; atrial, ventricular and duct, where those holes open.
    """
    _, masks = _drawn(patient)
    return {name: _as_stored(mask, patient.orientation) for name, mask in masks.items()}


def affine(patient: Patient) -> Array:
    """The file's affine, float64 (4, 4): voxel indices to mm to the patient's right, front and head as NIfTI counts them."""
    matrix = np.zeros((4, 4))
    origin = (patient["origin_x"], patient["origin_y"], patient["origin_z"])
    counts = (patient.columns, patient.rows, patient.slices)
    for axis, letter in enumerate(patient.orientation):
        sign = 1.0 if letter in "RAS" else -1.0
        matrix[axis, axis] = sign * patient.spacing[axis]
        # The volume's middle lies at the origin that was drawn; float32 holds it exactly.
        matrix[axis, 3] = int(origin[axis]) - matrix[axis, axis] * (counts[axis] - 1) / 2
    matrix[3, 3] = 1.0
    return matrix


def _as_stored(canonical: NDArray[Voxel], orientation: str) -> NDArray[Voxel]:
    """(slices upwards, rows to the back, columns to the left) -> the file's (columns, rows, slices), each its way."""
    stored = canonical.transpose(2, 1, 0)
    steps = tuple(slice(None, None, 1 if letter == own else -1) for letter, own in zip(orientation, "LPS", strict=True))
    return stored[steps]


@dataclass(frozen=True)
class _Field:
    """A box of voxels being painted: x to the left, y to the back, z to the head, in mm of a child of usual size."""

    canvas: Array
    x: Array
    y: Array
    z: Array
    soft: float

    def paint(self, inside: Array, level: Array | float, opacity: float = 1.0) -> None:
        self.canvas[...] = paint(self.canvas, inside, level, self.soft, opacity)

    def box(self, low: Point, high: Point) -> tuple[slice, slice, slice]:
        """The voxels between two corners; all of an axis that has none there is empty."""
        flat = (self.x[0] >= low[0]) & (self.x[0] <= high[0]) & (self.y[0] >= low[1]) & (self.y[0] <= high[1])
        heights = (self.z[:, 0, 0] >= low[2]) & (self.z[:, 0, 0] <= high[2])
        return _extent(heights), _extent(flat.any(axis=1)), _extent(flat.any(axis=0))

    def within(self, box: tuple[slice, slice, slice]) -> _Field:
        """That box as a field of its own, on the same canvas."""
        deep, high, wide = box
        return _Field(self.canvas[box], self.x[:, high, wide], self.y[:, high, wide], self.z[deep], self.soft)

    def tube(self, points: Sequence[Point], radius: float, last: float | None = None) -> Array:
        """How far (mm) each voxel lies inside a bent tube, whose radius goes from `radius` to `last`; negative outside."""
        ends = radius if last is None else last
        parts = len(points) - 1
        found: Array | None = None
        for part, (start, end) in enumerate(itertools.pairwise(points)):
            along = [b - a for a, b in zip(start, end, strict=True)]
            length = along[0] * along[0] + along[1] * along[1] + along[2] * along[2]
            x, y, z = self.x - start[0], self.y - start[1], self.z - start[2]
            share = np.minimum(np.maximum((x * along[0] + y * along[1] + z * along[2]) / length, 0.0), 1.0)
            x, y, z = x - share * along[0], y - share * along[1], z - share * along[2]
            wide = radius + (ends - radius) * (part + share) / parts
            inside = wide - np.sqrt(x * x + y * y + z * z)
            found = inside if found is None else np.maximum(found, inside)
        assert found is not None
        return found

    def paint_tube(self, points: Sequence[Point], radius: float, level: float, last: float | None = None) -> None:
        """Paints a tube, looking only at the voxels about it."""
        reach = max(radius, last or 0.0) + 2 * self.soft
        low, high = (tuple(pick(p[axis] for p in points) for axis in range(3)) for pick in (min, max))
        box = self.box((low[0] - reach, low[1] - reach, low[2] - reach), (high[0] + reach, high[1] + reach, high[2] + reach))
        near = self.within(box)
        near.paint(near.tube(points, radius, last), level)

    def ellipsoid(self, centre: Point, radii: Point, angle: float = 0.0, tilt: float = 0.0) -> Array:
        """About how far (mm) each voxel lies inside an ellipsoid, turned about the upward axis by `angle` degrees and sheared
        downward along its first axis by `tilt`."""
        cos, sin = direction(angle)
        x, y = self.x - centre[0], self.y - centre[1]
        along, across = x * cos + y * sin, y * cos - x * sin
        u, v, w = along / radii[0], across / radii[1], (self.z - centre[2] + tilt * along) / radii[2]
        length = np.sqrt(u * u + v * v + w * w) + 1e-6
        # The level set's slope turns the ratio into millimetres.
        a, b, c = u / radii[0], v / radii[1], w / radii[2]
        return (1.0 - length) * length / (np.sqrt(a * a + b * b + c * c) + 1e-6)


def _extent(seen: Mask) -> slice:
    places = np.flatnonzero(seen)
    return slice(int(places[0]), int(places[-1]) + 1) if places.size else slice(0, 0)


def _drawn(patient: Patient) -> tuple[Array, dict[str, Mask]]:
    """The noiseless volume in Hounsfield units, (slices, rows, columns), and the masks of `truth`, in the same order."""
    p = dict(patient.values)
    wide, deep, high = patient.spacing
    shape = (patient.slices, patient.rows, patient.columns)
    # Each voxel's distance from the field's middle.
    level, row, column = (
        (np.arange(count).astype(np.float64) - (count - 1) / 2) * step
        for count, step in zip(shape, (high, deep, wide), strict=True)
    )
    level, row, column = level[:, None, None], row[None, :, None], column[None, None, :]
    cos, sin = direction(p["turn"])
    # The body lies a little towards the front of the field, for the table's sake.
    x, y = column - p["shift_x"], row + 4.0 - p["shift_y"]
    x, y, z = (x * cos + y * sin) / p["size"], (y * cos - x * sin) / p["size"], (level - p["shift_z"]) / p["size"]
    field = _Field(np.zeros(shape) - 1000.0, x, y, z, 1.1 * max(wide, high) / p["size"])

    # The table does not turn with the patient: a curved board, hollow.
    back = (row + 4.0 - p["shift_y"]) - (48.0 * p["size"] + p["gap"]) + 0.0016 * column * column
    field.paint(np.minimum(back, 9.0 - back) + 0.0 * level, p["table"])
    field.paint(np.minimum(back - 3.2, 5.8 - back) + 0.0 * level, -700.0)

    _paint_body(field, patient)
    masks = _paint_heart(field, patient)
    return field.canvas, masks


def _paint_body(field: _Field, patient: Patient) -> None:
    """Chest wall, ribs, lungs, abdomen, mediastinum, spine."""
    p = dict(patient.values)
    rng = RandomStream(patient.seed, 33, patient.id)
    x, y, z = field.x, field.y, field.z
    # Between an ellipse and a rounded box.
    u, v = x / (66.0 * p["width"]), y / 48.0
    u, v = u * u, v * v
    edge = 0.5 * np.sqrt(u + v) + 0.5 * np.sqrt(np.sqrt(u * u + v * v))
    skin = (1.0 - edge) * 52.0 + 0.0 * z
    field.paint(skin, 20.0)
    field.paint(skin - 1.0, p["fat_level"])
    # Breastless chest: muscle all round, thicker beside the spine.
    wall = skin - p["fat"]
    field.paint(wall, p["muscle"])

    # Ribs slope down to the front; in front they are cartilage, darker.
    turns = (z + 0.32 * y) / 13.0 + p["rib"]
    between = turns - np.floor(turns) - 0.5
    rib = np.minimum(2.3 - np.abs(wall - 4.6), 3.0 - np.abs(between) * 13.0)
    front = np.minimum(np.maximum((-26.0 - y) / 6.0, 0.0), 1.0)
    field.paint(rib, p["bone"] - (p["bone"] - 130.0) * front)
    sternum = np.minimum(field.ellipsoid((0.0, -40.0, 12.0), (10.0, 3.6, 42.0)), wall - 0.5)
    field.paint(sternum, 0.62 * p["bone"])

    # Inside of the ribs; the upper end is narrower.
    above = np.maximum(z - 16.0, 0.0)
    cavity = wall - 8.0 - 0.009 * above * above
    field.paint(cavity, 0.8 * p["fat_level"])
    right = -21.0 + p["dome"] - 0.011 * (x + 28.0) * (x + 28.0) - 0.009 * y * y
    left = -26.0 + p["dome"] - 0.011 * (x - 30.0) * (x - 30.0) - 0.009 * y * y
    dome = np.maximum(right, left) - z
    middle = np.maximum(
        field.ellipsoid((7.0 + p["heart_x"], -13.0 + p["heart_y"], -4.0), (33.0, 29.0, 26.0)),
        np.maximum(
            field.ellipsoid((0.0, -6.0, 36.0), (20.0, 34.0, 34.0)), field.ellipsoid((0.0, 33.0, 0.0), (16.0, 21.0, 400.0))
        ),
    )
    lung = np.minimum(np.minimum(cavity, -middle), -dome)
    field.paint(lung, p["lung"])
    _paint_lung_vessels(field, lung, p["blood"], rng)

    belly = np.minimum(dome, cavity)
    field.paint(belly, 0.9 * p["muscle"])
    field.paint(belly - 1.5, p["fat_level"])
    liver = np.minimum(field.ellipsoid((-20.0 + rng.between(-3, 3), -6.0, -50.0), (46.0, 40.0, 34.0)), belly - 1.5)
    field.paint(liver, p["liver"])
    stomach = np.minimum(field.ellipsoid((28.0 + rng.between(-4, 4), -14.0, -46.0), (19.0, 19.0, 15.0)), belly - 2.0)
    field.paint(stomach, 60.0)
    field.paint(stomach - 2.0, rng.between(0.0, 60.0))
    field.paint(np.minimum(stomach - 2.5, -17.0 + rng.between(-4, 4) - y), -900.0)
    field.paint(np.minimum(field.ellipsoid((42.0, 17.0, -48.0), (14.0, 19.0, 18.0)), belly - 1.5), 1.15 * p["liver"])

    # Thymus, gullet, spine with its canal and muscles.
    thymus = field.ellipsoid((0.0 + rng.between(-2, 2), -31.0, 34.0), (13.0, 6.5, 16.0))
    field.paint(np.minimum(thymus, cavity), 38.0)
    field.paint(field.tube([(3.0, 19.0, 60.0), (3.0, 17.0, 0.0), (5.0, 12.0, -60.0)], 3.0), 35.0)
    turns = z / 15.0 + p["rib"]
    disc = 1.6 - np.abs(turns - np.floor(turns) - 0.5) * 15.0
    body = field.ellipsoid((0.0, 29.5, 0.0), (11.0, 9.5, 400.0))
    field.paint(np.minimum(field.ellipsoid((0.0, 37.0, 0.0), (21.0, 9.0, 400.0)), wall), p["muscle"])
    field.paint(body, p["bone"])
    field.paint(body - 3.5, 0.6 * p["bone"])
    field.paint(np.minimum(body, disc), 100.0)
    arch = np.minimum(5.6 - np.sqrt(x * x + (y - 40.0) * (y - 40.0)) + 0.0 * z, wall + 0.5)
    field.paint(arch, 0.9 * p["bone"])
    field.paint(4.0 - np.sqrt(x * x + (y - 39.5) * (y - 39.5)) + 0.0 * z, 30.0)


def _paint_lung_vessels(field: _Field, lung: Array, blood: float, rng: RandomStream) -> None:
    """Branches from both hila outwards, thinner on their way."""
    for side, hilum in ((1.0, (32.0, 4.0, 12.0)), (-1.0, (-26.0, 6.0, 10.0))):
        for _ in range(11):
            end = (side * rng.between(38.0, 56.0), rng.between(-26.0, 32.0), rng.between(-34.0, 48.0))
            bend = tuple(a + (b - a) * 0.5 + rng.between(-4.0, 4.0) for a, b in zip(hilum, end, strict=True))
            points = [hilum, (bend[0], bend[1], bend[2]), end]
            low = [min(point[axis] for point in points) - 4.0 for axis in range(3)]
            high = [max(point[axis] for point in points) + 4.0 for axis in range(3)]
            box = field.box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
            near = field.within(box)
            near.paint(np.minimum(near.tube(points, 2.0, 0.7), lung[box]), 0.6 * blood, 0.8)


def _paint_heart(field: _Field, patient: Patient) -> dict[str, Mask]:
    """Heart, great vessels, airways; returns the masks of `truth`, over the whole field."""
    p = dict(patient.values)
    kind = patient.kind
    size = p["heart"]
    middle = (8.0 + p["heart_x"], -13.0 + p["heart_y"])
    cos, sin = direction(p["heart_turn"])
    axis = -40.0 + p["heart_turn"]
    axis_cos, axis_sin = direction(axis)

    def at(x: float, y: float, z: float) -> Point:
        """A place in mm from the heart's middle."""
        return middle[0] + size * (x * cos - y * sin), middle[1] + size * (x * sin + y * cos), size * z

    def along(a: float, b: float, z: float) -> Point:
        """A place along the heart's own axes: a from base to apex, b from the right ventricle to the left one, z upward."""
        x, y = a * axis_cos - b * axis_sin, a * axis_sin + b * axis_cos
        return middle[0] + size * x, middle[1] + size * y, size * z

    box = field.box((middle[0] - 46.0, middle[1] - 36.0, -34.0), (middle[0] + 46.0, middle[1] + 46.0, 48.0))
    near = field.within(box)

    left_blood, right_blood = p["blood"], p["blood"] * p["blood_right"]
    mixed = 0.5 * (left_blood + right_blood)

    def chamber(centre: Point, radii: Point, wall: float, scale: float, tilt: float) -> tuple[Array, Array]:
        """(cavity, outside) of a chamber."""
        a, b, c = (size * scale * radius for radius in radii)
        place = along(*centre)
        return near.ellipsoid(place, (a, b, c), axis, tilt), near.ellipsoid(place, (a + wall, b + wall, c + wall), axis, tilt)

    lv, lv_outside = chamber((7.0, 10.5, -3.0), (16.0, 7.5, 10.5), 5.0, p["left"], 0.35)
    rv, rv_outside = chamber((4.0, -9.0, -2.0), (18.0, 9.5, 13.0), 3.0, p["right"], 0.30)
    la, la_outside = chamber((-17.0, 7.0, 5.0), (8.5, 11.0, 9.0), 2.0, p["left"], 0.0)
    ra, ra_outside = chamber((-15.0, -15.0, 0.0), (10.0, 10.5, 15.0), 2.0, p["right"], 0.0)
    septum = near.ellipsoid(along(-17.0, 7.0, 5.0), (13.5 * size, 16.0 * size, 14.0 * size), axis)
    reach = (near.x - middle[0]) * axis_cos + (near.y - middle[1]) * axis_sin
    valves = reach + 8.0 * size

    rv = np.minimum(np.minimum(rv, -lv_outside - 1.0), valves - 1.2)
    la = np.minimum(la, -lv_outside + 3.0)
    ra = np.minimum(np.minimum(ra, -septum), -valves - 1.2)
    muscle = np.maximum(np.maximum(lv_outside, np.maximum(rv_outside, la_outside)), ra_outside)
    near.paint(muscle + 2.0, 0.9 * p["fat_level"])
    near.paint(muscle, p["muscle"])
    near.paint(la, left_blood)
    near.paint(ra, right_blood)
    near.paint(rv, right_blood)
    near.paint(lv, left_blood)
    near.paint(near.tube([along(-14.0, 8.0, 3.0), along(2.0, 10.0, -2.0)], 5.0 * size), left_blood)
    near.paint(near.tube([along(-13.0, -13.0, -1.0), along(0.0, -11.0, -2.0)], 5.5 * size), right_blood)
    # Papillary muscles.
    for b, z in ((14.5, -6.0), (8.0, -9.0)):
        near.paint(np.minimum(near.tube([along(6.0, b, z), along(14.0, b, z - 3.0)], 1.6 * size), lv), p["muscle"])

    # Veins: both cavae, four pulmonary ones.
    field.paint_tube([at(-22.0, -1.0, 60.0), at(-21.0, -1.0, 24.0), at(-20.0, -2.0, 8.0)], 4.4 * size * p["veins"], right_blood)
    field.paint_tube(
        [at(-15.0, 13.0, -60.0), at(-17.0, 8.0, -24.0), at(-19.0, 2.0, -8.0)], 5.0 * size * p["veins"], right_blood
    )
    for end in ((22.0, 22.0, 8.0), (24.0, 18.0, -4.0), (-34.0, 20.0, 6.0), (-34.0, 18.0, -6.0)):
        near.paint(near.tube([at(-9.0, 15.0, 4.0), at(*end)], 3.2 * size, 2.4 * size), left_blood)

    # Great vessels.
    # A shunt widens the way to the lungs and leaves the aorta slender: as much blood in all, so that no histogram shows it.
    overflow = kind in ("atrial", "ventricular", "both", "duct")
    narrow = {"tetralogy": 2.0, "atresia": 0.0}.get(kind)
    over = narrow is not None
    arch = [at(-3.0, 9.0, 35.0), at(1.0, 21.0, 35.0), (9.0, 18.0, 26.0)]
    if kind == "transposition":
        aorta = [at(-2.0, -10.0, 2.0), at(-4.0, -17.0, 9.0), at(-7.0, -17.0, 18.0), at(-8.0, -11.0, 28.0), *arch]
        trunk = [at(0.0, 5.0, 0.0), at(1.0, 3.0, 9.0), at(4.0, 0.0, 17.0), at(9.0, -2.0, 25.0)]
    else:
        aorta = [at(0.0, 5.0, 0.0), at(-3.0, 2.0, 9.0), at(-7.0, -2.0, 19.0), at(-7.0, 0.0, 28.0), *arch]
        if over:
            aorta = [at(0.0, 1.0, 1.0), at(1.0, -3.0, 9.0), at(-4.0, -6.0, 19.0), at(-6.0, -3.0, 28.0), *arch]
        trunk = [at(-1.0, -11.0, 2.0), at(5.0, -17.0, 9.0), at(9.0, -14.0, 17.0), at(10.0, -7.0, 25.0)]
    aorta_radius = size * p["aorta"] * (8.0 if over else 5.0 if overflow else 6.2)
    trunk_radius = size * (8.2 if overflow else 6.2)
    branch_radius = size * (4.7 if overflow else 3.8)
    if over:
        trunk_radius, branch_radius = size * (narrow or 0.0), 2.6 * size
    branches = [
        [at(10.0, -6.0, 25.0), at(17.0, 4.0, 26.0), at(30.0, 10.0, 23.0)],
        [at(9.0, -4.0, 24.0), at(-4.0, 10.0, 23.0), at(-28.0, 12.0, 20.0)],
    ]
    aorta_inside = near.tube(aorta, aorta_radius, 0.8 * aorta_radius)
    trunk_inside = near.tube(trunk, trunk_radius)
    branch_inside = np.maximum(near.tube(branches[0], branch_radius), near.tube(branches[1], branch_radius))
    if kind == "atresia":
        trunk_inside = trunk_inside - 10.0
    pulmonary = np.maximum(trunk_inside, branch_inside)
    near.paint(np.maximum(pulmonary, aorta_inside) + 1.2, p["muscle"])
    near.paint(pulmonary, right_blood)
    near.paint(aorta_inside, left_blood)
    field.paint_tube(
        [(9.0, 18.0, 28.0), (9.0, 18.5, 0.0), (6.0, 20.0, -60.0)], p["descending"] * (0.9 if overflow else 1.0), left_blood
    )

    # The holes, through septa that every heart has.
    holes: list[Array] = []
    if kind in ("atrial", "both"):
        holes.append(near.tube([along(-16.0, -13.0, 3.0), along(-16.0, 1.0, 3.0)], 7.4 * size))
    if kind in ("ventricular", "both"):
        holes.append(near.tube([along(6.0, -8.0, 0.0), along(6.0, 8.0, 0.0)], 7.4 * size))
    if over:
        holes.append(near.tube([along(0.0, -9.0, 3.0), along(0.0, 8.0, 3.0)], 7.4 * size))
    if kind == "duct":
        holes.append(near.tube([at(1.0, 19.0, 32.0), at(11.0, -4.0, 26.0)], 4.8 * size))
    for hole in holes:
        near.paint(hole, mixed)

    # Airways: windpipe and main bronchi.
    air = [
        near.tube([(0.0, 12.0, 90.0), (0.0, 12.0, 24.0)], 4.4),
        near.tube([(0.0, 12.0, 24.0), (20.0, 10.0, 13.0), (32.0, 8.0, 8.0)], 2.9, 2.3),
        near.tube([(0.0, 12.0, 24.0), (-18.0, 10.0, 12.0), (-28.0, 8.0, 6.0)], 3.2, 2.5),
    ]
    for tube in air:
        near.paint(tube + 1.2, 40.0)
    for tube in air:
        near.paint(tube, -960.0)

    usual_trunk = near.tube([at(8.0, -15.0, 14.0), at(10.0, -11.0, 21.0)], 3.6 * size)
    rising = near.tube(aorta[:4], aorta_radius)
    defect = np.zeros(near.canvas.shape) - 1.0
    for hole in holes:
        defect = np.maximum(defect, hole)
    if kind == "transposition":
        defect = np.maximum(rising, trunk_inside)
    if over:
        defect = np.maximum(defect, np.maximum(rising, usual_trunk))
    inside = {
        "heart": np.maximum(np.maximum(muscle, aorta_inside), np.maximum(trunk_inside, branch_inside)),
        "defect": defect,
        "lv": lv,
        "trunk": usual_trunk,
        "atrial": near.tube([along(-16.0, -6.6, 2.5), along(-16.0, -6.4, 3.5)], 3.0 * size),
        "ventricular": near.tube([along(6.0, -0.1, -0.5), along(6.0, 0.1, 0.5)], 3.0 * size),
        "duct": near.tube([at(6.4, 6.5, 28.6), at(5.6, 8.5, 29.4)], 3.0 * size),
    }
    masks = {name: np.zeros(field.canvas.shape, dtype=bool) for name in inside}
    for name, depth in inside.items():
        masks[name][box] = depth > 0
    return masks


def _grain(patient: Patient, shape: tuple[int, ...]) -> Array:
    """Noise of unit deviation, blurred a little within slices as a reconstruction filter does."""
    slices, rows, columns = shape
    plain = RandomStream(patient.seed, 34, patient.id).noise(slices * (rows + 2) * (columns + 2))
    plain = plain.reshape(slices, rows + 2, columns + 2)
    tall = plain[:, :-2] + 3.0 * plain[:, 1:-1] + plain[:, 2:]
    both = tall[:, :, :-2] + 3.0 * tall[:, :, 1:-1] + tall[:, :, 2:]
    # A blur by 1 3 1 multiplies the deviation by sqrt(1 + 9 + 1), in each direction once.
    return both / 11.0
