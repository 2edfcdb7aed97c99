from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from components.core.tables import TIMESTAMP, Snapshot
from components.validate import integrity

AS_OF = datetime(2013, 4, 1, tzinfo=UTC)
Write = Callable[..., tuple[Path, Path, Snapshot]]


def replace(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(column), column, values)


def test_an_empty_month_in_the_middle_is_named(snapshot_of: Write, weather: pa.Table) -> None:
    months = pc.strftime(weather["event_timestamp"], format="%m")
    _, _, snapshot = snapshot_of(weather=weather.filter(pc.not_equal(months, "02")))
    finding = integrity.check_months("weather", snapshot.tables["weather"])
    assert (finding.passed, finding.severity, finding.observed) == (False, "critical", "no rows in 2013-02")


def test_months_at_the_ends_are_not_missed(snapshot_of: Write, weather: pa.Table) -> None:
    months = pc.strftime(weather["event_timestamp"], format="%m")
    _, _, snapshot = snapshot_of(weather=weather.filter(pc.equal(months, "02")))
    assert integrity.check_months("weather", snapshot.tables["weather"]).passed


def test_months_between_cross_the_year() -> None:
    assert integrity.months_between("2012-11", "2013-02") == ["2012-11", "2012-12", "2013-01", "2013-02"]


@pytest.mark.parametrize("harm", ["delete", "flip", "truncate"])
def test_a_partition_that_is_not_what_its_manifest_says_is_found(
    snapshot_of: Write, weather: pa.Table, harm: str
) -> None:
    _, root, snapshot = snapshot_of(weather=weather)
    manifest = snapshot.tables["weather"]
    assert integrity.check_files(root, "weather", manifest).passed
    path = root / manifest.partitions[1].path
    content = path.read_bytes()
    if harm == "delete":
        path.unlink()
    else:
        path.write_bytes(content[:-9] if harm == "truncate" else content[:40] + b"\x00\xff" + content[42:])
    finding = integrity.check_files(root, "weather", manifest)
    assert not finding.passed
    assert finding.observed == f"2013-02 {'is missing' if harm == 'delete' else 'was changed'}"


def test_repeated_ids_are_quoted(trips: pa.Table) -> None:
    doubled = pa.concat_tables([trips, trips.slice(7, 2)])
    unique, order = integrity.check_predictions("trips", doubled, ["trip"], 5)
    assert (unique.passed, unique.severity) == (False, "critical")
    assert [row["trip"] for row in unique.examples] == ["t7", "t8"]
    assert unique.observed == "2 of 92 rows failing (2.17 %)"
    assert order.passed


def test_a_label_known_before_its_prediction_is_found(trips: pa.Table) -> None:
    early = pc.subtract(trips["event_timestamp"], pa.scalar(timedelta(seconds=1), pa.duration("us")))
    mask = pa.array([n == 5 for n in range(90)])
    rows = replace(trips, "label_timestamp", pc.if_else(mask, early, trips["label_timestamp"]))
    unique, order = integrity.check_predictions("trips", rows, ["trip"], 5)
    assert unique.passed
    assert [row["trip"] for row in order.examples] == ["t5"]


def test_a_label_known_at_the_prediction_is_allowed(trips: pa.Table) -> None:
    rows = replace(trips, "label_timestamp", trips["event_timestamp"])
    assert all(f.passed for f in integrity.check_predictions("trips", rows, ["trip"], 5))


def test_what_was_not_known_yet_is_found(trips: pa.Table, weather: pa.Table) -> None:
    # At the instant itself is known; one microsecond later is not.
    as_of = weather["event_timestamp"][-1].as_py()
    assert all(f.passed for f in integrity.check_known("weather", weather, as_of, ["city"], 5))
    late = integrity.check_known("weather", weather, as_of - timedelta(microseconds=1), ["city"], 5)[1]
    assert [row["city"] for row in late.examples] == ["Oslo", "Bergen"]
    # A prediction may lie ahead; a label from the future may not.
    ahead = integrity.check_known("trips", trips, trips["label_timestamp"][-2].as_py(), ["trip"], 5)
    assert all(f.passed for f in ahead)
    assert not integrity.check_known("trips", trips, AS_OF - timedelta(days=9), ["trip"], 5)[1].passed


def test_a_null_instant_is_found(weather: pa.Table) -> None:
    values = [None, *weather["event_timestamp"].to_pylist()[1:]]
    rows = replace(weather, "event_timestamp", pa.array(values, TIMESTAMP))
    never, known = integrity.check_known("weather", rows, AS_OF, ["city"], 5)
    assert never.examples == [{"city": "Oslo", "event_timestamp": "null"}]
    assert known.passed


def test_an_empty_column_is_critical_for_predictions_and_a_warning_for_features(
    trips: pa.Table, weather: pa.Table
) -> None:
    (empty,) = integrity.check_filled("trips", replace(trips, "km", pa.nulls(90, pa.float64())))
    assert (empty.passed, empty.column, empty.severity) == (False, "km", "critical")
    (nan,) = integrity.check_filled("weather", replace(weather, "temp_c", pa.array([float("nan")] * 180)))
    assert (nan.passed, nan.column, nan.severity) == (False, "temp_c", "warning")
    (filled,) = integrity.check_filled("weather", weather)
    assert filled.passed
