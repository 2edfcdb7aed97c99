"""Making KFP's recurring runs equal to what Git declares; a wrong schedule is refused, the rest goes on."""

import logging
from collections import Counter
from typing import Any

from components.core.errors import ClusterUnreachable, DriftlineError
from components.core.kfp_api import KfpApi
from components.core.metric_registry import registry
from components.core.settings import Settings
from pipelines.controller.declared import Refused, read_config_maps, read_files
from pipelines.controller.exposition import LABEL_VALUE, Exposition, Sample
from pipelines.controller.kfp_metrics import pipeline_of
from pipelines.schedules.apply import apply_changes
from pipelines.schedules.model import Existing, Schedule
from pipelines.schedules.plan import DIFFERS, Change, plan
from pipelines.schedules.resolve import Resolved, resolve_pinned
from pipelines.schedules.server import list_recurring_runs

log = logging.getLogger(__name__)

SOURCE = "schedules"
NAME = "driftline_schedules"


def apply_declared(settings: Settings, client: Any, namespace: str, exposition: Exposition, told: set[Refused]) -> None:
    """Bring KFP to what the ConfigMaps of a namespace declare, and let the exposition say how they agree.

    Refusals that are in `told` are not logged again; it holds this round's afterwards.
    Raises what the Kubernetes API answers, what `KfpApi.call` raises, and the first error of a change that could not be
    made; the others are made.
    """
    files = read_config_maps(client, namespace)
    if files is None:
        exposition.put(SOURCE, [])
        return
    declared = read_files(files)
    api = KfpApi(settings)
    resolved, unresolved = resolve_each(api, declared.schedules)
    refused = declared.refused + unresolved
    for one in refused:
        if one not in told:
            log.error("schedule %s is refused: %s", one.name or "without a name", one.reason)
    told.clear()
    told.update(refused)
    changes = changes_for(resolved, refused, list_recurring_runs(api))
    failed: list[DriftlineError] = []
    for change in changes:
        try:
            apply_changes(api, [change], resolved, notify=log.warning)
        except DriftlineError as error:
            log.error("schedule %s: %s", change.name, error)
            failed.append(error)
    exposition.put(SOURCE, schedule_samples(changes_for(resolved, refused, list_recurring_runs(api)), refused))
    if failed:
        raise failed[0]


def resolve_each(api: KfpApi, schedules: list[Schedule]) -> tuple[dict[str, Resolved], list[Refused]]:
    """Return the schedules that KFP can take, by name, and the others with the reason.

    An unknown version and a parameter that it does not take are reasons, an API that does not answer is none. Raises
    ClusterUnreachable.
    """
    resolved, refused = {}, []
    for schedule in schedules:
        try:
            resolved[schedule.name] = resolve_pinned(api, schedule)
        except ClusterUnreachable:
            raise
        except DriftlineError as error:
            refused.append(Refused(schedule.name, schedule.use_case, str(error)))
    return resolved, refused


def changes_for(resolved: dict[str, Resolved], refused: list[Refused], existing: list[Existing]) -> list[Change]:
    """Return what is to be done; what a refused file may have meant stays as it is.

    A file whose name cannot be read may be any schedule's, so that nothing is deleted as long as it is there.
    """
    spared = {one.name for one in refused}
    changes = plan([found.wanted for found in resolved.values()], existing, prune="" not in spared)
    return [change for change in changes if change.name not in spared]


def schedule_samples(changes: list[Change], refused: list[Refused]) -> list[Sample]:
    """Return how many schedules of each use case agree with what is declared."""
    counts: Counter[tuple[str, str]] = Counter()
    for change in changes:
        status = {"unchanged": "current", "undeclared": "undeclared"}.get(change.action, "differs")
        assert status != "differs" or change.action in DIFFERS  # noqa: S101
        counts[_use_case(change), status] += 1
    for one in refused:
        # What stands there may be anything; a label must be bounded.
        counts[one.use_case if LABEL_VALUE.fullmatch(one.use_case) else "unknown", "refused"] += 1
    statuses = next(metric for metric in registry().metrics if metric.name == NAME).values["status"]
    return [
        Sample(NAME, counts[case, status], {"use_case": case, "status": status})
        for case in sorted({case for case, _ in counts})
        for status in statuses
    ]


def _use_case(change: Change) -> str:
    if change.wanted is not None:
        return change.wanted.spec.use_case
    known = pipeline_of(change.current) if change.current is not None else None
    return known[0] if known else "unknown"
