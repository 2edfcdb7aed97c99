"""Proposals: what a policy concludes from a judged window becomes a decision, and perhaps one retraining request.

    proposal → decide_once → decision (+ request)

Of any number of equal alerts, from any number of monitors, one makes the request. docs/adr/0008.
"""

import json
from datetime import datetime, timedelta
from typing import Literal
from uuid import NAMESPACE_URL, uuid5

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from components.core.digests import canonical_json
from components.core.errors import ConfigError
from components.core.evidence import Evidence
from components.core.ledger.attempts import lock_model
from components.core.ledger.connections import insert_if_absent, writing
from components.core.ledger.decisions import Decision, Rung, find_decision, identify_decision
from components.core.ledger.holds import find_hold
from components.core.ledger.schema import champions, decisions, requests
from components.core.ledger.suppression import Limits, PastRequest, Standing, suppressions

CLOCK_SKEW = timedelta(minutes=5)
Proposed = Literal["retrain", "alert", "report", "insufficient"]


class Proposal(BaseModel):
    """What a policy concludes from evidence, before the ledger has a say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: Proposed
    rung: Rung
    reasons: list[str]
    policy: str
    policy_digest: str
    """Of the section `monitor`."""
    evidence: Evidence
    cost_estimate_seconds: float | None = None


def decide_once(engine: sa.Engine, proposal: Proposal, limits: Limits, now: datetime) -> Decision:
    """Record a decision and, when a retraining is justified and allowed, its request, in one transaction.

    A retraining of a window that has a request already is that request's decision. One that must not start now is a
    `hold` and says until when. Equal evidence with an equal end is one row, however often it is decided. `now` is the
    wall clock. Raises ConfigError when `as_of` lies in the future, LedgerError.
    """
    evidence = proposal.evidence
    if evidence.as_of > now + CLOCK_SKEW:
        raise ConfigError(
            "as_of lies in the future; no window can have been watched yet",
            measured=evidence.as_of.isoformat(),
            allowed=f"not after {now.isoformat()}",
            next_step="set the clock of this machine, or choose an earlier as_of",
        )
    model, request_id = evidence.use_case, None
    with writing(engine) as connection:
        lock_model(connection, model)
        decision, suppressed_by = str(proposal.decision), ""
        if proposal.decision == "retrain":
            existing = connection.execute(
                sa.select(requests.c.decision_id).where(requests.c.id == _request_id(proposal))
            ).scalar_one_or_none()
            if existing is not None:
                return find_decision(connection, existing)
            found = suppressions(evidence.as_of, evidence.version, _standing(connection, evidence), limits)
            suppressed_by = "; ".join(found)
            decision = "hold" if suppressed_by else "retrain"
        decision_id = identify_decision(evidence, proposal.policy_digest, decision, suppressed_by)
        if decision == "retrain":
            request_id = _insert_request(connection, proposal, limits, decision_id, now)
        insert_if_absent(
            connection,
            decisions,
            id=decision_id,
            model=model,
            window_first=evidence.window.first,
            window_last=evidence.window.last,
            policy=proposal.policy,
            policy_digest=proposal.policy_digest,
            version=evidence.version,
            decision=decision,
            rung=proposal.rung,
            reasons=canonical_json(proposal.reasons),
            evidence=canonical_json(json.loads(evidence.model_dump_json())),
            evidence_digest=evidence.digest,
            suppressed_by=suppressed_by,
            request_id=request_id,
            cost_estimate_seconds=proposal.cost_estimate_seconds,
            as_of=evidence.as_of,
            decided_at=now,
        )
        return find_decision(connection, decision_id)


def _request_id(proposal: Proposal) -> str:
    window = proposal.evidence.window
    key = [proposal.evidence.use_case, window.first.isoformat(), window.last.isoformat(), proposal.policy]
    return str(uuid5(NAMESPACE_URL, canonical_json(["driftline retraining request", *key])))


def _insert_request(
    connection: sa.Connection, proposal: Proposal, limits: Limits, decision_id: str, now: datetime
) -> str:
    request_id, evidence = _request_id(proposal), proposal.evidence
    connection.execute(
        sa.insert(requests).values(
            id=request_id,
            model=evidence.use_case,
            window_first=evidence.window.first,
            window_last=evidence.window.last,
            policy=proposal.policy,
            decision_id=decision_id,
            as_of=evidence.as_of,
            state="requested",
            attempt=1,
            lease_seconds=max(1, round(limits.lease.total_seconds())),
            outcome="",
            reason="",
            requested_at=now,
        )
    )
    return request_id


def _standing(connection: sa.Connection, evidence: Evidence) -> Standing:
    """Read what the ledger knows of a model; the caller has locked it."""
    model = evidence.use_case
    later = sa.select(sa.func.max(decisions.c.as_of)).where(
        decisions.c.model == model, decisions.c.window_last > evidence.window.last
    )
    champion = sa.select(champions.c.version).where(champions.c.model == model)
    past = sa.select(*(requests.c[name] for name in PastRequest.model_fields)).where(requests.c.model == model)
    return Standing(
        hold=find_hold(connection, model),
        champion_version=connection.execute(champion).scalar_one_or_none(),
        later_as_of=connection.execute(later).scalar_one_or_none(),
        requests=[PastRequest.model_validate(dict(row)) for row in connection.execute(past).mappings()],
    )
