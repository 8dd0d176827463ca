"""Imports TensorFlow without what its C++ parts print while they load, before any log level counts."""

from __future__ import annotations

import gc
import os
import sys

from cardium.process_environment import settle, settle_keras


def import_tensorflow() -> None:
    """Imports tensorflow and keras, for a process of cardium's own, whose settings of Keras it sets.

    A real failure to import is raised as ever. Raises CardiumError where keras is there already with another backend.
    """
    settle()
    if "tensorflow" in sys.modules:
        settle_keras()
        return
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import keras  # noqa: F401
        import tensorflow

        # Scoring builds a graph a run, and TensorFlow warns of each from the fifth on.
        tensorflow.get_logger().setLevel("ERROR")
        # What the imports have made stays: a collection that goes through all of it takes an eighth of building a large model.
        gc.freeze()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
    settle_keras()
