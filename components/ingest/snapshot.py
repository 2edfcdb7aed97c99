"""Ingest: declared sources and the use case's SQL become event-grained tables, as known at one instant."""

import logging
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from components.core.clock import parse_instant
from components.core.digests import file_digest, json_digest
from components.core.errors import DataError
from components.core.object_store import are_kept, fetch, publish, publish_all
from components.core.sections import Data, Problem
from components.core.settings import Settings
from components.core.storage import write_text
from components.core.tables import (
    Snapshot,
    TableManifest,
    latest_path,
    read_snapshot,
    snapshot_files,
    write_snapshot,
    write_table,
)
from components.ingest.queries import connect, create_view, load_source, run_select, seal
from components.ingest.sources import locate

logger = logging.getLogger(__name__)


def take_snapshot(
    settings: Settings, use_case: str, *, problem: Problem, data: Data, sql: dict[str, str], as_of: str
) -> Snapshot:
    """Write all tables of a use case as they were known at `as_of` and return the manifest.

    Rows that became known later are left out; labels that were not mature are null. Equal input gives equal files,
    which are not written again; equal input as of the same instant is not even read again: scoring, monitoring and
    retraining share one snapshot. Raises DataError or ConfigError for bad input, and writes nothing then.
    """
    until = parse_instant(as_of)
    start = parse_instant(data.start, what="data.start")
    selected: dict[str, pa.Table] = {}
    with tempfile.TemporaryDirectory(prefix="driftline-ingest-") as scratch:
        files = {
            name: locate(source, folder=settings.feature_repo / use_case, scratch=Path(scratch))
            for name, source in data.sources.items()
        }
        digests = {name: file_digest(path) for name, path in files.items()}
        code = json_digest({"sql": sql, "data": data.model_dump(mode="json")})
        record = _record(settings, use_case, [code, digests, until.isoformat(), problem.model_dump(mode="json")])
        earlier = _taken_before(settings, record)
        if earlier is not None:
            logger.info("taken before as of %s: nothing is read again", until.isoformat())
            write_snapshot(settings.snapshots, earlier)
            publish(settings, latest_path(settings.snapshots, use_case))
            return earlier
        connection = connect()
        for name, source in data.sources.items():
            load_source(connection, name, source, files[name])
    seal(connection)
    for view in data.views:
        create_view(connection, view, sql[view])
    for name, declared in data.tables.items():
        table = run_select(
            connection, name, sql[name], order=["event_timestamp", *declared.keys], start=None, until=until
        )
        selected[name] = _require_unique(name, _require_rows(name, table, until), [*declared.keys, "event_timestamp"])
    order = ["event_timestamp", *problem.id]
    predictions = run_select(connection, problem.table, sql[problem.table], order=order, start=start, until=until)
    selected[problem.table] = mask_labels(_require_rows(problem.table, predictions, until), problem, until)
    connection.close()

    keys = {name: declared.keys for name, declared in data.tables.items()} | {problem.table: problem.id}
    tables: dict[str, TableManifest] = {}
    for name, table in selected.items():
        tables[name] = write_table(settings.snapshots, use_case, name, table, keys=keys[name])
        logger.info("%s: %d rows in %d months", name, tables[name].rows, len(tables[name].partitions))
    snapshot = Snapshot(
        use_case=use_case,
        as_of=until,
        code=code,
        sources=digests,
        tables=tables,
    )
    publish_all(settings, snapshot_files(settings.snapshots, snapshot))
    publish_all(settings, [write_snapshot(settings.snapshots, snapshot)])
    publish(settings, latest_path(settings.snapshots, use_case))
    if as_of:
        write_text(record, snapshot.model_dump_json(indent=2))
        publish(settings, record)
    return snapshot


def _record(settings: Settings, use_case: str, question: list[Any]) -> Path:
    """Return where the answer to a question is kept: sources, code and instant, and the engine that reads them."""
    key = json_digest([*question, version("duckdb"), version("driftline")])
    return settings.snapshots / use_case / "manifests" / f"taken-{key}.json"


def _taken_before(settings: Settings, record: Path) -> Snapshot | None:
    """Return the earlier answer if all its files are still there; whoever reads them fetches them."""
    if not fetch(settings, record):
        return None
    snapshot = read_snapshot(record)
    return snapshot if are_kept(settings, snapshot_files(settings.snapshots, snapshot)) else None


def mask_labels(table: pa.Table, problem: Problem, until: datetime) -> pa.Table:
    """Null every label that was not known at `until`, together with the instant it became known.

    Raises DataError for a label without an instant, and for one that claims to be known later than the present.
    """
    for column in ("label_timestamp", problem.label, *problem.entities, *problem.inputs):
        if column not in table.column_names:
            raise DataError(f"{problem.table}.sql does not select {column}", measured=", ".join(table.column_names))
    known = table.column("label_timestamp")
    label = table.column(problem.label)
    undated = pc.sum(pc.and_(pc.is_valid(label), pc.is_null(known))).as_py() or 0
    if undated:
        raise DataError(
            f"labels of {problem.table} lack the instant at which they became known",
            measured=f"{undated} rows without label_timestamp",
            allowed=0,
        )
    present = pa.scalar(datetime.now(UTC), type=known.type)
    future = pc.sum(pc.and_(pc.is_valid(label), pc.greater(known, present))).as_py() or 0
    if future:
        raise DataError(
            f"labels of {problem.table} come from the future",
            measured=f"{future} rows, the latest {pc.max(known).as_py().isoformat()}",
            allowed=f"label_timestamp up to now ({present.as_py().isoformat()})",
            next_step="check the clock and the time zone of label_timestamp",
        )
    mature = pc.fill_null(pc.less_equal(known, pa.scalar(until, type=known.type)), False)
    for column in ("label_timestamp", problem.label):
        position = table.column_names.index(column)
        kept = pc.if_else(mature, table.column(column), pa.scalar(None, type=table.column(column).type))
        table = table.set_column(position, column, kept)
    return table


def _require_rows(name: str, table: pa.Table, until: datetime) -> pa.Table:
    if not table.num_rows:
        raise DataError(
            f"{name} is empty",
            measured=f"no rows known before {until.isoformat()}",
            allowed="at least one row",
            next_step=f"check as_of and {name}.sql",
        )
    return table


def _require_unique(name: str, table: pa.Table, keys: list[str]) -> pa.Table:
    """Raise DataError when two rows of a table state different facts about one key and instant."""
    columns = [*keys, "created_timestamp"]
    counts = table.select(columns).group_by(columns, use_threads=False).aggregate([([], "count_all")])
    repeated = counts.filter(pc.greater(counts.column("count_all"), 1))
    if repeated.num_rows:
        raise DataError(
            f"{name} has duplicate keys",
            measured=f"{repeated.num_rows} keys, such as {repeated.slice(0, 3).to_pylist()}",
            allowed=f"one row per {', '.join(columns)}",
            next_step=f"aggregate in {name}.sql",
        )
    return table
