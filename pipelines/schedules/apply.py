"""Carrying a plan out, one schedule at a time."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

from components.core.errors import ConfigError
from components.core.kfp_api import KfpApi
from components.core.kfp_runs import ensure_experiment
from pipelines.cluster.upload import publish_version
from pipelines.schedules.cron import Cron, parse_cron
from pipelines.schedules.lock import LOCK_SECONDS, holding
from pipelines.schedules.model import Existing, Wanted
from pipelines.schedules.plan import DIFFERS, NEW, Change, steps
from pipelines.schedules.quiet import seconds_until_quiet
from pipelines.schedules.resolve import Resolved
from pipelines.schedules.server import (
    create_recurring_run,
    delete_recurring_run,
    disable_recurring_run,
    enable_recurring_run,
    list_recurring_runs,
)

CALLS = {"enable": enable_recurring_run, "disable": disable_recurring_run, "delete": delete_recurring_run}


def apply_changes(
    api: KfpApi,
    changes: list[Change],
    resolved: dict[str, Resolved],
    *,
    notify: Callable[[str], None],
    lock_seconds: float = LOCK_SECONDS,
) -> None:
    """Carry a plan out, in its order; `notify` is told each change that is done and why one waits.

    Raises what `KfpApi.call` raises; repeating goes on from where it stopped.
    """
    for change in changes:
        if change.action not in DIFFERS:
            continue
        if change.wanted is None:
            delete_schedule(api, change.name, lock_seconds=lock_seconds)
        else:
            apply_change(api, change, resolved[change.name], notify=notify, lock_seconds=lock_seconds)
        notify(f"{change.name}: {change.action}: done")


def apply_change(
    api: KfpApi,
    change: Change,
    resolved: Resolved,
    *,
    notify: Callable[[str], None],
    lock_seconds: float = LOCK_SECONDS,
) -> None:
    """Bring one schedule to what is wanted.

    What to do is decided again under the schedule's lock, so that two processes come to one end. A version that this
    checkout compiles to is created if the server lacks it. Raises what `KfpApi.call` raises.
    """
    wanted = resolved.wanted
    if pause := _pause(change, wanted):
        notify(f"{wanted.name}: a tick is due; waiting {pause:.0f} s")
        time.sleep(pause)
    with holding(api, wanted.name, lock_seconds=lock_seconds) as check:
        made = ""
        for step in steps(wanted, list_recurring_runs(api, wanted.name)):
            check()
            if step.call == "create":
                made = _create(api, resolved, replaces=step.target)
            else:
                CALLS[step.call](api, made if step.target == NEW else step.target)


def delete_schedule(api: KfpApi, name: str, *, lock_seconds: float = LOCK_SECONDS) -> None:
    """Delete all recurring runs of a schedule; their runs go on. Raises what `KfpApi.call` raises."""
    with holding(api, name, lock_seconds=lock_seconds) as check:
        for step in steps(None, list_recurring_runs(api, name)):
            check()
            delete_recurring_run(api, step.target)


def _create(api: KfpApi, resolved: Resolved, *, replaces: str) -> str:
    version = resolved.version or publish_version(api, resolved.ir)
    experiment = ensure_experiment(api, resolved.wanted.spec.use_case, resolved.title)
    return create_recurring_run(
        api, resolved.wanted, version=version, experiment_id=experiment, replaces=replaces, now=datetime.now(UTC)
    )


def _pause(change: Change, wanted: Wanted) -> float:
    """Return how long to wait before a schedule that runs is replaced by one that runs."""
    if change.action != "replace" or not wanted.enabled or change.current is None or not change.current.enabled:
        return 0.0
    return seconds_until_quiet([*_cron(change.current), parse_cron(wanted.spec.cron)], datetime.now(UTC))


def _cron(current: Existing) -> list[Cron]:
    try:
        return [parse_cron(str(current.has.get("cron", "")))]
    except ConfigError:
        return []
