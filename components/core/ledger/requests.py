"""Requests: retrainings that were decided and have not ended, and the attempts at them."""

from datetime import UTC, datetime, timedelta
from typing import Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from components.core.errors import LedgerError
from components.core.ledger.attempts import (
    OPEN,
    Attempt,
    AttemptEnd,
    attempt_id,
    close_attempt,
    find_attempt,
    is_current,
    lock_attempt,
    lock_model,
    start_attempt,
    to_attempt,
)
from components.core.ledger.connections import reading, writing
from components.core.ledger.runs import end_run
from components.core.ledger.schema import attempts, requests
from components.core.ledger.suppression import RequestState


class Request(BaseModel):
    """A retraining that was decided."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    model: str
    window_first: datetime
    window_last: datetime
    policy: str
    decision_id: str
    as_of: datetime
    state: RequestState
    attempt: int
    """The one that runs or runs next, 1 to 3."""
    lease_seconds: int
    outcome: Literal["", "promoted", "succeeded", "refused", "failed"]
    reason: str
    """Why it ended so, or why the attempt before this one did not do."""
    requested_at: datetime
    ended_at: datetime | None

    @property
    def run_id(self) -> str:
        """Run of the current attempt, whether it was dispatched or not."""
        return attempt_id(self.id, self.attempt)


def open_requests(engine: sa.Engine, model: str = "") -> list[Request]:
    """Return the requests that have not ended, oldest first. Raises LedgerError."""
    query = sa.select(requests).where(requests.c.state.in_(OPEN)).order_by(requests.c.requested_at, requests.c.id)
    if model:
        query = query.where(requests.c.model == model)
    with reading(engine) as connection:
        return [Request.model_validate(dict(row)) for row in connection.execute(query).mappings()]


def read_request(engine: sa.Engine, request_id: str) -> Request | None:
    """Return a request, None when there is none. Raises LedgerError."""
    with reading(engine) as connection:
        row = connection.execute(sa.select(requests).where(requests.c.id == request_id)).mappings().one_or_none()
    return Request.model_validate(dict(row)) if row is not None else None


def read_attempt(engine: sa.Engine, run_id: str) -> Attempt | None:
    """Return an attempt, None when no request started this run. Raises LedgerError."""
    with reading(engine) as connection:
        row = find_attempt(connection, run_id)
    return to_attempt(row) if row is not None else None


def next_dispatch(
    engine: sa.Engine, request_id: str, *, now: datetime, alone: timedelta = timedelta(0)
) -> Attempt | None:
    """Return the attempt to start for a request, None when it was claimed or has ended, or another one is starting it.

    The first call writes the attempt; a later one returns the same one with a new lease, for a dispatcher that died
    in between. So ask for the state of its run before starting it. For as long as `alone` every other call gets None,
    or until `note_started`. `now` is the wall clock. Raises LedgerError when there is no such request.
    """
    with writing(engine) as connection:
        request = _lock_request(connection, request_id)
        if request["state"] not in ("requested", "dispatched"):
            return None
        return start_attempt(connection, request, now, alone)


def note_started(engine: sa.Engine, run_id: str) -> None:
    """Note that a dispatcher has started the run of an attempt: from now on its state tells. Raises LedgerError."""
    with writing(engine) as connection:
        connection.execute(sa.update(attempts).where(attempts.c.run_id == run_id).values(starting_until=None))


def starting_until(engine: sa.Engine, model: str = "") -> datetime | None:
    """Return until when at the latest some dispatcher is alone with a run to start, None when none is.

    One that died leaves its runs to whoever comes after that. Raises LedgerError.
    """
    query = (
        sa.select(attempts.c.starting_until)
        .join_from(attempts, requests)
        .where(attempts.c.state == "dispatched", attempts.c.starting_until > datetime.now(UTC))
        .order_by(attempts.c.starting_until.desc())
    )
    if model:
        query = query.where(requests.c.model == model)
    with reading(engine) as connection:
        latest: datetime | None = connection.execute(query).scalar()
    return latest


def _lock_request(connection: sa.Connection, request_id: str) -> sa.RowMapping:
    query = sa.select(requests).where(requests.c.id == request_id)
    found = connection.execute(query).mappings().one_or_none()
    if found is None:
        raise LedgerError("the ledger does not know this request", measured=request_id)
    lock_model(connection, found["model"])
    return connection.execute(query).mappings().one()


def fail_attempt(engine: sa.Engine, run_id: str, reason: str) -> bool:
    """Give an attempt up and return whether this call did: another attempt follows, or an alert after the third.

    An attempt that has ended stays as it is. Raises LedgerError.
    """
    with writing(engine) as connection:
        row = lock_attempt(connection, run_id)
        return row is not None and _give_up(connection, row, "failed", reason)


def expire_leases(engine: sa.Engine, now: datetime, model: str = "") -> list[str]:
    """Give up the attempts whose lease is over and return their run ids; should one wake, it promotes nothing.

    `now` is the wall clock. Raises LedgerError.
    """
    query = (
        sa.select(attempts.c.run_id)
        .join_from(attempts, requests)
        .where(attempts.c.state.in_(("dispatched", "claimed")), attempts.c.lease_expires_at <= now)
        .order_by(attempts.c.lease_expires_at, attempts.c.run_id)
    )
    if model:
        query = query.where(requests.c.model == model)
    with reading(engine) as connection:
        candidates = list(connection.execute(query).scalars())
    return [run_id for run_id in candidates if _expire(engine, run_id, now)]


def _expire(engine: sa.Engine, run_id: str, now: datetime) -> bool:
    with writing(engine) as connection:
        row = lock_attempt(connection, run_id)
        if row is None or row["lease_expires_at"] > now:
            return False
        reason = f"its lease ended at {row['lease_expires_at'].isoformat(timespec='seconds')}"
        return _give_up(connection, row, "expired", reason)


def _give_up(connection: sa.Connection, row: sa.RowMapping, end: AttemptEnd, reason: str) -> bool:
    if not is_current(row):
        return False
    close_attempt(connection, row["run_id"], end, reason)
    # Its run, if it was claimed: a run that ended promotes nothing.
    end_run(connection, row["run_id"], "failed", reason=reason)
    return True
