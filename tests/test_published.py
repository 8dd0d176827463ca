"""The originals' figures are those of their pages, and carry names that our own scores carry."""

from pathlib import Path

import numpy as np
import pytest

from cardium.datasets import get_collection
from cardium.evaluation import metrics
from cardium.evaluation.published import PUBLISHED_SCORES, SOURCES, published_metrics, published_score

SEEDS = Path(__file__).resolve().parents[2] / "shared" / "seeds"

NAMES = {
    "001": {
        "Baseline CNN": "cnn_baseline",
        "MobileNet": "mobilenet",
        "ResNet50": "resnet50",
        "DenseNet121": "densenet121",
        "ConvNeXt-Tiny": "convnext_tiny",
        "DenseNet + Bottleneck": "densenet121_bottleneck",
        "DenseNet + Attention": "densenet121_se",
        "EfficientNet-B0 + MSA (Best)": "efficientnetb0_msa",
    },
    "003": {
        "CNN 2D": "cnn2d",
        "CNN 3D": "cnn3d",
        "Attention-LSTM": "attention_lstm",
        "Hybrid Network": "hybrid",
        "AttentionVGG": "attention_vgg",
        "Time Distributed CNN": "time_distributed_cnn",
    },
}


@pytest.mark.parametrize(("system", "dataset", "elsewhere"), [("001", "ecg4", {"resnet50_cbam"}), ("003", "ecg5", set())])
def test_the_tables_are_those_of_the_pages(system, dataset, elsewhere):
    page = next(iter(SEEDS.glob(f"{system}*.txt")), None)
    if page is None:
        pytest.skip(f"the page of system {system} is not here (shared/seeds)")
    seen = {}
    for line in page.read_text(encoding="utf-8", errors="replace").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[0] in NAMES[system]:
            seen[NAMES[system][cells[0]]] = [float(cell) for cell in cells[1:]]
    assert seen.keys() == set(NAMES[system].values())
    assert seen == {model: list(row.values()) for model, row in PUBLISHED_SCORES[dataset].items() if model not in elsewhere}


@pytest.mark.parametrize("dataset", PUBLISHED_SCORES)
def test_the_names_are_those_of_our_own_scores(dataset):
    classes = list(get_collection(dataset).classes)
    y = np.arange(len(classes) * 4) % len(classes)
    p = np.full((len(y), len(classes)), 1 / len(classes))
    ours = metrics.score(y, p, classes=classes)
    assert set(published_metrics(dataset)) <= set(ours)
    for row in PUBLISHED_SCORES[dataset].values():
        assert set(row) <= set(published_metrics(dataset))
        assert all(0 <= value <= 1 for value in row.values())
    assert SOURCES[dataset]


def test_a_score_that_no_page_has():
    assert published_score("cmri", "mobilenetv2") == 0.7815
    assert published_score("ecg4", "densenet121") == 0.91, "macro recall is balanced accuracy"
    assert published_score("ecg5", "cnn3d") is None
    assert published_score("ecg5", "cnn3d", "accuracy") == 0.989
    assert published_score("ecg4", "vgg16", "accuracy") is None
    assert published_score("none", "x") is None
    assert published_metrics("none") == ()
