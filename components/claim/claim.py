"""Claiming a run: of all Workflows that were started for one run, one executes it.

The run of a retraining request is executed only while the request waits for it.
"""

import logging

from components.core.ledger.engine import open_ledger
from components.core.ledger.runs import claim_run
from components.core.release_publishing import observe_if_reachable
from components.core.settings import Settings

log = logging.getLogger(__name__)


def claim(settings: Settings, pipeline: str, use_case: str) -> bool:
    """Return whether this Workflow executes the run; outside a cluster the run claims itself.

    Whoever executes it learns first what Git says that serves, so that monitor and gate follow a `git revert`.
    Raises LedgerError when the ledger cannot be used or the key belongs to another pipeline or use case.
    """
    claimant = settings.workflow or settings.run_key
    claimed = claim_run(open_ledger(settings.ledger_url), settings.run_key, claimant, pipeline, use_case)
    left = "leaves it: another one has it, or its request no longer waits for it"
    log.info("run %s: %s %s", settings.run_key, claimant, "executes it" if claimed else left)
    if claimed:
        observe_if_reachable(settings, use_case)
    return claimed
