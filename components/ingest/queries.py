"""Running a use case's SQL: sources become tables, each SELECT becomes an Arrow table."""

import csv
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from components.core.errors import ConfigError, DataError
from components.core.sections import Source

# Sums of floats depend on their order, hence one thread: equal input must give equal bytes anywhere.
SESSION = {
    "threads": 1,
    "TimeZone": "UTC",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "preserve_insertion_order": True,
}


def connect() -> Any:
    """Open an in-memory DuckDB session: UTC, deterministic, without downloads."""
    import duckdb

    connection = duckdb.connect()
    for name, value in SESSION.items():
        connection.execute(f"SET {name} = {value!r}")
    return connection


def load_source(connection: Any, name: str, source: Source, path: Path) -> None:
    """Load the declared columns of a file into a table.

    Raises DataError for a missing column, a value of another type, or a corrupt file.
    """
    import duckdb

    if source.format == "csv":
        present = _csv_header(path)
        types = ", ".join(f"{_literal(c)}: {_literal(source.columns.get(c, 'VARCHAR'))}" for c in present)
        nulls = ", ".join(_literal(v) for v in source.null_values)
        reader = (
            f"read_csv({_literal(str(path))}, header = true, auto_detect = false, delim = ',', quote = '\"', "
            f"columns = {{{types}}}, nullstr = [{nulls}])"
        )
    else:
        reader = f"read_parquet({_literal(str(path))})"
        present = _parquet_columns(connection, reader, path)
    missing = [column for column in source.columns if column not in present]
    if missing:
        raise DataError(
            f"source {name} lacks declared columns",
            measured=f"{path.name} has {', '.join(present)}",
            allowed=f"all of {', '.join(source.columns)}",
            next_step=f"mend the file or data.sources.{name}.columns (missing: {', '.join(missing)})",
        )
    wanted = ", ".join(f"CAST({_identifier(c)} AS {kind}) AS {_identifier(c)}" for c, kind in source.columns.items())
    try:
        connection.execute(f"CREATE TABLE {_identifier(name)} AS SELECT {wanted} FROM {reader}")  # noqa: S608
    except duckdb.Error as error:
        raise DataError(
            f"source {name} does not match its declared types",
            measured=" ".join(str(error).split())[:600],
            next_step=f"mend {path.name} or data.sources.{name}.columns",
        ) from error


def seal(connection: Any) -> None:
    """Cut the session off from files and network: from here on it sees loaded tables only."""
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def create_view(connection: Any, name: str, sql: str) -> None:
    """Materialize an intermediate SELECT once for all tables that read it."""
    _execute(connection, name, f"CREATE TABLE {_identifier(name)} AS {_single_select(name, sql)}")


def run_select(
    connection: Any, name: str, sql: str, *, order: list[str], start: datetime | None, until: datetime
) -> pa.Table:
    """Run one SELECT and return the rows known before `until`, in a deterministic order.

    Raises ConfigError for anything but one SELECT and for SQL that DuckDB refuses; DataError for a timestamp that
    is not an instant.
    """
    _execute(connection, name, f"CREATE OR REPLACE TEMP TABLE selected AS {_single_select(name, sql)}")
    types: dict[str, str] = dict(
        connection.execute("SELECT column_name, column_type FROM (DESCRIBE selected)").fetchall()
    )
    for column in order:
        if column not in types:
            raise ConfigError(f"{name}.sql does not select {column}", measured=", ".join(types), allowed=column)
    for column in ("event_timestamp", "created_timestamp", "label_timestamp"):
        if column in types and types[column] != "TIMESTAMP WITH TIME ZONE":
            raise DataError(
                f"{name}: {column} is not an instant with microseconds",
                measured=types[column],
                allowed="TIMESTAMP WITH TIME ZONE",
                next_step=f"in {name}.sql: timezone('UTC', {column})",
            )
    created = "" if "created_timestamp" in types else ", event_timestamp AS created_timestamp"
    lower = f"AND event_timestamp >= TIMESTAMPTZ {_literal(start.isoformat())}" if start else ""
    # Keys first, then every other column: equal keys must not leave the order to chance.
    by = ", ".join(_identifier(c) for c in [*order, *(c for c in types if c not in order)])
    query = (
        f"SELECT *{created} FROM selected WHERE (event_timestamp IS NULL OR "  # noqa: S608
        f"event_timestamp < TIMESTAMPTZ {_literal(until.isoformat())} {lower}) ORDER BY {by}"
    )
    return connection.sql(query).to_arrow_table()


def _execute(connection: Any, name: str, statement: str) -> None:
    import duckdb

    try:
        connection.execute(statement)
    except duckdb.Error as error:
        raise ConfigError(f"{name}.sql fails", measured=" ".join(str(error).split())[:600]) from error


def _single_select(name: str, sql: str) -> str:
    import duckdb

    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise ConfigError(f"{name}.sql is not valid SQL", measured=" ".join(str(error).split())[:600]) from error
    kinds = [statement.type for statement in statements]
    if kinds != [duckdb.StatementType.SELECT]:
        raise ConfigError(
            f"{name}.sql must be one SELECT",
            measured=", ".join(kind.name for kind in kinds) or "nothing",
            allowed="SELECT",
        )
    return str(statements[0].query).rstrip().rstrip(";")


def _csv_header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header = next(csv.reader(file), None)
    except UnicodeDecodeError as error:
        raise DataError("source is not UTF-8 text", measured=f"{path.name}: {error}") from error
    if not header:
        raise DataError("source file is empty", measured=str(path), allowed="a header line")
    return header


def _parquet_columns(connection: Any, reader: str, path: Path) -> list[str]:
    import duckdb

    try:
        rows = connection.execute(f"SELECT column_name FROM (DESCRIBE SELECT * FROM {reader})").fetchall()  # noqa: S608
    except duckdb.Error as error:
        raise DataError("source is not a readable Parquet file", measured=f"{path.name}: {error}") from error
    return [row[0] for row in rows]


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
