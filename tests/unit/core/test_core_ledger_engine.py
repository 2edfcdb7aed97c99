"""Opening, migrating and locking the ledger, on SQLite and PostgreSQL."""

import multiprocessing
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError, StatementError

import components.core.ledger
from components.core.errors import ConfigError, LedgerError, StorageFailed
from components.core.ledger import connections
from components.core.ledger.engine import migrate, open_ledger
from components.core.ledger.schema import REVISION, VERSION_TABLE, metadata, runs

FORK = multiprocessing.get_context("fork")


def in_processes(count: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call a function in many processes that start together; return what each returned or raised."""
    gate = FORK.Barrier(count)
    answers: Any = FORK.Queue()

    def call() -> None:
        gate.wait(60)
        try:
            answers.put(work(*arguments))
        except Exception as error:
            answers.put(repr(error))

    processes = [FORK.Process(target=call) for _ in range(count)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
    return found


def set_revision(url: str, revision: str) -> None:
    with connections.writing(connections.create_engine(url)) as connection:
        connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '{revision}'"))


def test_revisions_are_ordered_and_end_with_the_one_the_code_needs() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(components.core.ledger.__path__[0]) / "migrations"))
    newest_first = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert newest_first[0] == REVISION
    assert newest_first == sorted(newest_first, reverse=True)


def test_migrations_give_the_schema_of_the_code(ledger: sa.Engine) -> None:
    with ledger.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"version_table": VERSION_TABLE, "target_metadata": metadata},
        )
        assert compare_metadata(context, metadata) == []
        names = {c["name"] for table in metadata.tables for c in sa.inspect(connection).get_check_constraints(table)}
    assert names == {
        constraint.name
        for table in metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, sa.CheckConstraint)
    }
    assert len(names) == 10


def test_a_check_constraint_refuses_an_unknown_state(ledger: sa.Engine) -> None:
    row = {"id": "r", "pipeline": "p", "use_case": "u", "claimant": "c", "reason": "", "failed_step": ""}
    now = datetime.now(UTC)
    with pytest.raises(IntegrityError), connections.writing(ledger) as connection:
        connection.execute(sa.insert(runs).values(**row, state="paused", started_at=now, finished_at=now))
    with pytest.raises(IntegrityError), connections.writing(ledger) as connection:
        connection.execute(sa.insert(runs).values(**row, state="succeeded", started_at=now, finished_at=None))


def test_a_missing_ledger_is_refused_and_not_created(ledger_url: str, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"does not exist yet.*driftline ledger migrate"):
        open_ledger(ledger_url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("revision", "next_step"), [("0000", "run `driftline ledger migrate`"), ("9999", "upgrade driftline")]
)
def test_another_revision_is_refused(ledger: sa.Engine, ledger_url: str, revision: str, next_step: str) -> None:
    set_revision(ledger_url, revision)
    with pytest.raises(LedgerError) as raised:
        open_ledger(ledger_url)
    assert (raised.value.measured, raised.value.allowed, raised.value.next_step) == (revision, REVISION, next_step)


def test_a_newer_ledger_is_not_migrated(ledger: sa.Engine, ledger_url: str) -> None:
    set_revision(ledger_url, "9999")
    with pytest.raises(LedgerError, match="upgrade driftline"):
        migrate(ledger_url)


def test_concurrent_migrations_give_one_ledger(ledger_url: str) -> None:
    assert in_processes(12, migrate, ledger_url) == [REVISION] * 12
    assert set(sa.inspect(open_ledger(ledger_url)).get_table_names()) == {*metadata.tables, VERSION_TABLE}


def test_a_failed_migration_leaves_nothing(ledger_url: str) -> None:
    """The last table of the first revision exists already, so creating it fails after the others were created."""
    database = connections.create_engine(ledger_url)
    if database.dialect.name == "sqlite":
        Path(database.url.database or "").parent.mkdir()
    with connections.writing(database) as connection:
        connection.execute(sa.text("CREATE TABLE bentos (id integer)"))
    with pytest.raises(LedgerError if database.dialect.name == "sqlite" else sa.exc.ProgrammingError):
        migrate(ledger_url)
    assert sa.inspect(database).get_table_names() == ["bentos"]


def test_a_ledger_of_the_first_revision_is_upgraded_and_keeps_its_rows(ledger_url: str) -> None:
    database = connections.create_engine(ledger_url)
    if database.dialect.name == "sqlite":
        Path(database.url.database or "").parent.mkdir()
    config = Config()
    config.set_main_option("script_location", str(Path(components.core.ledger.__path__[0]) / "migrations"))
    with connections.writing(database) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    with pytest.raises(LedgerError, match="driftline ledger migrate"):
        open_ledger(ledger_url)
    now = datetime.now(UTC)
    run = {"id": "run-1", "pipeline": "training", "use_case": "flights", "claimant": "run-1", "reason": ""}
    champion = {"model": "flights", "version": 1, "model_digest": "m", "bento_digest": "b", "bento_uri": "u"}
    champion |= {"run_id": "run-1", "verdict_digest": "v", "promoted_at": now, "mirrored": True, "revision": 1}
    line = {"model": "flights", "version": 1, "outcome": "promoted", "run_id": "run-1", "verdict_digest": "v"}
    rows = {
        "runs": run | {"state": "succeeded", "failed_step": "", "as_of": now, "started_at": now, "finished_at": now},
        "champions": champion,
        "promotions": line | {"id": 1, "previous_version": None, "at": now},
        "bentos": {"release": "r", "digest": "b", "uri": "u", "recorded_at": now},
    }
    with connections.writing(database) as connection:
        for table, row in rows.items():
            connection.execute(sa.insert(metadata.tables[table]).values(**row))
    assert migrate(ledger_url) == REVISION
    with connections.reading(open_ledger(ledger_url)) as connection:
        for table, row in rows.items():
            found = dict(connection.execute(sa.select(metadata.tables[table])).mappings().one())
            assert {name: found.pop(name) for name in row} == row
            assert set(found.values()) <= {""}  # columns that came later
        assert connection.execute(sa.select(metadata.tables["decisions"])).all() == []


def test_another_tools_migrations_in_the_same_database_stay(ledger_url: str) -> None:
    database = connections.create_engine(ledger_url)
    if database.dialect.name == "sqlite":
        Path(database.url.database or "").parent.mkdir()
    with connections.writing(database) as connection:
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num varchar(32))"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES ('theirs')"))
    migrate(ledger_url)
    with connections.reading(open_ledger(ledger_url)) as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars().all() == ["theirs"]


def test_an_unreachable_server_is_named_without_its_password() -> None:
    with pytest.raises(LedgerError) as raised:
        open_ledger("postgresql://driftline:s3cret@127.0.0.1:1/ledger")
    assert "s3cret" not in str(raised.value)
    assert "postgresql+psycopg://driftline:***@127.0.0.1:1/ledger" in str(raised.value)


@pytest.mark.parametrize("url", ["mysql://u:s3cret@h/d", "no url with s3cret", "oracle+nothing://u:s3cret@h"])
def test_another_database_system_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        open_ledger(url)
    assert "s3cret" not in str(raised.value)


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("this is no database, " * 100)
    with pytest.raises(LedgerError, match="not a database"):
        open_ledger(f"sqlite:///{path}")
    assert path.read_text().startswith("this is no database")


def test_a_folder_that_cannot_be_created_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed):
        migrate(f"sqlite:///{tmp_path}/file/below/ledger.db")


def test_sqlite_is_durable_and_checks_references(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    with connections.reading(open_ledger(url)) as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}


@pytest.mark.postgres
def test_a_cut_connection_is_replaced_and_its_transaction_is_lost(postgres_url: str) -> None:
    migrate(postgres_url)
    ledger = open_ledger(postgres_url)
    cut = sa.text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    other = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    bento = {"release": "r", "digest": "d", "uri": "u", "recorded_at": datetime.now(UTC)}
    table = metadata.tables["bentos"]

    def write_while_cut() -> None:
        with connections.writing(ledger) as connection:
            connection.execute(sa.insert(table).values(**bento))
            with other.connect() as killer:
                killer.execute(cut)

    with pytest.raises(LedgerError, match="cannot be used"):
        write_while_cut()
    with connections.reading(ledger) as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 0
    other.dispose()


@pytest.mark.slow
def test_a_ledger_that_stays_locked_is_an_error(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    with (
        connections.writing(open_ledger(url)),
        pytest.raises(LedgerError, match="locked"),
        connections.writing(open_ledger(url)),
    ):
        pytest.fail("two writers at once")


# -- lost updates on SQLite


def increment(database: sa.Engine, times: int) -> int:
    for _ in range(times):
        with connections.writing(database) as connection:
            value = connection.execute(sa.text("SELECT n FROM counter")).scalar_one()
            connection.execute(sa.text("UPDATE counter SET n = :n"), {"n": value + 1})
    return times


def counter(url: str) -> sa.Engine:
    database = connections.create_engine(url)
    with connections.writing(database) as connection:
        connection.execute(sa.text("CREATE TABLE counter (n integer)"))
        connection.execute(sa.text("INSERT INTO counter VALUES (0)"))
    return database


def test_concurrent_increments_lose_none(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/counter.db"
    database = counter(url)
    assert in_processes(6, increment, database, 30) == [30] * 6
    with connections.reading(database) as connection:
        assert connection.execute(sa.text("SELECT n FROM counter")).scalar() == 180


def test_an_engine_that_begins_as_pysqlite_does_loses_updates(tmp_path: Path) -> None:
    """The reason for BEGIN IMMEDIATE: the same two steps, interleaved on a plain engine, end at 1 instead of 2."""
    url = f"sqlite:///{tmp_path}/counter.db"
    counter(url)
    plain = sa.create_engine(url)
    with plain.connect() as first, plain.connect() as second:
        values = [c.execute(sa.text("SELECT n FROM counter")).scalar_one() for c in (first, second)]
        for connection, value in zip((first, second), values, strict=True):
            connection.execute(sa.text("UPDATE counter SET n = :n"), {"n": value + 1})
            connection.commit()
        assert first.execute(sa.text("SELECT n FROM counter")).scalar() == 1
    plain.dispose()


def test_a_second_writer_waits_for_the_first_and_readers_do_not(tmp_path: Path) -> None:
    database = counter(f"sqlite:///{tmp_path}/counter.db")
    with connections.writing(database) as connection:
        value = connection.execute(sa.text("SELECT n FROM counter")).scalar_one()
        second = threading.Thread(target=increment, args=(database, 1))
        second.start()
        second.join(0.2)
        assert second.is_alive()
        with connections.reading(database) as reader:
            assert reader.execute(sa.text("SELECT n FROM counter")).scalar() == 0
        connection.execute(sa.text("UPDATE counter SET n = :n"), {"n": value + 1})
    second.join(30)
    with connections.reading(database) as reader:
        assert reader.execute(sa.text("SELECT n FROM counter")).scalar() == 2


# -- instants

INSTANTS = st.datetimes(
    min_value=datetime(1971, 1, 1),  # noqa: DTZ001 - hypothesis adds the offset
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(instant=INSTANTS)
def test_instants_come_back_in_utc_to_the_microsecond(ledger: sa.Engine, instant: datetime) -> None:
    table = metadata.tables["bentos"]
    with connections.writing(ledger) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SET LOCAL timezone = 'Asia/Kathmandu'"))
        connection.execute(sa.delete(table))
        connection.execute(sa.insert(table).values(release="m", digest="d", uri="u", recorded_at=instant))
        found = connection.execute(sa.select(table.c.recorded_at)).scalar_one()
        earlier = connection.execute(
            sa.select(sa.func.count()).where(table.c.recorded_at < instant + timedelta(microseconds=1))
        ).scalar_one()
        same_or_later = connection.execute(
            sa.select(sa.func.count()).where(table.c.recorded_at >= instant)
        ).scalar_one()
    assert found == instant
    assert found.utcoffset() == timedelta(0)
    assert (earlier, same_or_later) == (1, 1)


def test_an_instant_without_offset_is_refused(ledger: sa.Engine) -> None:
    table = metadata.tables["bentos"]
    naive = datetime(2013, 4, 1)  # noqa: DTZ001 - what the test is about
    with pytest.raises(StatementError, match="needs an offset"), connections.writing(ledger) as connection:
        connection.execute(sa.insert(table).values(release="m", digest="d", uri="u", recorded_at=naive))
