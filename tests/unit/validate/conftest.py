"""Real snapshots on disk, small enough to break on purpose."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from components.core.tables import TIMESTAMP, Snapshot, write_table

AS_OF = datetime(2013, 4, 1, tzinfo=UTC)
START = datetime(2013, 1, 1, tzinfo=UTC)


def instants(values: list[datetime | None]) -> pa.Array:
    return pa.array(values, TIMESTAMP)


@pytest.fixture
def trips() -> pa.Table:
    """A prediction table: 90 days, one trip each, the newest without a label."""
    days = [START + timedelta(days=d) for d in range(90)]
    labels = [float(d % 3 == 0) for d in range(90)]
    return pa.table(
        {
            "trip": [f"t{d}" for d in range(90)],
            "city": ["Oslo" if d % 2 else "Bergen" for d in range(90)],
            "km": [float(d) for d in range(90)],
            "event_timestamp": instants(days),
            "label_timestamp": instants([d + timedelta(hours=5) for d in days[:-1]] + [None]),
            "late": pa.array([*labels[:-1], None], pa.float64()),
            "created_timestamp": instants(days),
        }
    )


@pytest.fixture
def weather() -> pa.Table:
    """A feature table: one reading per day and city."""
    days = [START + timedelta(days=d) for d in range(90) for _ in range(2)]
    return pa.table(
        {
            "city": ["Oslo", "Bergen"] * 90,
            "temp_c": [float(n % 30) - 10 for n in range(180)],
            "event_timestamp": instants(days),
            "created_timestamp": instants(days),
        }
    )


@pytest.fixture
def snapshot_of(tmp_path: Path) -> Callable[..., tuple[Path, Path, Snapshot]]:
    """Write tables as a snapshot; return its manifest, its root and the snapshot."""

    def write(**tables: pa.Table) -> tuple[Path, Path, Snapshot]:
        keys: dict[str, list[str]] = {"trips": ["trip"], "weather": ["city"]}
        written: dict[str, Any] = {
            name: write_table(tmp_path / "snapshots", "demo", name, table, keys=keys[name])
            for name, table in tables.items()
        }
        snapshot = Snapshot(use_case="demo", as_of=AS_OF, code="0" * 64, sources={}, tables=written)
        manifest = tmp_path / "snapshot.json"
        manifest.write_text(snapshot.model_dump_json(), encoding="utf-8")
        return manifest, tmp_path / "snapshots", snapshot

    return write
