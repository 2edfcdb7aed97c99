"""Snapshot and definitions in, training set out; and everything that must be refused."""

import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.errors import ConfigError, DataError, FeatureError, GateRefused
from components.core.sections import Features, Problem
from components.core.settings import Settings
from components.core.tables import read_snapshot
from components.core.training_set import REGISTRY, ROWS, read_manifest
from components.core.verdict import Reason, Verdict, write_verdict
from components.features.apply import apply_definitions
from components.features.build import build
from components.features.store import open_store

Rows = list[dict[str, Any]]
Build = Callable[..., Any]


@pytest.fixture
def run(shop: Settings, snapshot: Callable[..., Path], tmp_path: Path, problem: Problem, config: Features) -> Build:
    """Return a function that runs the step on an approved snapshot and returns the training set."""

    def step(manifest: Path | None = None, folder: str = "ts", verdict: Verdict | None = None, **given: Any) -> Any:
        taken = manifest or snapshot()
        digest = read_snapshot(taken).digest
        judged = verdict or Verdict(gate="validate", subject=digest, decision="pass", reasons=[])
        write_verdict(tmp_path / "verdict.json", judged)
        options = {"as_of": "", "registry": "", "problem": problem, "config": config} | given
        return build(
            shop, "shop", snapshot=taken, verdict=tmp_path / "verdict.json", folder=tmp_path / folder, **options
        )

    return step


def test_rows_columns_and_description(shop: Settings, run: Build, tmp_path: Path, noon: datetime) -> None:
    digest = apply_definitions(shop, "shop")
    made = run(registry=digest)
    table = pq.read_table(tmp_path / "ts" / ROWS)
    instants = [("event_timestamp", "timestamp[us, tz=UTC]"), ("label_timestamp", "timestamp[us, tz=UTC]")]
    inputs = [("amount", "double"), ("channel", "string"), ("mood", "string"), ("score", "double")]
    inputs += [("spend", "double"), ("visits", "double")]
    keys = [("order_id", "string"), ("user_id", "string"), ("item", "string")]
    expected = [*keys, *instants, ("returned", "double"), *inputs]
    assert [(field.name, str(field.type)) for field in table.schema] == expected
    assert [(i.name, i.view, i.ttl_seconds, i.kind) for i in made.inputs] == [
        ("amount", "", 0, "number"),
        ("channel", "", 0, "category"),
        ("mood", "pairs", 0, "category"),
        ("score", "pairs", 0, "number"),
        ("spend", "users", 86400, "number"),
        ("visits", "users", 86400, "number"),
    ]
    # 31 of 36 orders are mature at noon; the rest has no label yet.
    assert made.rows == table.num_rows == 31
    assert table["order_id"].to_pylist() == [f"o{n:03d}" for n in range(31)]
    assert read_manifest(tmp_path / "ts") == made
    assert (made.as_of, made.registry, made.use_case, made.service) == (noon, digest, "shop", "shop_v1")
    # The order of 'new' finds nothing, that of 'ann' the fact of its very instant.
    rows = table.to_pylist()
    assert (rows[2]["user_id"], rows[2]["spend"]) == ("new", None)
    assert (rows[3]["user_id"], rows[3]["event_timestamp"]) == ("ann", noon - timedelta(days=5, hours=12))
    assert (rows[3]["spend"], rows[3]["visits"]) == (14.0, 14.0)


def test_same_input_same_bytes_whatever_the_row_order(
    shop: Settings, run: Build, snapshot: Callable[..., Path], table: Callable[..., pa.Table], orders: Rows, users: Rows
) -> None:
    apply_definitions(shop, "shop")
    first = run(folder="one")
    again = run(folder="two")
    other = run(snapshot(orders=table(orders[::-1]), users=table(users[::-1])), folder="three")
    assert first == again
    assert other.digest == first.digest
    folders = {(path.parent.name, path.name): path.read_bytes() for path in _files(shop)}
    assert folders[("one", REGISTRY)] == folders[("three", REGISTRY)]


def _files(shop: Settings) -> list[Path]:
    return [p for p in shop.home.parent.glob("*/*") if p.name in (ROWS, REGISTRY)]


