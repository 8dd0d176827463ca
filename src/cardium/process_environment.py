"""What a process inherits and a result must not depend on: variables and a user's Keras settings, set or checked in one place.

Cardium's own processes (its command, its stages, its workers, a server) call `settle`: what would change a result or stop a
process is set aside, and said once. In somebody else's process nothing is changed: `check_keras` raises an error there.
Threads and devices are the user's to choose. They can change a result's last bits, so `in_force` writes them down.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cardium.errors import CardiumError
from cardium.parallel import cores

# Variables and what they must be; None: not set at all.
_VARIABLES: dict[str, str | None] = {
    "KERAS_BACKEND": "tensorflow",
    "KERAS_NNX_ENABLED": None,
    "KERAS_MAX_EPOCHS": None,
    "KERAS_MAX_STEPS_PER_EPOCH": None,
    "TF_USE_LEGACY_KERAS": None,
    # Within a git hook they name the hook's repository: a result would be filed under its commit.
    **dict.fromkeys(("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"), None),
}
# Keras' settings, which ~/.keras/keras.json may change for every process of a user.
_KERAS = {"backend": "tensorflow", "image_data_format": "channels_last", "floatx": "float32", "epsilon": 1e-7}
# Variables that change a result's last bits, or where it is computed.
_RECORDED = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
    "TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "TF_XLA_FLAGS", "XLA_FLAGS",
    "TF_DETERMINISTIC_OPS", "NVIDIA_TF32_OVERRIDE", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
# What was set aside, for the processes that this one starts: they say it in run.json, and not again on the screen.
OVERRIDDEN = "CARDIUM_OVERRIDDEN"


def settle() -> None:
    """Sets the variables that decide, before keras and matplotlib are imported; one line on stderr says what was set aside."""
    found = [
        f"{name}={os.environ[name]}" for name, value in _VARIABLES.items() if os.environ.get(name) not in (None, "", value)
    ]
    found += [f"{name}={value} of keras.json" for name, value in _keras_json().items() if value != _KERAS[name]]
    for name, wanted in _VARIABLES.items():
        if wanted is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = wanted
    # A notebook's backend is one that only the notebook can import.
    os.environ["MPLBACKEND"] = "Agg"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    said = os.environ.get(OVERRIDDEN, "")
    new = [text for text in found if text not in said.split(", ")]
    if new:
        print(f"note: set aside, since results would depend on it: {', '.join(new)}.", file=sys.stderr)
        os.environ[OVERRIDDEN] = ", ".join(filter(None, [said, *new]))


@contextlib.contextmanager
def variables_restored(*names: str) -> Iterator[None]:
    """Puts the named variables back at the end of the block as they were at its start, whatever the block sets them to."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def variables_set(values: Mapping[str, str]) -> Iterator[None]:
    """Sets variables within the block."""
    with variables_restored(*values):
        os.environ.update(values)
        yield


def settle_keras() -> None:
    """Sets Keras' own settings, once keras is imported. Raises CardiumError for another backend, which cannot be changed."""
    import keras

    if keras.config.backend() != _KERAS["backend"]:
        raise _wrong("backend", keras.config.backend())
    keras.config.set_image_data_format(_KERAS["image_data_format"])
    keras.config.set_floatx(_KERAS["floatx"])
    keras.config.set_epsilon(_KERAS["epsilon"])
    keras.config.set_dtype_policy(_KERAS["floatx"])


def check_keras() -> None:
    """Raises CardiumError where this process' Keras would build another model than cardium's; changes nothing.

    For a user's own process, in which Keras' settings are the user's.
    """
    given = os.environ.get("KERAS_BACKEND") or _keras_json().get("backend", "tensorflow")
    if "keras" not in sys.modules and given != "tensorflow":
        raise _wrong("backend", given)
    import keras

    config = keras.config
    actual = {
        "backend": config.backend(),
        "image_data_format": config.image_data_format(),
        "floatx": config.floatx(),
        "epsilon": config.epsilon(),
    }
    for name, value in actual.items():
        if value != _KERAS[name]:
            raise _wrong(name, value)
    if config.dtype_policy().name != _KERAS["floatx"]:
        raise _wrong("dtype_policy", config.dtype_policy().name, _KERAS["floatx"])


def in_force() -> dict[str, str]:
    """What this process computes under, for run.json: cores, Keras' settings, variables that are set, what was set aside."""
    found = {"cores": str(cores())}
    if "keras" in sys.modules:
        import keras

        found |= {name: str(getattr(keras.config, name)()) for name in _KERAS}
    found |= {name: os.environ[name] for name in _RECORDED if name in os.environ}
    if os.environ.get(OVERRIDDEN):
        found["overridden"] = os.environ[OVERRIDDEN]
    return found


def _keras_json() -> Mapping[str, Any]:
    """The settings of the user's keras.json that `_KERAS` has, too; {} where there is none or it cannot be read."""
    try:
        home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras").expanduser()
        table = json.loads((home / "keras.json").read_text(encoding="utf-8"))
        return {name: table[name] for name in _KERAS if name in table}
    except (OSError, ValueError, TypeError, RuntimeError):
        return {}


def _wrong(name: str, value: object, wanted: object = None) -> CardiumError:
    how = (
        "set KERAS_BACKEND=tensorflow before keras is imported"
        if name == "backend"
        else f"call keras.config.set_{name}({wanted or _KERAS[name]!r}) first"
    )
    return CardiumError(
        f"Keras is set to {name} {value} here, and cardium's models need {wanted or _KERAS[name]}: {how} "
        f"(KERAS_BACKEND and ~/.keras/keras.json set it)."
    )
