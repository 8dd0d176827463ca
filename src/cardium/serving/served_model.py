"""The served model, as a script that MLflow runs wherever it loads one: a run folder and cardium's code, no pickle.

In: column `image`, base64 text of JPEG, PNG or DICOM bytes, for models of volumes of NIfTI bytes. Out: a row a file, see
Classifier.classify.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mlflow.models
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel

from cardium.config import Serve
from cardium.serving.classifier import Classifier
from cardium.serving.request import BadRequest, files_of
from cardium.tensorflow_import import import_tensorflow
from cardium.tracking.registry import downloaded_version
from cardium.tracking.signature import COLUMN


class ServedModel(PythonModel):  # type: ignore[misc]
    """Serving's Classifier behind MLflow's interface: every error leaves as an MlflowException, as MLflow answers any other
    with the whole traceback."""

    def load_context(self, context: Any) -> None:
        """Loads the run folder, with the limits of the params.yaml that it was logged under."""
        if "keras" not in sys.modules:  # A server's process; in any other, Keras' settings are their owner's.
            import_tensorflow()
        folder = Path(context.artifacts["run"])
        version = downloaded_version(folder.parents[1])  # <model>/artifacts/run
        self.classifier = Classifier(folder, version, Serve(**(context.model_config or {})))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:  # noqa: ARG002
        """The column `image` -> a table with a row a file."""
        try:
            if COLUMN not in model_input:
                raise BadRequest(f"There is no column `{COLUMN}`.")
            files = files_of(list(model_input[COLUMN]), self.classifier.max_rows, self.classifier.max_bytes)
            return pd.DataFrame(self.classifier.classify(files))
        except BadRequest as error:
            raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from None
        except Exception as error:
            # Its text may hold paths of this machine; the type says where to look.
            raise MlflowException(f"The model failed on this request ({type(error).__name__}).", INTERNAL_ERROR) from None


mlflow.models.set_model(ServedModel())
