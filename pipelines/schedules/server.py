"""Recurring runs on the server: listed, made, switched and deleted, each call safe to repeat."""

import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from components.core.errors import ClusterUnreachable, NotOnCluster
from components.core.kfp_api import KfpApi
from components.core.kfp_runs import Version
from pipelines.schedules.model import Existing, Wanted, marker, read_marker

log = logging.getLogger(__name__)

ATTEMPTS = 4
PAUSE_SECONDS = 0.5


def list_recurring_runs(api: KfpApi, name: str = "") -> list[Existing]:
    """Return the recurring runs that `driftline schedules` made, of all schedules or of one.

    Raises what `KfpApi.call` raises.
    """
    asked: dict[str, Any] = {"namespace": api.settings.kfp_namespace, "sort_by": "created_at asc"}
    if name:
        predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        asked["filter"] = json.dumps({"predicates": [predicate]})
    listing = api.recurring_runs.recurring_run_service_list_recurring_runs
    # One that broke off begins anew.
    pages = again(lambda: list(api.pages("list recurring runs", listing, **asked)))
    found: list[Existing] = []
    versions: dict[str, str] = {}
    for known in (known for page in pages for known in page.recurring_runs or []):
        managed = read_marker(
            known.description,
            id=known.recurring_run_id,
            name=known.display_name,
            enabled=known.mode == "ENABLE",
            created_at=known.created_at,
        )
        if managed is not None:
            found.append(managed.model_copy(update={"has": _fields(api, known, versions)}))
    return found


def _fields(api: KfpApi, known: Any, versions: dict[str, str]) -> dict[str, Any]:
    """Return what the API says of a recurring run under the names of `Spec`; `versions` remembers names by id."""
    reference = known.pipeline_version_reference
    version = reference.pipeline_version_id
    if version not in versions:
        versions[version] = _version_name(api, reference.pipeline_id, version)
    cron = known.trigger.cron_schedule
    return {
        "version": versions[version],
        "cron": cron.cron,
        "description": known.description.rpartition("\n")[0],
        "parameters": (known.runtime_config.parameters if known.runtime_config else None) or {},
        "max_concurrency": int(known.max_concurrency),
        "catchup": not known.no_catchup,
        "starts": cron.start_time.isoformat() if cron.start_time else "",
        "ends": cron.end_time.isoformat() if cron.end_time else "",
    }


def _version_name(api: KfpApi, pipeline: str, version: str) -> str:
    get = api.pipelines.pipeline_service_get_pipeline_version
    try:
        found = again(lambda: api.call(f"read version {version}", get, pipeline, version))
    except NotOnCluster:
        return f"{version} (deleted)"
    return str(found.display_name or found.name)


def create_recurring_run(
    api: KfpApi, wanted: Wanted, *, version: Version, experiment_id: str, replaces: str, now: datetime
) -> str:
    """Create a recurring run, disabled, and return its id.

    It is not repeated when no answer comes: one that was made all the same is disabled, and `apply` deletes it. Raises
    what `KfpApi.call` raises.
    """
    spec = wanted.spec
    trigger = {"cron": spec.cron}
    # With a start that is past, KFP would run what lies between it and now.
    if spec.starts and datetime.fromisoformat(spec.starts) > now:
        trigger["start_time"] = spec.starts
    if spec.ends:
        trigger["end_time"] = spec.ends
    body = {
        "display_name": wanted.name,
        "description": marker(wanted, replaces),
        "pipeline_version_reference": {
            "pipeline_id": version.pipeline_id,
            "pipeline_version_id": version.version_id,
        },
        "runtime_config": {"parameters": wanted.arguments},
        "trigger": {"cron_schedule": trigger},
        "max_concurrency": str(spec.max_concurrency),
        "no_catchup": not spec.catchup,
        "mode": "DISABLE",
        "experiment_id": experiment_id,
        "namespace": api.settings.kfp_namespace,
    }
    made = api.call(
        f"create recurring run {wanted.name}",
        api.recurring_runs.recurring_run_service_create_recurring_run,
        body,
    )
    return str(made.recurring_run_id)


def enable_recurring_run(api: KfpApi, recurring_run: str) -> None:
    """Let a recurring run start runs. Raises NotOnCluster when it is gone, and what `KfpApi.call` raises."""
    call = api.recurring_runs.recurring_run_service_enable_recurring_run
    again(lambda: api.call(f"enable recurring run {recurring_run}", call, recurring_run))


def disable_recurring_run(api: KfpApi, recurring_run: str) -> None:
    """Stop a recurring run from starting runs; those in progress go on, and one that is gone starts none."""
    call = api.recurring_runs.recurring_run_service_disable_recurring_run
    _unless_gone(lambda: api.call(f"disable recurring run {recurring_run}", call, recurring_run))


def delete_recurring_run(api: KfpApi, recurring_run: str) -> None:
    """Delete a recurring run and leave its runs alone: by default KFP deletes the Workflows of those in progress."""
    call = api.recurring_runs.recurring_run_service_delete_recurring_run
    _unless_gone(
        lambda: api.call(f"delete recurring run {recurring_run}", call, recurring_run, propagation_policy="ORPHAN")
    )


def server_time(api: KfpApi) -> datetime:
    """Return the instant at which the server gave its last answer: by its clock, to the second."""
    from email.utils import parsedate_to_datetime

    stamp = api.client.last_response.getheader("date")
    return parsedate_to_datetime(stamp).astimezone(UTC) if stamp else datetime.now(UTC)


def again(call: Callable[[], Any]) -> Any:
    """Make a call that may be repeated, up to four times while the server does not answer."""
    for attempt in range(1, ATTEMPTS):
        try:
            return call()
        except ClusterUnreachable as error:
            log.warning("%s; trying again", error.what)
            time.sleep(PAUSE_SECONDS * 2**attempt)
    return call()


def _unless_gone(call: Callable[[], Any]) -> None:
    try:
        again(call)
    except NotOnCluster:
        return
