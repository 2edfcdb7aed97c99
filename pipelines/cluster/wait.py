"""Waiting for a run on the cluster: every end is known, a silent API is borne for a while, a stuck step is named."""

import logging
import time
from collections.abc import Callable
from typing import Any

from components.core.errors import ClusterError, ClusterUnreachable
from components.core.kfp_api import KfpApi
from components.core.kfp_pods import TaskSpec, task_specs
from components.core.kfp_runs import ENDED, State, state_of
from components.core.kfp_steps import ClusterStep, pipeline_spec, steps_of
from pipelines.cluster.pods import waiting_pods
from pipelines.cluster.runs import require_run

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
MAX_PAUSE_SECONDS = 30.0
SILENCE_SECONDS = 300.0
"""For so long the API may be out of reach, as while it is upgraded."""
STUCK_SECONDS = 20.0


def wait_for_end(
    api: KfpApi,
    run_id: str,
    *,
    timeout_seconds: float,
    notify: Callable[[ClusterStep], None],
    warn: Callable[[str], None],
    goes_on: Callable[[Any], bool] = lambda _run: False,
) -> Any:
    """Return a run as the API gives it once it has ended: succeeded, failed, canceled or skipped.

    `notify` is told each step that starts or ends, `warn` why one cannot start; `goes_on` is asked in the end whether
    another Workflow of the run is still at it. `timeout_seconds` 0 is no limit. Raises ClusterError when the time is
    over (the run goes on), ClusterUnreachable when the API stays silent, NotOnCluster.
    """
    started = time.monotonic()
    seen: dict[str, State] = {}
    warned: set[str] = set()
    changed_at = started
    specs: dict[str, TaskSpec] = {}
    while True:
        left = timeout_seconds - (time.monotonic() - started) if timeout_seconds else SILENCE_SECONDS
        run = patiently(lambda: require_run(api, run_id), seconds=min(SILENCE_SECONDS, max(left, 0)))
        if not specs:
            specs = patiently(lambda: task_specs(pipeline_spec(api, run)), seconds=SILENCE_SECONDS)  # noqa: B023
        steps = steps_of(specs, run)
        changed = [step for step in steps if step.state not in ("pending", seen.get(step.name))]
        for step in changed:
            notify(step)
            changed_at = time.monotonic()
        seen |= {step.name: step.state for step in steps}
        if state_of(run) in ENDED and not goes_on(run):
            return run
        if time.monotonic() - changed_at > STUCK_SECONDS:
            for line in waiting_pods(api.settings, run_id):
                if line not in warned:
                    warn(line)
                    warned.add(line)
        if timeout_seconds and time.monotonic() - started > timeout_seconds:
            current = [f"{step.name} {step.state}" for step in steps if step.state in ("running", "paused")]
            raise ClusterError(
                f"run {run_id} has not ended in time; it goes on",
                measured=", ".join(current) or f"{state_of(run)}, no step has started",
                allowed=f"{timeout_seconds:.0f} s",
                next_step=f"driftline runs show {run_id}, or driftline runs stop {run_id}",
            )
        time.sleep(POLL_SECONDS)


def patiently(ask: Callable[[], Any], *, seconds: float) -> Any:
    """Return an answer of the API, asking again while it is out of reach, with growing pauses.

    Raises ClusterUnreachable after so many seconds.
    """
    started = time.monotonic()
    pause = POLL_SECONDS
    while True:
        try:
            return ask()
        except ClusterUnreachable as error:
            if time.monotonic() - started + pause > seconds:
                raise
            log.warning("%s; asking again in %.0f s", error.what, pause)
            time.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)