def test_serving_opens_the_registry_as_a_file(shop: Settings, run: Build, tmp_path: Path) -> None:
    from feast import FeatureService, FeatureStore, RepoConfig

    apply_definitions(shop, "shop")
    central = open_store(shop, "shop")
    central.apply([FeatureService(name="other", features=[central.get_feature_view("users")])])
    run()
    path = tmp_path / "ts" / REGISTRY
    before = path.read_bytes()
    store = FeatureStore(
        config=RepoConfig(
            project="shop",
            provider="local",
            registry=str(path),
            online_store={"type": "sqlite", "path": str(shop.home / "feast" / "online.db")},
            entity_key_serialization_version=3,
        )
    )
    assert [s.name for s in store.list_feature_services()] == ["shop_v1"]
    assert [v.name for v in store.list_feature_views()] == ["pairs", "users"]
    got = store.get_online_features(
        features=store.get_feature_service("shop_v1"), entity_rows=[{"user_id": "ann", "item": "tea"}]
    ).to_dict()
    assert (got["spend"], got["mood"], got["score"]) == ([35.0], ["glum"], [None])
    assert path.read_bytes() == before


def test_an_unapproved_snapshot_is_refused_first(run: Build, snapshot: Callable[..., Path], tmp_path: Path) -> None:
    manifest = snapshot()
    digest = read_snapshot(manifest).digest
    no = Reason(check="rows", passed=False, message="too few rows")
    with pytest.raises(GateRefused, match="validate decided reject: too few rows"):
        run(manifest, verdict=Verdict(gate="validate", subject=digest, decision="reject", reasons=[no]))
    with pytest.raises(DataError, match="does not judge this validate subject"):
        run(manifest, verdict=Verdict(gate="validate", subject="another", decision="pass", reasons=[]))
    assert not (tmp_path / "ts").exists()


def test_other_definitions_than_the_pipelines_are_refused(shop: Settings, run: Build) -> None:
    digest = apply_definitions(shop, "shop")
    definitions = shop.feature_repo / "shop" / "features.py"
    definitions.write_text(definitions.read_text().replace("hours=24", "hours=12"))
    assert apply_definitions(shop, "shop") != digest
    with pytest.raises(FeatureError, match=r"not those of this pipeline; .* next step: run `driftline features apply`"):
        run(registry=digest)


def test_unknown_service_view_and_entity(shop: Settings, run: Build, problem: Problem, config: Features) -> None:
    with pytest.raises(FeatureError, match=r"no feature service shop_v1 for shop; measured: no service at all.*apply"):
        run()
    apply_definitions(shop, "shop")
    with pytest.raises(FeatureError, match="no feature service shop_v2 for shop; measured: shop_v1; allowed: shop_v2"):
        run(config=config.model_copy(update={"service": "shop_v2"}))
    with pytest.raises(FeatureError, match=r"view pairs is keyed by columns .* measured: item; allowed: user_id"):
        run(problem=problem.model_copy(update={"entities": ["user_id"]}))
    taken = problem.model_copy(update={"inputs": {"amount": "number", "spend": "number"}})
    with pytest.raises(FeatureError, match="the name of feature users:spend is taken"):
        run(problem=taken)
    with pytest.raises(DataError, match="orders lacks columns that section problem names; measured: weight"):
        run(problem=problem.model_copy(update={"inputs": {"weight": "number"}}))
    with pytest.raises(DataError, match="channel cannot be read as double"):
        run(problem=problem.model_copy(update={"inputs": {"channel": "number"}}))


def test_a_feature_without_any_value_is_named(
    shop: Settings, run: Build, snapshot: Callable[..., Path], table: Callable[..., pa.Table], users: Rows
) -> None:
    apply_definitions(shop, "shop")
    empty = table([{**row, "visits": None} for row in users])
    with pytest.raises(FeatureError, match="features without a single value; measured: visits;"):
        run(snapshot(users=empty))


def test_duplicate_ids_are_counted_and_quoted(
    shop: Settings, run: Build, snapshot: Callable[..., Path], table: Callable[..., pa.Table], orders: Rows
) -> None:
    apply_definitions(shop, "shop")
    doubled = table([*orders, *orders[:7]])
    quoted = "7 ids, such as o000, o001, o002, o003, o004;"
    with pytest.raises(DataError, match=f"orders: ids are not unique; measured: {quoted}"):
        run(snapshot(orders=doubled))


