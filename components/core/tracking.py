"""Runs, versions and bundles in MLflow: one MLflow run per pipeline run, one model version per MLflow run.

MLflow holds what can be looked up; what must happen once is in the ledger. The default store is a SQLite file without
a server. Bundles are plain artifact folders, so that no model flavour and no pickle is involved.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from components.core.bundle import read_card
from components.core.errors import ConfigError, DataError
from components.core.settings import Settings, check_run_key
from components.core.tracking_client import is_embedded, open_tracking

BUNDLE = "bundle"
CHAMPION = "champion"
RUN_KEY_TAG = "driftline.run_key"
DIGEST_TAG = "driftline.model"
"""Set on a version once its whole bundle is stored."""

_ITEMS_PER_CALL = 100
"""MLflow takes at most 100 params in one batch; metrics are cut alike."""
_DIGEST_CHARACTERS = 36
"""What MLflow's column for a dataset digest holds."""


class TrainingData(BaseModel):
    """The training set of a run, as MLflow lists it."""

    model_config = ConfigDict(frozen=True)

    name: str
    digest: str
    """Our own SHA-256; MLflow keeps its first 36 characters."""
    snapshot: str
    rows: int


def start_run(settings: Settings, use_case: str, run_key: str) -> str:
    """Return the MLflow run of a pipeline run: KFP's own if its plugin opened one, else found by tag or created.

    A retry with the same key gets the same run. Raises StorageFailed when the store does not answer, ConfigError for
    a run key that cannot be used or an experiment that was deleted.
    """
    with open_tracking(settings) as client:
        if settings.mlflow_run:
            return str(client.get_run(settings.mlflow_run).info.run_id)
        experiment = _experiment(client, settings, use_case)
        found = client.search_runs([experiment], f"tags.`{RUN_KEY_TAG}` = '{check_run_key(run_key)}'", max_results=1)
        if found:
            run_id = str(found[0].info.run_id)
            client.update_run(run_id, status="RUNNING")
            return run_id
        return str(client.create_run(experiment, tags={RUN_KEY_TAG: run_key}, run_name=run_key).info.run_id)


def log_training(settings: Settings, run_id: str, params: Mapping[str, Any], dataset: TrainingData) -> None:
    """Record what a run trains with, before it trains.

    Raises ConfigError when the run was started with other parameters: a run key names one training.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    entries = [Param(name, str(value)) for name, value in sorted(params.items())]
    with open_tracking(settings) as client:
        logged = client.get_run(run_id).data.params
        changed = [p.key for p in entries if logged.get(p.key, p.value) != p.value]
        if changed:
            raise ConfigError(
                "this run key was already used with other training parameters",
                measured=", ".join(f"{p.key}={p.value}" for p in entries if p.key in changed),
                allowed=", ".join(f"{name}={logged[name]}" for name in changed),
                next_step="start a new run",
            )
        for chunk in _chunks(entries):
            client.log_batch(run_id, params=chunk)
        entity = Dataset(
            name=dataset.name,
            digest=dataset.digest[:_DIGEST_CHARACTERS],
            source_type="driftline",
            source=f'{{"snapshot": "{dataset.snapshot}"}}',
            profile=f'{{"num_rows": {dataset.rows}}}',
        )
        client.log_inputs(run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])])


def log_metrics(
    settings: Settings,
    run_id: str,
    metrics: Mapping[str, float],
    curves: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Record scalar metrics, and curves with one value per step, in batches."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    entries = [Metric(name, float(value), now, 0) for name, value in metrics.items()]
    for name, curve in (curves or {}).items():
        entries += [Metric(name, float(value), now, step) for step, value in enumerate(curve)]
    with open_tracking(settings) as client:
        for chunk in _chunks(entries):
            client.log_batch(run_id, metrics=chunk)


def finish_run(settings: Settings, run_id: str) -> None:
    """Mark a run as finished; KFP's plugin ends its own runs itself."""
    if not settings.mlflow_run:
        with open_tracking(settings) as client:
            client.set_terminated(run_id, "FINISHED")


