"""The simulated ECG: the laws of its leads, what makes each class, and that the rate alone makes none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from cardium.demo.ecg_signal import CLASSES, FACING, LEADS, OPPOSITE, RATE, Recording, record

ROOT = Path(__file__).resolve().parents[1]
EACH = 60


@pytest.fixture(scope="module")
def recordings() -> dict[str, list[Recording]]:
    return {label: [record(label, number, 3) for number in range(1, EACH + 1)] for label in CLASSES}


def lead(recording: Recording, name: str) -> np.ndarray:
    return recording.leads[LEADS.index(name)]


def median_beat(recording: Recording) -> np.ndarray:
    """mV, (12, 355), from 260 ms before the R peak to 450 ms after it; 0 is the level before the QRS."""
    peaks = [int(beat * RATE) for beat in recording.beats if 0.3 < beat < 9.5]
    beat = np.median([recording.leads[:, peak - 130 : peak + 225] for peak in peaks], axis=0)
    return beat - np.median(beat[:, 95:108], axis=1, keepdims=True)


def irregularity(recording: Recording) -> float:
    gaps = np.diff(recording.beats)
    return float(gaps.std() / gaps.mean())


def test_leads_are_ten_seconds_in_millivolts(recordings: dict[str, list[Recording]]) -> None:
    for some in recordings.values():
        for one in some:
            assert one.leads.shape == (12, 5000)
            assert one.leads.dtype == np.float64
            assert 0.3 < np.ptp(one.leads, axis=1).max() < 6.0
            assert 50 <= one.rate <= 140


def test_einthoven_and_goldberger_hold_to_the_last_bit(recordings: dict[str, list[Recording]]) -> None:
    for some in recordings.values():
        for one in some[:10]:
            i, ii, iii = lead(one, "I"), lead(one, "II"), lead(one, "III")
            assert np.array_equal(ii, i + iii)
            assert np.array_equal(lead(one, "aVR"), -(i + ii) / 2)
            assert np.array_equal(lead(one, "aVL"), (i - iii) / 2)
            assert np.array_equal(lead(one, "aVF"), (ii + iii) / 2)
            assert not np.array_equal(i, ii)


def test_beats_are_where_the_r_waves_are(recordings: dict[str, list[Recording]]) -> None:
    for one in recordings["Normal"][:20]:
        steep = np.abs(np.diff(one.leads, axis=1)).sum(axis=0)
        for beat in one.beats:
            if 0.2 < beat < 9.8:
                near = steep[int((beat - 0.05) * RATE) : int((beat + 0.05) * RATE)]
                assert near.max() > 4 * np.median(steep)


def test_st_rises_in_the_leads_that_face_an_infarct_and_falls_opposite(recordings: dict[str, list[Recording]]) -> None:
    def st(recording: Recording, names: tuple[str, ...]) -> float:
        beat = median_beat(recording)
        return float(np.mean([beat[LEADS.index(name), 175] for name in names]))  # 90 ms after R

    infarcts = recordings["MI"]
    assert {one.kind for one in infarcts} == set(FACING)
    for kind in FACING:
        facing = [st(one, FACING[kind]) for one in infarcts if one.kind == kind]
        opposite = [st(one, OPPOSITE[kind]) for one in infarcts if one.kind == kind]
        healthy = [st(one, FACING[kind]) for one in recordings["Normal"]]
        assert np.mean(facing) > 0.12
        # The mildest reach into what early repolarisation does to the healthy, and no further.
        assert np.mean(np.array(facing) > np.quantile(healthy, 0.95)) > 0.85
        assert np.mean(opposite) < -0.03
        assert abs(np.mean(healthy)) < 0.06


def test_history_has_q_waves_and_inverted_t(recordings: dict[str, list[Recording]]) -> None:
    def q_and_t(recording: Recording, kind: str) -> tuple[float, float]:
        beat = median_beat(recording)[[LEADS.index(name) for name in FACING[kind]]]
        return float(beat[:, 112:128].min(axis=1).mean()), float(beat[:, 235:275].mean())

    for kind in FACING:
        old = np.array([q_and_t(one, kind) for one in recordings["History"] if one.kind == kind])
        healthy = np.array([q_and_t(one, kind) for one in recordings["Normal"]])
        assert old[:, 0].mean() < healthy[:, 0].mean() - 0.1
        assert old[:, 1].mean() < 0 < healthy[:, 1].mean()


def test_rhythm_is_irregular_in_abnormal_alone(recordings: dict[str, list[Recording]]) -> None:
    spread = {label: np.mean([irregularity(one) for one in some]) for label, some in recordings.items()}
    assert spread["Abnormal"] > 2.5 * max(value for label, value in spread.items() if label != "Abnormal")
    fibrillation = [irregularity(one) for one in recordings["Abnormal"] if one.kind == "fibrillation"]
    assert min(fibrillation) > 0.06
    blocks = [one for one in recordings["Abnormal"] if one.kind.endswith("block")]
    assert np.mean([irregularity(one) for one in blocks]) < 0.05, "a block is not told by its rhythm"


def _guessed(features: np.ndarray, labels: np.ndarray) -> float:
    """Balanced accuracy of logistic regression, cross-validated; features (n, d)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=2000))
    return float(balanced_accuracy_score(labels, cross_val_predict(model, features, labels, cv=5)))


def test_classes_are_learnable_but_not_all_of_them(recordings: dict[str, list[Recording]]) -> None:
    labels = np.repeat(np.arange(len(CLASSES)), EACH)
    beats = np.array([median_beat(one)[:, ::5].ravel() for some in recordings.values() for one in some])
    rhythm = np.array([[irregularity(one)] * 3 for some in recordings.values() for one in some])
    assert 0.7 < _guessed(np.hstack([beats, rhythm]), labels) < 0.97


def test_rate_alone_tells_little(recordings: dict[str, list[Recording]]) -> None:
    rates = {label: np.array([[one.rate] for one in some]) for label, some in recordings.items()}
    four = [label for label in CLASSES if label != "Covid"]
    assert _guessed(np.vstack([rates[label] for label in four]), np.repeat(np.arange(4), EACH)) < 0.33, "0.25 is chance"
    assert rates["Covid"].mean() > rates["Normal"].mean() + 8, "a tachycardia, as it should be"
    assert np.mean(rates["Normal"] > rates["Covid"].min()) > 0.3


def test_same_call_same_recording_and_numbers_differ() -> None:
    one = record("MI", 4, 1)
    record("Normal", 4, 1)
    assert np.array_equal(one.leads, record("MI", 4, 1).leads)
    digests = {
        hashlib.sha256(record(label, number, seed).leads.tobytes()).digest()
        for label in CLASSES
        for number in (1, 2)
        for seed in (1, 2)
    }
    assert len(digests) == 20


def test_no_such_class() -> None:
    with pytest.raises(ValueError, match="got Sick"):
        record("Sick", 1, 1)
