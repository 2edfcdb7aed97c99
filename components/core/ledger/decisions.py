"""Decisions: what was concluded from each judged window, what it started, and what came of it."""

import json
import re
from datetime import datetime
from typing import Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from components.core.digests import json_digest
from components.core.errors import ConfigError
from components.core.evidence import Evidence, Window
from components.core.ledger.connections import reading
from components.core.ledger.schema import attempts, decisions, requests
from components.core.ledger.suppression import RequestState

Rung = Literal["data", "rows", "performance", "drift", "schedule", "evidently", "report", "attempts"]
"""Where the ladder ended; `attempts`: at a request whose three attempts failed."""


class Decision(BaseModel):
    """One decision with the request and the run that followed it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    model: str
    window: Window
    policy: str
    policy_digest: str
    version: int
    """Of the model that was watched, in the model registry."""
    decision: Literal["retrain", "hold", "alert", "report", "insufficient"]
    rung: Rung
    reasons: list[str]
    suppressed_by: str
    """Why a justified retraining waits, and until when; empty unless it is on hold."""
    request: str | None
    request_state: RequestState | None
    run: str | None
    """Newest attempt; None before the first one."""
    outcome: str | None
    """What came of the request; None while it is open."""
    cost_estimate_seconds: float | None
    as_of: datetime
    decided_at: datetime
    evidence: Evidence


def identify_decision(evidence: Evidence, policy_digest: str, decision: str, suppressed_by: str) -> str:
    """Return the identity of a decision: what was known, by which policy it was judged, and what came out."""
    window = [evidence.window.first.isoformat(), evidence.window.last.isoformat()]
    return json_digest([evidence.use_case, *window, policy_digest, evidence.digest, decision, suppressed_by])


# An attempt is numbered before it is dispatched, so the newest one need not be the request's current one.
_newest = (
    sa.select(attempts.c.request_id, sa.func.max(attempts.c.attempt).label("attempt"))
    .group_by(attempts.c.request_id)
    .subquery()
)
_JOINED = (
    sa.select(
        decisions,
        requests.c.state.label("request_state"),
        requests.c.outcome.label("request_outcome"),
        requests.c.reason.label("request_reason"),
        attempts.c.run_id,
    )
    .outerjoin_from(decisions, requests)
    .outerjoin(_newest, _newest.c.request_id == requests.c.id)
    .outerjoin(attempts, sa.and_(attempts.c.request_id == requests.c.id, attempts.c.attempt == _newest.c.attempt))
)
_NEWEST_FIRST = (decisions.c.decided_at.desc(), decisions.c.window_last.desc(), decisions.c.id)


def _to_decision(row: sa.RowMapping) -> Decision:
    plain = ("id", "model", "policy", "policy_digest", "version", "decision", "rung", "suppressed_by")
    return Decision(
        **{name: row[name] for name in (*plain, "request_state", "cost_estimate_seconds", "as_of", "decided_at")},
        window=Window(first=row["window_first"], last=row["window_last"]),
        reasons=json.loads(row["reasons"]),
        request=row["request_id"],
        run=row["run_id"],
        outcome=": ".join(part for part in (row["request_outcome"], row["request_reason"]) if part)
        if row["request_outcome"]
        else None,
        evidence=Evidence.model_validate_json(row["evidence"]),
    )


def find_decision(connection: sa.Connection, decision_id: str) -> Decision:
    """Return a decision that exists, as a part of the caller's transaction."""
    return _to_decision(connection.execute(_JOINED.where(decisions.c.id == decision_id)).mappings().one())


def list_decisions(engine: sa.Engine, model: str = "", limit: int | None = None) -> list[Decision]:
    """Return the newest decisions first, optionally of one model. Raises LedgerError."""
    query = _JOINED.order_by(*_NEWEST_FIRST).limit(limit)
    if model:
        query = query.where(decisions.c.model == model)
    with reading(engine) as connection:
        return [_to_decision(row) for row in connection.execute(query).mappings()]


def read_decision(engine: sa.Engine, prefix: str) -> Decision | None:
    """Return the decision whose id begins with `prefix`, None when there is none.

    Raises ConfigError when it is no beginning of an id or begins several, LedgerError.
    """
    if not re.fullmatch(r"[0-9a-f]{4,64}", prefix):
        raise ConfigError("this is no decision id", measured=repr(prefix), allowed="4 to 64 hex digits")
    with reading(engine) as connection:
        rows = connection.execute(_JOINED.where(decisions.c.id.startswith(prefix)).limit(2)).mappings().all()
    if len(rows) > 1:
        raise ConfigError(
            "several decisions begin with this id", measured=prefix, allowed="one", next_step="give more digits"
        )
    return _to_decision(rows[0]) if rows else None


def watched_windows(engine: sa.Engine, model: str, version: int) -> list[Evidence]:
    """Return what was measured of one model version, newest decision of each window, oldest window first."""
    query = (
        sa.select(decisions.c.evidence)
        .where(decisions.c.model == model, decisions.c.version == version)
        .order_by(decisions.c.as_of, decisions.c.decided_at, decisions.c.id)
    )
    with reading(engine) as connection:
        found = [Evidence.model_validate_json(text) for text in connection.execute(query).scalars()]
    newest = {(evidence.window.first, evidence.window.last): evidence for evidence in found}
    return [newest[window] for window in sorted(newest)]
