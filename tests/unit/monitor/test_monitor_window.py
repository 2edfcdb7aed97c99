"""Binning a window: days in UTC, the reference's bins, columns that are there."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.errors import DataError
from components.core.profile import ColumnProfile
from components.monitor.window import window_counts

START = datetime(2024, 2, 28, 22, tzinfo=UTC)
NUMBER = ColumnProfile(name="x", kind="number", edges=[0.0, 1.5, 4.0], days=["2024-01-01"], counts=[], distinct=[])
LEVEL = ColumnProfile(name="k", kind="category", levels=["a", "b"], days=["2024-01-01"], counts=[], distinct=[])


def bin_of(column: ColumnProfile, value: float | str | None) -> int:
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return column.bins - 1
    if column.kind == "number":
        return sum(edge <= value for edge in column.edges)
    return column.levels.index(value) if value in column.levels else len(column.levels)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 80),
            st.one_of(st.none(), st.floats(-10, 10), st.just(float("nan")), st.sampled_from([0.0, 1.5, 4.0])),
            st.sampled_from([None, "a", "b", "c", ""]),
        )
    )
)
def test_every_row_is_counted_once_in_its_bin_and_utc_day(rows: list[tuple]) -> None:
    instants = [START + timedelta(hours=hours) for hours, _, _ in rows]
    table = pa.table(
        {
            "as_of": pa.array(instants, pa.timestamp("us", "UTC")),
            "input_x": pa.array([x for _, x, _ in rows], pa.float64()),
            "input_k": pa.array([k for _, _, k in rows], pa.string()),
        }
    )
    days, counts = window_counts([NUMBER, LEVEL], table)
    assert days == sorted({instant.date().isoformat() for instant in instants})
    assert list(counts) == ["x", "k"]
    for column, position in ((NUMBER, 1), (LEVEL, 2)):
        expected = np.zeros((len(days), column.bins), dtype=np.int64)
        for instant, row in zip(instants, rows, strict=True):
            expected[days.index(instant.date().isoformat()), bin_of(column, row[position])] += 1
        assert counts[column.name].dtype == np.int64
        assert np.array_equal(counts[column.name], expected)


def test_other_names_and_types_are_read() -> None:
    table = pa.table(
        {"event_timestamp": pa.array([START] * 3, pa.timestamp("us", "UTC")), "x": pa.array([1, None, 9], pa.int32())}
    )
    days, counts = window_counts([NUMBER, LEVEL], table, prefix="", instant="event_timestamp")
    assert days == ["2024-02-28"]
    assert {name: table.tolist() for name, table in counts.items()} == {"x": [[0, 1, 0, 1, 1]]}


def test_text_in_a_number_is_an_error_that_names_the_column() -> None:
    table = pa.table({"as_of": pa.array([START], pa.timestamp("us", "UTC")), "input_x": ["twelve"]})
    with pytest.raises(DataError, match="x is a number in the reference") as caught:
        window_counts([NUMBER], table)
    assert "string" in str(caught.value.measured)
