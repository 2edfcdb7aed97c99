"""Bentos: which archive serves a model. Building is not reproducible, so the first archive of a model counts."""

from datetime import UTC, datetime

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from components.core.ledger.connections import insert_if_absent, reading, writing
from components.core.ledger.schema import bentos


class Bento(BaseModel):
    """A kept Bento archive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_digest: str
    digest: str
    """SHA-256 of the archive."""
    uri: str
    recorded_at: datetime


def record_bento(engine: sa.Engine, model_digest: str, digest: str, uri: str) -> Bento:
    """Record the archive of a model and return the one that counts: the first one recorded."""
    with writing(engine) as connection:
        insert_if_absent(
            connection, bentos, model_digest=model_digest, digest=digest, uri=uri, recorded_at=datetime.now(UTC)
        )
        row = connection.execute(sa.select(bentos).where(bentos.c.model_digest == model_digest)).mappings().one()
        return Bento.model_validate(dict(row))


def read_bento(engine: sa.Engine, model_digest: str) -> Bento | None:
    """Return the archive of a model, None before it was recorded."""
    with reading(engine) as connection:
        row = (
            connection.execute(sa.select(bentos).where(bentos.c.model_digest == model_digest)).mappings().one_or_none()
        )
    return Bento.model_validate(dict(row)) if row is not None else None
