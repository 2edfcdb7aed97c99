"""Pipeline runs: who may execute one, and how it ended."""

from datetime import UTC, datetime
from typing import Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from components.core.errors import LedgerError
from components.core.ledger.attempts import claim_attempt, close_attempt, is_current, lock_attempt
from components.core.ledger.connections import insert_if_absent, reading, writing
from components.core.ledger.schema import runs

FinalState = Literal["succeeded", "failed", "refused", "superseded", "cancelled"]
RunState = Literal["running", FinalState]


class Run(BaseModel):
    """One run as the ledger knows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    pipeline: str
    use_case: str
    claimant: str
    """The Argo Workflow that executes the run; on a laptop the run itself."""
    state: RunState
    reason: str
    failed_step: str
    as_of: datetime | None
    started_at: datetime
    finished_at: datetime | None


def claim_run(engine: sa.Engine, run_id: str, claimant: str, pipeline: str, use_case: str) -> bool:
    """Return whether this claimant executes the run: the first one does, also when it asks again.

    KFP can start several Workflows for one run id, so the id alone is no claim. A failed run that its own claimant
    claims again is running again. A run that was started for a retraining request executes only while the request
    waits for it, and its lease starts with the claim. Raises LedgerError when the run id belongs to another pipeline
    or use case.
    """
    if not run_id or not claimant:
        raise LedgerError("a run needs an id and a claimant", measured=f"id {run_id!r}, claimant {claimant!r}")
    with writing(engine) as connection:
        attempt = lock_attempt(connection, run_id)
        if attempt is not None:
            _check_owner(run_id, (pipeline, use_case), ("training", attempt["model"]))
            if not is_current(attempt):
                return False
        claimed = _claim(connection, run_id, claimant, pipeline, use_case)
        if claimed and attempt is not None:
            claim_attempt(connection, attempt, claimant)
        return claimed


def _claim(connection: sa.Connection, run_id: str, claimant: str, pipeline: str, use_case: str) -> bool:
    new = {"id": run_id, "pipeline": pipeline, "use_case": use_case, "claimant": claimant}
    if insert_if_absent(
        connection, runs, **new, state="running", reason="", failed_step="", started_at=datetime.now(UTC)
    ):
        return True
    row = connection.execute(sa.select(runs).where(runs.c.id == run_id).with_for_update()).one()
    if row.claimant != claimant:
        return False
    _check_owner(run_id, (pipeline, use_case), (row.pipeline, row.use_case))
    connection.execute(
        sa.update(runs)
        .where(runs.c.id == run_id, runs.c.state == "failed")
        .values(state="running", reason="", failed_step="", finished_at=None)
    )
    return True


def _check_owner(run_id: str, given: tuple[str, str], owner: tuple[str, str]) -> None:
    if given != owner:
        raise LedgerError(
            f"run {run_id} belongs to another pipeline or use case",
            measured=f"{given[0]} of {given[1]}",
            allowed=f"{owner[0]} of {owner[1]}",
            next_step="choose another run key",
        )


def finish_run(
    engine: sa.Engine,
    run_id: str,
    state: FinalState,
    *,
    reason: str = "",
    failed_step: str = "",
    as_of: datetime | None = None,
) -> bool:
    """Record how a running run ended and return whether this call did; a finished run keeps its first end.

    Raises LedgerError when nobody claimed the run.
    """
    with writing(engine) as connection:
        lock_attempt(connection, run_id)
        if end_run(connection, run_id, state, reason=reason, failed_step=failed_step, as_of=as_of):
            return True
    if read_run(engine, run_id) is None:
        raise unknown_run(run_id)
    return False


def end_run(
    connection: sa.Connection,
    run_id: str,
    state: FinalState,
    *,
    reason: str = "",
    failed_step: str = "",
    as_of: datetime | None = None,
) -> bool:
    """End a run that is running, and the attempt that it is, as a part of the caller's transaction.

    The caller has locked the attempt.
    """
    values = {"state": state, "reason": reason, "failed_step": failed_step, "finished_at": datetime.now(UTC)}
    if as_of is not None:
        values["as_of"] = as_of
    update = sa.update(runs).where(runs.c.id == run_id, runs.c.state == "running").values(**values)
    if connection.execute(update).rowcount != 1:
        return False
    close_attempt(connection, run_id, state, reason)
    return True


def unknown_run(run_id: str) -> LedgerError:
    return LedgerError(
        "the ledger does not know this run", measured=run_id, allowed="a run that the step `claim` recorded"
    )


def read_run(engine: sa.Engine, run_id: str) -> Run | None:
    """Return a run, None when nobody claimed it."""
    with reading(engine) as connection:
        row = connection.execute(sa.select(runs).where(runs.c.id == run_id)).mappings().one_or_none()
    return Run.model_validate(dict(row)) if row is not None else None


def list_runs(
    engine: sa.Engine, *, limit: int = 20, use_case: str = "", state: RunState | Literal[""] = ""
) -> list[Run]:
    """Return the newest runs first, optionally of one use case or in one state."""
    query = sa.select(runs).order_by(runs.c.started_at.desc(), runs.c.id).limit(limit)
    if use_case:
        query = query.where(runs.c.use_case == use_case)
    if state:
        query = query.where(runs.c.state == state)
    with reading(engine) as connection:
        return [Run.model_validate(dict(row)) for row in connection.execute(query).mappings()]


def mean_run_seconds(engine: sa.Engine, pipeline: str, use_case: str, *, newest: int = 5) -> float | None:
    """Return the mean duration of the newest succeeded runs, None when none has succeeded."""
    query = (
        sa.select(runs.c.started_at, runs.c.finished_at)
        .where(runs.c.pipeline == pipeline, runs.c.use_case == use_case, runs.c.state == "succeeded")
        .order_by(runs.c.started_at.desc(), runs.c.id)
        .limit(newest)
    )
    with reading(engine) as connection:
        seconds = [(row.finished_at - row.started_at).total_seconds() for row in connection.execute(query)]
    return sum(seconds) / len(seconds) if seconds else None
