"""Every row of a period in, scoring set out; equal to the training set where both have a row."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from components.core.errors import ConfigError, DataError, FeatureError
from components.core.sections import Features, Problem
from components.core.settings import Settings
from components.core.tables import read_snapshot
from components.core.training_set import REGISTRY, ROWS, read_manifest
from components.core.verdict import Verdict, write_verdict
from components.features.apply import apply_definitions
from components.features.build import build
from components.features.period import whole_days
from components.features.scoring_set import build_scoring_set

Rows = list[dict[str, Any]]
Build = Callable[..., Any]


@pytest.fixture
def run(shop: Settings, snapshot: Callable[..., Path], tmp_path: Path, problem: Problem, config: Features) -> Build:
    """Return a function that builds a scoring set of the shop and returns its description."""

    def step(manifest: Path | None = None, folder: str = "set", **given: Any) -> Any:
        options = {"first": "2024-03-06", "last": "2024-03-10", "registry": "", "problem": problem, "config": config}
        return build_scoring_set(
            shop, "shop", snapshot=manifest or snapshot(), folder=tmp_path / folder, **(options | given)
        )

    return step


def test_rows_of_the_period_labelled_or_not(shop: Settings, run: Build, tmp_path: Path, noon: datetime) -> None:
    digest = apply_definitions(shop, "shop")
    made = run(registry=digest)
    table = pq.read_table(tmp_path / "set" / ROWS)
    instants = table["event_timestamp"].to_pylist()
    assert min(instants) == datetime(2024, 3, 6, 0, tzinfo=UTC)
    assert max(instants) == datetime(2024, 3, 9, 20, tzinfo=UTC)
    # Six orders a day for four days; those of the last day have no label at noon of the tenth, bar the morning's.
    assert made.rows == table.num_rows == 24
    unlabelled = [row for row in table.to_pylist() if row["returned"] is None]
    assert [row["event_timestamp"].hour for row in unlabelled] == [16, 20]
    assert (made.as_of, made.registry, made.label) == (noon, digest, "returned")
    assert read_manifest(tmp_path / "set") == made
    assert (tmp_path / "set" / REGISTRY).is_file()


def test_rows_are_joined_as_for_training(
    shop: Settings, run: Build, snapshot: Callable[..., Path], tmp_path: Path, problem: Problem, config: Features
) -> None:
    apply_definitions(shop, "shop")
    manifest = snapshot()
    digest = read_snapshot(manifest).digest
    write_verdict(tmp_path / "v.json", Verdict(gate="validate", subject=digest, decision="pass", reasons=[]))
    common = {"problem": problem, "config": config, "registry": "", "snapshot": manifest, "as_of": ""}
    trained = build(shop, "shop", verdict=tmp_path / "v.json", folder=tmp_path / "ts", **common)
    scored = run(manifest, first="2024-03-01")
    assert scored.inputs == trained.inputs
    assert scored.entities == trained.entities
    left, right = (pq.read_table(tmp_path / folder / ROWS) for folder in ("ts", "set"))
    assert left.schema == right.schema
    both = {row["order_id"]: row for row in right.to_pylist()}
    assert [both[row["order_id"]] for row in left.to_pylist()] == left.to_pylist()


def test_a_table_without_labels_can_be_scored(
    shop: Settings,
    run: Build,
    snapshot: Callable[..., Path],
    table: Callable[..., pa.Table],
    orders: Rows,
    tmp_path: Path,
) -> None:
    apply_definitions(shop, "shop")
    bare = table(orders).drop_columns(["returned", "label_timestamp"])
    with_labels = run(folder="one")
    assert run(snapshot(orders=bare), folder="two").rows == with_labels.rows
    one, two = (pq.read_table(tmp_path / folder / ROWS) for folder in ("one", "two"))
    assert one.schema == two.schema
    assert two["returned"].null_count == two["label_timestamp"].null_count == two.num_rows
    kept = [name for name in one.column_names if name not in ("returned", "label_timestamp")]
    assert one.select(kept).equals(two.select(kept))


def test_a_dead_feed_is_scored_as_it_was(
    shop: Settings,
    run: Build,
    snapshot: Callable[..., Path],
    table: Callable[..., pa.Table],
    users: Rows,
    tmp_path: Path,
) -> None:
    apply_definitions(shop, "shop")
    run(snapshot(users=table([{**row, "visits": None} for row in users])))
    assert pq.read_table(tmp_path / "set" / ROWS)["visits"].null_count == 24


def test_wrong_periods_and_rows(
    shop: Settings, run: Build, snapshot: Callable[..., Path], table: Callable[..., pa.Table], orders: Rows
) -> None:
    digest = apply_definitions(shop, "shop")
    with pytest.raises(ConfigError, match="has not ended; measured: last 2024-03-11; allowed: up to 2024-03-10"):
        run(last="2024-03-11")
    with pytest.raises(DataError, match=r"no row to score from 2023-01-01 .* allowed: rows from 2024-03-04T12.*"):
        run(first="2023-01-01", last="2023-01-02")
    with pytest.raises(FeatureError, match="not those of this pipeline"):
        run(registry="0" * len(digest))
    with pytest.raises(DataError, match="ids are not unique; measured: 12 ids"):
        run(snapshot(orders=table([*orders, *orders[10:22]])))
    with pytest.raises(DataError, match="order_id must not be null"):
        run(snapshot(orders=table([*orders[:10], {**orders[10], "order_id": None}])))
    with pytest.raises(DataError, match="lacks columns that section problem names; measured: channel"):
        run(snapshot(orders=table(orders).drop_columns(["channel"])))


def test_whole_days() -> None:
    noon = datetime(2024, 3, 10, 12, tzinfo=UTC)
    day = [datetime(2024, 3, number, tzinfo=UTC) for number in range(1, 12)]
    assert whole_days("", "", as_of=noon) == (day[8], day[9])
    assert whole_days("", "2024-03-05", as_of=noon) == (day[3], day[4])
    assert whole_days("2024-03-05", "", as_of=noon) == (day[4], day[9])
    assert whole_days("2024-03-05T02:00+02:00", "2024-03-06", as_of=noon) == (day[4], day[5])
    for first, last, text in [
        ("2024-03-05T01:00", "", "first is not a whole UTC day"),
        ("", "2024-03-05+02:00x", "last is not an ISO 8601"),
        ("2024-03-05", "2024-03-05", "the period to score is empty"),
        ("2024-03-06", "2024-03-05", "the period to score is empty"),
        ("", "2024-03-11", "has not ended"),
    ]:
        with pytest.raises(ConfigError, match=text):
            whole_days(first, last, as_of=noon)


@examples(deadline=None)
@given(
    as_of=st.datetimes(datetime(2000, 1, 2), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    back=st.integers(0, 400),
    days=st.integers(1, 400),
)
def test_a_period_that_is_over_is_taken_as_it_is(as_of: datetime, back: int, days: int) -> None:
    end = as_of.date() - timedelta(days=back)
    start = end - timedelta(days=days)
    first, last = whole_days(start.isoformat(), end.isoformat(), as_of=as_of)
    assert (first.date(), last.date()) == (start, end)
    assert first.time() == last.time() == datetime.min.time()
    assert last <= as_of
