"""Runs, champions with their history, and Bentos.

Migrations are frozen: they repeat the tables as they were and import nothing of the schema that may change.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    instant = sa.DateTime(timezone=True)
    op.create_table(
        "runs",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("pipeline", sa.String(255), nullable=False),
        sa.Column("use_case", sa.String(63), nullable=False),
        sa.Column("claimant", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("failed_step", sa.String(63), nullable=False),
        sa.Column("as_of", instant),
        sa.Column("started_at", instant, nullable=False),
        sa.Column("finished_at", instant),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.CheckConstraint(
            "state IN ('running', 'succeeded', 'failed', 'refused', 'superseded', 'cancelled')",
            name=op.f("ck_runs_known_state"),
        ),
        sa.CheckConstraint("(state = 'running') = (finished_at IS NULL)", name=op.f("ck_runs_finished_unless_running")),
    )
    op.create_index("ix_runs_use_case_started_at", "runs", ["use_case", "started_at"])
    op.create_table(
        "champions",
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("model_digest", sa.String(64), nullable=False),
        sa.Column("bento_digest", sa.String(64), nullable=False),
        sa.Column("bento_uri", sa.Text, nullable=False),
        sa.Column("run_id", sa.String(255), nullable=False),
        sa.Column("verdict_digest", sa.String(64), nullable=False),
        sa.Column("promoted_at", instant, nullable=False),
        sa.Column("mirrored", sa.Boolean, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("model", name="pk_champions"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_champions_run_id"),
    )
    op.create_table(
        "promotions",
        sa.Column("id", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("previous_version", sa.Integer),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("run_id", sa.String(255), nullable=False),
        sa.Column("verdict_digest", sa.String(64), nullable=False),
        sa.Column("at", instant, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_promotions"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_promotions_run_id"),
        sa.CheckConstraint("outcome IN ('promoted', 'superseded')", name=op.f("ck_promotions_known_outcome")),
        sa.UniqueConstraint("run_id", "model", name="uq_promotions_run_id_model"),
    )
    op.create_index("ix_promotions_model_id", "promotions", ["model", "id"])
    op.create_table(
        "bentos",
        sa.Column("release", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("recorded_at", instant, nullable=False),
        sa.PrimaryKeyConstraint("release", name="pk_bentos"),
    )
