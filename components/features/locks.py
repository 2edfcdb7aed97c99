"""Mutual exclusion between processes that share a database; a killed holder frees its lock."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from components.core.errors import ConfigError, FeatureError


@contextmanager
def exclusive(url: str, name: str) -> Iterator[None]:
    """Hold the lock `name` of a database; wait while another process holds it.

    SQLite: an advisory lock on a file beside the database. PostgreSQL: a session-level advisory lock.
    Raises FeatureError when the database is out of reach, ConfigError for other databases.
    """
    try:
        address = make_url(url)
    except ArgumentError as error:
        raise ConfigError("DRIFTLINE_FEATURE_REGISTRY_URL is not a URL", measured=str(error)) from error
    backend = address.get_backend_name()
    if backend == "sqlite" and address.database:
        database = Path(address.database)
        database.parent.mkdir(parents=True, exist_ok=True)
        with database.with_name(f"{database.name}.{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    elif backend == "postgresql":
        engine = create_engine(address, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        try:
            connection = engine.connect()
        except SQLAlchemyError as error:
            raise FeatureError(
                "the feature registry is out of reach",
                measured=str(error.__cause__ or error).splitlines()[0],
                allowed="a running PostgreSQL",
                next_step="check DRIFTLINE_FEATURE_REGISTRY_URL",
            ) from error
        with connection:
            connection.execute(
                text("SELECT pg_advisory_lock(hashtextextended(:name, 0))"), {"name": f"driftline {name}"}
            )
            yield
    else:
        raise ConfigError(
            "the feature registry's database is not supported",
            measured=address.render_as_string(hide_password=True),
            allowed="sqlite:///FILE or postgresql+psycopg://...",
            next_step="check DRIFTLINE_FEATURE_REGISTRY_URL",
        )
