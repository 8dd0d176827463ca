"""Twelve-lead ECGs of five kinds of patients, drawn from numbers alone, for the demo's paper sheets.

`record` draws ten seconds of one patient. The heart is a dipole that moves in the chest (x left, y down, z back): every wave of
a beat is a bell-shaped bump in time along one direction, a sum of Gaussians as in McSharry et al. 2003 (IEEE TBME 50:289),
there of one lead. The leads are the dipole's projections on lead vectors (Dower et al. 1980, J Electrocardiol 13:33). I and II
are projected, III, aVR, aVL and aVF follow from them (Einthoven, Goldberger), so those relations hold to the last bit: voltages
are multiples of 2^-12 mV.

A class differs in a few waves only. MI: an ST segment raised towards one territory, and so lowered opposite, under a tall T.
History: an initial force away from the scar (Q), R lost towards it, T inverted there. Abnormal: fibrillation, premature beats,
bundle branch blocks. Covid: a fast sinus rhythm, flat T, slightly lowered ST. Axis, rotation, voltage, T waves, rate, noise,
wander and sinus arrhythmia are drawn alike for all, wide enough to overlap with the milder cases: no rule separates all.

The same bytes on every machine, by phantom.py's rules: PCG64's raw words, + - * / sqrt and floor on arrays, sines only of a few
angles and rounded. So the bell is (1 - u²/16)^8, which is exp(-u²/2) to within 0.02 and ends at 4 deviations, and there is no
BLAS in the projection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cardium.demo.draws import Array, RandomStream, direction, raw_words

Vector = tuple[float, float, float]

CLASSES = ("MI", "History", "Abnormal", "Normal", "Covid")
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
RATE = 500  # samples a second
SECONDS = 10

# Dower's matrix: what a dipole (left, down, back) shows in each of the eight independent leads.
_LEAD_VECTORS: dict[str, Vector] = {
    "I": (0.632, -0.235, 0.059),
    "II": (0.235, 1.066, -0.132),
    "V1": (-0.515, 0.157, -0.917),
    "V2": (0.044, 0.164, -1.387),
    "V3": (0.882, 0.098, -1.277),
    "V4": (1.213, 0.127, -0.601),
    "V5": (1.125, 0.127, -0.086),
    "V6": (0.831, 0.076, 0.230),
}

# Where an injury points, by territory; the leads that face it; those on the other side.
_TERRITORY: dict[str, Vector] = {
    "anterior": (0.30, -0.28, -0.92),
    "inferior": (-0.28, 0.95, 0.12),
    "lateral": (0.92, -0.42, 0.18),
}
FACING = {"anterior": ("V2", "V3", "V4"), "inferior": ("II", "III", "aVF"), "lateral": ("I", "aVL", "V5", "V6")}
OPPOSITE = {"anterior": ("III",), "inferior": ("I", "aVL"), "lateral": ("III", "aVF")}

_KINDS = {
    "MI": ("anterior", "inferior", "lateral"),
    "History": ("anterior", "inferior", "lateral"),
    "Abnormal": ("fibrillation", "ventricular", "right block", "supraventricular", "left block"),
    "Normal": ("sinus",),
    "Covid": ("sinus",),
}
# Beats a minute. Everything but the tachycardia that is Covid's has one range.
_RATES = {"Covid": (84.0, 124.0)}
_USUAL_RATES = (57.0, 120.0)


@dataclass(frozen=True)
class Recording:
    """Ten seconds: `leads` in mV, float64 (12, 5000) in the order of LEADS; `beats`, the R peaks' times in seconds.

    `kind` is the variety within the class: the territory of an infarct, the arrhythmia, otherwise "sinus".
    """

    label: str
    kind: str
    leads: Array
    beats: tuple[float, ...]

    @property
    def rate(self) -> int:
        """Beats a minute, as a machine prints it: from the mean interval."""
        if len(self.beats) < 2:
            return 60
        return int(60 * (len(self.beats) - 1) / (self.beats[-1] - self.beats[0]) + 0.5)


def spread(place: int, number: int) -> float:
    """Item `number` of a sequence in [0, 1) of which every stretch fills the range evenly (golden ratio); `place` starts it."""
    return ((place + number * 0x9E3779B97F4A7C15) % 2**64 >> 48) / 65536.0


def record(label: str, number: int, seed: int) -> Recording:
    """The recording `number` (1..) of a class. Raises ValueError for a class that is not in CLASSES."""
    if label not in CLASSES:
        raise ValueError(f"a class is one of {', '.join(CLASSES)}; got {label}")
    place = CLASSES.index(label)
    start = int(raw_words(seed, 11, place, count=1)[0])
    kinds = _KINDS[label]
    kind = kinds[(number + (start >> 20)) % len(kinds)]
    rng = RandomStream(seed, 12, place, number)
    low, high = _RATES.get(label, _USUAL_RATES)
    rate = low + (high - low) * spread(start, number)
    waves = _waves(label, kind, rng)
    beats = _beats(kind, 60.0 / rate, rng)
    heart = np.zeros((3, RATE * SECONDS))
    for beat in beats:
        _add_beat(heart, beat, waves, rng)
    if kind == "fibrillation":
        _add_fibrillation(heart, rng)
    return Recording(label, kind, _leads(heart, rng), tuple(b.time for b in beats if 0 <= b.time < SECONDS))


@dataclass(frozen=True)
class _Wave:
    """A bump: seconds after the R peak, its deviation in seconds, the dipole at its height in mV.

    `stretch` waves move with the beat before them, as QT does; `atrial` waves are absent if the atria do not lead.
    """

    time: float
    width: float
    dipole: Vector
    stretch: bool = False
    atrial: bool = False


@dataclass(frozen=True)
class _Beat:
    time: float
    before: float  # seconds since the last beat
    origin: str  # sinus, atrial, ventricular, fibrillation


def _waves(label: str, kind: str, rng: RandomStream) -> list[_Wave]:
    """One patient's beat: the normal heart with the patient's build, then the changes of the class."""
    axis = rng.between(5, 78)
    roll = rng.between(-22, 22)  # about the long axis: where the chest leads turn from S to R
    volts = rng.between(0.65, 1.30)
    cos, sin = direction(axis)
    pr = rng.between(0.13, 0.19)
    width = rng.between(0.88, 1.14)
    t_size = rng.between(0.55, 1.35)
    st_size = rng.between(-0.03, 0.05)
    t_time = rng.between(0.255, 0.295)

    septal = _rolled((-0.10 - 0.05 * cos, 0.02, -0.22), roll, volts)
    main = _rolled((1.05 * cos + 0.10, 0.92 * sin, 0.36), roll, volts)
    basal = _rolled((-0.14, -0.14 * sin, 0.40), roll, volts)
    repolar = _rolled((0.27 * cos + 0.06, 0.24 * sin, -0.13), 0.6 * roll, t_size * math.sqrt(volts))
    injury = _times((0.45, 0.30, -0.75), st_size)
    p_cos, p_sin = direction(rng.between(40, 65))
    p_size = rng.between(0.07, 0.13)
    atrial = (p_size * p_cos, p_size * p_sin, -0.2 * p_size)
    late: list[_Wave] = []
    q_width = 0.0085

    severity = rng.between(0.0, 1.0)
    if label == "MI":
        towards = _TERRITORY[kind]
        injury = _plus(injury, _times(towards, 0.07 + 0.20 * severity))
        repolar = _plus(_times(repolar, 0.75), _times(towards, (0.05 + 0.25 * severity) * rng.between(0.6, 1.3)))
        if rng.between(0, 1) < 0.35:  # an hour later Q waves begin
            septal, q_width = _plus(septal, _times(towards, -0.25 * severity)), 0.0105
    elif label == "History":
        towards = _TERRITORY[kind]
        lost = max(0.0, _dot(main, towards)) * (0.25 + 0.45 * severity)
        main = _plus(main, _times(towards, -lost))
        septal, q_width = _plus(_times(septal, 0.5), _times(towards, -(0.20 + 0.34 * severity))), rng.between(0.0115, 0.0150)
        repolar = _plus(repolar, _times(towards, -rng.between(0.18, 0.48)))
        injury = _plus(injury, _times(towards, rng.between(-0.02, 0.06)))
    elif label == "Covid":
        repolar = _times(repolar, rng.between(-0.35, 0.45))
        injury = _plus(injury, _times((0.55, 0.55, -0.1), -(0.02 + 0.07 * severity)))
        if rng.between(0, 1) < 0.35:  # a strained right heart: S in I, Q and inverted T in III
            basal = _plus(basal, (-0.30, 0.05, -0.05))
            repolar = _plus(repolar, (0.05, -0.12, 0.12))
    elif kind == "right block":
        late = [
            _Wave(0.048, 0.015, (-0.42 - 0.2 * severity, 0.05, -0.45 - 0.25 * severity)),
            _Wave(0.072, 0.014, (-0.16, 0.0, -0.20)),
        ]
        repolar = _plus(repolar, (0.10, 0.0, 0.16))
    elif kind == "left block":
        septal = _times(septal, -0.3)
        main = _plus(_times(main, 0.62), (0.20, -0.10, 0.30))
        late = [_Wave(0.038, 0.018, _plus(_times(main, 0.85), (0.06, 0.0, 0.25))), _Wave(0.066, 0.016, _times(main, 0.40))]
        basal = (0.0, 0.0, 0.0)
        repolar = _plus(_times(repolar, 0.3), _times(main, -0.32))
        injury = _plus(injury, _times(main, -0.08))

    return [
        _Wave(-pr, 0.021, atrial, atrial=True),
        _Wave(-pr + 0.034, 0.019, _times(atrial, 0.45), atrial=True),
        _Wave(-0.021 * width, q_width * width, septal),
        _Wave(0.0, 0.0105 * width, main),
        _Wave(0.022 * width, 0.0095 * width, basal),
        *late,
        *(_Wave(0.062 + 0.028 * step, 0.026, _times(injury, share)) for step, share in enumerate((0.46, 0.44, 0.46, 0.50))),
        _Wave(t_time - 0.045, 0.046, _times(_plus(repolar, _times(injury, 0.45)), 0.58), stretch=True),
        _Wave(t_time, 0.030, _times(repolar, 0.72), stretch=True),
    ]


def _beats(kind: str, interval: float, rng: RandomStream) -> list[_Beat]:
    """The rhythm, from a second before the sheet begins to a second after it ends."""
    arrhythmia, jitter = rng.between(0.008, 0.045), rng.between(0.004, 0.015)
    breath, phase = rng.between(0.19, 0.32), rng.between(0, 1)
    premature = "ventricular" if kind == "ventricular" else "atrial" if kind == "supraventricular" else ""
    wait = 2 + rng.below(3)
    beats: list[_Beat] = []
    time, before, planned = -1.0 - rng.between(0, interval), interval, wait
    while time < SECONDS + 1.2:
        if kind == "fibrillation":
            step, origin = interval * (0.62 + 0.38 * (rng.between(0, 1) + rng.between(0, 1))), "fibrillation"
        else:
            origin = "sinus"
            step = interval * (1.0 + arrhythmia * _sine(breath * time + phase) + jitter * rng.between(-1.7, 1.7))
        beats.append(_Beat(round(time, 6), round(before, 6), origin))
        planned -= 1
        if premature and planned <= 0:
            early = interval * rng.between(0.56, 0.74)
            beats.append(_Beat(round(time + early, 6), round(early, 6), premature))
            # After a ventricular beat the sinus node keeps its time; an atrial one resets it.
            step = 2.0 * interval if premature == "ventricular" else early + 1.08 * interval
            before, planned = step - early, 2 + rng.below(4)
        else:
            before = step
        time += step
    return beats


def _add_beat(heart: Array, beat: _Beat, waves: list[_Wave], rng: RandomStream) -> None:
    size, shift = rng.between(0.94, 1.06), rng.between(-0.004, 0.004)
    # Bazett: repolarisation takes its time by the square root of the interval before.
    stretch = min(max(math.sqrt(beat.before), 0.72), 1.12)
    if beat.origin == "ventricular":
        dipole = _times((0.55, -0.75, 0.85), 1.25 * size)
        for wave in (
            _Wave(0.0, 0.028, dipole),
            _Wave(0.045, 0.026, _times(dipole, 0.55)),
            _Wave(0.10, 0.030, _times(dipole, -0.12)),
            _Wave(0.27, 0.055, _times(dipole, -0.42), stretch=True),
        ):
            _add_wave(heart, beat.time + wave.time * (stretch if wave.stretch else 1.0), wave.width, wave.dipole)
        return
    for wave in waves:
        time, dipole = wave.time, _times(wave.dipole, size)
        if wave.atrial:
            if beat.origin == "fibrillation":
                continue
            if beat.origin == "atrial":  # from elsewhere in the atrium, and nearer
                time, dipole = 0.8 * time, _times((-dipole[0], 0.6 * dipole[1], dipole[2]), 0.9)
            time += shift
        _add_wave(heart, beat.time + time * (stretch if wave.stretch else 1.0), wave.width, dipole)


def _add_wave(heart: Array, time: float, width: float, dipole: Vector) -> None:
    first = max(0, math.ceil((time - 4.0 * width) * RATE))
    last = min(heart.shape[1], math.floor((time + 4.0 * width) * RATE) + 1)
    if first >= last:
        return
    u = (np.arange(first, last) / RATE - time) / width
    bell = np.maximum(1.0 - u * u / 16.0, 0.0)
    bell = bell * bell
    bell = bell * bell
    bell = bell * bell
    for row, part in enumerate(dipole):
        heart[row, first:last] += part * bell


def _add_fibrillation(heart: Array, rng: RandomStream) -> None:
    """The atria's own waves, 5 to 7 a second, never two alike."""
    time = np.arange(heart.shape[1]) / RATE
    size = rng.between(0.02, 0.06)
    phase = rng.between(5.0, 6.8) * time + 0.5 * _smooth(heart.shape[1], 0.4, rng)
    wave = _sine_of(phase) * (1.0 + 0.5 * _smooth(heart.shape[1], 0.7, rng)) * size
    for row, part in enumerate((0.15, 0.75, -0.65)):
        heart[row] += part * wave


