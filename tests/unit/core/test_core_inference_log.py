"""The format of the inference log: what is encoded is what is read, by window and across model versions."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.errors import DataError, StorageFailed
from components.core.inference_log import (
    LOOKUP,
    METADATA,
    READY,
    Entry,
    Origin,
    encode,
    log_schema,
    part_files,
    read_predictions,
    row_names,
    row_values,
    split_days,
    write_part,
)
from components.core.serving import ServingSpec
from components.core.training_set import Input

NOW = datetime(2013, 4, 1, 10, 30, 0, 123456, tzinfo=UTC)
DAY = timedelta(days=1)


def make_spec(version: int = 1, **kinds: Any) -> ServingSpec:
    chosen = kinds or {"carrier": "category", "distance": "number", "model": "category"}
    return ServingSpec(
        use_case="rides",
        version=version,
        model=str(version) * 64,
        entities={"carrier": "string", "badge": "int64"},
        inputs=[Input(name=name, kind=kind) for name, kind in chosen.items()],
        stale="null",
        missing="null",
        buckets=[0.5],
        workers=1,
        timeout_seconds=10,
        max_batch_rows=100,
        max_request_bytes=20_000,
    )


Served = tuple[str, datetime, str, list[dict[str, Any]]]


def entry(name: str = "a", as_of: datetime = NOW, route: str = LOOKUP, **row: Any) -> Served:
    return (name, as_of, route, [row])


def encoded(spec: ServingSpec, served: list[Served]) -> pa.Table:
    names = row_names(spec)
    entries: list[Entry] = [
        (
            name,
            NOW.timestamp(),
            as_of.timestamp(),
            route,
            [row_values(names, row) for row in rows],
            ["distance"],
            [],
            [0.25 + n for n in range(len(rows))],
        )
        for name, as_of, route, rows in served
    ]
    return encode(spec, entries)


def put(root: Path, spec: ServingSpec, served: list[Served], writer: str = "w", sequence: int = 0) -> None:
    for day, table in split_days(encoded(spec, served)):
        origin = Origin(writer=writer, sequence=sequence, written=table.num_rows, dropped=0)
        write_part(root, spec.use_case, day, table, origin)


def test_a_row_is_read_as_it_was_served(tmp_path: Path) -> None:
    spec = make_spec()
    # An input may be called like a column of the log.
    put(tmp_path, spec, [entry(carrier="AA", badge=2**62 + 1, distance=1.5, model="A320")])
    table = read_predictions(tmp_path, "rides", NOW, NOW + DAY)
    assert table.schema == log_schema(spec)
    assert table.to_pylist() == [
        {
            "request_id": "a",
            "row": 0,
            "served_at": NOW,
            "as_of": NOW,
            "route": "predict",
            "model_version": 1,
            "model": "1" * 64,
            "key_carrier": "AA",
            "key_badge": 2**62 + 1,
            "input_carrier": "AA",
            "input_distance": 1.5,
            "input_model": "A320",
            "stale": ["distance"],
            "missing": [],
            "prediction": 0.25,
        }
    ]


def test_a_route_without_keys_has_none(tmp_path: Path) -> None:
    put(tmp_path, make_spec(), [entry(route=READY, carrier="AA", distance=None)])
    (row,) = read_predictions(tmp_path, "rides", NOW, NOW + DAY).to_pylist()
    assert (row["key_carrier"], row["key_badge"], row["input_carrier"]) == (None, None, "AA")
    assert row["input_distance"] is row["input_model"] is None


def test_rows_of_a_batch_are_numbered(tmp_path: Path) -> None:
    put(tmp_path, make_spec(), [("b", NOW, READY, [{"distance": float(n)} for n in range(3)])])
    table = read_predictions(tmp_path, "rides", NOW, NOW + DAY)
    assert table.column("row").to_pylist() == [0, 1, 2]
    assert table.column("input_distance").to_pylist() == [0.0, 1.0, 2.0]
    assert table.column("prediction").to_pylist() == [0.25, 1.25, 2.25]


def test_values_of_another_type_are_logged_as_the_model_reads_them(tmp_path: Path) -> None:
    entries = [entry("a", distance=2**60 + 1, model=7), entry("b", distance=True, model=False), entry("c", model=None)]
    put(tmp_path, make_spec(), entries)
    table = read_predictions(tmp_path, "rides", NOW, NOW + DAY)
    assert table.column("input_distance").to_pylist() == [float(2**60 + 1), 1.0, None]
    assert table.column("input_model").to_pylist() == ["7", "False", None]


@pytest.mark.parametrize("instant", [NOW, datetime(1, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, tzinfo=UTC)])
def test_rows_lie_under_the_day_of_their_instant(tmp_path: Path, instant: datetime) -> None:
    put(tmp_path, make_spec(), [entry(as_of=instant)])
    assert [p.parent.name for p in part_files(tmp_path, "rides", instant, instant + DAY)] == [str(instant.date())]
    assert read_predictions(tmp_path, "rides", instant, instant + DAY).column("as_of").to_pylist() == [instant]


def test_a_window_has_its_first_instant_and_not_its_last(tmp_path: Path) -> None:
    instants = [NOW + timedelta(hours=8 * n) for n in range(10)]
    put(tmp_path, make_spec(), [entry(str(n), as_of=at) for n, at in enumerate(instants)])
    for first in range(10):
        for last in range(10):
            table = read_predictions(tmp_path, "rides", instants[first], instants[last])
            assert table.column("as_of").to_pylist() == instants[first:last]


def test_a_window_opens_no_file_of_other_days(tmp_path: Path) -> None:
    put(tmp_path, make_spec(), [entry(str(n), as_of=NOW + n * DAY) for n in range(5)])
    midnight = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    days = [p.parent.name for p in part_files(tmp_path, "rides", midnight + DAY, midnight + 3 * DAY)]
    assert days == ["2013-04-02", "2013-04-03"]


def test_an_empty_log_has_the_common_columns(tmp_path: Path) -> None:
    table = read_predictions(tmp_path, "rides", NOW, NOW + DAY)
    assert table.num_rows == 0
    assert {"request_id", "as_of", "prediction"} <= set(table.column_names)


def test_versions_with_other_inputs_are_united_by_name(tmp_path: Path) -> None:
    put(tmp_path, make_spec(1, distance="number", tail="number"), [entry("a", distance=1.0, tail=7.0)], "v1")
    put(tmp_path, make_spec(2, tail="category", hour="number"), [entry("b", tail="N7", hour=9.0)], "v2")
    both = read_predictions(tmp_path, "rides", NOW, NOW + DAY)
    assert both.column("model_version").to_pylist() == [1, 2]
    assert both.column("input_distance").to_pylist() == [1.0, None]
    assert both.column("input_hour").to_pylist() == [None, 9.0]
    assert both.column("input_tail").to_pylist() == ["7", "N7"]
    assert both.column_names.index("key_badge") < both.column_names.index("input_hour")
    one = read_predictions(tmp_path, "rides", NOW, NOW + DAY, version=2)
    assert one.column("request_id").to_pylist() == ["b"]


def test_a_file_names_its_origin(tmp_path: Path) -> None:
    put(tmp_path, make_spec(), [entry()], writer="w1", sequence=3)
    (path,) = part_files(tmp_path, "rides", NOW, NOW + DAY)
    assert path.name == "w1-00000003.parquet"
    origin = Origin.model_validate_json(pq.read_metadata(path).metadata[METADATA])
    assert origin == Origin(writer="w1", sequence=3, written=1, dropped=0)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    put(tmp_path, make_spec(), [entry()])
    (path,) = part_files(tmp_path, "rides", NOW, NOW + DAY)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=path.name):
        read_predictions(tmp_path, "rides", NOW, NOW + DAY)


def test_what_is_being_written_is_not_read(tmp_path: Path) -> None:
    put(tmp_path, make_spec(), [entry()])
    (path,) = part_files(tmp_path, "rides", NOW, NOW + DAY)
    path.with_name(f".{path.name}").write_bytes(path.read_bytes()[:100])
    assert read_predictions(tmp_path, "rides", NOW, NOW + DAY).num_rows == 1


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "rides").mkdir()
    (tmp_path / "rides" / "2013-04-01").write_text("in the way")
    table = encoded(make_spec(), [entry()])
    with pytest.raises(StorageFailed):
        write_part(tmp_path, "rides", "2013-04-01", table, Origin(writer="w", sequence=0, written=1, dropped=0))
    assert [p.name for p in (tmp_path / "rides").iterdir()] == ["2013-04-01"]


def test_duckdb_reads_the_log(tmp_path: Path) -> None:
    import duckdb

    put(tmp_path, make_spec(1), [entry("a", distance=1.0)], "v1")
    put(tmp_path, make_spec(2, hour="number"), [entry("b", hour=9.0)], "v2")
    query = f"SELECT count(*), sum(prediction) FROM read_parquet('{tmp_path}/rides/*/*.parquet', union_by_name=true)"
    assert duckdb.sql(query).fetchall() == [(2, 0.5)]


def test_the_schema_has_a_type_for_each_entity() -> None:
    schema = log_schema(make_spec())
    assert schema.field("key_badge").type == pa.int64()
    assert schema.field("input_distance").type == pa.float64()