def test_leaks_and_wrong_instants_are_refused(
    shop: Settings,
    run: Build,
    snapshot: Callable[..., Path],
    table: Callable[..., pa.Table],
    orders: Rows,
    noon: datetime,
    tmp_path: Path,
) -> None:
    apply_definitions(shop, "shop")

    def orders_with(index: int, **changes: Any) -> Path:
        return snapshot(orders=table([{**row, **changes} if n == index else row for n, row in enumerate(orders)]))

    early = orders[3]["event_timestamp"] - timedelta(microseconds=1)
    with pytest.raises(DataError, match=r"labels known before their prediction instant.*1 rows, such as o003;"):
        run(orders_with(3, label_timestamp=early))
    later = noon + timedelta(microseconds=1)
    with pytest.raises(DataError, match="labels that are not known at as_of; measured: 1 rows, such as o003;"):
        run(orders_with(3, label_timestamp=later))
    with pytest.raises(DataError, match="event_timestamp lies in the future of as_of; measured: 1 rows, such as o003"):
        run(orders_with(3, event_timestamp=later, label_timestamp=later))
    with pytest.raises(DataError, match="orders: label_timestamp must not be null; measured: 1 rows, such as o003"):
        run(orders_with(3, label_timestamp=None))
    with pytest.raises(DataError, match="orders: order_id must not be null"):
        run(orders_with(3, order_id=None))
    with pytest.raises(DataError, match="orders: labels that are not known at as_of; measured: 1 rows, such as o030"):
        run(as_of=(noon - timedelta(hours=2)).isoformat())
    with pytest.raises(DataError, match=r"orders has no row with a mature label at 2024-03-10.*measured: 0"):
        run(snapshot(orders=table([{**row, "returned": None, "label_timestamp": None} for row in orders])))
    assert not (tmp_path / "ts").exists()


def test_an_entity_that_is_not_known_yet_gives_missing_features(
    shop: Settings,
    run: Build,
    snapshot: Callable[..., Path],
    table: Callable[..., pa.Table],
    orders: Rows,
    tmp_path: Path,
) -> None:
    apply_definitions(shop, "shop")
    made = run(snapshot(orders=table([{**orders[0], "user_id": None}, *orders[1:]])))
    first = pq.read_table(tmp_path / "ts" / ROWS).slice(0, 1).to_pylist()[0]
    assert made.rows == 31
    assert (first["order_id"], first["spend"], first["score"]) == ("o000", None, None)


def test_definitions_that_cannot_be_used(shop: Settings, run: Build) -> None:
    path = shop.feature_repo / "shop" / "features.py"
    text = path.read_text()
    path.write_text("import nothing_of_this_name")
    with pytest.raises(FeatureError, match=r"features.py cannot be run; measured: ModuleNotFoundError"):
        apply_definitions(shop, "shop")
    path.write_text(text.replace('name="shop_v1"', 'name="shop_v9"'))
    with pytest.raises(
        ConfigError, match=r"does not define the feature service .* measured: shop_v9; allowed: shop_v1"
    ):
        apply_definitions(shop, "shop")
    path.write_text(text.replace("features=[users, pairs]", 'features=[users.with_name("u"), pairs]'))
    apply_definitions(shop, "shop")
    with pytest.raises(FeatureError, match="uses view users under another name or key, which serving cannot read"):
        run()
    path.write_text(
        text.replace("dtype=String)])", "dtype=Array(String))])").replace("import Float64", "import Array, Float64")
    )
    apply_definitions(shop, "shop")
    with pytest.raises(FeatureError, match="feature mood has a type that is neither a number nor a category"):
        run()
    path.unlink()
    with pytest.raises(ConfigError, match=r"features.py is missing"):
        apply_definitions(shop, "shop")


@pytest.mark.slow
def test_digests_and_registry_bytes_do_not_depend_on_the_hash_seed(shop: Settings, tmp_path: Path) -> None:
    """Feast keeps a view's fields in a set, so their order changes with the seed."""
    script = (
        "import sys; from pathlib import Path; from components.core.settings import Settings;"
        "from components.core.digests import text_digest;"
        "from components.features.apply import apply_definitions; from components.features.store import open_store;"
        "from components.features.definitions import service_registry;"
        "s = Settings.model_validate_json(Path(sys.argv[1]).read_text());"
        "d = apply_definitions(s, 'shop'); r = service_registry(open_store(s, 'shop'), 'shop_v1');"
        "print(d, text_digest(r.hex()))"
    )
    found = set()
    for seed in ("1", "2", "3"):
        registry = f"sqlite:///{tmp_path}/{seed}/registry.db"
        path = tmp_path / f"{seed}.json"
        path.write_text(shop.model_copy(update={"feature_registry_url": registry}).model_dump_json())
        done = subprocess.run(
            [sys.executable, "-c", script, path],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1