def _leads(heart: Array, rng: RandomStream) -> Array:
    """All twelve leads in mV, with each electrode's own noise and wander."""
    count = heart.shape[1]
    wander, muscle, breath = rng.between(0.010, 0.055), rng.between(0.002, 0.014), rng.between(0.0, 0.035)
    window = (3, 5, 9)[rng.below(3)]  # what the machine's low-pass leaves
    pace, phase = rng.between(0.19, 0.32), rng.between(0, 1)
    breathing = _sine_of(pace * (np.arange(count) / RATE) + phase)

    def electrode() -> Array:
        burst = np.maximum(_smooth(count, 1.6, rng), -0.6) + 1.0
        total = wander * _smooth(count, rng.between(1.2, 2.6), rng) + breath * rng.between(-1, 1) * breathing
        return total + muscle * rng.between(0.5, 1.4) * burst * _averaged(rng.noise(count + window - 1), window)

    right, left, leg = electrode(), electrode(), electrode()
    centre = (right + left + leg) / 3.0
    extra = {"I": left - right, "II": leg - right}
    own = {}
    for name, (a, b, c) in _LEAD_VECTORS.items():
        noise = extra[name] if name in extra else electrode() - centre
        # Chest electrodes never sit twice alike.
        gain = 1.0 if name in extra else rng.between(0.85, 1.12)
        own[name] = np.floor((gain * (a * heart[0] + b * heart[1] + c * heart[2]) + noise) * 4096.0 + 0.5) / 4096.0
    one, two = own["I"], own["II"]
    own.update({"III": two - one, "aVR": -(one + two) / 2.0, "aVL": one - two / 2.0, "aVF": two - one / 2.0})
    table = np.zeros((len(LEADS), count))
    for row, name in enumerate(LEADS):
        table[row] = own[name]
    return table


