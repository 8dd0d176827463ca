"""Tests see none of the caller's settings: a store, a run or a weights folder of the machine would change what they test."""

import os

for name in [name for name in os.environ if name.startswith(("MLFLOW_", "CARDIUM_"))]:
    del os.environ[name]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
