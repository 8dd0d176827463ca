"""cardium: classifiers of cardiac images, trained, compared, promoted and served, scored for the next patient.

>>> import cardium
>>> cardium.list_models("mobilenetv2_*")
>>> cardium.create_model("mobilenetv2_se", classes=4, height=128, width=128)
>>> cardium.load_classifier("models/cmri/honest/mobilenetv2").classify([file.read_bytes()])
>>> cardium.score(labels, probabilities)["balanced_accuracy"]

These names are the public API. `import cardium` loads none of the libraries behind them; each name does at its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cardium.evaluation.metrics import score
    from cardium.models import create_model, list_models
    from cardium.serving import Classifier

__version__ = "0.2.0"
__all__ = ["__version__", "create_model", "list_models", "load_classifier", "score"]

# Public names that other modules define: imported from there when they are first asked for.
_HOMES = {"create_model": "cardium.models", "list_models": "cardium.models", "score": "cardium.evaluation.metrics"}


def load_classifier(model: str | Path, root: Path | None = None) -> Classifier:
    """Loads a trained model that classifies files: `classify([bytes, ...])` gives a row for each.

    model: a run folder, which needs no project around it, or an MLflow model (`models:/cardium-cmri@champion`,
    `runs:/<id>/model`). root: the project (a folder with params.yaml) whose model registry and limits count and in which a
    relative run folder is looked for too. Without it, an MLflow model is looked for in the project of the current folder.
    Raises CardiumError if there is no such model, and for an MLflow model outside of a project.
    """
    from pathlib import Path

    from cardium import serving
    from cardium.config import load
    from cardium.errors import CardiumError
    from cardium.workspace import find_root

    name = str(model)
    if root is None and ":/" not in name:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise CardiumError(f"There is no run folder `{model}`: give one, or a registered model (models:/<name>@champion).")
        return serving.Classifier(folder)
    return serving.load_classifier(load(root or find_root()), name)


# Type checkers read the imports above instead, and report a misspelt name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'cardium' has no attribute '{name}'; its public names: {', '.join(__all__)}")
        found = globals()[name] = getattr(importlib.import_module(home), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
