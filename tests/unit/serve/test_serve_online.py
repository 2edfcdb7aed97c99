"""Online reads equal Feast's own, and the TTL rule equals the point-in-time join's."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.core.errors import FeatureError
from components.core.training_set import REGISTRY, Input
from components.serve.online import OnlineReader

HOUR = 3600
TTL = {"origin_stats": 6 * HOUR, "pair_stats": 24 * HOUR, "badges": 0}
VIEW_OF = {
    "origin_late": "origin_stats",
    "origin_kind": "origin_stats",
    "pair_delay": "pair_stats",
    "badge_year": "badges",
}


@pytest.fixture(scope="module")
def own(model: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a Feast store whose online part no other test writes to."""
    return model.open_store(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def reader(served: Any, spec: Any, own: Any) -> OnlineReader:
    return OnlineReader(served.training_set / REGISTRY, spec, f"sqlite:///{own.config.online_store.path}")


def put(store: Any, view: str, keys: dict[str, list[Any]], values: dict[str, list[Any]], at: list[datetime]) -> None:
    import pandas as pd

    store.write_to_online_store(view, df=pd.DataFrame({**keys, **values, "event_timestamp": at}))


@given(ages=st.tuples(*[st.integers(-2 * HOUR, 30 * HOUR)] * 3), nulls=st.sets(st.sampled_from(sorted(VIEW_OF))))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_counts_is_what_the_join_would_find(
    own: Any, reader: OnlineReader, now: datetime, ages: tuple[int, int, int], nulls: set[str]
) -> None:
    values = {"origin_late": 0.25, "origin_kind": "big", "pair_delay": 3.0, "badge_year": 1980.0}
    given_values = {name: None if name in nulls else value for name, value in values.items()}
    # Feast ignores a frame of nulls only, hence a second row of another key.
    keys: dict[str, dict[str, list[Any]]] = {
        "origin_stats": {"origin": ["EWR", "other"]},
        "pair_stats": {"carrier": ["AA", "AA"], "origin": ["EWR", "other"]},
        "badges": {"badge": [1, 2]},
    }
    age = dict(zip(TTL, ages, strict=True))
    for view in TTL:
        columns = {name: [given_values[name], values[name]] for name, of in VIEW_OF.items() if of == view}
        put(own, view, keys[view], columns, [now - timedelta(seconds=age[view])] * 2)
    reading = reader.read({"carrier": "AA", "origin": "EWR", "badge": 1}, now.timestamp())
    # The oracle: a point-in-time join, written as its definition.
    known = {view: age[view] >= 0 for view in TTL}
    fresh = {view: known[view] and (TTL[view] == 0 or age[view] <= TTL[view]) for view in TTL}
    assert reading.values == {n: v for n, v in given_values.items() if v is not None and fresh[VIEW_OF[n]]}
    assert reading.ages == {view: float(age[view]) if known[view] else None for view in TTL}
    assert set(reading.missing) == {n for n, v in given_values.items() if v is None or not known[VIEW_OF[n]]}
    assert set(reading.stale) == {
        n for n, v in given_values.items() if v is not None and known[VIEW_OF[n]] and not fresh[VIEW_OF[n]]
    }


def check_against_the_sdk(store: Any, reader: OnlineReader, now: datetime, count: int) -> None:
    """Write random rows and compare every key, known or not, with FeatureStore.get_online_features."""
    random = np.random.default_rng(3)
    badges = random.choice(10**9, count, replace=False).astype(np.int64)
    origins = [f"O{n}" for n in range(count)]
    carriers = random.choice(["AA", "B6", "é", ""], count).tolist()
    at = [now - timedelta(seconds=int(s)) for s in random.integers(0, 5 * HOUR, count)]
    kinds = random.choice(["big", "small", "日本"], count).tolist()
    late = [None if random.random() < 0.1 else float(x) for x in random.normal(size=count)]
    put(store, "origin_stats", {"origin": origins}, {"origin_late": late, "origin_kind": kinds}, at)
    put(store, "pair_stats", {"carrier": carriers, "origin": origins}, {"pair_delay": random.normal(size=count)}, at)
    put(store, "badges", {"badge": badges}, {"badge_year": random.integers(1900, 2013, count).astype(float)}, at)
    rows = [
        {"carrier": carriers[n], "origin": origins[n], "badge": int(badges[n]) if n % 5 else n} for n in range(count)
    ] + [{"carrier": "AA", "origin": "nowhere", "badge": 0}]
    features = [f"{view}:{name}" for name, view in VIEW_OF.items()]
    expected = store.get_online_features(features=features, entity_rows=rows).to_dict()
    for n, row in enumerate(rows):
        reading = reader.read(row, now.timestamp())
        measured = {name: reading.values.get(name) for name in VIEW_OF}
        assert measured == {name: expected[name][n] for name in VIEW_OF}
        assert reading.stale == []


def check_threads(reader: OnlineReader, now: datetime) -> None:
    """The service reads a store over the network from several threads."""
    keys = [{"carrier": "AA", "origin": f"O{n}", "badge": n} for n in range(200)]
    alone = [reader.read(key, now.timestamp()) for key in keys]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda key: reader.read(key, now.timestamp()), keys))
    assert together == alone


