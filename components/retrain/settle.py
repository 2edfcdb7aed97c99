"""Bringing into the ledger how a run on KFP ended, where no step could do so itself: it failed, or was cancelled."""

import logging
from typing import Any

import sqlalchemy as sa

from components.core.kfp_api import KfpApi
from components.core.kfp_runs import state_of
from components.core.kfp_steps import read_failure, read_steps, workflow_state
from components.core.ledger.runs import FinalState, Run, finish_run, read_run

log = logging.getLogger(__name__)


def settle(api: KfpApi, ledger: sa.Engine, run: Any) -> Run | None:
    """End a run in the ledger as it ended on KFP and return the ledger's record, None when nobody claimed it.

    What the ledger knows already stays. Of two Workflows of one run, the one that claimed it counts, whatever became of
    the record that both report into. Raises what `KfpApi.call` raises, LedgerError.
    """
    known = read_run(ledger, run.run_id)
    if known is None or known.state != "running":
        return known
    state = workflow_state(run, known.claimant) or state_of(run)
    if state == "succeeded" and known.pipeline != "training":
        finish_run(ledger, run.run_id, "succeeded")
    elif state == "succeeded":
        # The last step of a training tells the ledger itself.
        finish_run(ledger, run.run_id, "failed", reason="its Workflow ended without an outcome")
    elif state == "canceled":
        finish_run(ledger, run.run_id, "cancelled", reason="terminated on the cluster")
    elif state == "failed":
        _fail(api, ledger, run)
    return read_run(ledger, run.run_id)


def _fail(api: KfpApi, ledger: sa.Engine, run: Any) -> None:
    step = next((step for step in read_steps(api, run) if step.state == "failed"), None)
    if step is None:
        finish_run(ledger, run.run_id, "failed", reason="its Workflow failed outside of its steps")
        return
    failure = read_failure(api, run.run_id, step)
    end: FinalState = "refused" if failure.is_refusal else "failed"
    finish_run(ledger, run.run_id, end, reason=f"{failure.type}: {failure.message}", failed_step=step.name)
