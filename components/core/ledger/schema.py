"""The tables of the ledger: what must happen once. Every other store can be rebuilt from them and from Git."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

# Revision that this code needs; revisions are numbers in text, so a greater one is newer.
REVISION = "0004"
VERSION_TABLE = "driftline_ledger_version"


class UtcDateTime(TypeDecorator[datetime]):
    """An instant with offset, in UTC on every backend: SQLite drops offsets, PostgreSQL answers in session time.

    Binding a naive instant raises ValueError.
    """

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        if value.utcoffset() is None:
            raise ValueError(f"an instant in the ledger needs an offset, got {value.isoformat()}")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        instant: datetime = value
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.String(255), primary_key=True),
    sa.Column("pipeline", sa.String(255), nullable=False),
    sa.Column("use_case", sa.String(63), nullable=False),
    sa.Column("claimant", sa.String(255), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("failed_step", sa.String(63), nullable=False),
    sa.Column("as_of", UtcDateTime),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("finished_at", UtcDateTime),
    sa.CheckConstraint(
        "state IN ('running', 'succeeded', 'failed', 'refused', 'superseded', 'cancelled')", name="known_state"
    ),
    sa.CheckConstraint("(state = 'running') = (finished_at IS NULL)", name="finished_unless_running"),
    sa.Index(None, "use_case", "started_at"),
)

champions = sa.Table(
    "champions",
    metadata,
    sa.Column("model", sa.String(63), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("model_digest", sa.String(64), nullable=False),
    sa.Column("bento_digest", sa.String(64), nullable=False),
    sa.Column("bento_uri", sa.Text, nullable=False),
    sa.Column("run_id", sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("verdict_digest", sa.String(64), nullable=False),
    sa.Column("promoted_at", UtcDateTime, nullable=False),
    # False from the swap until MLflow's alias follows.
    sa.Column("mirrored", sa.Boolean, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
)

_JUDGED = sa.text("outcome IN ('promoted', 'superseded')")
_OBSERVED = sa.text("\"commit\" <> ''")

promotions = sa.Table(
    "promotions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("model", sa.String(63), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    # The champion that the gate compared with, none for a first model; of a revert, the version that serves again.
    sa.Column("previous_version", sa.Integer),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("run_id", sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("verdict_digest", sa.String(64), nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    # Empty in lines that are older than these columns.
    sa.Column("model_digest", sa.String(64), nullable=False, server_default=""),
    # In Git; empty unless a commit is what happened.
    sa.Column("commit", sa.String(64), nullable=False, server_default=""),
    sa.CheckConstraint("outcome IN ('promoted', 'superseded', 'reverted', 'reinstated')", name="known_outcome"),
    # A run has one outcome, whatever is retried.
    sa.Index(
        "uq_promotions_judged_run", "run_id", "model", unique=True, sqlite_where=_JUDGED, postgresql_where=_JUDGED
    ),
    sa.Index(
        "uq_promotions_observed_commit",
        "model",
        "commit",
        unique=True,
        sqlite_where=_OBSERVED,
        postgresql_where=_OBSERVED,
    ),
    sa.Index(None, "model", "id"),
)

# What Git says that answers requests; a row only moves forward along the branch.
serving = sa.Table(
    "serving",
    metadata,
    sa.Column("use_case", sa.String(63), primary_key=True),
    sa.Column("environment", sa.String(16), primary_key=True),
    # None: the release was withdrawn.
    sa.Column("version", sa.Integer),
    # The last one that changed the release.
    sa.Column("commit", sa.String(64), nullable=False),
    # Of the branch, when it was observed.
    sa.Column("head", sa.String(64), nullable=False),
    sa.Column("observed_at", UtcDateTime, nullable=False),
)

# What is to be committed for a promoted version, written with its promotion: whoever comes first commits it.
releases = sa.Table(
    "releases",
    metadata,
    sa.Column("model", sa.String(63), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    # `components.core.release.Release` as JSON.
    sa.Column("document", sa.Text, nullable=False),
    # Verdict and model card as JSON: what a pull request tells.
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("card", sa.Text, nullable=False),
    sa.Column("recorded_at", UtcDateTime, nullable=False),
)

bentos = sa.Table(
    "bentos",
    metadata,
    sa.Column("release", sa.String(64), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("recorded_at", UtcDateTime, nullable=False),
)

_OPEN_REQUEST = sa.text("state IN ('requested', 'dispatched', 'claimed')")

requests = sa.Table(
    "requests",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("model", sa.String(63), nullable=False),
    sa.Column("window_first", UtcDateTime, nullable=False),
    sa.Column("window_last", UtcDateTime, nullable=False),
    sa.Column("policy", sa.String(16), nullable=False),
    # No foreign key: the decision is written after its request and points to it.
    sa.Column("decision_id", sa.String(64), nullable=False),
    sa.Column("as_of", UtcDateTime, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("lease_seconds", sa.Integer, nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("requested_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime),
    sa.CheckConstraint(
        "state IN ('requested', 'dispatched', 'claimed', 'done', 'refused', 'failed')", name="known_state"
    ),
    sa.CheckConstraint(
        "(state IN ('requested', 'dispatched', 'claimed')) = (ended_at IS NULL)", name="ended_unless_open"
    ),
    sa.CheckConstraint("attempt BETWEEN 1 AND 3", name="three_attempts"),
    sa.UniqueConstraint("model", "window_first", "window_last", "policy"),
    # One retraining in flight per model.
    sa.Index(
        "uq_requests_open_model", "model", unique=True, sqlite_where=_OPEN_REQUEST, postgresql_where=_OPEN_REQUEST
    ),
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("run_id", sa.String(36), primary_key=True),
    sa.Column("request_id", sa.ForeignKey("requests.id"), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("claimant", sa.String(255), nullable=False),
    # Wall clock, unlike the instants that a decision reckons with.
    sa.Column("lease_expires_at", UtcDateTime, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("dispatched_at", UtcDateTime, nullable=False),
    # While a dispatcher is starting the run, others leave it alone; wall clock.
    sa.Column("starting_until", UtcDateTime),
    sa.CheckConstraint(
        "state IN ('dispatched', 'claimed', 'succeeded', 'refused', 'superseded', 'failed', 'cancelled', 'expired')",
        name="known_state",
    ),
    sa.UniqueConstraint("request_id", "attempt"),
)

decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("model", sa.String(63), nullable=False),
    sa.Column("window_first", UtcDateTime, nullable=False),
    sa.Column("window_last", UtcDateTime, nullable=False),
    sa.Column("policy", sa.String(16), nullable=False),
    sa.Column("policy_digest", sa.String(64), nullable=False),
    # Of the model that was watched.
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("decision", sa.String(16), nullable=False),
    sa.Column("rung", sa.String(16), nullable=False),
    sa.Column("reasons", sa.Text, nullable=False),
    sa.Column("evidence", sa.Text, nullable=False),
    sa.Column("evidence_digest", sa.String(64), nullable=False),
    sa.Column("suppressed_by", sa.Text, nullable=False),
    sa.Column("request_id", sa.ForeignKey("requests.id")),
    sa.Column("cost_estimate_seconds", sa.Float),
    sa.Column("as_of", UtcDateTime, nullable=False),
    sa.Column("decided_at", UtcDateTime, nullable=False),
    sa.CheckConstraint("decision IN ('retrain', 'hold', 'alert', 'report', 'insufficient')", name="known_decision"),
    sa.CheckConstraint("decision <> 'retrain' OR request_id IS NOT NULL", name="retrain_has_a_request"),
    sa.CheckConstraint("(decision = 'hold') = (suppressed_by <> '')", name="hold_says_why"),
    sa.Index(None, "model", "as_of"),
)

holds = sa.Table(
    "holds",
    metadata,
    sa.Column("model", sa.String(63), primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("held_by", sa.String(255), nullable=False),
    sa.Column("held_at", UtcDateTime, nullable=False),
)
