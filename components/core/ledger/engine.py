"""Opening the ledger at the schema this code needs, and bringing it there.

Only the command line and a migration job migrate; a step compares the revision and refuses.
"""

from pathlib import Path

import sqlalchemy as sa

from components.core.errors import LedgerError, StorageFailed
from components.core.ledger.connections import create_engine, reading, writing
from components.core.ledger.schema import REVISION, VERSION_TABLE

# Any number, as long as every migration takes the same one.
ADVISORY_LOCK = 4_716_238_905


def open_ledger(url: str) -> sa.Engine:
    """Connect to the ledger and check that its schema is the one this code needs.

    Raises ConfigError for a URL of another database system, LedgerError when the ledger is unreachable, missing,
    older or newer.
    """
    engine = create_engine(url)
    if is_missing_file(engine):
        found = None
    else:
        with reading(engine) as connection:
            found = read_revision(connection)
    if found != REVISION:
        newer = found is not None and found > REVISION
        raise LedgerError(
            f"the ledger {engine.url!r} " + ("does not exist yet" if found is None else "has another schema revision"),
            measured=found or "no revision",
            allowed=REVISION,
            next_step="upgrade driftline" if newer else "run `driftline ledger migrate`",
        )
    return engine


def migrate(url: str) -> str:
    """Create or upgrade the ledger and return its revision; concurrent calls wait for each other.

    Raises LedgerError when the ledger is unreachable or newer than this code, StorageFailed when the folder of a
    SQLite ledger cannot be created.
    """
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        _create_folder(engine)
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        found = read_revision(connection)
        if found is not None and found > REVISION:
            raise LedgerError(
                f"the ledger {engine.url!r} is newer than this code",
                measured=found,
                allowed=REVISION,
                next_step="upgrade driftline",
            )
        if found != REVISION:
            _upgrade(connection)
    return REVISION


def _create_folder(engine: sa.Engine) -> None:
    folder = Path(engine.url.database or "").parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFailed(
            f"cannot create {folder}",
            measured=error.strerror,
            allowed="a writable folder",
            next_step="make it writable, or set DRIFTLINE_HOME to another folder",
        ) from error


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, REVISION)


def is_missing_file(engine: sa.Engine) -> bool:
    """Return whether this is a SQLite ledger without a file; connecting would create an empty one."""
    return engine.dialect.name == "sqlite" and not Path(engine.url.database or "").is_file()


def read_revision(connection: sa.Connection) -> str | None:
    """Return the schema revision of the ledger, None before the first migration."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    revision: str | None = connection.execute(
        sa.select(sa.column("version_num")).select_from(sa.table(VERSION_TABLE))
    ).scalar()
    return revision
