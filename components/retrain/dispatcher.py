"""Starting attempts through the KFP API: at most one POST each as long as nobody dies, and one trains whatever happens.

A lease in the ledger keeps other dispatchers away while one starts a run; the run is read before it is posted; and the
first step of a run claims it, should there be two Workflows all the same.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal

import sqlalchemy as sa

from components.core.kfp_api import ANSWER_SECONDS, KfpApi
from components.core.kfp_runs import ENDED, POSTS, NewRun, Version, ensure_experiment, read_run, start_run, state_of
from components.core.ledger.attempts import Attempt
from components.core.ledger.dispatch import Dispatcher, sweep
from components.core.ledger.requests import starting_until
from components.retrain.settle import settle

log = logging.getLogger(__name__)

# Longer than every call of one start together: two for the experiment, two for the version, two for each POST.
ALONE = timedelta(seconds=(2 + 2 + 2 * POSTS) * ANSWER_SECONDS + 10)
LOOK_SECONDS = 2.0


class KfpDispatcher:
    """Starts the training pipeline of an attempt as a run of KFP and does not wait for it."""

    def __init__(self, api: KfpApi, ledger: sa.Engine, *, version: Callable[[str], Version]) -> None:
        """Prepare; `version` tells which version of the training pipeline a use case is retrained with."""
        self._api, self._ledger, self._version = api, ledger, version

    def state(self, run_id: str) -> Literal["absent", "running", "ended"]:
        """Tell what KFP knows of a run; how an ended one ended is brought into the ledger."""
        run = read_run(self._api, run_id)
        if run is None:
            return "absent"
        if state_of(run) not in ENDED:
            return "running"
        outcome = settle(self._api, self._ledger, run)
        # Of two Workflows of this run the record shows either one; the one that claimed it may still train.
        return "running" if outcome is not None and outcome.state == "running" else "ended"

    def start(self, attempt: Attempt) -> None:
        """Start the run of an attempt unless there is one. Raises what `start_run` raises."""
        version = self._version(attempt.model)
        window = f"{attempt.window_first:%Y-%m-%d} to {attempt.window_last:%Y-%m-%d}"
        new = NewRun(
            run_id=attempt.run_id,
            title=f"{attempt.model} retraining, {attempt.policy}, {window}, attempt {attempt.attempt}, "
            f"request {attempt.request_id[:8]}",
            version=version,
            experiment_id=ensure_experiment(self._api, attempt.model),
            parameters={"as_of": attempt.as_of.isoformat()},
        )
        how = "started" if start_run(self._api, new) else "was started already"
        log.info("run %s of %s %s", attempt.run_id, version.name, how)


def start_open(
    ledger: sa.Engine, dispatcher: Dispatcher, *, model: str = "", alone: timedelta = ALONE
) -> list[Attempt]:
    """Start every open request that waits for a run and return what this call started.

    Where another dispatcher is starting one, wait until it has done so, or has died and its lease has ended: then this
    call starts it. So an attempt never waits for the next sweep. Raises what `sweep` raises.
    """
    started: list[Attempt] = []
    while True:
        started += sweep(ledger, dispatcher, model=model, now=datetime.now(UTC), alone=alone)
        until = starting_until(ledger, model)
        if until is None:
            return started
        log.info("another dispatcher is starting a run; looking again, at the latest at %s", until.isoformat())
        left = (until - datetime.now(UTC)).total_seconds()
        time.sleep(max(0.1, min(LOOK_SECONDS, left)))
