"""Attempts: the runs that try to fulfil a retraining request, at most three, one at a time.

    request   requested → dispatched → claimed → done | refused | failed
    attempt               dispatched → claimed → succeeded | refused | superseded | failed | cancelled | expired

These are parts of the caller's transaction, so that a run and the request behind it change together.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID, uuid5

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from components.core.digests import canonical_json, json_digest
from components.core.ledger.connections import insert_if_absent
from components.core.ledger.schema import attempts, decisions, promotions, requests

MAX_ATTEMPTS = 3
OPEN = ("requested", "dispatched", "claimed")
AttemptEnd = Literal["succeeded", "refused", "superseded", "failed", "cancelled", "expired"]


class Attempt(BaseModel):
    """One run that was started for a request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    request_id: str
    attempt: int
    """1 to 3."""
    state: Literal["dispatched", "claimed", AttemptEnd]
    claimant: str
    """The Workflow that executes it; empty before the claim."""
    lease_expires_at: datetime
    """Wall clock; later than this another attempt may replace it."""
    reason: str
    dispatched_at: datetime
    model: str
    """Use case to train."""
    as_of: datetime
    """Instant to train as of."""
    window_first: datetime
    window_last: datetime
    policy: str


def lock_model(connection: sa.Connection, model: str) -> None:
    """Make every other decision, claim or end of this model's requests wait for the end of this transaction.

    A writing transaction of SQLite has locked the whole ledger already.
    """
    if connection.dialect.name == "postgresql":
        key = int.from_bytes(hashlib.sha256(f"driftline model {model}".encode()).digest()[:8], signed=True)
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))


def attempt_id(request_id: str, attempt: int) -> str:
    """Return the run id of an attempt: always the same one, so that starting it twice is noticed."""
    return str(uuid5(UUID(request_id), str(attempt)))


_JOINED = sa.select(
    attempts,
    *(requests.c[name] for name in ("model", "as_of", "window_first", "window_last", "policy")),
    requests.c.state.label("request_state"),
    requests.c.attempt.label("current"),
    requests.c.lease_seconds,
).join_from(attempts, requests)


def find_attempt(connection: sa.Connection, run_id: str) -> sa.RowMapping | None:
    """Return an attempt beside its request, None when the run belongs to no request."""
    return connection.execute(_JOINED.where(attempts.c.run_id == run_id)).mappings().one_or_none()


def lock_attempt(connection: sa.Connection, run_id: str) -> sa.RowMapping | None:
    """Lock the model of an attempt and return it beside its request; None when the run belongs to no request."""
    found = find_attempt(connection, run_id)
    if found is None:
        return None
    lock_model(connection, found["model"])
    # Again: it may have changed while this transaction waited.
    return find_attempt(connection, run_id)


def to_attempt(row: sa.RowMapping) -> Attempt:
    return Attempt.model_validate({name: row[name] for name in Attempt.model_fields})


def is_current(row: sa.RowMapping) -> bool:
    """Return whether the request still waits for this attempt."""
    waiting = row["request_state"] in ("dispatched", "claimed") and row["state"] in ("dispatched", "claimed")
    return waiting and row["current"] == row["attempt"]


def start_attempt(connection: sa.Connection, request: sa.RowMapping, now: datetime, alone: timedelta) -> Attempt | None:
    """Write and return the attempt that a request waits for; renew its lease when it was dispatched before.

    The caller starts its run, `alone` for so long; None while another caller does.
    """
    run_id = attempt_id(request["id"], request["attempt"])
    # A sweep may have begun long ago, so its own clock is too old here.
    moment = datetime.now(UTC)
    held = sa.select(attempts.c.run_id).where(attempts.c.run_id == run_id, attempts.c.starting_until > moment)
    if connection.execute(held).first() is not None:
        return None
    new = {"request_id": request["id"], "attempt": request["attempt"], "claimant": "", "reason": ""}
    lease: dict[str, datetime | None] = {
        "lease_expires_at": now + timedelta(seconds=request["lease_seconds"]),
        "starting_until": moment + alone if alone else None,
    }
    if not insert_if_absent(connection, attempts, run_id=run_id, **new, state="dispatched", dispatched_at=now, **lease):
        connection.execute(sa.update(attempts).where(attempts.c.run_id == run_id).values(**lease))
    connection.execute(sa.update(requests).where(requests.c.id == request["id"]).values(state="dispatched"))
    return to_attempt(connection.execute(_JOINED.where(attempts.c.run_id == run_id)).mappings().one())


def claim_attempt(connection: sa.Connection, row: sa.RowMapping, claimant: str) -> None:
    """Note that a claimant executes the current attempt, and start or renew its lease."""
    lease = datetime.now(UTC) + timedelta(seconds=row["lease_seconds"])
    connection.execute(
        sa.update(attempts)
        .where(attempts.c.run_id == row["run_id"])
        .values(state="claimed", claimant=claimant, lease_expires_at=lease)
    )
    connection.execute(sa.update(requests).where(requests.c.id == row["request_id"]).values(state="claimed"))


def close_attempt(connection: sa.Connection, run_id: str, end: AttemptEnd, reason: str) -> bool:
    """End the current attempt of a request and return whether this call did; its model must be locked.

    The gate's no is an answer and ends the request. An attempt that lost a race or broke is followed by the next one;
    after the last one the request has failed, and a decision of kind `alert` says so.
    """
    row = find_attempt(connection, run_id)
    if row is None or not is_current(row):
        return False
    connection.execute(sa.update(attempts).where(attempts.c.run_id == run_id).values(state=end, reason=reason))
    request_id: str = row["request_id"]
    if end == "succeeded":
        promoted = sa.select(promotions.c.id).where(promotions.c.run_id == run_id, promotions.c.outcome == "promoted")
        outcome = "promoted" if connection.execute(promoted).first() else "succeeded"
        _end_request(connection, request_id, "done", outcome, reason)
    elif end == "refused":
        _end_request(connection, request_id, "refused", "refused", reason)
    elif row["attempt"] < MAX_ATTEMPTS:
        values = {"state": "requested", "attempt": row["attempt"] + 1, "reason": reason}
        connection.execute(sa.update(requests).where(requests.c.id == request_id).values(**values))
    else:
        _end_request(connection, request_id, "failed", "failed", reason)
        _alert(connection, request_id)
    return True


def _end_request(connection: sa.Connection, request_id: str, state: str, outcome: str, reason: str) -> None:
    values = {"state": state, "outcome": outcome, "reason": reason, "ended_at": datetime.now(UTC)}
    connection.execute(sa.update(requests).where(requests.c.id == request_id).values(**values))


def _alert(connection: sa.Connection, request_id: str) -> None:
    """Record that a request failed for good, beside the decision that made it."""
    query = sa.select(decisions).where(decisions.c.request_id == request_id, decisions.c.decision == "retrain")
    decision = dict(connection.execute(query).mappings().one())
    tried = sa.select(attempts).where(attempts.c.request_id == request_id).order_by(attempts.c.attempt)
    reasons = ["the retraining failed three times; the next one needs a new reason"] + [
        f"attempt {row.attempt}, run {row.run_id}: {row.state}{f', {row.reason}' if row.reason else ''}"
        for row in connection.execute(tried)
    ]
    changes = {
        "id": json_digest(["alert", request_id]),
        "decision": "alert",
        "rung": "attempts",
        "reasons": canonical_json(reasons),
        "decided_at": datetime.now(UTC),
    }
    insert_if_absent(connection, decisions, **(decision | changes))