def _averaged(noise: Array, window: int) -> Array:
    """A moving mean, scaled back to the deviation of its input."""
    count = noise.size - window + 1
    total = np.zeros(count)
    for start in range(window):
        total = total + noise[start : start + count]
    return total / math.sqrt(window)


def _smooth(count: int, spot: float, rng: RandomStream) -> Array:
    """Smooth noise in [-1, 1], its spots about `spot` seconds long: random knots with smooth steps between them."""
    place = np.arange(count) / (RATE * spot)
    knots = rng.uniform(int(count / (RATE * spot)) + 3) * 2.0 - 1.0
    left = np.floor(place)
    part = place - left
    part = part * part * (3.0 - 2.0 * part)
    index = left.astype(np.int64)
    return knots[index] + (knots[index + 1] - knots[index]) * part


def _sine_of(turns: Array) -> Array:
    """sin(2 pi turns) to within 0.002, by parabolas: the libraries' sines differ in their last bits."""
    u = 2.0 * (turns - np.floor(turns)) - 1.0
    y = 4.0 * u * (np.abs(u) - 1.0)
    return 0.225 * (y * np.abs(y) - y) + y


def _sine(turns: float) -> float:
    return float(_sine_of(np.array([turns]))[0])


def _rolled(vector: Vector, angle: float, size: float) -> Vector:
    """The vector turned about the body's long axis, and scaled."""
    cos, sin = direction(angle)
    x, y, z = vector
    return size * (x * cos + z * sin), size * y, size * (z * cos - x * sin)


def _times(vector: Vector, size: float) -> Vector:
    return vector[0] * size, vector[1] * size, vector[2] * size


def _plus(one: Vector, two: Vector) -> Vector:
    return one[0] + two[0], one[1] + two[1], one[2] + two[2]


def _dot(one: Vector, two: Vector) -> float:
    return one[0] * two[0] + one[1] * two[1] + one[2] * two[2]
