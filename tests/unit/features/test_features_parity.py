"""Offline values equal online values: generated keys on every online store, and every key of flights."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.sections import Features
from components.core.settings import Settings
from components.core.tables import TIMESTAMP, Snapshot, read_snapshot, read_table, write_snapshot, write_table
from components.core.training_set import ROWS
from components.core.usecase import load_sql, load_use_case
from components.core.verdict import Verdict, write_verdict
from components.features.apply import apply_definitions
from components.features.build import build
from components.features.materialize import materialize
from components.features.store import open_store
from components.ingest.snapshot import take_snapshot

REPOSITORY = Path(__file__).parents[3]
KEYS = 10_000
FACTS = 60_000
SEED = 20240310
AS_OF = datetime(2024, 3, 10, 12, 0, tzinfo=UTC)


def generated(settings: Settings) -> Path:
    """Write a snapshot of random facts of 10,000 users, whole seconds: SQLite keeps no finer event timestamps."""
    generator = np.random.default_rng(SEED)

    def facts(columns: dict[str, Any], name: str, keys: list[str]) -> Any:
        # Some facts repeat keys and instant of an earlier one and were created later.
        seconds = generator.integers(0, 9 * 86400, FACTS)
        users = generator.integers(0, KEYS, FACTS)
        again = generator.integers(1, FACTS, FACTS // 10)
        seconds[again], users[again] = seconds[again - 1], users[again - 1]
        instants = pa.array(
            AS_OF - np.array(seconds, "timedelta64[s]").astype("timedelta64[us]").astype(object), TIMESTAMP
        )
        created = pa.array([t + timedelta(seconds=n % 7) for n, t in enumerate(instants.to_pylist())], TIMESTAMP)
        fixed = {"user_id": [f"u{n}" for n in users], "event_timestamp": instants, "created_timestamp": created}
        return write_table(settings.snapshots, "shop", name, pa.table({**fixed, **columns}), keys=keys)

    def numbers() -> pa.Array:
        return pa.array(generator.normal(size=FACTS), mask=generator.random(FACTS) < 0.1)

    moods = pa.array(generator.choice(["fine", "glum"], FACTS), mask=generator.random(FACTS) < 0.1)
    tables = {
        "users": facts({"spend": numbers(), "visits": numbers()}, "users", ["user_id"]),
        "pairs": facts({"item": ["tea"] * FACTS, "score": numbers(), "mood": moods}, "pairs", ["user_id", "item"]),
    }
    return write_snapshot(
        settings.snapshots, Snapshot(use_case="shop", as_of=AS_OF, code="", sources={}, tables=tables)
    )


def offline(store: Any, service: Any, keys: pd.DataFrame, as_of: datetime) -> pd.DataFrame:
    frame = keys.assign(event_timestamp=pd.Timestamp(as_of).as_unit("us"))
    return store.get_historical_features(entity_df=frame, features=service).to_df()


def online(store: Any, service: Any, keys: pd.DataFrame, as_of: datetime) -> pd.DataFrame:
    """Read online values; one older than its view's TTL is missing, as serving decides."""
    rows: dict[str, Any] = {column: keys[column].tolist() for column in keys}
    found = store.get_online_features(features=service, entity_rows=rows).to_dict(include_event_timestamps=True)
    ttl = {
        field.name: store.get_feature_view(p.name).ttl.total_seconds()
        for p in service.feature_view_projections
        for field in p.features
    }
    frame = keys.reset_index(drop=True)
    for name, limit in ttl.items():
        ages = [as_of.timestamp() - instant for instant in found[f"{name}__ts"]]
        values = [v if not limit or age <= limit else None for v, age in zip(found[name], ages, strict=True)]
        frame[name] = pd.Series(values, dtype=object)
    return frame


