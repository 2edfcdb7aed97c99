"""Deciding: what the monitor measured becomes one decision in the ledger, and perhaps one request for a retraining."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

from components.core.errors import DataError
from components.core.evidence import read_evidence
from components.core.ledger.decisions import Decision, watched_windows
from components.core.ledger.engine import open_ledger
from components.core.ledger.proposals import decide_once
from components.core.ledger.runs import mean_run_seconds
from components.core.ledger.suppression import Limits
from components.core.sections import Monitor
from components.core.settings import Settings
from components.decide.ladder import propose

log = logging.getLogger(__name__)


def decide(settings: Settings, use_case: str, config: Monitor, *, evidence: Path) -> Decision:
    """Decide about the window that `evidence` describes; deciding again changes nothing.

    Raises DataError when the evidence belongs to another use case, ConfigError when it is as of the future,
    LedgerError.
    """
    found = read_evidence(evidence)
    if found.use_case != use_case:
        raise DataError("the evidence belongs to another use case", measured=found.use_case, allowed=use_case)
    engine = open_ledger(settings.ledger_url)
    proposal = propose(found, config, watched_windows(engine, use_case, found.version))
    if proposal.decision == "retrain":
        cost = mean_run_seconds(engine, "training", use_case)
        proposal = proposal.model_copy(update={"cost_estimate_seconds": cost})
    decision = decide_once(engine, proposal, limits(config), datetime.now(UTC))
    log.info(
        "%s: %s (%s), %s", use_case, decision.decision, decision.rung, decision.suppressed_by or decision.reasons[0]
    )
    return decision


def limits(config: Monitor) -> Limits:
    """Return how often the section `monitor` lets a model be retrained."""
    return Limits(
        cooldown=timedelta(hours=config.cooldown_hours),
        max_per_week=config.max_per_week,
        lease=timedelta(minutes=config.lease_minutes),
    )
