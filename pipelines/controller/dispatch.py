"""Starting on KFP what the ledger requests, with the training version that Git pins."""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from components.core.errors import ClusterError, ClusterUnreachable, NotOnCluster
from components.core.kfp_api import KfpApi
from components.core.kfp_runs import ENDED, Version, read_run, require_version, state_of
from components.core.ledger.dispatch import sweep
from components.core.ledger.engine import open_ledger
from components.core.ledger.runs import list_runs
from components.core.settings import Settings
from components.retrain.dispatcher import ALONE, KfpDispatcher
from components.retrain.settle import settle
from pipelines.controller.kfp_metrics import pipeline_of
from pipelines.schedules.model import Existing
from pipelines.schedules.server import list_recurring_runs
from pipelines.wiring import pipeline_name

log = logging.getLogger(__name__)

UNSETTLED = 200


def dispatch(settings: Settings) -> None:
    """End in the ledger the runs that ended on KFP unseen, then start each open request that no run follows.

    It does not wait for another dispatcher that is starting one: the next round sees what became of it. A run or a
    request that cannot be dealt with holds up no other one. Raises the first error of either at the end, LedgerError.
    """
    api, ledger = KfpApi(settings), open_ledger(settings.ledger_url)
    errors = settle_ended(api, ledger)
    dispatcher = KfpDispatcher(api, ledger, version=lambda model: training_version(api, model))
    for attempt in sweep(ledger, dispatcher, now=datetime.now(UTC), alone=ALONE):
        log.warning("%s: started attempt %d, run %s", attempt.model, attempt.attempt, attempt.run_id)
    if errors:
        raise errors[0]


def settle_ended(api: KfpApi, ledger: sa.Engine) -> list[ClusterError]:
    """Bring into the ledger how runs ended whose last step could not do so: killed pods, cancelled runs.

    Runs that KFP does not know are somebody else's, such as those of a laptop. Returns what went wrong with single
    runs. Raises LedgerError.
    """
    errors: list[ClusterError] = []
    for known in list_runs(ledger, limit=UNSETTLED, state="running"):
        if not _is_uuid(known.id):
            continue
        try:
            run = read_run(api, known.id)
            if run is not None and state_of(run) in ENDED:
                ended = settle(api, ledger, run)
                log.warning("run %s of %s: %s", known.id, known.use_case, ended.state if ended else "unknown")
        except ClusterError as error:
            log.error("run %s of %s: %s", known.id, known.use_case, error)
            errors.append(error)
            if isinstance(error, ClusterUnreachable):
                break  # nor would it answer for the next one
    return errors


def training_version(api: KfpApi, model: str) -> Version:
    """Return the version of the training pipeline that a use case is retrained with: the one that Git pins.

    It is the version that the step `retrain` of the scheduled monitor would start, so both start the same; without a
    monitor on schedule, the version of the training schedule, which may be switched off. Both come from Git by
    `schedules apply`, and go back with it; the newest version on the server would not. Raises NotOnCluster when no
    schedule says so, ClusterError when two say different things, and what `KfpApi.call` raises.
    """
    recurring = list_recurring_runs(api)
    named = {
        name: found
        for found in of_pipeline(recurring, model, "monitoring")
        if (name := trained_by(_spec(api, model, "monitoring", found))) != ""
    } or {str(found.has["version"]): found for found in of_pipeline(recurring, model, "training")}
    pipeline = pipeline_name(model, "training")
    if not named:
        raise NotOnCluster(
            f"no schedule tells with which version {model} is trained",
            measured=f"no recurring run of {pipeline_name(model, 'monitoring')} or {pipeline} that driftline made",
            next_step="declare a monitoring schedule with a `version`, or run `driftline dispatch` in a checkout",
        )
    if len(named) > 1:
        raise ClusterError(
            f"schedules of {model} name different versions of its training",
            measured=", ".join(f"{found.name}: {name}" for name, found in sorted(named.items())),
            allowed="one version",
            next_step="let them name one version of the monitoring pipeline",
        )
    return require_version(api, pipeline, next(iter(named)))


def of_pipeline(recurring: Iterable[Existing], model: str, pipeline: str) -> list[Existing]:
    """Return the recurring runs of a pipeline: those that are enabled, or else all."""
    found = [one for one in recurring if pipeline_of(one) == (model, pipeline)]
    return [one for one in found if one.enabled] or found


def trained_by(spec: dict[str, Any]) -> str:
    """Return the training version that a compiled monitoring pipeline starts, empty when it names none."""
    components = [{"dag": spec.get("root", {}).get("dag", {})}, *spec.get("components", {}).values()]
    for component in components:
        task = component.get("dag", {}).get("tasks", {}).get("retrain")
        if task is not None:
            constant = task["inputs"]["parameters"].get("training", {}).get("runtimeValue", {}).get("constant", "")
            return str(constant)
    return ""


def _spec(api: KfpApi, model: str, pipeline: str, found: Existing) -> dict[str, Any]:
    version = require_version(api, pipeline_name(model, pipeline), str(found.has["version"]))
    spec: dict[str, Any] = version.spec.get("pipeline_spec", version.spec)
    return spec


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
