"""What rows and definitions must satisfy before features are joined, and what the result must satisfy."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from components.core.errors import DataError, FeatureError
from components.core.sections import Problem
from components.core.tables import require_utc_micros

EXAMPLES = 5


def check_predictions(table: pa.Table, problem: Problem, as_of: datetime) -> None:
    """Raise DataError unless labelled prediction rows are complete, unique and free of leaks.

    Checked beyond `check_rows`: label instants in UTC microseconds, at or before `as_of`, none before its prediction
    instant; at least one row.
    """
    where = problem.table
    require_utc_micros(table.schema, "label_timestamp", where=where)
    if not table.num_rows:
        raise DataError(
            f"{where} has no row with a mature label at {as_of.isoformat()}",
            measured=0,
            allowed="at least 1",
            next_step="choose a later as_of or check the label's SQL",
        )
    known = table.column("label_timestamp")
    _refuse(table, problem, pc.is_null(known), f"{where}: label_timestamp must not be null")
    check_rows(table, problem, as_of)
    predicted = table.column("event_timestamp")
    _refuse(
        table,
        problem,
        pc.greater(known, pa.scalar(as_of, type=known.type)),
        f"{where}: labels that are not known at as_of",
        allowed=f"label_timestamp up to {as_of.isoformat()}",
        next_step="run ingest for this as_of",
    )
    _refuse(
        table,
        problem,
        pc.less(known, predicted),
        f"{where}: labels known before their prediction instant: they would leak",
        next_step=f"check event_timestamp and label_timestamp in {where}.sql",
    )


def check_rows(table: pa.Table, problem: Problem, as_of: datetime) -> None:
    """Raise DataError unless prediction rows, labelled or not, are complete and unique.

    Checked: prediction instants in UTC microseconds, at or before `as_of`; unique ids.
    """
    where = problem.table
    require_utc_micros(table.schema, "event_timestamp", where=where)
    predicted = table.column("event_timestamp")
    for column in (*problem.id, *problem.entities, "event_timestamp"):
        # An entity may be unknown (a flight without an aircraft yet): its features are missing then.
        if column not in problem.entities or column in problem.id:
            _refuse(table, problem, pc.is_null(table.column(column)), f"{where}: {column} must not be null")
    _refuse(
        table,
        problem,
        pc.greater(predicted, pa.scalar(as_of, type=predicted.type)),
        f"{where}: event_timestamp lies in the future of as_of",
        allowed=f"up to {as_of.isoformat()}",
        next_step="check as_of, or the time zone of event_timestamp",
    )
    counts = table.select(problem.id).group_by(problem.id, use_threads=False).aggregate([([], "count_all")])
    repeated = counts.filter(pc.greater(counts.column("count_all"), 1))
    if repeated.num_rows:
        raise DataError(
            f"{where}: ids are not unique",
            measured=f"{repeated.num_rows} ids, such as {_quote(repeated.select(problem.id))}",
            allowed="one row per " + ", ".join(problem.id),
            next_step=f"aggregate in {where}.sql or add a column to problem.id",
        )


def check_features(table: pa.Table, features: Sequence[str]) -> None:
    """Raise FeatureError when a joined feature has no value in any row."""
    empty = [name for name in features if table.column(name).null_count == table.num_rows]
    if empty:
        raise FeatureError(
            "features without a single value",
            measured=", ".join(empty),
            allowed="at least one value each",
            next_step="check the view's keys, its TTL and whether its table covers the training period",
        )


def require_columns(present: Sequence[str], wanted: Sequence[str], *, where: str) -> None:
    """Raise DataError when a table lacks columns that the problem names."""
    missing = [column for column in wanted if column not in present]
    if missing:
        raise DataError(
            f"{where} lacks columns that section problem names",
            measured=", ".join(missing),
            allowed=", ".join(present),
            next_step=f"select them in {where}.sql or correct use_case.yaml",
        )


def require_registry(found: str, wanted: str, service: str) -> None:
    """Raise FeatureError when the registry's definitions are not those that the pipeline was compiled for."""
    if wanted and found != wanted:
        raise FeatureError(
            f"the registry's definitions of {service} are not those of this pipeline",
            measured=found[:12],
            allowed=wanted[:12],
            next_step="run `driftline features apply`, or compile the pipeline again",
        )


def _refuse(
    table: pa.Table, problem: Problem, wrong: pa.ChunkedArray, what: str, *, allowed: object = 0, next_step: str = ""
) -> None:
    found = table.filter(wrong)
    if found.num_rows:
        examples = _quote(found.select(problem.id))
        raise DataError(
            what, measured=f"{found.num_rows} rows, such as {examples}", allowed=allowed, next_step=next_step
        )


def _quote(ids: pa.Table) -> str:
    rows: list[dict[str, Any]] = ids.slice(0, EXAMPLES).to_pylist()
    return ", ".join("/".join(str(value) for value in row.values()) for row in rows)
