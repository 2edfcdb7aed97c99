"""A small shop: two feature tables, one prediction table, real files and a real registry."""

import multiprocessing
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from components.core.sections import Features, Problem
from components.core.settings import Settings
from components.core.tables import TIMESTAMP, Snapshot, write_snapshot, write_table

NOON = datetime(2024, 3, 10, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, String

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
item = Entity(name="item", value_type=ValueType.STRING)

def source(table):
    return FileSource(
        name=table, path=table, timestamp_field="event_timestamp", created_timestamp_column="created_timestamp"
    )

users = FeatureView(name="users", entities=[user], ttl=timedelta(hours=24), source=source("users"),
    schema=[Field(name="spend", dtype=Float64), Field(name="visits", dtype=Float64)])
pairs = FeatureView(name="pairs", entities=[user, item], ttl=timedelta(0), source=source("pairs"),
    schema=[Field(name="score", dtype=Float64), Field(name="mood", dtype=String)])
shop_v1 = FeatureService(name="shop_v1", features=[users, pairs], owner="shopkeeper", tags={"tier": "1"})
"""

USE_CASE = {
    "name": "shop",
    "title": "Returns",
    "owner": "shopkeeper",
    "problem": {
        "task": "classification",
        "table": "orders",
        "label": "returned",
        "id": ["order_id"],
        "entities": ["user_id", "item"],
        "inputs": {"amount": "number", "channel": "category"},
    },
    "data": {
        "start": "2024-01-01",
        "sources": {"raw": {"path": "raw.csv", "columns": {"a": "VARCHAR"}}},
        "tables": {"users": {"keys": ["user_id"]}, "pairs": {"keys": ["user_id", "item"]}},
    },
    "features": {"service": "shop_v1", "chunk_days": 1},
    "train": {"trainer": {"kind": "xgboost"}},
}

Rows = list[dict[str, Any]]


@pytest.fixture(scope="session")
def processes() -> Any:
    """Return a context whose processes are forked from one that has imported Feast, which costs 9 CPU-seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["feast", "feast.infra.registry.sql", "components.features.asof_store"])
    return context


@pytest.fixture
def shop(settings: Settings, tmp_path: Path) -> Settings:
    """Return settings whose feature repository is a copy with the use case `shop`."""
    folder = tmp_path / "feature_repo" / "shop"
    folder.mkdir(parents=True)
    defaults = settings.feature_repo / "feature_store.yaml"
    (folder.parent / "feature_store.yaml").write_bytes(defaults.read_bytes())
    (folder / "features.py").write_text(DEFINITIONS)
    (folder / "use_case.yaml").write_text(yaml.safe_dump(USE_CASE))
    return settings.model_copy(update={"feature_repo": folder.parent})


@pytest.fixture
def problem() -> Problem:
    return Problem.model_validate(USE_CASE["problem"])


@pytest.fixture
def config() -> Features:
    return Features.model_validate(USE_CASE["features"])


@pytest.fixture
def users() -> Rows:
    """Two users, a fact every six hours for nine days, known at once."""
    found = []
    for step in range(36):
        instant = NOON - 9 * DAY + step * 6 * HOUR
        for number, user in enumerate(("ann", "bob")):
            found.append(
                {"user_id": user, "event_timestamp": instant, "spend": step + number / 2, "visits": float(step)}
            )
    return found


@pytest.fixture
def pairs() -> Rows:
    return [
        {"user_id": "ann", "item": "tea", "event_timestamp": NOON - 8 * DAY, "score": 0.25, "mood": "fine"},
        {"user_id": "ann", "item": "tea", "event_timestamp": NOON - 2 * DAY, "score": None, "mood": "glum"},
        {"user_id": "bob", "item": "tea", "event_timestamp": NOON - 5 * DAY, "score": 0.75, "mood": None},
    ]


@pytest.fixture
def orders() -> Rows:
    """One order every four hours for six days; returned or not is known a day later, or not yet."""
    found = []
    for step in range(36):
        instant = NOON - 6 * DAY + step * 4 * HOUR
        known = instant + DAY
        mature = known <= NOON
        found.append(
            {
                "order_id": f"o{step:03d}",
                "user_id": ("ann", "bob", "new")[step % 3],
                "item": ("tea", "jam")[step % 2],
                "event_timestamp": instant,
                "label_timestamp": known if mature else None,
                "returned": float(step % 4 == 0) if mature else None,
                "amount": 10 + step,
                "channel": ("web", None)[step % 2],
            }
        )
    return found


KEYS = {"users": ["user_id"], "pairs": ["user_id", "item"], "orders": ["order_id"]}
TYPES = {
    "event_timestamp": TIMESTAMP,
    "label_timestamp": TIMESTAMP,
    "created_timestamp": TIMESTAMP,
    "amount": pa.int64(),
    **dict.fromkeys(("spend", "visits", "score", "returned"), pa.float64()),
}


def as_table(rows: Rows) -> pa.Table:
    """Turn rows into a table; a row was created at its instant unless it says otherwise."""
    columns = list(dict.fromkeys([*rows[0], "created_timestamp"]))
    values = [{"created_timestamp": row["event_timestamp"], **row} for row in rows]
    return pa.Table.from_pylist(values, schema=pa.schema([(name, TYPES.get(name, pa.string())) for name in columns]))


@pytest.fixture
def noon() -> datetime:
    """The instant the shop's history ends."""
    return NOON


@pytest.fixture
def table() -> Callable[[Rows], pa.Table]:
    return as_table


@pytest.fixture
def snapshot(shop: Settings, users: Rows, pairs: Rows, orders: Rows) -> Callable[..., Path]:
    """Return a function that writes a snapshot, whole or with some tables replaced, and returns its manifest's path."""

    def write(as_of: datetime = NOON, code: str = "sql", **tables: pa.Table) -> Path:
        present = {"users": as_table(users), "pairs": as_table(pairs), "orders": as_table(orders)} | tables
        manifests = {
            name: write_table(shop.snapshots, "shop", name, table, keys=KEYS[name]) for name, table in present.items()
        }
        return write_snapshot(
            shop.snapshots, Snapshot(use_case="shop", as_of=as_of, code=code, sources={}, tables=manifests)
        )

    return write
