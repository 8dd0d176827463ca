"""Recurrent networks: system 003's attention_lstm and hybrid, system 002's cnn_lstm, and an LSTM behind any frozen backbone."""

from __future__ import annotations

from typing import Any

from cardium.models.architectures import register_architecture
from cardium.models.classifier import classify_embedding, classify_vector
from cardium.models.cnn import extract_cnn2d, scale_leads


@register_architecture("leads", min_side=4, cam=False)
def attention_lstm(pixels: Any, classes: int, dropout: float) -> Any:
    """System 003's attention_lstm: the leads' rows one after another, 13 * h steps of w values, LSTM 128, Luong attention.

    There is no spatial map and no `cam` in it; the layer `attention` says which row counted how much.
    """
    from keras import layers

    leads, height, width = pixels.shape[1:]
    steps = layers.Reshape((leads * height, width), name="steps")(scale_leads(pixels))
    return classify_embedding(attended_lstm(steps, 128, name="embedding"), classes, dropout)


@register_architecture("leads", min_side=8)
def hybrid(pixels: Any, classes: int, dropout: float) -> Any:
    """System 003's hybrid: cnn2d's maps row by row, 128 * h/4 steps of w/4 values, into the attention LSTM; dense 64."""
    from keras import layers

    extracted = extract_cnn2d(pixels)
    height, width, channels = extracted.shape[1:]
    # PyTorch's order: one channel's rows after another's.
    steps = layers.Reshape((channels * height, width), name="steps")(
        layers.Permute((3, 1, 2), name="channels_first")(extracted)
    )
    return classify_vector(attended_lstm(steps, 128), classes, dropout, 64)


@register_architecture("slices", options=("padding",))
def cnn_lstm(pixels: Any, classes: int, dropout: float, padding: str = "masked") -> Any:
    """System 002's cnn_lstm: slices (n, T, h, w), each through two convolutions to 8x8x16, LSTM 128 over them, its last step.

    padding: `masked`, the last step is that of the last slice; `read`, as published, it comes after the padding.
    """
    from keras import layers

    from cardium.models.frame_layers import FilledFrames, FrameCNN

    maps = FrameCNN((8, 16), grid=8, name="cam")(pixels)
    steps = layers.Reshape((pixels.shape[1], 8 * 8 * 16), name="steps")(maps)
    mask = FilledFrames(name="filled")(pixels) if padding == "masked" else None
    return classify_embedding(layers.LSTM(128, name="embedding")(steps, mask=mask), classes, dropout)


def classify_frames(frames: Any, classes: int, dropout: float) -> Any:
    """Vectors of frames (n, T, C), zeros for padding -> attention LSTM 128, the `embedding` -> probabilities (n, classes)."""
    from cardium.models.frame_layers import FilledFrames

    mask = FilledFrames(name="filled_vectors")(frames)
    return classify_embedding(attended_lstm(frames, 128, mask=mask, name="embedding"), classes, dropout)


def attended_lstm(steps: Any, units: int, *, mask: Any = None, name: str = "attention_vector") -> Any:
    """Steps (n, T, F) -> LSTM -> (n, units): the last state h_T beside what it attends to, through tanh.

    score_i = (W h_i) . h_T; softmax over time, the layer `attention` (n, T); context = sum of weighted h_i;
    tanh(W2 [context; h_T]), the layer `name` (Luong et al., arXiv:1508.04025, the general score, without biases).
    mask: bool (n, T), or None. Steps where it is False, at the end, neither move the state nor get attention.
    """
    from keras import layers

    states, last, _ = layers.LSTM(units, return_sequences=True, return_state=True, name="lstm")(steps, mask=mask)
    projected = layers.Dense(units, use_bias=False, name="attention_projection")(states)
    scores = layers.Dot(axes=(2, 1), name="attention_scores")([projected, last])
    weights = layers.Softmax(axis=1, name="attention")(scores, mask=mask)
    context = layers.Dot(axes=(1, 1), name="attention_context")([weights, states])
    both = layers.Concatenate(name="attention_context_and_state")([context, last])
    return layers.Dense(units, activation="tanh", use_bias=False, name=name)(both)
