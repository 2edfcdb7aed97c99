"""The offline store as Feast calls it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.errors import DataError, FeatureError
from components.core.settings import Settings
from components.core.tables import TIMESTAMP, Snapshot, write_snapshot, write_table
from components.features.apply import apply_definitions
from components.features.store import open_store

T = datetime(2024, 3, 1, 12, 0, tzinfo=UTC)
MS = timedelta(milliseconds=1)
TTL = timedelta(hours=24)


@pytest.fixture
def store(shop: Settings, snapshot: Callable[..., Path]) -> Any:
    apply_definitions(shop, "shop")
    return open_store(shop, "shop", manifest=snapshot())


def ask(store: Any, rows: list[tuple[str, str, datetime]], **options: Any) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["user_id", "item", "event_timestamp"])
    features = options.pop("features", None) or store.get_feature_service("shop_v1")
    return store.get_historical_features(entity_df=frame, features=features, **options).to_df()


def torture() -> tuple[pa.Table, list[tuple[str, datetime]]]:
    """Return facts and eleven entity rows: TTL edges, ties, unknown and repeated rows, before the first."""
    facts = [
        ("a", T, T, 1.0),
        ("a", T + MS, T + MS, None),
        ("tie", T, T, 1.0),
        ("tie", T, T + MS, 2.0),
        ("late", T, T + 2 * TTL, 9.0),
        ("late", T - MS, T - MS, 8.0),
    ]
    table = pa.table(
        {
            "user_id": [f[0] for f in facts],
            "event_timestamp": pa.array([f[1] for f in facts], TIMESTAMP),
            "created_timestamp": pa.array([f[2] for f in facts], TIMESTAMP),
            "spend": pa.array([f[3] for f in facts], pa.float64()),
            "visits": pa.array([1.0] * len(facts)),
        }
    )
    rows = [
        ("tie", T + TTL),
        ("a", T - MS),
        ("a", T),
        ("tie", T + TTL + MS),
        ("a", T + MS),
        ("nobody", T),
        ("tie", T + TTL),
        ("tie", T + TTL + timedelta(microseconds=1)),
        ("late", T + MS),
        ("a", T),
        ("tie", T - 30 * TTL),
    ]
    return table, rows


EXPECTED = [2.0, None, 1.0, None, None, None, 2.0, None, 9.0, 1.0, None]


def test_torture_frame(shop: Settings, snapshot: Callable[..., Path]) -> None:
    table, rows = torture()
    apply_definitions(shop, "shop")
    store = open_store(shop, "shop", manifest=snapshot(users=table))
    got = ask(store, [(user, "tea", at) for user, at in rows])
    assert got["spend"].astype(object).where(got["spend"].notna(), None).tolist() == EXPECTED
    assert list(zip(got["user_id"], got["event_timestamp"], strict=True)) == rows
    # At T + 1 ms the row created two days later was not known yet.
    known = ask(store, [("late", "tea", T + MS)], filter_by_created_timestamp=True)
    assert known["spend"].tolist() == [8.0]


def test_equals_feasts_own_duckdb_store_on_the_torture_frame(
    shop: Settings, snapshot: Callable[..., Path], tmp_path: Path
) -> None:
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64

    table, rows = torture()
    pq.write_table(table, tmp_path / "users.parquet")
    user = Entity(name="user_id", value_type=ValueType.STRING)
    source = FileSource(
        path=str(tmp_path / "users.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )
    peer = FeatureStore(
        config=RepoConfig(
            project="peer",
            provider="local",
            registry=str(tmp_path / "peer.db"),
            offline_store={"type": "duckdb"},
            online_store={"type": "sqlite", "path": str(tmp_path / "online.db")},
        )
    )
    peer.apply(
        [
            user,
            FeatureView(
                name="users", entities=[user], ttl=TTL, source=source, schema=[Field(name="spend", dtype=Float64)]
            ),
        ]
    )
    frame = pd.DataFrame([(n, u, at) for n, (u, at) in enumerate(rows)], columns=["n", "user_id", "event_timestamp"])
    theirs = peer.get_historical_features(entity_df=frame, features=["users:spend"]).to_df().sort_values("n")["spend"]
    assert theirs.astype(object).where(theirs.notna(), None).tolist() == EXPECTED


def test_latest_row_wins_even_when_its_value_is_null(store: Any, noon: datetime) -> None:
    got = ask(store, [("ann", "tea", noon), ("ann", "tea", noon - timedelta(days=3))])
    assert got["mood"].tolist() == ["glum", "fine"]
    assert pd.isna(got["score"][0])
    assert got["score"][1] == 0.25


def test_two_runs_read_their_own_snapshot(
    shop: Settings,
    snapshot: Callable[..., Path],
    users: list[dict[str, Any]],
    table: Callable[..., pa.Table],
    noon: datetime,
) -> None:
    apply_definitions(shop, "shop")
    first = open_store(shop, "shop", manifest=snapshot())
    second = open_store(shop, "shop", manifest=snapshot(users=table([{**u, "spend": 100.0} for u in users])))
    rows = [("ann", "tea", noon)]
    assert (ask(first, rows)["spend"][0], ask(second, rows)["spend"][0], ask(first, rows)["spend"][0]) == (
        35.0,
        100.0,
        35.0,
    )


def test_full_names_aliases_and_renamed_keys(store: Any, noon: datetime) -> None:
    got = ask(store, [("ann", "tea", noon)], features=["users:spend", "pairs:mood"], full_feature_names=True)
    assert got[["users__spend", "pairs__mood"]].to_numpy().tolist() == [[35.0, "glum"]]

    from feast import FeatureService

    buyer = store.get_feature_view("users").with_name("buyer").with_join_key_map({"user_id": "user_id"})
    seller = store.get_feature_view("users").with_name("seller").with_join_key_map({"user_id": "seller_id"})
    service = FeatureService(name="both", features=[buyer[["visits"]], seller[["spend"]]])
    store.apply([service])
    frame = pd.DataFrame({"user_id": ["ann"], "seller_id": ["bob"], "event_timestamp": [noon]})
    got = store.get_historical_features(entity_df=frame, features=service).to_df()
    assert (got["visits"][0], got["spend"][0]) == (35.0, 35.5)


def test_pull_all_and_pull_latest_read_the_pinned_files(store: Any, noon: datetime) -> None:
    source = store.get_feature_view("users").batch_source
    arguments = (store.config, source, ["user_id"], ["spend"], "event_timestamp", "created_timestamp")
    offline = store.provider.offline_store
    begin = noon - timedelta(days=1)
    everything = offline.pull_all_from_table_or_query(*arguments, start_date=begin, end_date=noon).to_arrow()
    newest = offline.pull_latest_from_table_or_query(*arguments, start_date=begin, end_date=noon).to_df()
    assert everything.num_rows == 2 * 4
    assert newest[["user_id", "spend"]].to_numpy().tolist() == [["ann", 35.0], ["bob", 35.5]]


def test_naive_and_nanosecond_timestamps_are_refused(store: Any, noon: datetime) -> None:
    with pytest.raises(DataError, match=r"timezone-aware timestamp.*measured: timestamp\[.*localize"):
        ask(store, [("ann", "tea", noon.replace(tzinfo=None))])
    with pytest.raises(DataError, match="finer than a microsecond"):
        ask(store, [("ann", "tea", pd.Timestamp(noon) + pd.Timedelta(1, "ns"))])
    assert ask(store, [("ann", "tea", pd.Timestamp(noon).as_unit("ns"))])["spend"][0] == 35.0


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("ns", tz="UTC"), pa.string()])
def test_a_table_with_other_timestamps_is_refused(
    shop: Settings, snapshot: Callable[..., Path], table: Callable[..., pa.Table], noon: datetime, kind: pa.DataType
) -> None:
    apply_definitions(shop, "shop")
    facts = table([{"user_id": "ann", "event_timestamp": noon, "spend": 1.0, "visits": 1.0}])
    position = facts.column_names.index("created_timestamp")
    wrong = facts.set_column(position, "created_timestamp", facts["event_timestamp"].cast(kind))
    manifest = snapshot(users=facts)
    # Another writer's file: ours turns nanoseconds into microseconds.
    (file,) = (shop.snapshots / "shop" / "users").rglob("*.parquet")
    pq.write_table(wrong, file)
    store = open_store(shop, "shop", manifest=manifest)
    with pytest.raises(
        DataError, match=r"created_timestamp is not a UTC timestamp in microseconds.*next step: cast it"
    ):
        ask(store, [("ann", "tea", noon)])


def test_wrong_requests_are_refused(
    shop: Settings, store: Any, snapshot: Callable[..., Path], table: Callable[..., pa.Table], noon: datetime
) -> None:
    with pytest.raises(FeatureError, match="entity rows must be a DataFrame; measured: str"):
        store.get_historical_features(entity_df="SELECT 1", features=["users:spend"])
    frame = pd.DataFrame({"item": ["tea"], "event_timestamp": [noon]})
    with pytest.raises(FeatureError, match=r"users needs an entity column.*measured: user_id; allowed: item"):
        store.get_historical_features(entity_df=frame, features=["users:spend"]).to_df()
    numbers = pd.DataFrame({"user_id": [1], "event_timestamp": [noon]})
    with pytest.raises(DataError, match="user_id and the key user_id of view users differ in type"):
        store.get_historical_features(entity_df=numbers, features=["users:spend"]).to_df()
    with pytest.raises(FeatureError, match="no snapshot is pinned, so users cannot be read"):
        ask(open_store(shop, "shop"), [("ann", "tea", noon)])
    narrow = table([{"user_id": "ann", "event_timestamp": noon, "visits": 1.0}])
    other = open_store(shop, "shop", manifest=snapshot(users=narrow))
    with pytest.raises(
        FeatureError, match="lacks columns that its definition names; measured: spend; allowed: user_id"
    ):
        ask(other, [("ann", "tea", noon)])


def test_missing_table_and_missing_partition_are_named(
    shop: Settings, snapshot: Callable[..., Path], table: Callable[..., pa.Table], noon: datetime
) -> None:
    apply_definitions(shop, "shop")
    only = table([{"user_id": "ann", "event_timestamp": noon, "spend": 1.0, "visits": 1.0}])
    manifest = write_table(shop.snapshots, "shop", "users", only, keys=["user_id"])
    bare = Snapshot(use_case="shop", as_of=noon, code="", sources={}, tables={"users": manifest})
    store = open_store(shop, "shop", manifest=write_snapshot(shop.snapshots, bare))
    with pytest.raises(DataError, match="the snapshot of shop has no table pairs"):
        ask(store, [("ann", "tea", noon)])
    whole = snapshot()
    for month in (shop.snapshots / "shop" / "users").rglob("*.parquet"):
        month.unlink()
    with pytest.raises(DataError, match="partitions of users are missing"):
        ask(open_store(shop, "shop", manifest=whole), [("ann", "tea", noon)])
