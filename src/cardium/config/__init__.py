"""Settings: params.yaml as types, and the plan that it comes to."""

from cardium.config.load import choose_profile, load, resolve
from cardium.config.plan import (
    BankSpec,
    ExplanationSpec,
    JointSpec,
    Plan,
    RenderingSpec,
    RunSpec,
)
from cardium.config.plan_file import check_plan, plan_table, plan_text, write_plan
from cardium.config.schema import (
    Audit,
    Dataset,
    Dimension,
    Evaluate,
    Explain,
    Features,
    Ingest,
    Promote,
    Serve,
    Split,
    Train,
    Tune,
    Validate,
)
from cardium.config.settings import Settings, make_plan, run_spec

__all__ = [
    "Audit",
    "BankSpec",
    "Dataset",
    "Dimension",
    "Evaluate",
    "Explain",
    "ExplanationSpec",
    "Features",
    "Ingest",
    "JointSpec",
    "Plan",
    "Promote",
    "Protocol",
    "RenderingSpec",
    "RunSpec",
    "Serve",
    "Settings",
    "Split",
    "Train",
    "Tune",
    "Validate",
    "check_plan",
    "choose_profile",
    "load",
    "make_plan",
    "plan_table",
    "plan_text",
    "resolve",
    "run_spec",
    "write_plan",
]