def test_reads_equal_feast(own: Any, reader: OnlineReader, now: datetime) -> None:
    check_against_the_sdk(own, reader, now, 200)


@pytest.mark.slow
def test_reads_equal_feast_on_ten_thousand_keys(own: Any, reader: OnlineReader, now: datetime) -> None:
    check_against_the_sdk(own, reader, now, 10_000)


@pytest.mark.redis
def test_reads_from_redis_equal_feast(
    model: ModuleType, served: Any, spec: Any, now: datetime, redis_url: str, tmp_path: Path
) -> None:
    store = model.open_store(tmp_path, redis_url)
    reader = OnlineReader(served.training_set / REGISTRY, spec, redis_url)
    assert not reader.local
    check_against_the_sdk(store, reader, now, 200)
    unknown = reader.read({"carrier": "AA", "origin": "nowhere", "badge": None}, now.timestamp())
    assert unknown.ages == dict.fromkeys(TTL)
    check_threads(reader, now)


@pytest.mark.postgres
def test_reads_from_postgres_equal_feast(
    model: ModuleType, served: Any, spec: Any, now: datetime, postgres_url: str, tmp_path: Path
) -> None:
    store = model.open_store(tmp_path, postgres_url)
    reader = OnlineReader(served.training_set / REGISTRY, spec, postgres_url)
    check_against_the_sdk(store, reader, now, 200)
    check_threads(reader, now)


def test_a_store_that_comes_late_is_read_when_it_is_there(
    model: ModuleType, served: Any, spec: Any, now: datetime, tmp_path: Path
) -> None:
    reader = OnlineReader(served.training_set / REGISTRY, spec, f"sqlite:///{tmp_path}/online.db")
    keys = {"carrier": "AA", "origin": "EWR", "badge": 1}
    with pytest.raises(FeatureError, match="online store cannot be read"):
        reader.read(keys, now.timestamp())
    store = model.open_store(tmp_path)
    put(store, "origin_stats", {"origin": ["EWR"]}, {"origin_late": [0.5], "origin_kind": ["big"]}, [now])
    assert reader.read(keys, now.timestamp()).values == {"origin_late": 0.5, "origin_kind": "big"}


def test_a_dead_store_is_named_in_time(served: Any, spec: Any, now: datetime) -> None:
    reader = OnlineReader(served.training_set / REGISTRY, spec, "redis://127.0.0.1:1/0")
    start = time.monotonic()
    with pytest.raises(FeatureError, match="cannot be read") as failed:
        reader.read({"carrier": "AA", "origin": "EWR", "badge": 1}, now.timestamp())
    assert "ConnectionError" in str(failed.value.measured)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (Input(name="origin_late", kind="number", view="nothing"), "no feature view nothing"),
        (Input(name="unknown", kind="number", view="badges"), "has no unknown"),
    ],
)
def test_a_registry_that_does_not_fit_is_refused(served: Any, spec: Any, changed: Input, message: str) -> None:
    wrong = spec.model_copy(update={"inputs": [changed]})
    with pytest.raises(FeatureError, match=message):
        OnlineReader(served.training_set / REGISTRY, wrong, "sqlite:////nowhere/online.db")
