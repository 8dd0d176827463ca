"""The served model, as a script that MLflow runs wherever it loads one: a run folder and cardium's code, no pickle.

In: column `image`, base64 text of JPEG, PNG or DICOM bytes, for models of volumes of NIfTI bytes. Out: a row a file, see
Classifier.classify. Loaded by `mlflow models serve`, the model answers its requests through an application of its own
(endpoint.py); loaded anywhere else, through `predict`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mlflow.models
import pandas as pd
from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel

from cardium.config import Serve
from cardium.imaging.spec import Sides
from cardium.serving import mlflow_app
from cardium.serving.classifier import Classifier
from cardium.serving.endpoint import Endpoint
from cardium.serving.request import BadRequest, answered, failed, files_of, no_column
from cardium.tensorflow_import import import_tensorflow
from cardium.tracking.registry import downloaded_version
from cardium.tracking.signature import COLUMN

# Seconds that a connection may be open without a request.
_IDLE = 10.0


class ServedModel(PythonModel):  # type: ignore[misc]
    """Serving's Classifier behind MLflow's interface: every error leaves as an MlflowException, as MLflow answers any other
    with the whole traceback."""

    def load_context(self, context: Any) -> None:
        """Loads the run folder, with the limits of the params.yaml that it was logged under, and readies MLflow's server."""
        if "keras" not in sys.modules:  # A server's process; in any other, Keras' settings are their owner's.
            import_tensorflow()
        folder = Path(context.artifacts["run"])
        version = downloaded_version(folder.parents[1])  # <model>/artifacts/run
        limits = dict(context.model_config or {})
        sides = Sides(**limits.pop("sides", {}))
        self.classifier = Classifier(folder, version, Serve(**limits), sides)
        if mlflow_app.expected():
            endpoint = Endpoint(self.classifier, MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get())
            mlflow_app.wrap_next(endpoint.before)
            mlflow_app.end_idle_connections(_IDLE)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:  # noqa: ARG002
        """The column `image` -> a table with a row a file."""
        try:
            if COLUMN not in model_input:
                raise no_column()
            files = files_of(list(model_input[COLUMN]), self._max_rows(len(model_input)), self.classifier.max_bytes)
            rows = self.classifier.classify(files)
            # Of a batch of Spark's one bad file is no reason to fail all: its row says what is wrong.
            table = pd.DataFrame(answered(rows) if mlflow_app.in_server() else rows)
            return table.astype(object).where(table.notna(), None) if "error" in table else table
        except BadRequest as error:
            raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from None
        except Exception as error:
            raise MlflowException(failed(error), INTERNAL_ERROR) from None

    def _max_rows(self, rows: int) -> int:
        """How many files a call may have: a request's limit in a server, any number elsewhere (Spark sends 10,000)."""
        return self.classifier.max_rows if mlflow_app.in_server() else max(rows, 1)


mlflow.models.set_model(ServedModel())
