"""Run by Alembic: apply migrations in the transaction that `migrate` opened and locked."""

from alembic import context

from components.core.ledger.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # SQLite too rolls DDL back, once pysqlite's own transactions are off.
    transactional_ddl=True,
)
context.run_migrations()
