"""MLflow as a view of the files: run folders, evaluations and pages in; runs, curves, tables and models in the store out.

from cardium import tracking
tracking.log_run(settings, folder)

The files are the truth. Everything is logged exactly once, known by its own id, however often this is called, from however
many processes, and after a kill half-way. With the store away nothing is lost: each `log_*` says so in one line, and `sync`
logs later what is missing. MLflow is imported when the store is reached, not with this package.
"""

from cardium.tracking.evaluations import log_evaluation, log_experiment, log_explanations
from cardium.tracking.mlflow_run import COMPLETE, ID, PARENT, REQUESTED, SAME_AS, find_run
from cardium.tracking.models import model_of, run_folder_of
from cardium.tracking.pages import log_audit, log_report
from cardium.tracking.runs import log_run
from cardium.tracking.scorings import log_scoring
from cardium.tracking.searches import log_search
from cardium.tracking.store import StoreAway, connected, experiment_name, store_exists, store_lock, tracking_uri
from cardium.tracking.sync import Synced, sync, sync_text

__all__ = [
    "COMPLETE",
    "ID",
    "PARENT",
    "REQUESTED",
    "SAME_AS",
    "StoreAway",
    "Synced",
    "connected",
    "experiment_name",
    "find_run",
    "log_audit",
    "log_evaluation",
    "log_experiment",
    "log_explanations",
    "log_report",
    "log_run",
    "log_scoring",
    "log_search",
    "model_of",
    "run_folder_of",
    "store_exists",
    "store_lock",
    "sync",
    "sync_text",
    "tracking_uri",
]
