"""The moment until which one dispatcher alone starts an attempt's run.

Migrations are frozen: they repeat the tables as they were and import nothing of the schema that may change.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("starting_until", sa.DateTime(timezone=True)))
