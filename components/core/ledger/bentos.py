"""Bentos: which archive serves a release. Building is not reproducible, so the first archive of a release counts."""

from datetime import UTC, datetime

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from components.core.ledger.connections import insert_if_absent, reading, writing
from components.core.ledger.schema import bentos


class Bento(BaseModel):
    """A kept Bento archive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    release: str
    """A model under its version: `ModelCard.release`."""
    digest: str
    """SHA-256 of the archive."""
    uri: str
    recorded_at: datetime


def record_bento(engine: sa.Engine, release: str, digest: str, uri: str) -> Bento:
    """Record the archive of a release and return the one that counts: the first one recorded."""
    with writing(engine) as connection:
        insert_if_absent(connection, bentos, release=release, digest=digest, uri=uri, recorded_at=datetime.now(UTC))
        row = connection.execute(sa.select(bentos).where(bentos.c.release == release)).mappings().one()
        return Bento.model_validate(dict(row))


def read_bento(engine: sa.Engine, release: str) -> Bento | None:
    """Return the archive of a release, None before it was recorded."""
    with reading(engine) as connection:
        row = connection.execute(sa.select(bentos).where(bentos.c.release == release)).mappings().one_or_none()
    return Bento.model_validate(dict(row)) if row is not None else None
