"""What serves: which version Git names for each environment, and the champion that follows it after a revert."""

from datetime import UTC, datetime
from typing import Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from components.core.bundle import release_of
from components.core.errors import DataError
from components.core.ledger.attempts import lock_model
from components.core.ledger.connections import reading, writing
from components.core.ledger.schema import bentos, champions, promotions, serving
from components.core.release import Release


class Serving(BaseModel):
    """What Git said last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    use_case: str
    environment: str
    version: int | None
    """None: the release was withdrawn."""
    commit: str
    """The last one that changed the release."""
    head: str
    """Of the branch, when it was observed."""
    observed_at: datetime


class Seen(BaseModel):
    """What one look at the branch found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    use_case: str
    environment: str
    release: Release | None
    commit: str
    head: str
    released: dict[str, int]
    """Run to the version it made, of all that the history of the branch released."""

    @property
    def version(self) -> int | None:
        return self.release.model_version if self.release else None


class Observed(BaseModel):
    """What an observation came to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    serving: Serving
    champion: int | None
    event: Literal["", "reverted", "reinstated"] = ""
    replaced: int | None = None
    """The champion before, if the champion changed."""


def read_serving(engine: sa.Engine, use_case: str, environment: str) -> Serving | None:
    """Return what Git said last, None before the first observation. Raises LedgerError."""
    with reading(engine) as connection:
        return _find(connection, use_case, environment)


def list_serving(engine: sa.Engine) -> list[Serving]:
    """Return what serves, of all use cases and environments. Raises LedgerError."""
    query = sa.select(serving).order_by(serving.c.use_case, serving.c.environment)
    with reading(engine) as connection:
        return [Serving.model_validate(dict(row)) for row in connection.execute(query).mappings()]


def record_observation(engine: sa.Engine, seen: Seen, before: Serving | None) -> Observed | None:
    """Record what Git says, unless another observation came after `before`; then None, and nothing changes.

    When Git names another version than the champion although it released the champion earlier, somebody took that back:
    the champion becomes the version that Git names. The demoted one is `reverted` in the history and is never promoted
    again; one that was reverted itself and is named again is `reinstated`. Raises DataError for a release that the
    ledger does not know, LedgerError.
    """
    now = datetime.now(UTC)
    with writing(engine) as connection:
        lock_model(connection, seen.use_case)
        if _find(connection, seen.use_case, seen.environment) != before:
            return None
        if seen.release is not None:
            require_known(connection, seen.release)
        champion = connection.execute(
            sa.select(champions).where(champions.c.model == seen.use_case).with_for_update()
        ).one_or_none()
        served = Serving(
            **{name: getattr(seen, name) for name in ("use_case", "environment", "version", "commit", "head")},
            observed_at=now,
        )
        _write(connection, served)
        current = champion.version if champion is not None else None
        if champion is None or seen.release is None or current == seen.version:
            return Observed(serving=served, champion=current)
        if champion.run_id not in seen.released and (before is None or before.version != current):
            return Observed(serving=served, champion=current)
        event = _follow(connection, champion, seen.release, seen.commit, now)
        return Observed(serving=served, champion=seen.version, event=event, replaced=current)


def require_known(connection: sa.Connection, release: Release) -> None:
    """Raise DataError unless this very release was promoted: version, model, Bento, verdict and run."""
    case, version = release.use_case, release.model_version
    line = connection.execute(
        sa.select(promotions.c.run_id, promotions.c.verdict_digest).where(
            promotions.c.model == case, promotions.c.version == version, promotions.c.outcome == "promoted"
        )
    ).first()
    kept = connection.execute(
        sa.select(bentos.c.digest, bentos.c.uri).where(bentos.c.release == release_of(case, version, release.model))
    ).first()
    checks: list[tuple[str, object, object]] = [
        ("modelVersion", version, version if line else "a version that was promoted"),
        ("runId", release.run_id, line.run_id if line else None),
        ("verdict", release.verdict, line.verdict_digest if line else None),
        ("model", release.model, release.model if kept else "the model that was packaged as this version"),
        ("bento.digest", release.bento.digest, kept.digest if kept else None),
        ("bento.uri", release.bento.uri, kept.uri if kept else None),
    ]
    for key, measured, allowed in checks:
        if measured != allowed:
            raise DataError(
                f"Git names a release of {case} that the ledger does not know",
                measured=f"release.{key}: {measured}",
                allowed=allowed,
                next_step="restore release.yaml with `git revert`",
            )


def _find(connection: sa.Connection, use_case: str, environment: str) -> Serving | None:
    query = sa.select(serving).where(serving.c.use_case == use_case, serving.c.environment == environment)
    row = connection.execute(query).mappings().one_or_none()
    return Serving.model_validate(dict(row)) if row is not None else None


def _write(connection: sa.Connection, served: Serving) -> None:
    same = (serving.c.use_case == served.use_case, serving.c.environment == served.environment)
    values = served.model_dump()
    # The model is locked, so nobody else inserts between these two.
    if connection.execute(sa.update(serving).where(*same).values(**values)).rowcount == 0:
        connection.execute(sa.insert(serving).values(**values))


def _follow(
    connection: sa.Connection, champion: sa.Row[tuple[object, ...]], release: Release, commit: str, now: datetime
) -> Literal["reverted", "reinstated"]:
    """Make the released version the champion and write the line that says so."""
    case, version = release.use_case, release.model_version
    last = connection.execute(
        sa.select(promotions.c.outcome)
        .where(promotions.c.model == case, promotions.c.version == version)
        .order_by(promotions.c.id.desc())
        .limit(1)
    ).scalar_one()
    back = last == "reverted"
    subject = (
        {"version": version, "previous_version": champion.version, "run_id": release.run_id}
        | {"verdict_digest": release.verdict, "model_digest": release.model}
        if back
        else {"version": champion.version, "previous_version": version, "run_id": champion.run_id}
        | {"verdict_digest": champion.verdict_digest, "model_digest": champion.model_digest}
    )
    outcome: Literal["reverted", "reinstated"] = "reinstated" if back else "reverted"
    connection.execute(sa.insert(promotions).values(model=case, outcome=outcome, commit=commit, at=now, **subject))
    connection.execute(
        sa.update(champions)
        .where(champions.c.model == case)
        .values(
            version=version,
            model_digest=release.model,
            bento_digest=release.bento.digest,
            bento_uri=release.bento.uri,
            run_id=release.run_id,
            verdict_digest=release.verdict,
            promoted_at=now,
            mirrored=False,
            revision=champions.c.revision + 1,
        )
    )
    return outcome
