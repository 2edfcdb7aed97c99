"""Champions: the last model of each use case that the gate approved, moved by compare-and-swap."""

from datetime import UTC, datetime
from typing import Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from components.core.errors import GateRefused, LedgerError
from components.core.ledger.attempts import is_current, lock_attempt
from components.core.ledger.connections import insert_if_absent, reading, writing
from components.core.ledger.releases import KeptRelease, keep_release
from components.core.ledger.runs import end_run, unknown_run
from components.core.ledger.schema import champions, promotions, runs

Outcome = Literal["promoted", "superseded"]
JUDGED: tuple[Outcome, ...] = ("promoted", "superseded")


class Champion(BaseModel):
    """The model version that a new one must beat."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: int
    digest: str
    """Digest of the model: its graph and encoding."""
    bento_digest: str
    bento_uri: str
    run_id: str
    promoted_at: datetime


class Candidate(BaseModel):
    """A model version that the gate approved."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: int
    digest: str
    bento_digest: str
    bento_uri: str
    run_id: str
    verdict_digest: str
    as_of: datetime


class Promotion(BaseModel):
    """One line of a model's history."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    model: str
    version: int
    previous_version: int | None
    """The champion that the gate compared with; of a revert, the version that serves again."""
    outcome: Literal["promoted", "superseded", "reverted", "reinstated"]
    run_id: str
    verdict_digest: str
    at: datetime
    model_digest: str = ""
    """Empty in lines that are older than this column."""
    commit: str = ""
    """In Git, of what was reverted or reinstated."""


def promote(
    engine: sa.Engine, candidate: Candidate, expected_version: int | None, release: KeptRelease | None = None
) -> Outcome:
    """Make a candidate the champion if the champion still is the version that its gate compared with (None: none).

    One transaction swaps the champion, writes the history and ends the run. Otherwise the candidate is recorded as
    superseded and nothing else changes. A run has one outcome: asking again returns it. `release` is kept with the
    promotion, to be committed. Raises LedgerError when the run is unknown or has ended otherwise, or when the request
    it was started for no longer waits for it, so that a run declared dead promotes nothing; GateRefused for a version
    or a model that was reverted.
    """
    with writing(engine) as connection:
        attempt = lock_attempt(connection, candidate.run_id)
        # The lock makes a second attempt of the same run wait here; others meet at the champion's row.
        state = connection.execute(
            sa.select(runs.c.state).where(runs.c.id == candidate.run_id).with_for_update()
        ).scalar_one_or_none()
        if state is None:
            raise unknown_run(candidate.run_id)
        earlier: Outcome | None = connection.execute(
            sa.select(promotions.c.outcome).where(
                promotions.c.run_id == candidate.run_id,
                promotions.c.model == candidate.model,
                promotions.c.outcome.in_(JUDGED),
            )
        ).scalar_one_or_none()
        if earlier is not None:
            return earlier
        if state != "running":
            raise LedgerError(
                f"run {candidate.run_id} has ended and promotes nothing",
                measured=state,
                allowed="running",
                next_step="start a new run",
            )
        if attempt is not None and not (is_current(attempt) and attempt["request_state"] == "claimed"):
            raise LedgerError(
                f"run {candidate.run_id} is not the attempt that its request waits for and promotes nothing",
                measured=f"attempt {attempt['attempt']} ({attempt['state']}) of a request that is"
                f" {attempt['request_state']} with attempt {attempt['current']}",
                allowed="the current attempt of a claimed request",
                next_step=f"read what became of request {attempt['request_id']}: `driftline decisions`",
            )
        _require_not_reverted(connection, candidate)
        swapped = _swap(connection, candidate, expected_version)
        outcome: Outcome = "promoted" if swapped else "superseded"
        connection.execute(
            sa.insert(promotions).values(
                model=candidate.model,
                version=candidate.version,
                previous_version=expected_version,
                outcome=outcome,
                run_id=candidate.run_id,
                verdict_digest=candidate.verdict_digest,
                at=datetime.now(UTC),
                model_digest=candidate.digest,
            )
        )
        if swapped and release is not None:
            keep_release(connection, release)
        if swapped:
            end_run(connection, candidate.run_id, "succeeded", as_of=candidate.as_of)
        else:
            winner = connection.execute(
                sa.select(champions.c.version).where(champions.c.model == candidate.model)
            ).scalar_one_or_none()
            reason = (
                f"the gate compared version {candidate.version} with champion {expected_version}, now it is {winner}"
            )
            end_run(connection, candidate.run_id, "superseded", reason=reason, as_of=candidate.as_of)
        return outcome


def _require_not_reverted(connection: sa.Connection, candidate: Candidate) -> None:
    """Refuse what was taken back: the version itself, and the same model under another version."""
    same = sa.or_(promotions.c.version == candidate.version, promotions.c.model_digest == candidate.digest)
    last = connection.execute(
        sa.select(promotions)
        .where(promotions.c.model == candidate.model, promotions.c.outcome.in_(("reverted", "reinstated")), same)
        .order_by(promotions.c.id.desc())
        .limit(1)
    ).one_or_none()
    if last is not None and last.outcome == "reverted":
        raise GateRefused(
            "this model was promoted before and taken back",
            measured=f"version {candidate.version}; version {last.version} was reverted by commit {last.commit[:12]}",
            allowed="a model that was not reverted",
            next_step="train on other data or with other settings, or revert the revert",
        )


def _swap(connection: sa.Connection, candidate: Candidate, expected_version: int | None) -> bool:
    """Compare and swap the champion's row; the primary key decides between two first models."""
    values = {
        "version": candidate.version,
        "model_digest": candidate.digest,
        "bento_digest": candidate.bento_digest,
        "bento_uri": candidate.bento_uri,
        "run_id": candidate.run_id,
        "verdict_digest": candidate.verdict_digest,
        "promoted_at": datetime.now(UTC),
        "mirrored": False,
    }
    if expected_version is None:
        return insert_if_absent(connection, champions, model=candidate.model, revision=1, **values)
    update = (
        sa.update(champions)
        .where(champions.c.model == candidate.model, champions.c.version == expected_version)
        .values(revision=champions.c.revision + 1, **values)
    )
    return connection.execute(update).rowcount == 1


