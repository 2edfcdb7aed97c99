"""Filling the online store: chunks, resuming, kills, other runs, other definitions."""

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from components.core.errors import ConfigError, FeatureError
from components.core.sections import Features
from components.core.settings import Settings
from components.core.tables import Snapshot, read_snapshot
from components.features.apply import apply_definitions
from components.features.materialize import chunks, materialize, materialize_latest
from components.features.store import open_store

Rows = list[dict[str, Any]]
DAY = timedelta(days=1)
T = datetime(2024, 1, 1, tzinfo=UTC)

LONG_TTL = ("ttl=timedelta(hours=24)", "ttl=timedelta(0)")


def online(settings: Settings) -> dict[str, list[Any]]:
    """Read everything the service serves for the keys of the shop."""
    store = open_store(settings, "shop")
    rows = [{"user_id": user, "item": "tea"} for user in ("ann", "bob", "new")]
    return store.get_online_features(features=store.get_feature_service("shop_v1"), entity_rows=rows).to_dict()


def intervals(settings: Settings, view: str) -> list[tuple[datetime, datetime]]:
    return list(open_store(settings, "shop").get_feature_view(view).materialization_intervals)


def edit(settings: Settings, old: str, new: str) -> None:
    path = settings.feature_repo / "shop" / "features.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture
def eternal(shop: Settings) -> Settings:
    """Return a shop whose users view has no TTL, so that nine daily chunks lie before noon."""
    edit(shop, *LONG_TTL)
    apply_definitions(shop, "shop")
    return shop


@pytest.mark.parametrize(
    ("length", "days", "expected"),
    [(0, 2, [(0, 0)]), (1, 2, [(0, 1)]), (2, 2, [(0, 2)]), (5, 2, [(0, 2), (2, 4), (4, 5)]), (-1, 2, [])],
)
def test_chunks_cover_the_interval_once_in_order(length: int, days: int, expected: list[tuple[int, int]]) -> None:
    assert chunks(T, T + length * DAY, days) == [(T + a * DAY, T + b * DAY) for a, b in expected]


def test_online_values_equal_the_latest_rows(
    shop: Settings, snapshot: Callable[..., Path], config: Features, noon: datetime
) -> None:
    apply_definitions(shop, "shop")
    written = materialize(shop, "shop", manifest=snapshot(), config=config, as_of=noon)
    # `users` lives 24 hours; `pairs` does not age, so it starts at its first row eight days before.
    assert written == {"users": 1, "pairs": 8}
    assert online(shop) == {
        "user_id": ["ann", "bob", "new"],
        "item": ["tea", "tea", "tea"],
        "spend": [35.0, 35.5, None],
        "visits": [35.0, 35.0, None],
        "score": [None, 0.75, None],
        "mood": ["glum", None, None],
    }
    assert intervals(shop, "users") == [(noon - DAY, noon)]


def test_a_later_run_resumes_and_an_older_one_pushes_nothing_back(
    eternal: Settings, snapshot: Callable[..., Path], config: Features, noon: datetime
) -> None:
    manifest = snapshot()

    def until(as_of: datetime) -> int:
        return materialize(eternal, "shop", manifest=manifest, config=config, as_of=as_of)["users"]

    assert until(noon - 3 * DAY) == 6
    assert online(eternal)["spend"][0] == 24.0
    assert until(noon - DAY) == 2
    assert online(eternal)["spend"][0] == 32.0
    assert until(noon - 2 * DAY) == 0
    assert until(noon - DAY) == 0
    assert online(eternal)["spend"][0] == 32.0
    assert until(noon) == 1
    assert online(eternal)["spend"][0] == 35.0
    found = intervals(eternal, "users")
    assert len(found) == 9
    assert all(one[1] == two[0] for one, two in pairwise(found))


def test_nothing_beyond_the_snapshot_is_claimed(
    shop: Settings, snapshot: Callable[..., Path], config: Features, noon: datetime
) -> None:
    apply_definitions(shop, "shop")
    materialize(shop, "shop", manifest=snapshot(), config=config, as_of=noon + 30 * DAY)
    assert intervals(shop, "users")[-1][1] == noon


def test_other_definitions_or_sql_write_a_view_anew(
    shop: Settings,
    snapshot: Callable[..., Path],
    config: Features,
    table: Callable[[Rows], pa.Table],
    users: Rows,
    noon: datetime,
) -> None:
    apply_definitions(shop, "shop")
    materialize(shop, "shop", manifest=snapshot(), config=config, as_of=noon)
    # The same instants, other values: only another SQL does that.
    doubled = snapshot(code="other sql", users=table([{**row, "spend": row["spend"] * 2} for row in users]))
    assert materialize(shop, "shop", manifest=doubled, config=config, as_of=noon) == {"users": 1, "pairs": 1}
    assert online(shop)["spend"] == [70.0, 71.0, None]
    assert materialize(shop, "shop", manifest=doubled, config=config, as_of=noon) == {"users": 0, "pairs": 0}
    edit(shop, 'Field(name="visits", dtype=Float64)]', 'Field(name="visits", dtype=Float64)], tags={"a": "b"}')
    apply_definitions(shop, "shop")
    assert materialize(shop, "shop", manifest=doubled, config=config, as_of=noon) == {"users": 0, "pairs": 0}
    edit(shop, 'Field(name="spend", dtype=Float64), ', "")
    apply_definitions(shop, "shop")
    assert materialize(shop, "shop", manifest=doubled, config=config, as_of=noon) == {"users": 1, "pairs": 0}
    # An older run of the former SQL must not bring its values back.
    assert materialize(shop, "shop", manifest=snapshot(), config=config, as_of=noon - DAY) == {"users": 0, "pairs": 0}


