"""The client of MLflow's store, which is a SQLite file, a database server or MLflow's own server."""

import fcntl
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from components.core.errors import StorageFailed
from components.core.settings import Settings, silence_libraries
from components.core.storage import write_atomically

DATABASES = ("postgresql", "mysql", "mssql")
"""Servers that MLflow speaks to itself, without a server of its own in between."""
ANSWER_SECONDS = 5.0


@contextmanager
def open_tracking(settings: Settings) -> Iterator[Any]:
    """Open the store; an unreachable or unwritable one becomes StorageFailed without its credentials."""
    silence_libraries()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if is_embedded(settings):
            _create_database(Path(make_url(settings.mlflow_uri).database or ""))
        elif make_url(settings.mlflow_uri).get_backend_name() in DATABASES:
            _require_answer(settings.mlflow_uri)
        yield MlflowClient(settings.mlflow_uri, settings.mlflow_uri)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise _failed(settings, error) from error


def require_answer(settings: Settings) -> None:
    """Raise StorageFailed at once when nobody listens where MLflow should be: its own client tries for four minutes."""
    address = make_url(settings.mlflow_uri)
    ports = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
    if (port := address.port or ports.get(address.get_backend_name())) is None or not address.host:
        return
    try:
        socket.create_connection((address.host, port), ANSWER_SECONDS).close()
    except OSError as error:
        raise _failed(settings, error) from error


def _failed(settings: Settings, error: Exception) -> StorageFailed:
    return StorageFailed(
        f"MLflow at {make_url(settings.mlflow_uri).render_as_string(hide_password=True)} failed",
        measured=str(error).splitlines()[0][:300],
        next_step="check MLFLOW_TRACKING_URI and the server, then run the step again; nothing is lost",
    )


def _create_database(path: Path) -> None:
    """Create the SQLite file with its whole schema, once.

    MLflow migrates in dozens of steps: processes that start together collide, and a kill leaves a file that none of
    them can open again.
    """
    from mlflow import MlflowClient

    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        # The lock ends with the process, however that ends.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            write_atomically(path, lambda temporary: MlflowClient(f"sqlite:///{temporary}", f"sqlite:///{temporary}"))


def _require_answer(database_url: str) -> None:
    """Raise OperationalError at once when a database does not answer: MLflow tries for 100 seconds before it does."""
    import sqlalchemy

    sqlalchemy.create_engine(database_url, poolclass=sqlalchemy.NullPool).connect().close()


def is_embedded(settings: Settings) -> bool:
    """Return whether the store is a file of this machine."""
    return settings.mlflow_uri.startswith("sqlite:")
