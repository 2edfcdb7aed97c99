"""What serves according to Git, what was released, and promotions that were taken back.

Migrations are frozen: they repeat the tables as they were and import nothing of the schema that may change.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

OUTCOMES = "outcome IN ('promoted', 'superseded', 'reverted', 'reinstated')"


def upgrade() -> None:
    instant = sa.DateTime(timezone=True)
    op.create_table(
        "serving",
        sa.Column("use_case", sa.String(63), nullable=False),
        sa.Column("environment", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer),
        sa.Column("commit", sa.String(64), nullable=False),
        sa.Column("head", sa.String(64), nullable=False),
        sa.Column("observed_at", instant, nullable=False),
        sa.PrimaryKeyConstraint("use_case", "environment", name="pk_serving"),
    )
    op.create_table(
        "releases",
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("card", sa.Text, nullable=False),
        sa.Column("recorded_at", instant, nullable=False),
        sa.PrimaryKeyConstraint("model", "version", name="pk_releases"),
    )
    if op.get_bind().dialect.name == "sqlite":
        _make_promotions_anew()
    else:
        op.drop_constraint(op.f("ck_promotions_known_outcome"), "promotions")
        op.create_check_constraint(op.f("ck_promotions_known_outcome"), "promotions", OUTCOMES)
        op.drop_constraint("uq_promotions_run_id_model", "promotions")
        op.add_column("promotions", sa.Column("model_digest", sa.String(64), nullable=False, server_default=""))
        op.add_column("promotions", sa.Column("commit", sa.String(64), nullable=False, server_default=""))
    judged, observed = sa.text("outcome IN ('promoted', 'superseded')"), sa.text("\"commit\" <> ''")
    for name, columns, where in (
        ("uq_promotions_judged_run", ["run_id", "model"], judged),
        ("uq_promotions_observed_commit", ["model", "commit"], observed),
    ):
        op.create_index(name, "promotions", columns, unique=True, sqlite_where=where, postgresql_where=where)


def _make_promotions_anew() -> None:
    """SQLite alters no constraint: copy the rows into a new table."""
    op.drop_index("ix_promotions_model_id", "promotions")
    op.rename_table("promotions", "promotions_before")
    op.create_table(
        "promotions",
        sa.Column("id", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("previous_version", sa.Integer),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("run_id", sa.String(255), nullable=False),
        sa.Column("verdict_digest", sa.String(64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_digest", sa.String(64), nullable=False, server_default=""),
        sa.Column("commit", sa.String(64), nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("id", name="pk_promotions"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_promotions_run_id"),
        sa.CheckConstraint(OUTCOMES, name=op.f("ck_promotions_known_outcome")),
    )
    kept = "id, model, version, previous_version, outcome, run_id, verdict_digest, at"
    op.execute(f"INSERT INTO promotions ({kept}) SELECT {kept} FROM promotions_before")  # noqa: S608 - fixed names
    op.drop_table("promotions_before")
    op.create_index("ix_promotions_model_id", "promotions", ["model", "id"])
