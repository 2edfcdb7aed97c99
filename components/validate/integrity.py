"""Built-in checks of every snapshot: what no suite should have to remember. All are critical unless said otherwise."""

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from components.core.digests import file_digest
from components.core.tables import TableManifest
from components.validate.checks import quote_rows
from components.validate.findings import Finding, show, show_percent
from components.validate.suite import Severity

LABEL_TIME = "label_timestamp"
"""Only the prediction table has this column."""


def check_files(root: Path, table: str, manifest: TableManifest) -> Finding:
    """Require that every partition exists and has the content its manifest names."""
    bad = []
    for partition in manifest.partitions:
        path = root / partition.path
        if not path.is_file():
            bad.append(f"{partition.month} is missing")
        elif file_digest(path) != partition.sha256:
            bad.append(f"{partition.month} was changed")
    observed = "; ".join(bad[:5]) or f"{len(manifest.partitions)} partitions intact"
    return _finding(table, "", "files_intact", bad == [], "every partition equals its digest", observed)


def check_has_rows(table: str, manifest: TableManifest) -> Finding:
    """Require at least one row."""
    return _finding(table, "", "has_rows", manifest.rows > 0, "at least 1 row", f"{manifest.rows:,} rows")


def check_months(table: str, manifest: TableManifest) -> Finding:
    """Require rows in every month between the first and the last; names the empty ones."""
    filled = {p.month for p in manifest.partitions if p.rows}
    gaps = [m for m in months_between(min(filled), max(filled)) if m not in filled] if filled else []
    observed = f"no rows in {', '.join(gaps)}" if gaps else f"{len(filled)} months without a gap"
    return _finding(table, "event_timestamp", "no_empty_month", not gaps, "rows in every month", observed)


def check_known(table: str, rows: pa.Table, as_of: datetime, keys: list[str], examples: int) -> list[Finding]:
    """Require instants that are never null and, for what was known, not after the snapshot's instant."""
    instants = rows.column("event_timestamp")
    null = pc.is_null(instants)
    findings = [_rows_finding(table, "event_timestamp", "never_null", null, rows, keys, examples, "never null")]
    # A prediction may lie ahead; the fact that it is labelled may not.
    column = LABEL_TIME if LABEL_TIME in rows.column_names else "event_timestamp"
    late = pc.fill_null(pc.greater(rows.column(column), pa.scalar(as_of, pa.timestamp("us", tz="UTC"))), False)
    expected = f"known by {show(as_of)}"
    return [*findings, _rows_finding(table, column, "known_at_as_of", late, rows, keys, examples, expected)]


def check_predictions(table: str, rows: pa.Table, keys: list[str], examples: int) -> list[Finding]:
    """Require unique ids and labels that become known no earlier than the prediction, in a prediction table."""
    early = pc.fill_null(pc.less(rows.column(LABEL_TIME), rows.column("event_timestamp")), False)
    expected = "label_timestamp at or after event_timestamp"
    return [
        _rows_finding(
            table, ", ".join(keys), "unique_ids", repeated(rows, keys), rows, keys, examples, "each id at most once"
        ),
        _rows_finding(table, LABEL_TIME, "label_after_prediction", early, rows, keys, examples, expected),
    ]


def check_filled(table: str, rows: pa.Table) -> list[Finding]:
    """Require a value in every column; one finding per empty column, else one for the table.

    An empty column is critical in a prediction table and a warning in a feature table. Expectations about an empty
    column hold trivially, so this check must not be missing.
    """
    severity: Severity = "critical" if LABEL_TIME in rows.column_names else "warning"
    expected = "at least one value in every column"
    empty = [name for name in rows.column_names if _null_count(rows.column(name)) == rows.num_rows]
    observed = f"all {rows.num_rows:,} rows are null"
    if not empty:
        return [
            _finding(table, "", "not_all_null", True, expected, f"{rows.num_columns} columns have values", severity)
        ]
    return [_finding(table, name, "not_all_null", False, expected, observed, severity) for name in empty]


def _null_count(column: pa.ChunkedArray) -> int:
    return int(pc.sum(pc.is_null(column, nan_is_null=pa.types.is_floating(column.type))).as_py())


def repeated(rows: pa.Table, keys: list[str]) -> pa.ChunkedArray:
    """Return a mask [rows] of every row after the first with the same key; null keys are equal to each other."""
    numbered = rows.select(keys).append_column("__row", pa.array(range(rows.num_rows), pa.int64()))
    first = numbered.group_by(keys).aggregate([("__row", "min")]).column("__row_min")
    return pc.invert(pc.is_in(numbered.column("__row"), value_set=first))


def months_between(first: str, last: str) -> list[str]:
    """Return all months from `first` to `last`, both included, as YYYY-MM."""
    start, end = (int(m[:4]) * 12 + int(m[5:]) - 1 for m in (first, last))
    return [f"{month // 12:04d}-{month % 12 + 1:02d}" for month in range(start, end + 1)]


def _rows_finding(
    table: str,
    column: str,
    check: str,
    bad: pa.ChunkedArray,
    rows: pa.Table,
    keys: list[str],
    examples: int,
    expected: str,
) -> Finding:
    positions = pc.indices_nonzero(bad)
    percent = 100 * len(positions) / max(1, rows.num_rows)
    observed = f"{len(positions):,} of {rows.num_rows:,} rows failing ({show_percent(percent)})"
    quoted = quote_rows(rows, positions.slice(0, examples).to_pylist(), [*keys, column])
    finding = _finding(table, column, check, len(positions) == 0, expected, observed)
    return finding.model_copy(update={"failing_percent": percent, "examples": quoted})


def _finding(
    table: str,
    column: str,
    check: str,
    passed: bool,
    expected: str,
    observed: str,
    severity: Severity = "critical",
) -> Finding:
    subject = f"{table}.{column}" if column else table
    return Finding(
        table=table,
        column=column,
        check=check,
        severity=severity,
        passed=passed,
        message=f"{subject}: expected {expected}, found {observed}",
        expected=expected,
        observed=observed,
    )
