"""A few numbers of the heart -> its class: a logistic model on how far measurements are beyond the normal heart's.

A patient's images are many and alike, patients are few: on some dozens of them a network learns who they are. What is measured
on a cine examination is a handful of numbers, and hearts are ill in different ways: one empties too little, another's wall is
too thick for its pool or does not thicken. Each measurement enters as the part that lies beyond a limit of normal hearts (a
hinge), so that the rest of its range says nothing. Of two classes only their sum is weighed, with one weight and one threshold:
one way to be ill is enough, and there is little to overfit. More classes weigh each way for itself.
"""

from __future__ import annotations

from typing import Any

from cardium.models.architectures import register_architecture
from cardium.models.classifier import classify_embedding

# (measurement, limit, where one unit beyond it ends). Limits are near those of healthy adults in cine MRI (ejection fraction 57
# to 77 %: Kawel-Boehm et al. 2020, J Cardiovasc Magn Reson 22:87); of areas, as measured here.
BEYOND = (
    ("ejection_fraction", 0.60, 0.15),
    ("wall_to_pool", 0.80, 1.70),
    ("thickening", 0.80, 0.35),
)


@register_architecture("heart", min_side=1, cam=False)
def cine_net(pixels: Any, classes: int, dropout: float) -> Any:
    """Renderings `heart` (n, 133, 512), 0-255 -> probabilities (n, classes); layer `embedding` (n, 1), of more than two
    classes (n, 3).

    A rendering without a heart has an embedding of zeros: it gets the probabilities of a normal one, and serving's warning.
    """
    from keras import layers

    from cardium.imaging.heart_format import CELLS, MEASURES

    by_name = {measure.name: measure for measure in MEASURES}
    row = layers.Cropping1D((0, int(pixels.shape[1]) - 1), name="measurements")(pixels)
    row = layers.Reshape((int(pixels.shape[2]), 1), name="cells")(row)

    def cell(number: int, name: str) -> Any:
        one = layers.Cropping1D((number, int(pixels.shape[2]) - number - 1), name=f"{name}_cell")(row)
        return layers.Reshape((1,), name=f"{name}_level")(one)

    beyond = []
    for name, limit, unit in BEYOND:
        # Levels are even in the measure, or in its logarithm.
        at, step = by_name[name].level(limit), by_name[name].level(unit) - by_name[name].level(limit)
        scaled = layers.Rescaling(1 / step, offset=-at / step, name=f"{name}_beyond")(cell(CELLS[name], name))
        beyond.append(layers.ReLU(name=f"{name}_hinge")(scaled))
    found = layers.Rescaling(1 / 255, name="found")(cell(0, "found"))
    deviation = layers.Add(name="sum")(beyond) if classes == 2 else layers.Concatenate(name="hinges")(beyond)
    embedding = layers.Multiply(name="embedding")([deviation, found])
    return classify_embedding(embedding, classes, dropout)
