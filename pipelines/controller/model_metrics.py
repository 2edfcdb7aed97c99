"""Metrics of champions, promotions and what Git says that serves, from the ledger."""

from collections.abc import Iterator
from datetime import datetime

import sqlalchemy as sa

from components.core.ledger.schema import champions, promotions, releases, serving
from components.core.metric_registry import registry
from pipelines.controller.exposition import Sample


def model_samples(connection: sa.Connection, use_cases: list[str], environment: str) -> Iterator[Sample]:
    """Yield the metrics of champions, promotions and releases, for some use cases.

    `environment` is what this installation releases to, empty where nothing is committed.
    """
    name = "driftline_promotions_total"
    outcomes = next(metric for metric in registry().metrics if metric.name == name).values["outcome"]
    query = sa.select(promotions.c.model, promotions.c.outcome, sa.func.count())
    counted = connection.execute(query.group_by(promotions.c.model, promotions.c.outcome)).all()
    counts = {(model, outcome): n for model, outcome, n in counted}
    current = sa.select(champions.c.model, champions.c.version, champions.c.promoted_at)
    now = {model: (version, at) for model, version, at in connection.execute(current)}
    for case in use_cases:
        labels = {"use_case": case}
        for outcome in outcomes:
            yield Sample(name, counts.get((case, outcome), 0), labels | {"outcome": outcome})
        if case in now:
            version, at = now[case]
            yield Sample("driftline_champion_version", version, labels)
            # The profile that the monitor compares with comes with the champion.
            yield Sample("driftline_drift_reference_timestamp_seconds", at.timestamp(), labels)
    for row in connection.execute(sa.select(serving).where(serving.c.version.is_not(None))).all():
        where = {"use_case": row.use_case, "environment": row.environment}
        pinned = where | {"version": str(row.version), "commit": row.commit}
        yield Sample("driftline_release_info", 1, pinned)
        since = _serves_since(connection, row.use_case, row.version) or row.observed_at
        yield Sample("driftline_release_timestamp_seconds", since.timestamp(), where)

    if environment:
        yield from _uncommitted(connection, environment)


def _uncommitted(connection: sa.Connection, environment: str) -> Iterator[Sample]:
    """Yield which champions wait for their commit: what Git released and names no more is demoted once it is seen."""
    kept = sa.and_(releases.c.model == champions.c.model, releases.c.version == champions.c.version)
    served = sa.and_(serving.c.use_case == champions.c.model, serving.c.environment == environment)
    query = sa.select(champions.c.model, champions.c.version, serving.c.use_case, serving.c.version.label("named"))
    for row in connection.execute(query.join(releases, kept).outerjoin(serving, served)):
        withdrawn = row.use_case is not None and row.named is None
        value = not withdrawn and row.named != row.version
        labels = {"use_case": row.model, "environment": environment}
        yield Sample("driftline_release_uncommitted", float(value), labels)


def _serves_since(connection: sa.Connection, use_case: str, version: int) -> datetime | None:
    """Return when the history last made a version the one that serves: by promotion, or since a newer one was reverted.

    The row of `serving` itself changes with each commit of the branch.
    """
    promoted = sa.and_(promotions.c.outcome.in_(("promoted", "reinstated")), promotions.c.version == version)
    reverted = sa.and_(promotions.c.outcome == "reverted", promotions.c.previous_version == version)
    query = sa.select(sa.func.max(promotions.c.at)).where(promotions.c.model == use_case, sa.or_(promoted, reverted))
    since: datetime | None = connection.execute(query).scalar()
    return since
