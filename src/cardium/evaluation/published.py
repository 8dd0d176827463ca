"""The originals' own scores, as their pages print them, to stand beside ours. They do not hold for the next patient.

dataset -> model -> score, under the names of `cardium.metrics`. A model that the page does not have is not in the table, nor a
score that it does not print. System 004's page prints none: its models (`cnn_custom`, `mobilenetv2`, `vgg16`, `fused` of ecg4)
are not here.
"""

from __future__ import annotations

SOURCES = {
    "cmri": (
        "Key Results Summary (validation set) of the README of `A Comparative Study of Deep Learning Models and Training"
        " Techniques for Cardiac MRI Classification`: 20% of the images, the same that chose the weights"
    ),
    "ecg4": (
        "Baseline Models and Modified Models of the README of `DL-MI-ECG`: on sheets most of which have identical copies in"
        " training; resnet50_cbam from the notebook beside it"
    ),
    "ecg5": (
        "Results of the README of `Heart-Condition-Classification-from-ECG-images`: validation and test images together,"
        " cropped by class and file number, so the label is in the input"
    ),
    "chd": "Test accuracy of the original's README: a second, unseeded split of patients that it had been trained on",
}

_CMRI_COLUMNS = (
    "accuracy", "balanced_accuracy", "loss", "precision_Normal", "recall_Normal", "f1_Normal", "precision_Sick", "recall_Sick",
    "f1_Sick",
)  # fmt: skip

_CMRI: dict[str, tuple[float | None, ...]] = {
    "mobilenetv2": (0.7618, 0.7815, 0.5018, 0.9016, 0.6713, 0.7700, 0.6549, 0.8917, 0.7556),
    "resnet152v2": (0.7744, 0.7745, 0.4853, 0.8280, 0.7749, 0.8005, 0.7027, 0.7742, 0.7368),
    "densenet201": (0.7631, 0.7596, 0.5063, 0.8095, 0.7814, 0.7952, 0.6996, 0.7378, 0.7182),
    "inceptionv3": (0.7015, 0.6874, 0.5470, 0.7395, 0.7588, 0.7490, 0.6432, 0.6160, 0.6293),
    "mobilenetv2_spatial": (0.7267, 0.7375, 0.5115, 0.8285, 0.6761, 0.7447, 0.6315, 0.7989, 0.7052),
    "resnet152v2_spatial": (0.7409, 0.7321, 0.4923, 0.7820, 0.7801, 0.7810, 0.6817, 0.6841, 0.6829),
    "densenet201_spatial": (0.7439, 0.7358, 0.5020, 0.7861, 0.7796, 0.7828, 0.6837, 0.6920, 0.6878),
    "inceptionv3_spatial": (0.7036, 0.6946, 0.5530, 0.7530, 0.7433, 0.7481, 0.6340, 0.6458, 0.6398),
    "ensemble": (0.7780, 0.7722, None, 0.8184, 0.8034, 0.8108, 0.7218, 0.7411, 0.7313),
}

_ECG4_COLUMNS = ("accuracy", "precision_macro", "recall_macro", "f1_macro")

_ECG4: dict[str, tuple[float | None, ...]] = {
    "cnn_baseline": (0.72, 0.70, 0.68, 0.69),
    "mobilenet": (0.48, 0.39, 0.43, 0.38),
    "resnet50": (0.68, 0.65, 0.64, 0.62),
    "densenet121": (0.90, 0.91, 0.91, 0.91),
    "convnext_tiny": (0.26, 0.06, 0.25, 0.10),
    "densenet121_bottleneck": (0.91, 0.90, 0.91, 0.91),
    "densenet121_se": (0.91, 0.93, 0.99, 0.96),
    "efficientnetb0_msa": (0.96, 0.94, 0.97, 0.95),
    # Last stage only, label smoothing, 50 epochs, random weights; the same for 10 epochs on all stages: 0.44.
    "resnet50_cbam": (0.80, None, None, None),
}

_ECG5_COLUMNS = ("accuracy",)

# On the test images alone, by the same code: 0.985, 0.993, 0.858, 0.942, 0.993, 0.982.
_ECG5: dict[str, tuple[float | None, ...]] = {
    "cnn2d": (0.982,),
    "cnn3d": (0.989,),
    "attention_lstm": (0.887,),
    "hybrid": (0.953,),
    "attention_vgg": (0.994,),
    "time_distributed_cnn": (0.98,),
}

# A second, unseeded split, of patients that it had been trained on; on the 12 really held out its best epoch had 0.50,
# its last 0.33.
_CHD: dict[str, tuple[float | None, ...]] = {"cnn_lstm": (0.92,)}

_TABLES = {
    "cmri": (_CMRI_COLUMNS, _CMRI),
    "ecg4": (_ECG4_COLUMNS, _ECG4),
    "ecg5": (_ECG5_COLUMNS, _ECG5),
    "chd": (("accuracy",), _CHD),
}

PUBLISHED_SCORES: dict[str, dict[str, dict[str, float]]] = {
    dataset: {
        model: {name: value for name, value in zip(columns, row, strict=True) if value is not None}
        for model, row in rows.items()
    }
    for dataset, (columns, rows) in _TABLES.items()
}


def published_metrics(dataset: str) -> tuple[str, ...]:
    """What the original's page prints of a model, in its order; () for a dataset without an original."""
    return _TABLES[dataset][0] if dataset in _TABLES else ()


def published_score(dataset: str, model: str, metric: str = "balanced_accuracy") -> float | None:
    """The original's figure, or None where its page has none. Balanced accuracy is macro recall by another name."""
    scores = PUBLISHED_SCORES.get(dataset, {}).get(model, {})
    return scores.get("recall_macro") if metric == "balanced_accuracy" and metric not in scores else scores.get(metric)
