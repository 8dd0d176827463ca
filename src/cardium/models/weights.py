"""Pretrained weights for a backbone: a file in a weights folder first, then Keras' own download, or none."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cardium.errors import CardiumError, first_line
from cardium.models.backbones import get_backbone, layers_of_backbone

if TYPE_CHECKING:
    import keras
    import numpy as np


@dataclass(frozen=True)
class WeightsUsed:
    """What a backbone's weights are: `used` is imagenet or random; `file` the name of the file, `sha256` its content's."""

    asked: str
    used: str
    file: str = ""
    sha256: str = ""
    warning: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def weights_folders(root: Path) -> list[Path]:
    """Where weight files are looked for: the folders of CARDIUM_WEIGHTS, then `weights/` in the project."""
    given = os.environ.get("CARDIUM_WEIGHTS", "")
    return [Path(folder) for folder in given.split(os.pathsep) if folder] + [root / "weights"]


def find_file(backbone: str, root: Path, side: int) -> Path | None:
    """The weight file of a backbone in the weights folders, or None. Also `<backbone>.weights.h5` is taken."""
    row = get_backbone(backbone)
    # Keras keeps MobileNet's weights for five input sizes; any of them fits every size, being without the top.
    names = [name.format(side=s) for name in row.files for s in (side, 224, 192, 160, 128, 96)]
    for folder in weights_folders(root):
        for name in [*names, f"{row.name}.weights.h5", f"{row.name}_no_top.weights.h5"]:
            if (folder / name).is_file():
                return folder / name
    return None


def load_weights(model: keras.Model, backbone: str, asked: str, root: Path) -> WeightsUsed:
    """Puts ImageNet weights into the layers of `backbone` in `model` (from `build_backbone` or `create_model`).

    asked: `imagenet`, `none`, or `auto` (imagenet where it can be had, otherwise random with a warning).
    Raises CardiumError when `imagenet` is asked and cannot be had, or a file does not fit.
    """
    if asked == "none":
        return WeightsUsed(asked, "random")
    # Of frames (n, T, height, width) as of images (n, height, width, 3).
    height, width = model.input_shape[1:3] if model.input_shape[-1] == 3 else model.input_shape[2:4]
    file = find_file(backbone, root, max(height, width))
    try:
        source = _plain(backbone, height, width, file)
    except _UnavailableError as error:
        looked = ", ".join(str(_shown(folder, root)) for folder in weights_folders(root))
        if asked == "imagenet":
            raise CardiumError(
                f"No ImageNet weights for {backbone}: no file in {looked} ({_expected(backbone)}), and no download ({error}). "
                "Put the file there, or set `weights: none`."
            ) from None
        return WeightsUsed(asked, "random", warning=f"{backbone} has random weights: ImageNet's could not be had ({error})")
    # Weight by weight, as Keras keeps some layers in sub-models. A tapped network ends before the whole one does.
    given = [weight for layer in layers_of_backbone(source) for weight in layer.weights]
    pairs = list(zip(given, (weight for layer in layers_of_backbone(model) for weight in layer.weights), strict=False))
    for theirs, ours in pairs:
        ours.assign(theirs)
    sha = sha256_of_file(file) if file else sha256_of_weights([theirs.numpy() for theirs, _ in pairs])
    return WeightsUsed(asked, "imagenet", file.name if file else "keras.applications", sha)


class _UnavailableError(Exception):
    """Neither a file nor a download."""


def _plain(backbone: str, height: int, width: int, file: Path | None) -> keras.Model:
    """The application as Keras itself builds it, with ImageNet weights: what weight files are laid out for."""
    import keras

    application = getattr(keras.applications, get_backbone(backbone).application)
    if file is None:
        return _downloaded(application, (height, width, 3))
    try:
        plain = application(include_top=False, weights=None, input_shape=(height, width, 3))
        plain.load_weights(str(file))
    except Exception as error:  # h5py and Keras raise many kinds for a file that does not fit.
        raise CardiumError(
            f"{file} does not hold the weights of {backbone} without its top: {first_line(error)[:160]}"
        ) from None
    return plain


def _downloaded(application: Any, shape: tuple[int, int, int]) -> keras.Model:
    import contextlib
    import io
    import socket

    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)
    try:
        # Keras announces the attempt on stdout even when it fails.
        with contextlib.redirect_stdout(io.StringIO()):
            return application(include_top=False, weights="imagenet", input_shape=shape)
    except Exception as error:
        reason = str(error).strip().splitlines()[-1][-120:] if str(error).strip() else type(error).__name__
        raise _UnavailableError(reason.split(" -- ")[-1].strip()) from None
    finally:
        socket.setdefaulttimeout(patience)


def _expected(backbone: str) -> str:
    return " or ".join(name.format(side=224) for name in get_backbone(backbone).files)


def _shown(folder: Path, root: Path) -> Path:
    return folder.relative_to(root) if folder.is_relative_to(root) else folder


# Pixels of a batch above which batch norm is measured in a graph.
_TRACED = 2**16


def calibrate_batch_norm(model: keras.Model, pixels: np.ndarray) -> None:
    """Sets the moving statistics of every batch norm layer to those of `pixels` (n, H, W, 3), 0-255, in one forward pass.

    A backbone with random weights and untouched statistics scales its signal down by ten orders of magnitude over its
    depth; measured statistics keep every layer's output near unit variance, so that random features carry something.
    """
    import keras
    import tensorflow as tf

    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum, layer.trainable = 0.0, True

    def step(images: tf.Tensor) -> tf.Tensor:
        return tf.reduce_max(model(images, training=True))

    # A graph lets go of each layer's output when the next has it: eagerly, ResNet152's of 64 images at 224x224 are 20 GB.
    # Of few small images they are little, and tracing a deep network takes longer.
    large = pixels.shape[0] * pixels.shape[1] * pixels.shape[2] > _TRACED
    (tf.function(step) if large else step)(tf.constant(pixels, dtype="float32"))
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum, layer.trainable = momentum, False


def batch_norm_statistics(model: keras.Model) -> list[np.ndarray]:
    """The moving means and variances of every batch norm layer, in graph order."""
    import keras

    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    return [array for layer in norms for array in (layer.moving_mean.numpy(), layer.moving_variance.numpy())]


def set_batch_norm_statistics(model: keras.Model, statistics: list[np.ndarray]) -> None:
    """The reverse of `batch_norm_statistics`."""
    import keras

    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer, mean, variance in zip(norms, statistics[::2], statistics[1::2], strict=True):
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_of_weights(weights: list[np.ndarray]) -> str:
    """The hash of arrays in order (a `.keras` file's own bytes change at every save)."""
    digest = hashlib.sha256()
    for array in weights:
        digest.update(array.tobytes())
    return digest.hexdigest()