def test_a_lost_store_is_rebuilt_on_demand(
    shop: Settings, snapshot: Callable[..., Path], config: Features, noon: datetime
) -> None:
    apply_definitions(shop, "shop")
    with pytest.raises(ConfigError, match="there is no snapshot of shop yet"):
        materialize_latest(shop, "shop")
    snapshot()
    assert materialize_latest(shop, "shop") == ["pairs: 8 chunks written", "users: 1 chunks written"]
    before = online(shop)
    (shop.home / "feast" / "online.db").unlink()
    assert materialize_latest(shop, "shop") == ["pairs: up to date", "users: up to date"]
    assert materialize_latest(shop, "shop", noon.isoformat(), rebuild=True)[1] == "users: 1 chunks written"
    assert online(shop) == before


def test_another_online_store_is_filled_from_the_start(
    shop: Settings, snapshot: Callable[..., Path], config: Features, noon: datetime, tmp_path: Path
) -> None:
    apply_definitions(shop, "shop")
    materialize(shop, "shop", manifest=snapshot(), config=config, as_of=noon)
    moved = shop.model_copy(update={"online_store_url": f"sqlite:///{tmp_path}/deep/new/online.db"})
    assert materialize(moved, "shop", manifest=snapshot(), config=config, as_of=noon)["users"] == 1
    assert online(moved) == online(shop)


def test_an_unreachable_store_names_the_view_and_records_nothing(
    shop: Settings, snapshot: Callable[..., Path], config: Features, noon: datetime
) -> None:
    apply_definitions(shop, "shop")
    away = shop.model_copy(update={"online_store_url": "redis://127.0.0.1:1/0"})
    with pytest.raises(FeatureError, match=r"values of pairs cannot be cleared; measured: ConnectionError"):
        materialize(away, "shop", manifest=snapshot(), config=config, as_of=noon)
    assert intervals(shop, "pairs") == []
    gone = read_snapshot(snapshot())
    bare = Snapshot(**{**gone.model_dump(), "tables": {"users": gone.tables["users"].model_dump()}})
    manifest = shop.home / "bare.json"
    manifest.write_text(bare.model_dump_json())
    with pytest.raises(FeatureError, match="no rows for view pairs; measured: pairs; allowed: users"):
        materialize(shop, "shop", manifest=manifest, config=config, as_of=noon)


def contents(settings: Settings) -> dict[str, list[Any]]:
    """Return every online row of the shop, as stored."""
    database = sqlite3.connect(settings.online_store_url.removeprefix("sqlite:///"))
    order = "SELECT entity_key, feature_name, value, event_ts FROM {} ORDER BY 1, 2"
    found = {view: database.execute(order.format(f"shop_{view}")).fetchall() for view in ("users", "pairs")}
    database.close()
    return found


def _work(settings: Settings, manifest: Path, config: Features, as_of: datetime) -> None:
    materialize(settings, "shop", manifest=manifest, config=config, as_of=as_of)


@pytest.mark.parametrize("kill_after", [1, 4, 8])
def test_killed_between_or_within_chunks_and_started_again_ends_the_same(
    processes: Any,
    eternal: Settings,
    snapshot: Callable[..., Path],
    config: Features,
    noon: datetime,
    tmp_path: Path,
    kill_after: int,
) -> None:
    def elsewhere(name: str) -> Settings:
        urls = {key: f"sqlite:///{tmp_path}/{name}/{key}.db" for key in ("feature_registry_url", "online_store_url")}
        settings = eternal.model_copy(update=urls)
        apply_definitions(settings, "shop")
        return settings

    manifest, calm = snapshot(), elsewhere("calm")
    _work(calm, manifest, config, noon)

    for attempt in range(5):
        killed = elsewhere(f"killed{attempt}")
        process = processes.Process(target=_work, args=(killed, manifest, config, noon))
        process.start()
        deadline = time.monotonic() + 60
        while len(intervals(killed, "pairs")) < kill_after and time.monotonic() < deadline:
            time.sleep(0.001)
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        if process.exitcode != 0:  # else it was through before we looked
            break
    assert process.exitcode == -signal.SIGKILL
    assert kill_after <= len(intervals(killed, "pairs")) <= 8
    assert len(intervals(killed, "users")) < 9

    _work(killed, manifest, config, noon)
    assert contents(killed) == contents(calm)
    assert intervals(killed, "users")[-1][1] == noon


@pytest.mark.parametrize("store", ["sqlite", "redis", "postgres"])
def test_concurrent_runs_lose_nothing(
    processes: Any,
    eternal: Settings,
    snapshot: Callable[..., Path],
    config: Features,
    noon: datetime,
    store: str,
    request: pytest.FixtureRequest,
) -> None:
    """Four runs at once, two of them older: the newest values stay and every interval is recorded once."""
    settings = eternal
    if store != "sqlite":
        update = {"online_store_url": request.getfixturevalue(f"{store}_url")}
        if store == "postgres":
            update["feature_registry_url"] = update["online_store_url"]
        settings = eternal.model_copy(update=update)
        apply_definitions(settings, "shop")
    manifest = snapshot()
    ends = [noon, noon - 4 * DAY, noon, noon - 2 * DAY]
    running = [processes.Process(target=_work, args=(settings, manifest, config, end)) for end in ends]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0] * 4
    assert online(settings)["spend"] == [35.0, 35.5, None]
    assert online(settings)["mood"] == ["glum", None, None]
    for view in ("users", "pairs"):
        found = intervals(settings, view)
        assert found[-1][1] == noon
        assert all(one[1] == two[0] for one, two in pairwise(found))
