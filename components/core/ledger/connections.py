"""Connections to the ledger: SQLite embedded, PostgreSQL on a cluster.

A writing transaction on SQLite begins with BEGIN IMMEDIATE: a deferred one that read before it writes loses updates or
fails at its first write when another process wrote in between.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DatabaseError, DataError, IntegrityError, InterfaceError, ProgrammingError

from components.core.errors import ConfigError, LedgerError

BUSY_TIMEOUT_SECONDS = 30
CONNECT_TIMEOUT_SECONDS = 10


def create_engine(url: str) -> sa.Engine:
    """Return an engine without connecting. Raises ConfigError for a URL of another database system.

    There is no pool: a step makes a handful of transactions, so each one gets a fresh connection that no server
    restart, fork or idle time-out can have broken.
    """
    try:
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
    except ArgumentError:
        # The text may hold a password, so it is not repeated.
        raise ConfigError("DRIFTLINE_LEDGER_URL is not a database URL", allowed=_EXAMPLES) from None
    if backend == "sqlite":
        engine = sa.create_engine(
            parsed,
            poolclass=sa.pool.NullPool,
            connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
        )
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    if backend == "postgresql":
        return sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            poolclass=sa.pool.NullPool,
            # Rows are compared and swapped under row locks; a stricter server default would only add retries.
            isolation_level="READ COMMITTED",
            connect_args={"connect_timeout": CONNECT_TIMEOUT_SECONDS},
        )
    raise ConfigError("the ledger needs SQLite or PostgreSQL", measured=backend, allowed=_EXAMPLES)


_EXAMPLES = "sqlite:////folder/ledger.db or postgresql://user:password@host/database"


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # pysqlite would otherwise begin transactions by itself, deferred and not before DDL.
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "foreign_keys = ON", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    writing = connection.get_execution_options().get("driftline_writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open a connection for queries. Raises LedgerError when the ledger is out of reach."""
    with _explained(engine), engine.connect() as connection:
        yield connection


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open one transaction that commits at the end of the block and rolls back when it raises.

    Raises LedgerError when the ledger is out of reach or stays locked.
    """
    with (
        _explained(engine),
        engine.connect().execution_options(driftline_writing=True) as connection,
        connection.begin(),
    ):
        yield connection


@contextmanager
def _explained(engine: sa.Engine) -> Iterator[None]:
    try:
        yield
    except (InterfaceError, DatabaseError) as error:
        if isinstance(error, IntegrityError | ProgrammingError | DataError):
            raise  # a mistake in our own statement, not a state of the database
        # The driver's message, without the statement and its values; repr of a URL hides the password.
        raise LedgerError(
            f"the ledger {engine.url!r} cannot be used",
            measured=str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error).__name__,
            next_step="check DRIFTLINE_LEDGER_URL and that the database is up, then run the command again",
        ) from error


def insert_if_absent(connection: sa.Connection, table: sa.Table, **values: object) -> bool:
    """Insert a row unless a unique constraint already holds one; return whether it was inserted."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(table).values(**values).on_conflict_do_nothing()
    # A skipped row returns nothing; the row count of an INSERT is not defined on every driver.
    return connection.execute(statement.returning(sa.literal(1))).first() is not None