def assert_equal(left: pd.DataFrame, right: pd.DataFrame, features: list[str]) -> None:
    for name in features:
        a, b = (f[name].astype(object).where(f[name].notna(), None).tolist() for f in (left, right))
        wrong = [n for n, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
        assert not wrong, f"{name}: {len(wrong)} of {len(a)} differ, first {a[wrong[0]]} and {b[wrong[0]]}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "redis", "postgres"])
def test_offline_equals_online_on_generated_keys(
    shop: Settings, config: Features, kind: str, request: pytest.FixtureRequest
) -> None:
    if kind != "sqlite":
        shop = shop.model_copy(update={"online_store_url": request.getfixturevalue(f"{kind}_url")})
    apply_definitions(shop, "shop")
    manifest = generated(shop)
    # In two steps, so that values of the first are stale at the second.
    for as_of in (AS_OF - timedelta(days=3, hours=7), AS_OF):
        materialize(shop, "shop", manifest=manifest, config=config, as_of=as_of)
    store = open_store(shop, "shop", manifest=manifest)
    service = store.get_feature_service("shop_v1")
    keys = pd.DataFrame({"user_id": [f"u{n}" for n in range(KEYS)], "item": "tea"})
    features = ["spend", "visits", "score", "mood"]
    expected = offline(store, service, keys, AS_OF)
    assert_equal(expected, online(store, service, keys, AS_OF), features)
    # Values, nulls and stale values are all there.
    assert 0.3 < expected["spend"].notna().mean() < 0.6
    assert 0.8 < expected["mood"].notna().mean() < 0.95


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path, Path]:
    """Ingest flights up to April, apply its definitions and build the training set once."""
    home = tmp_path_factory.mktemp("flights")
    settings = Settings(
        home=home,
        feature_repo=REPOSITORY / "feature_repo",
        ledger_url=f"sqlite:///{home}/ledger.db",
        mlflow_uri=f"sqlite:///{home}/mlflow.db",
        feature_registry_url=f"sqlite:///{home}/feast/registry.db",
        online_store_url=f"sqlite:///{home}/feast/online.db",
    )
    folder = settings.feature_repo / "flights"
    case = load_use_case(folder)
    sql = load_sql(folder, case)
    snapshot = take_snapshot(
        settings, "flights", problem=case.problem, data=case.data, sql=sql, as_of=case.bootstrap_as_of
    )
    manifest = write_snapshot(settings.snapshots, snapshot)
    write_verdict(home / "verdict.json", Verdict(gate="validate", subject=snapshot.digest, decision="pass", reasons=[]))
    build(
        settings,
        "flights",
        as_of=case.bootstrap_as_of,
        problem=case.problem,
        config=case.features,
        registry=apply_definitions(settings, "flights"),
        snapshot=manifest,
        verdict=home / "verdict.json",
        folder=home / "training_set",
    )
    return settings, manifest, home / "training_set"


@pytest.mark.slow
def test_offline_equals_online_on_every_key_of_flights(flights: tuple[Settings, Path, Path]) -> None:
    settings, manifest, _folder = flights
    snapshot = read_snapshot(manifest)
    store = open_store(settings, "flights", manifest=manifest)
    service = store.get_feature_service("flights_v1")
    columns = ["carrier", "origin", "dest", "tailnum"]
    seen = read_table(settings.snapshots, snapshot, "departures", columns).to_pandas().dropna()
    keys = seen.drop_duplicates().reset_index(drop=True)
    assert keys["tailnum"].nunique() > 3_000
    features = [field.name for p in service.feature_view_projections for field in p.features]
    assert len(features) == 29
    left, right = (f(store, service, keys, snapshot.as_of) for f in (offline, online))
    assert_equal(left, right, features)
    assert left[features].notna().any().all()


@pytest.mark.slow
def test_training_set_of_flights_equals_pandas_merge_asof(flights: tuple[Settings, Path, Path]) -> None:
    """A second implementation, over all rows and features: the last row at or before the prediction, within the TTL."""
    settings, manifest, folder = flights
    snapshot = read_snapshot(manifest)
    made = pq.read_table(folder / ROWS).to_pandas()
    assert len(made) > 70_000
    store = open_store(settings, "flights", manifest=manifest)
    for projection in store.get_feature_service("flights_v1").feature_view_projections:
        view = store.get_feature_view(projection.name)
        names = [field.name for field in projection.features]
        keys = view.join_keys
        facts = read_table(settings.snapshots, snapshot, view.name).to_pandas()
        facts = facts.sort_values(["event_timestamp", "created_timestamp"], kind="stable")
        facts = facts.drop_duplicates([*keys, "event_timestamp"], keep="last")
        left = made[[*keys, "event_timestamp"]].reset_index().dropna().sort_values("event_timestamp", kind="stable")
        joined = pd.merge_asof(
            left,
            facts[[*keys, "event_timestamp", *names]],
            on="event_timestamp",
            by=keys,
            tolerance=pd.Timedelta(view.ttl) if view.ttl else None,
        )
        expected = joined.set_index("index")[names].reindex(made.index)
        pd.testing.assert_frame_equal(made[names], expected, check_names=False, check_exact=True)
