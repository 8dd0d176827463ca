"""promote: the best run challenges the champion of the registered model `cardium-<dataset>`; the better one is served.

From reports/<dataset>/evaluation/ and MLflow's registry to reports/<dataset>/promotion/promotion.json, which holds the
decision, its reasons and numbers. evaluation.promotion has the rule, tracking.promotion what the registry is asked and told.
"""

from __future__ import annotations

from cardium.atomic import replacing_folder
from cardium.config import Settings
from cardium.evaluation.evaluation import Evaluation
from cardium.evaluation.promotion import FILE, Promotion
from cardium.tracking import promotion as promoting
from cardium.tracking.store import StoreAway
from cardium.workspace import Workspace


def run(settings: Settings, item: str) -> None:
    """Promotes dataset `item`'s best run, or says why not; with the store away, says so and lets the pipeline go on."""
    try:
        promotion = promote(settings, item)
    except StoreAway as error:
        promotion = promoting.skipped(settings, item, error)
        _write(settings, promotion)
    promoting.print_promotion(promotion)
    path = Workspace(settings.root).promotion(item) / FILE
    print(f"Written: {path.relative_to(settings.root).as_posix()}")


def promote(settings: Settings, dataset: str) -> Promotion:
    """Promotes and writes promotion.json. Promotions of one store run one after the other.

    Raises CardiumError without an evaluation, StoreAway without the store.
    """
    evaluation = Evaluation.read(Workspace(settings.root).evaluation(dataset), dataset)
    with promoting.one_at_a_time(settings, dataset):
        promotion = promoting.promote(settings, evaluation)
        _write(settings, promotion)
    return promotion


def _write(settings: Settings, promotion: Promotion) -> None:
    with replacing_folder(Workspace(settings.root).promotion(promotion.dataset)) as folder:
        promotion.write(folder)
