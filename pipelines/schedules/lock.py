"""One process at a time changes a schedule: a lock that the KFP API itself keeps.

KFP has no compare-and-swap for recurring runs, but its database has one experiment of a name: who creates it holds the
lock, who deletes it lets go. A holder that died is found out by the server's clock, and its lock is deleted by id,
which cannot hit the lock of somebody else. A holder stops by itself before its lock counts as left behind.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

from components.core.errors import ClusterError, ClusterUnreachable, NotOnCluster, TakenOnCluster
from components.core.kfp_api import ANSWER_SECONDS, CONNECT_SECONDS, KfpApi
from pipelines.schedules.server import again, server_time

log = logging.getLogger(__name__)

LOCK_SECONDS = 120.0
"""An older lock was left behind."""
CALL_SECONDS = CONNECT_SECONDS + ANSWER_SECONDS
POLL_SECONDS = 0.5


@contextmanager
def holding(api: KfpApi, schedule: str, *, lock_seconds: float = LOCK_SECONDS) -> Iterator[Callable[[], None]]:
    """Hold the lock of a schedule; yield a check to be made before each call that changes something.

    Waits for another holder. Raises ClusterError when it does not let go, ClusterUnreachable; the check raises
    ClusterError when what is left of the time is not enough for a call.
    """
    experiment, started = _acquire(api, f"schedule {schedule} is being changed", lock_seconds)

    def check() -> None:
        held = time.monotonic() - started
        if held > lock_seconds - min(CALL_SECONDS, lock_seconds / 2):
            raise ClusterError(
                f"changing schedule {schedule} took too long",
                measured=f"{held:.0f} s",
                allowed=f"{lock_seconds:.0f} s, with the time of one call to spare",
                next_step="run the command again once the KFP API answers faster: it goes on from here",
            )

    try:
        yield check
    finally:
        try:
            _release(api, experiment)
        except ClusterError as error:
            log.warning("%s; the lock of schedule %s ends in %.0f s", error.what, schedule, lock_seconds)


def _acquire(api: KfpApi, name: str, lock_seconds: float) -> tuple[str, float]:
    """Return the id of the experiment that is the lock, and since when it is held by this process's clock."""
    token = str(uuid4())
    body = {"display_name": name, "description": f"A lock. {token}", "namespace": api.settings.kfp_namespace}
    deadline = time.monotonic() + 2 * lock_seconds
    told = False
    while True:
        asked = time.monotonic()
        try:
            made = api.call(f"lock: {name}", api.experiments.experiment_service_create_experiment, body)
            return str(made.experiment_id), asked
        except (TakenOnCluster, ClusterUnreachable) as error:
            held = again(lambda: _read(api, name))
            if held is None:
                if isinstance(error, ClusterUnreachable) and time.monotonic() > deadline - lock_seconds:
                    raise
                continue
        if token in (held.description or ""):
            return str(held.experiment_id), asked  # made by the call that was not answered
        if server_time(api) - held.created_at > timedelta(seconds=lock_seconds):
            _release(api, str(held.experiment_id))
            continue
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{name} by somebody else",
                measured=f"since {held.created_at:%H:%M:%S} UTC",
                next_step="wait for the other `driftline schedules apply`, then run the command again",
            )
        if not told:
            log.warning("%s by another process; waiting for at most %.0f s", name, lock_seconds)
            told = True
        time.sleep(POLL_SECONDS)


def _read(api: KfpApi, name: str) -> Any | None:
    import json

    predicate = {"operation": "EQUALS", "key": "name", "stringValue": name}
    page = api.call(
        f"read lock: {name}",
        api.experiments.experiment_service_list_experiments,
        filter=json.dumps({"predicates": [predicate]}),
        namespace=api.settings.kfp_namespace,
    )
    return next(iter(page.experiments or []), None)


def _release(api: KfpApi, experiment: str) -> None:
    try:
        again(lambda: api.call("unlock", api.experiments.experiment_service_delete_experiment, experiment))
    except NotOnCluster:
        return