def register_version(settings: Settings, model: str, run_id: str) -> int:
    """Return the version that this run registers; a retry gets the same one.

    The version counts for nothing until `upload_bundle` has stored its bundle.
    """
    from mlflow.exceptions import MlflowException

    with open_tracking(settings) as client:
        try:
            client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.search_model_versions(f"name = '{model}' and run_id = '{run_id}'")
        if found:
            return min(int(version.version) for version in found)
        return int(client.create_model_version(model, f"runs:/{run_id}/{BUNDLE}", run_id).version)


def upload_bundle(settings: Settings, run_id: str, folder: Path) -> None:
    """Store a bundle as artifacts of its run, then mark its version as complete.

    Raises DataError when the card does not describe the files.
    """
    card = read_card(folder)
    with open_tracking(settings) as client:
        client.log_artifacts(run_id, str(folder), BUNDLE)
        client.set_model_version_tag(card.use_case, str(card.version), DIGEST_TAG, card.model)


def download_bundle(settings: Settings, model: str, version: int, destination: Path) -> Path:
    """Fetch the bundle of a version into a folder and return the folder; a good copy there is kept.

    Raises DataError when the version was deleted, never completed, or its files do not match their digest.
    """
    from mlflow.exceptions import MlflowException

    with open_tracking(settings) as client:
        try:
            registered = client.get_model_version(model, str(version))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise DataError(
                f"version {version} of {model} is not in the model registry",
                measured="never registered or deleted",
                next_step="restore it in MLflow, or promote another version",
            ) from error
        expected = registered.tags.get(DIGEST_TAG)
        if expected is None:
            raise DataError(
                f"version {version} of {model} has no complete bundle",
                measured="the run that registered it did not finish",
                next_step="run it again with the same run key",
            )
        if _holds(destination, version, expected):
            return destination
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}.") as scratch:
            fetched = Path(client.download_artifacts(registered.run_id, BUNDLE, scratch))
            if not _holds(fetched, version, expected):
                raise DataError(
                    f"the stored bundle of version {version} of {model} is not the one that was registered",
                    allowed=expected[:12],
                    next_step="restore the artifact store, or promote another version",
                )
            shutil.rmtree(destination, ignore_errors=True)
            fetched.replace(destination)
    return destination


def tag_version(settings: Settings, model: str, version: int, tags: Mapping[str, str]) -> None:
    """Set tags on a version, such as the gate's decision."""
    with open_tracking(settings) as client:
        for name, value in tags.items():
            client.set_model_version_tag(model, str(version), name, value)


def set_champion_alias(settings: Settings, model: str, version: int) -> None:
    """Point the alias `champion` to a version: one write that readers see whole.

    It mirrors the ledger, which decides; MLflow has no compare-and-swap.
    """
    with open_tracking(settings) as client:
        client.set_registered_model_alias(model, CHAMPION, str(version))


def champion_alias(settings: Settings, model: str) -> int | None:
    """Return the version that the alias `champion` points to, or None."""
    from mlflow.exceptions import MlflowException

    with open_tracking(settings) as client:
        try:
            aliases = client.get_registered_model(model).aliases
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
    return int(aliases[CHAMPION]) if CHAMPION in aliases else None


def _experiment(client: Any, settings: Settings, name: str) -> str:
    """Return the experiment of a use case; on a SQLite store its artifacts lie under our own home."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        location = (settings.mlflow_artifacts / name).absolute().as_uri() if is_embedded(settings) else None
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            # Another run of this use case created it between the two calls.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found.lifecycle_stage != "active":
        raise ConfigError(
            f"the MLflow experiment {name} was deleted",
            next_step=f"mlflow experiments restore --experiment-id {found.experiment_id}",
        )
    return str(found.experiment_id)


def _chunks(entries: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(entries), _ITEMS_PER_CALL):
        yield entries[start : start + _ITEMS_PER_CALL]


def _holds(folder: Path, version: int, digest: str) -> bool:
    """Say whether a folder holds exactly this bundle, whole."""
    try:
        card = read_card(folder)
    except (DataError, OSError, ValueError):
        return False
    return card.version == version and card.model == digest
