"""Decisions, retraining requests with their attempts, and holds.

Migrations are frozen: they repeat the tables as they were and import nothing of the schema that may change.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    instant = sa.DateTime(timezone=True)
    is_open = "state IN ('requested', 'dispatched', 'claimed')"
    op.create_table(
        "requests",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("window_first", instant, nullable=False),
        sa.Column("window_last", instant, nullable=False),
        sa.Column("policy", sa.String(16), nullable=False),
        sa.Column("decision_id", sa.String(64), nullable=False),
        sa.Column("as_of", instant, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("lease_seconds", sa.Integer, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("requested_at", instant, nullable=False),
        sa.Column("ended_at", instant),
        sa.PrimaryKeyConstraint("id", name="pk_requests"),
        sa.CheckConstraint(
            "state IN ('requested', 'dispatched', 'claimed', 'done', 'refused', 'failed')",
            name=op.f("ck_requests_known_state"),
        ),
        sa.CheckConstraint(f"({is_open}) = (ended_at IS NULL)", name=op.f("ck_requests_ended_unless_open")),
        sa.CheckConstraint("attempt BETWEEN 1 AND 3", name=op.f("ck_requests_three_attempts")),
        sa.UniqueConstraint(
            "model", "window_first", "window_last", "policy", name="uq_requests_model_window_first_window_last_policy"
        ),
    )
    op.create_index(
        "uq_requests_open_model",
        "requests",
        ["model"],
        unique=True,
        sqlite_where=sa.text(is_open),
        postgresql_where=sa.text(is_open),
    )
    op.create_table(
        "attempts",
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("request_id", sa.String(36), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("claimant", sa.String(255), nullable=False),
        sa.Column("lease_expires_at", instant, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("dispatched_at", instant, nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_attempts"),
        sa.ForeignKeyConstraint(["request_id"], ["requests.id"], name="fk_attempts_request_id"),
        sa.CheckConstraint(
            "state IN ('dispatched', 'claimed', 'succeeded', 'refused', 'superseded', 'failed', 'cancelled',"
            " 'expired')",
            name=op.f("ck_attempts_known_state"),
        ),
        sa.UniqueConstraint("request_id", "attempt", name="uq_attempts_request_id_attempt"),
    )
    op.create_table(
        "decisions",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("window_first", instant, nullable=False),
        sa.Column("window_last", instant, nullable=False),
        sa.Column("policy", sa.String(16), nullable=False),
        sa.Column("policy_digest", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("rung", sa.String(16), nullable=False),
        sa.Column("reasons", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("evidence_digest", sa.String(64), nullable=False),
        sa.Column("suppressed_by", sa.Text, nullable=False),
        sa.Column("request_id", sa.String(36)),
        sa.Column("cost_estimate_seconds", sa.Float),
        sa.Column("as_of", instant, nullable=False),
        sa.Column("decided_at", instant, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_decisions"),
        sa.ForeignKeyConstraint(["request_id"], ["requests.id"], name="fk_decisions_request_id"),
        sa.CheckConstraint(
            "decision IN ('retrain', 'hold', 'alert', 'report', 'insufficient')",
            name=op.f("ck_decisions_known_decision"),
        ),
        sa.CheckConstraint(
            "decision <> 'retrain' OR request_id IS NOT NULL", name=op.f("ck_decisions_retrain_has_a_request")
        ),
        sa.CheckConstraint("(decision = 'hold') = (suppressed_by <> '')", name=op.f("ck_decisions_hold_says_why")),
    )
    op.create_index("ix_decisions_model_as_of", "decisions", ["model", "as_of"])
    op.create_table(
        "holds",
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("held_by", sa.String(255), nullable=False),
        sa.Column("held_at", instant, nullable=False),
        sa.PrimaryKeyConstraint("model", name="pk_holds"),
    )