_CHAMPION = sa.select(
    *(champions.c.model_digest.label(name) if name == "digest" else champions.c[name] for name in Champion.model_fields)
).order_by(champions.c.model)


def read_champion(engine: sa.Engine, model: str) -> Champion | None:
    """Return the champion of a model, None before its first promotion."""
    with reading(engine) as connection:
        row = connection.execute(_CHAMPION.where(champions.c.model == model)).mappings().one_or_none()
    return Champion.model_validate(dict(row)) if row is not None else None


def list_champions(engine: sa.Engine) -> list[Champion]:
    """Return the champion of every model, by name."""
    with reading(engine) as connection:
        return [Champion.model_validate(dict(row)) for row in connection.execute(_CHAMPION).mappings()]


def mark_mirrored(engine: sa.Engine, model: str, version: int) -> None:
    """Note that MLflow's alias points to this champion; a newer champion stays unmirrored."""
    with writing(engine) as connection:
        connection.execute(
            sa.update(champions).where(champions.c.model == model, champions.c.version == version).values(mirrored=True)
        )


def list_unmirrored(engine: sa.Engine) -> list[str]:
    """Return the models whose champion changed and whose alias in MLflow has not followed yet, by name."""
    query = sa.select(champions.c.model).where(~champions.c.mirrored).order_by(champions.c.model)
    with reading(engine) as connection:
        return list(connection.execute(query).scalars())


def list_promotions(engine: sa.Engine, model: str) -> list[Promotion]:
    """Return the promotion history of a model, oldest first."""
    query = sa.select(promotions).where(promotions.c.model == model).order_by(promotions.c.id)
    with reading(engine) as connection:
        return [Promotion.model_validate(dict(row)) for row in connection.execute(query).mappings()]


def find_promotion(engine: sa.Engine, run_id: str) -> Promotion | None:
    """Return the line of the promotion that a run made, None when it promoted nothing."""
    query = sa.select(promotions).where(promotions.c.run_id == run_id, promotions.c.outcome == "promoted")
    with reading(engine) as connection:
        row = connection.execute(query).mappings().one_or_none()
    return Promotion.model_validate(dict(row)) if row is not None else None
