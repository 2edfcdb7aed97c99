"""Definitions in the registry: digest, repetition, many writers, the lock they share."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from components.core.errors import ConfigError, FeatureError
from components.core.settings import Settings
from components.features.apply import apply_definitions, load_definitions
from components.features.definitions import definitions_digest, registry_digest, service_views
from components.features.locks import exclusive
from components.features.store import open_store

WRITERS = 4


def definitions(settings: Settings) -> Path:
    return settings.feature_repo / "shop" / "features.py"


def test_applying_again_changes_nothing(shop: Settings, snapshot: Callable[..., Path]) -> None:
    from components.features.materialize import materialize_latest

    digest = apply_definitions(shop, "shop")
    snapshot()
    materialize_latest(shop, "shop")
    before = _rows(shop.feature_registry_url)
    assert apply_definitions(shop, "shop") == digest == registry_digest(open_store(shop, "shop"), "shop_v1")
    after = _rows(shop.feature_registry_url)
    assert after["intervals"] == before["intervals"] == {"users": 1, "pairs": 8}
    assert after["versions"] == before["versions"]


def _rows(url: str) -> dict[str, Any]:
    """Return what must survive a second apply: intervals per view, and the number of recorded view versions."""
    from feast.protos.feast.core.FeatureView_pb2 import FeatureView

    engine = create_engine(url)
    with engine.connect() as connection:
        views = [
            FeatureView.FromString(row[0])
            for row in connection.execute(text("SELECT feature_view_proto FROM feature_views"))
        ]
        versions = connection.execute(text("SELECT count(*) FROM feature_view_version_history")).scalar_one()
    engine.dispose()
    return {"intervals": {v.spec.name: len(v.meta.materialization_intervals) for v in views}, "versions": versions}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("hours=24", "hours=25"),
        ('name="visits", dtype=Float64', 'name="visits", dtype=String'),
        ('source("pairs")', 'source("users")'),
        ("features=[users, pairs]", "features=[users[['spend']], pairs]"),
        ('owner="shopkeeper"', 'owner="someone else"'),
        ("entities=[user, item]", "entities=[user]"),
    ],
)
def test_every_change_of_a_definition_changes_the_digest(shop: Settings, old: str, new: str) -> None:
    path = definitions(shop)
    before = apply_definitions(shop, "shop")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert apply_definitions(shop, "shop") != before


def test_layout_and_order_do_not_change_the_digest(shop: Settings) -> None:
    """Feast would not store a new order: a digest that saw it could never be reached by applying again."""
    path = definitions(shop)
    before = apply_definitions(shop, "shop")
    text = path.read_text().replace("features=[users, pairs]", "features=[pairs, users]")
    fields = ['Field(name="score", dtype=Float64)', 'Field(name="mood", dtype=String)']
    assert ", ".join(fields) in text
    path.write_text("# A comment\n" + text.replace(", ".join(fields), ", ".join(fields[::-1])))
    assert apply_definitions(shop, "shop") == before
    elsewhere = shop.model_copy(update={"feature_registry_url": f"sqlite:///{shop.home}/other/registry.db"})
    assert apply_definitions(elsewhere, "shop") == before


def test_digest_of_the_file_is_that_of_the_registry(shop: Settings) -> None:
    from feast import Entity, FeatureView

    found = load_definitions(definitions(shop), "shop_v1")
    service = next(o for o in found if o.name == "shop_v1")
    views = {o.name: o for o in found if isinstance(o, FeatureView)}
    digest = apply_definitions(shop, "shop")
    store = open_store(shop, "shop")
    applied = [store.get_feature_view(p.name) for p in service.feature_view_projections]
    found_service, _views = service_views(store, "shop_v1")
    entities = [o for o in found if isinstance(o, Entity)]
    assert definitions_digest(found_service, applied, entities) == digest
    assert sorted(views) == sorted(v.name for v in applied)


def _apply_one(settings: Settings, number: int) -> None:
    from feast import FeatureView, Field
    from feast.types import Float64

    # Everybody applies the shop, and a view of its own.
    apply_definitions(settings, "shop")
    store = open_store(settings, "shop")
    template = store.get_feature_view("users")
    entity = store.get_entity("user")
    own = FeatureView(
        name=f"own_{number}",
        entities=[entity],
        source=template.batch_source,
        schema=[Field(name="spend", dtype=Float64)],
    )
    with exclusive(settings.feature_registry_url, "apply-shop"):
        store.apply([own])


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_concurrent_writers_lose_nothing(
    processes: Any, shop: Settings, backend: str, request: pytest.FixtureRequest
) -> None:
    """The registry does not exist yet, so that the writers also compete for creating it."""
    if backend == "postgres":
        shop = shop.model_copy(update={"feature_registry_url": request.getfixturevalue("postgres_url")})
    running = [processes.Process(target=_apply_one, args=(shop, number)) for number in range(WRITERS)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0] * WRITERS
    names = sorted(view.name for view in open_store(shop, "shop").list_feature_views())
    assert names == sorted(["users", "pairs", *(f"own_{n}" for n in range(WRITERS))])


def _count_under_lock(url: str, path: Path, times: int) -> None:
    for _ in range(times):
        with exclusive(url, "count"):
            value = int(path.read_text())
            time.sleep(0.001)
            path.write_text(str(value + 1))


def _hold(url: str, path: Path) -> None:
    with exclusive(url, "count"):
        path.write_text("held")
        time.sleep(600)


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_a_lock_excludes_and_dies_with_its_holder(
    processes: Any, tmp_path: Path, backend: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_url") if backend == "postgres" else f"sqlite:///{tmp_path}/a/b.db"
    counter = tmp_path / "counter"
    counter.write_text("0")
    running = [processes.Process(target=_count_under_lock, args=(url, counter, 20)) for _ in range(4)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert counter.read_text() == "80"

    held = tmp_path / "held"
    holder = processes.Process(target=_hold, args=(url, held))
    holder.start()
    deadline = time.monotonic() + 60
    while not (held.exists() and held.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert held.read_text() == "held"
    waiter = processes.Process(target=_count_under_lock, args=(url, counter, 1))
    waiter.start()
    waiter.join(1)
    assert waiter.exitcode is None
    assert counter.read_text() == "80"
    os.kill(holder.pid, signal.SIGKILL)
    waiter.join(30)
    holder.join()
    assert (waiter.exitcode, counter.read_text()) == (0, "81")


def test_unusable_addresses_are_refused(shop: Settings) -> None:
    def opened(**update: str) -> None:
        open_store(shop.model_copy(update=update), "shop")

    with pytest.raises(ConfigError, match="registry's database is not supported; measured: mysql://u:\\*\\*\\*@h/d"):
        opened(feature_registry_url="mysql://u:secret@h/d")
    with pytest.raises(ConfigError, match="DRIFTLINE_FEATURE_REGISTRY_URL is not a URL"):
        opened(feature_registry_url="not a url")
    with pytest.raises(FeatureError, match=r"registry is out of reach.*DRIFTLINE_FEATURE_REGISTRY_URL"):
        opened(feature_registry_url="postgresql+psycopg://u:p@127.0.0.1:1/d")
    with pytest.raises(ConfigError, match="not the address of an online store"):
        opened(online_store_url="memcached://h")
    defaults = shop.feature_repo / "feature_store.yaml"
    defaults.write_text("registry: [")
    with pytest.raises(ConfigError, match=r"feature_store.yaml is not valid YAML"):
        opened()
    defaults.write_text("registry: {}")
    with pytest.raises(ConfigError, match=r"must be a mapping with the sections registry, offline_store"):
        opened()
    defaults.unlink()
    with pytest.raises(ConfigError, match=r"feature_store.yaml is missing"):
        opened()


def test_the_shared_file_is_laid_under_the_settings(shop: Settings, tmp_path: Path) -> None:
    config = open_store(shop, "shop", manifest=tmp_path / "m.json").config
    assert (config.project, config.coerce_tz_aware) == ("shop", False)
    assert (config.registry.registry_type, config.registry.path) == ("sql", shop.feature_registry_url)
    assert config.registry.serve_features_while_materializing
    assert (config.offline_store.manifest, config.offline_store.snapshots) == (
        str(tmp_path / "m.json"),
        str(shop.snapshots),
    )
    assert config.materialization_config.pull_latest_features
    assert config.materialization_config.online_write_batch_size == 10_000
