"""A dataset's registered model, `cardium-<dataset>`: its versions and the aliases champion, challenger and previous.

A version is a logged model; registering copies nothing. A run is registered once, known by its id (tag `cardium.id`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cardium.errors import CardiumError, first_line
from cardium.tracking.mlflow_run import ID, NAME, create_once, find_run, to_tags
from cardium.tracking.models import has_files, model_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
# The version that was champion before this one; whether this one was rolled back; why it was or was not promoted; why a person
# made it champion.
BEFORE, ROLLED_BACK, REASON, BY_HAND = "cardium.before", "cardium.rolled_back", "cardium.reason", "cardium.by_hand"
# The split on whose test records the version was put forward: each of these was an attempt on the same records.
SPLIT = "cardium.split"


@dataclass(frozen=True)
class Version:
    """A version of the registered model and the run behind it: `id` of its run.json, its name, its MLflow run."""

    number: int
    id: str
    run: str
    mlflow_run: str
    tags: dict[str, str]

    def __str__(self) -> str:
        """`cmri-mobilenetv2 (version 3)`."""
        return f"{self.run} (version {self.number})"


def versions(client: MlflowClient, name: str) -> list[Version]:
    """The versions of a registered model, oldest first; none if it does not exist."""
    found = client.search_model_versions(f"name = '{name}'")
    return sorted((_version(version) for version in found), key=lambda version: version.number)


def by_alias(client: MlflowClient, name: str, alias: str) -> Version | None:
    """The version that has the alias, or None."""
    number = aliases(client, name).get(alias)
    return next((version for version in versions(client, name) if version.number == number), None)


def aliases(client: MlflowClient, name: str) -> dict[str, int]:
    """Alias -> version number; empty if the registered model does not exist."""
    found = client.search_registered_models(f"name = '{name}'")
    return {alias: int(number) for model in found for alias, number in model.aliases.items()}


def register(client: MlflowClient, name: str, run_id: str) -> Version:
    """The version of the run with this `id` of run.json, made if there is none.

    Raises CardiumError if the run's model is not in the tracking store.
    """
    known = next((version for version in versions(client, name) if version.id == run_id), None)
    if known is not None:
        return known
    runs = find_run(client, ID, run_id)
    model = model_of(client, runs[0].info.run_id) if runs else None
    if model is None or not has_files(model):
        raise CardiumError(
            f"The evaluated run {run_id} is not in the tracking store, or without its model: if it was trained again since, "
            "run `dvc repro`; otherwise `cardium sync` tells why it could not be logged."
        )
    if not client.search_registered_models(f"name = '{name}'"):
        about = "Classifies image files; see each version for why it was promoted or not."
        create_once(
            lambda: client.create_registered_model(name, description=about),
            lambda: next(iter(client.search_registered_models(f"name = '{name}'")), None),
        )
    run = runs[0]
    tags = {ID: run_id, NAME: run.data.tags[NAME], "model": run.data.tags["model"]}
    # Its tags go in with its creation: a kill leaves no version that would be registered again.
    return create_once(
        lambda: _version(
            client.create_model_version(
                name, source=model.artifact_location, run_id=run.info.run_id, tags=tags, model_id=model.model_id
            )
        ),
        lambda: next((version for version in versions(client, name) if version.id == run_id), None),
    )


def is_there(client: MlflowClient, version: Version) -> bool:
    """Whether the version's model can still be served; False once it was deleted from the store, or its files were.

    Of a version that cardium did not register nothing is known: True.
    """
    if not version.mlflow_run:
        return True
    model = model_of(client, version.mlflow_run)
    return model is not None and has_files(model)


def set_aliases(client: MlflowClient, name: str, wanted: dict[str, int | None]) -> None:
    """Sets each alias to a version, or takes it away (None), in the order given."""
    have = aliases(client, name)
    for alias, number in wanted.items():
        if number is None and alias in have:
            client.delete_registered_model_alias(name, alias)
        elif number is not None and have.get(alias) != number:
            client.set_registered_model_alias(name, alias, str(number))


def describe(client: MlflowClient, name: str, version: Version, tags: dict[str, str], description: str) -> None:
    """Sets a version's tags and its description."""
    for key, value in to_tags(tags).items():
        client.set_model_version_tag(name, str(version.number), key, value)
    client.update_model_version(name, str(version.number), description=description)


def fetch(client: MlflowClient, mlflow_run: str) -> Path:
    """The folder of the model that a run logged: where it lies, or a download. Raises CardiumError if it is gone."""
    import mlflow
    from mlflow.exceptions import MlflowException

    model = model_of(client, mlflow_run)
    try:
        if model is None:
            raise OSError("its model was deleted")
        return Path(mlflow.artifacts.download_artifacts(f"models:/{model.model_id}"))
    except (MlflowException, OSError) as error:
        raise CardiumError(f"The model of MLflow run {mlflow_run} cannot be read: {first_line(error)}.") from None


def downloaded_version(model_folder: Path) -> str | None:
    """The registry's version of a downloaded MLflow model: MLflow writes it beside the model."""
    import yaml

    try:
        return str(yaml.safe_load((model_folder / "registered_model_meta").read_text(encoding="utf-8"))["model_version"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None


def _version(version: Any) -> Version:
    tags = dict(version.tags or {})
    return Version(int(version.version), tags.get(ID, ""), tags.get(NAME, "?"), version.run_id or "", tags)
