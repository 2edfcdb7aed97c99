"""Holds: a person stops retrainings of a model, until somebody releases it."""

from datetime import datetime

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from components.core.errors import ConfigError
from components.core.ledger.attempts import lock_model
from components.core.ledger.connections import insert_if_absent, reading, writing
from components.core.ledger.schema import holds


class Hold(BaseModel):
    """Who stopped the retrainings of a model, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    reason: str
    held_by: str
    held_at: datetime


def hold(engine: sa.Engine, model: str, *, reason: str, held_by: str, now: datetime) -> Hold:
    """Stop new retrainings of a model and return the hold that counts: the first one; an open request goes on.

    Raises ConfigError without a reason or a name, LedgerError.
    """
    if not reason.strip() or not held_by.strip():
        raise ConfigError(
            "a hold needs a reason and a name", measured=f"reason {reason!r}, name {held_by!r}", allowed="both"
        )
    with writing(engine) as connection:
        lock_model(connection, model)
        insert_if_absent(connection, holds, model=model, reason=reason, held_by=held_by, held_at=now)
        return Hold.model_validate(dict(connection.execute(_of(model)).mappings().one()))


def release(engine: sa.Engine, model: str) -> bool:
    """Allow retrainings of a model again and return whether they were held. Raises LedgerError."""
    with writing(engine) as connection:
        lock_model(connection, model)
        return connection.execute(sa.delete(holds).where(holds.c.model == model)).rowcount == 1


def read_hold(engine: sa.Engine, model: str) -> Hold | None:
    """Return the hold of a model, None when there is none."""
    with reading(engine) as connection:
        return find_hold(connection, model)


def find_hold(connection: sa.Connection, model: str) -> Hold | None:
    """Return the hold of a model as a part of the caller's transaction."""
    row = connection.execute(_of(model)).mappings().one_or_none()
    return Hold.model_validate(dict(row)) if row is not None else None


def _of(model: str) -> sa.Select[tuple[str, str, str, datetime]]:
    return sa.select(holds).where(holds.c.model == model)
