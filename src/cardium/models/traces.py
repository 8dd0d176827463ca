"""A small network on the rendering `traces` (imaging/trace_format.py): beats and measurements of an ECG sheet -> its class.

Beats go through convolutions along time, the same for every lead (`cam`: lead x time), then through a few that look at all
leads at once; measurements, standardised by batch norm, go through dense layers of their own. Several of both, side by side and
with dropout masks of their own, average out what a few hundred sheets leave to chance. Most measurements are left out at
a time: there are as many of them as sheets, and what only one of them shows seldom holds in another collection.
"""

from __future__ import annotations

from typing import Any

from cardium.models.architectures import register_architecture
from cardium.models.classifier import classify_embedding

# Grey levels of the beats that become 1: 0.64 mV.
_BEAT_LEVELS = 32.0
_LEADS = 12  # the rhythm strip repeats one of them
_BRANCHES = 5
# The share of the measurements that a branch goes without in a step of training.
_LEFT_OUT = 0.7
_NORM = {"momentum": 0.9, "epsilon": 1e-3}


@register_architecture("traces", min_side=1)
def traces_net(pixels: Any, classes: int, dropout: float) -> Any:
    """Renderings (n, 16, 96), 0-255 -> probabilities (n, classes); layers `cam` (n, 12, 24, 16) and `embedding` (n, 360)."""
    from keras import layers

    from cardium.imaging.trace_format import LEVELS, MIDDLE, SHAPE

    beats = layers.Cropping1D((0, SHAPE[0] - _LEADS), name="beats")(pixels)
    beats = layers.Rescaling(1 / _BEAT_LEVELS, offset=-MIDDLE / _BEAT_LEVELS, name="millivolts")(beats)
    beats = layers.Reshape((_LEADS, SHAPE[1], 1), name="leads")(beats)
    for number, (filters, width) in enumerate(((8, 7), (16, 5)), start=1):
        beats = layers.Conv2D(filters, (1, width), strides=(1, 2), padding="same", use_bias=False, name=f"conv{number}")(beats)
        beats = layers.BatchNormalization(**_NORM, name=f"norm{number}")(beats)
        beats = layers.ReLU(name=f"relu{number}")(beats)
    beats = layers.Identity(name="cam")(beats)

    measured = layers.Cropping1D((13, 0), name="measurements")(pixels)
    measured = layers.Flatten(name="line")(measured)
    measured = layers.Rescaling(1 / LEVELS, offset=-MIDDLE / LEVELS, name="units")(measured)
    # Cells that never vary (the filling) stay zero.
    measured = layers.BatchNormalization(center=False, scale=False, **_NORM, name="standardised")(measured)

    parts = []
    for number in range(1, _BRANCHES + 1):
        seen = layers.Conv2D(16, (_LEADS, 5), strides=(1, 2), use_bias=False, name=f"all_leads{number}")(beats)
        seen = layers.BatchNormalization(**_NORM, name=f"all_leads_norm{number}")(seen)
        seen = layers.Flatten(name=f"flat{number}")(layers.ReLU(name=f"all_leads_relu{number}")(seen))
        seen = layers.Dropout(dropout, name=f"beats_dropout{number}")(seen)
        parts.append(layers.Dense(24, activation="relu", name=f"beats_vector{number}")(seen))
        kept = layers.Dropout(_LEFT_OUT, name=f"measurements_dropout{number}")(measured)
        parts.append(layers.Dense(48, activation="relu", name=f"measurements_vector{number}")(kept))
    embedding = layers.Concatenate(name="embedding")(parts)
    return classify_embedding(embedding, classes, dropout)
