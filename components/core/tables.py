"""Parquet tables: partitioned by month, named by content, described by a manifest.

A partition's file name is its SHA-256, so equal data is written once and a manifest can be trusted.
"""

import hashlib
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from components.core.digests import json_digest
from components.core.errors import DataError
from components.core.storage import write_atomically, write_text

TIMESTAMP = pa.timestamp("us", tz="UTC")


class Partition(BaseModel):
    """One month of a table; `path` is relative to the snapshot root."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    month: str
    path: str
    rows: int
    sha256: str
    first: datetime
    last: datetime


class TableManifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: list[str]
    columns: dict[str, str]
    """Column name to Arrow type."""
    partitions: list[Partition]

    @property
    def rows(self) -> int:
        return sum(p.rows for p in self.partitions)


class Snapshot(BaseModel):
    """All tables of a use case as they were known at one instant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    use_case: str
    as_of: datetime
    code: str
    """Digest of the SQL and of the source declarations."""
    sources: dict[str, str]
    """Source name to the SHA-256 of its file."""
    tables: dict[str, TableManifest]

    @property
    def digest(self) -> str:
        """Digest of the contents; neither the instant nor file locations are part of it."""
        return json_digest({name: t.model_dump(mode="json") for name, t in self.tables.items()})


def require_utc_micros(schema: pa.Schema, column: str, *, where: str) -> None:
    """Raise DataError unless a column holds UTC timestamps of at most microseconds."""
    kind = schema.field(column).type if column in schema.names else None
    if kind is None or not pa.types.is_timestamp(kind) or kind.tz not in ("UTC", "+00:00") or kind.unit == "ns":
        raise DataError(
            f"{where}: column {column} is not a UTC timestamp in microseconds",
            measured="missing" if kind is None else str(kind),
            allowed=str(TIMESTAMP),
            next_step=f"cast it, in SQL: ({column} AT TIME ZONE 'UTC')::TIMESTAMPTZ",
        )


def write_table(
    root: Path, use_case: str, name: str, table: pa.Table, *, keys: list[str], timestamp: str = "event_timestamp"
) -> TableManifest:
    """Write a table by month of its timestamp; files that exist already are not rewritten.

    Rows must come in a deterministic order. Raises DataError for null, naive or nanosecond timestamps.
    """
    require_utc_micros(table.schema, timestamp, where=name)
    instants = table.column(timestamp)
    if instants.null_count:
        raise DataError(f"{name}: {timestamp} must not be null", measured=f"{instants.null_count} rows", allowed=0)
    months = pc.strftime(instants, format="%Y-%m")
    partitions = []
    for month in sorted(pc.unique(months).to_pylist()):
        part = table.filter(pc.equal(months, month)).combine_chunks()
        bounds = pc.min_max(part.column(timestamp)).as_py()
        folder = root / use_case / name / month
        digest = _write_content(folder, part)
        partitions.append(
            Partition(
                month=month,
                path=(folder / f"{digest}.parquet").relative_to(root).as_posix(),
                rows=part.num_rows,
                sha256=digest,
                first=bounds["min"],
                last=bounds["max"],
            )
        )
    columns = {field.name: str(field.type) for field in table.schema}
    return TableManifest(keys=keys, columns=columns, partitions=partitions)


def _write_content(folder: Path, table: pa.Table) -> str:
    """Write one file named by its own digest and return the digest; equal content keeps its file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", coerce_timestamps="us")
    content = sink.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    target = folder / f"{digest}.parquet"
    if not target.exists():
        write_atomically(target, lambda temporary: temporary.write_bytes(content))
    return digest


def write_snapshot(root: Path, snapshot: Snapshot) -> Path:
    """Write the manifest under its digest and point `latest.json` to it; return the manifest's path."""
    path = root / snapshot.use_case / "manifests" / f"{snapshot.digest}.json"
    text = snapshot.model_dump_json(indent=2)
    if not path.exists():
        write_text(path, text)
    write_text(latest_path(root, snapshot.use_case), text)
    return path


def latest_path(root: Path, use_case: str) -> Path:
    """Return where the newest snapshot's manifest lies; it is replaced by each new one."""
    return root / use_case / "latest.json"


def read_snapshot(path: Path) -> Snapshot:
    """Read a snapshot manifest."""
    return Snapshot.model_validate_json(path.read_text(encoding="utf-8"))


def snapshot_files(root: Path, snapshot: Snapshot) -> list[Path]:
    """Return the files of all tables, whether they are there or not."""
    return [root / p.path for table in snapshot.tables.values() for p in table.partitions]


def partition_files(root: Path, snapshot: Snapshot, table: str) -> list[Path]:
    """Return the absolute files of a table, oldest month first.

    Raises DataError when the snapshot has no such table or a file is missing.
    """
    if table not in snapshot.tables:
        raise DataError(
            f"the snapshot of {snapshot.use_case} has no table {table}",
            measured=table,
            allowed=", ".join(sorted(snapshot.tables)),
        )
    files = [root / p.path for p in snapshot.tables[table].partitions]
    missing = [str(f) for f in files if not f.is_file()]
    if missing:
        raise DataError(
            f"partitions of {table} are missing",
            measured=", ".join(missing[:3]),
            next_step="run ingest again; it writes what is missing",
        )
    return files


def read_table(root: Path, snapshot: Snapshot, table: str, columns: list[str] | None = None) -> pa.Table:
    """Read a whole table of a snapshot."""
    files = partition_files(root, snapshot, table)
    return pa.concat_tables([pq.read_table(f, columns=columns) for f in files])
