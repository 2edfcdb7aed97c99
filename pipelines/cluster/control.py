"""Stopping a run on the cluster and repeating what failed of one."""

import time
from typing import Any

import sqlalchemy as sa

from components.core.errors import ClusterError, ConfigError
from components.core.kfp_api import KfpApi
from components.core.kfp_runs import ENDED, state_of
from components.core.ledger.runs import claim_run, read_run
from components.retrain.settle import settle
from pipelines.cluster.runs import require_run
from pipelines.cluster.wait import POLL_SECONDS, patiently


def stop_run(api: KfpApi, ledger: sa.Engine | None, run_id: str, *, timeout_seconds: float) -> Any:
    """Terminate a run and return it once it has really ended; one that had ended is left as it is.

    Raises ClusterError when it has not ended in time, NotOnCluster.
    """
    run = require_run(api, run_id)
    started = time.monotonic()
    if state_of(run) not in ENDED:
        api.call(f"stop run {run_id}", api.runs.run_service_terminate_run, run_id)
    while state_of(run) not in ENDED:
        if time.monotonic() - started > timeout_seconds:
            raise ClusterError(
                f"run {run_id} was told to stop and has not ended",
                measured=state_of(run),
                allowed=f"{timeout_seconds:.0f} s",
                next_step=f"driftline runs show {run_id}; `driftline runs stop {run_id}` may be repeated",
            )
        time.sleep(POLL_SECONDS)
        run = patiently(lambda: require_run(api, run_id), seconds=timeout_seconds)
    if ledger is not None:
        settle(api, ledger, run)
    return run


def retry_run(api: KfpApi, ledger: sa.Engine | None, run_id: str) -> None:
    """Repeat the failed steps of a run, with the results of the others.

    Raises ConfigError for a run that has not failed, that was refused, or whose retraining request waits for another
    attempt; NotOnCluster, ClusterError.
    """
    run = require_run(api, run_id)
    if state_of(run) not in ("failed", "canceled"):
        raise ConfigError(
            f"run {run_id} has nothing to repeat",
            measured=state_of(run),
            allowed="failed or canceled",
            next_step=f"driftline runs show {run_id}",
        )
    if ledger is not None:
        settle(api, ledger, run)
        _open_again(ledger, run_id)
    api.call(f"retry run {run_id}", api.runs.run_service_retry_run, run_id)


def _open_again(ledger: sa.Engine, run_id: str) -> None:
    """Let the ledger accept what the repeated run reports: a run that ended promotes nothing."""
    known = read_run(ledger, run_id)
    if known is None:
        return  # it failed before its claim, which is repeated
    if known.state in ("refused", "superseded", "succeeded"):
        raise ConfigError(
            f"run {run_id} ended with an answer, which repeating would not change",
            measured=f"{known.state}: {known.reason}",
            allowed="a failed run",
            next_step=f"driftline why {run_id}; start a new run for another answer",
        )
    if known.state == "cancelled" or not claim_run(ledger, run_id, known.claimant, known.pipeline, known.use_case):
        raise ConfigError(
            f"run {run_id} is over for the ledger",
            measured=f"{known.state}: {known.reason}",
            allowed="a failed run that no other attempt replaces",
            next_step="driftline submit starts a new run, driftline dispatch the next attempt at a retraining",
        )
