"""Releases: what is to be committed for each promoted version, kept with its promotion until somebody commits it."""

from datetime import UTC, datetime

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from components.core.ledger.connections import insert_if_absent, reading
from components.core.ledger.schema import releases
from components.core.release import Release


class KeptRelease(BaseModel):
    """A release with what a reviewer reads about it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    release: Release
    verdict: str
    """The gate's verdict as JSON (`components.core.verdict.Verdict`)."""
    card: str
    """The model's card as JSON (`components.core.bundle.ModelCard`)."""


def keep_release(connection: sa.Connection, kept: KeptRelease) -> None:
    """Keep a release as a part of the caller's transaction; the first one of a version counts."""
    insert_if_absent(
        connection,
        releases,
        model=kept.release.use_case,
        version=kept.release.model_version,
        document=kept.release.model_dump_json(by_alias=True),
        verdict=kept.verdict,
        card=kept.card,
        recorded_at=datetime.now(UTC),
    )


def read_release(engine: sa.Engine, model: str, version: int) -> KeptRelease | None:
    """Return the release of a version, None when it was promoted without one."""
    query = sa.select(releases).where(releases.c.model == model, releases.c.version == version)
    with reading(engine) as connection:
        row = connection.execute(query).mappings().one_or_none()
    if row is None:
        return None
    return KeptRelease(release=Release.model_validate_json(row["document"]), verdict=row["verdict"], card=row["card"])
