"""The comparison of two logs against a dictionary, row by row."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.errors import DataError
from components.core.tables import TIMESTAMP
from components.serve.shadow_report import compare

ROWS = st.tuples(
    st.sampled_from("abcdef"),
    st.integers(0, 2),
    st.integers(0, 5),
    st.floats(0, 1, allow_nan=False),
)


def log(rows: list[tuple[str, int, int, float]], version: int) -> pa.Table:
    """Return a log: request id, row, seconds until the answer, prediction."""
    instants = [pa.scalar(1_000_000_000 + 1_000_000 * seconds, pa.int64()).as_py() for _, _, seconds, _ in rows]
    return pa.table(
        {
            "request_id": pa.array([row[0] for row in rows], pa.string()),
            "row": pa.array([row[1] for row in rows], pa.int32()),
            "served_at": pa.array(instants, pa.int64()).cast(TIMESTAMP),
            "as_of": pa.array([1_000_000_000] * len(rows), pa.int64()).cast(TIMESTAMP),
            "route": pa.array(["predict"] * len(rows), pa.string()),
            "model_version": pa.array([version] * len(rows), pa.int64()),
            "prediction": pa.array([row[3] for row in rows], pa.float64()),
        }
    )


def first(rows: list[tuple[str, int, int, float]]) -> dict[tuple[str, int], tuple[str, int, int, float]]:
    kept: dict[tuple[str, int], Any] = {}
    for row in rows:
        if row[:2] not in kept or row[2] < kept[row[:2]][2]:
            kept[row[:2]] = row
    return kept


def distinct_times(rows: list[tuple[str, int, int, float]]) -> list[tuple[str, int, int, float]]:
    """Two answers of one row at the same microsecond have no first: keep one."""
    return list({row[:3]: row for row in rows}.values())


@settings(deadline=None)
@given(st.lists(ROWS, max_size=40), st.lists(ROWS, max_size=40))
def test_the_report_is_what_a_dictionary_says(one: Any, other: Any) -> None:
    one, other = distinct_times(one), distinct_times(other)
    served, shadow = first(one), first(other)
    both = sorted(served.keys() & shadow.keys())
    if not both:
        with pytest.raises(DataError, match="no request was answered by both"):
            compare(log(one, 3), log(other, 4))
        return
    report = compare(log(one, 3), log(other, 4), threshold=0.5)
    difference = [shadow[key][3] - served[key][3] for key in both]
    assert report.matched_rows == len(both)
    assert (report.served_rows, report.shadow_rows) == (len(served), len(shadow))
    assert (report.served_versions, report.shadow_versions) == ([3], [4])
    assert math.isclose(report.mean_difference, sum(difference) / len(both), abs_tol=1e-12)
    assert math.isclose(report.mean_absolute_difference, sum(map(abs, difference)) / len(both), abs_tol=1e-12)
    assert report.max_absolute_difference == max(map(abs, difference))
    assert report.absolute_difference.p50 == pytest.approx(float(np.median(np.abs(difference))))
    flipped = sum((served[key][3] >= 0.5) != (shadow[key][3] >= 0.5) for key in both)
    assert report.flipped_share == pytest.approx(flipped / len(both))
    assert report.served_seconds is not None
    assert report.served_seconds.p50 == pytest.approx(float(np.median([row[2] for row in served.values()])))


def test_without_a_threshold_nothing_flips() -> None:
    report = compare(log([("a", 0, 1, 0.2)], 3), log([("a", 0, 1, 0.9)], 4))
    assert (report.threshold, report.flipped_share) == (None, None)


def test_requests_of_the_past_tell_no_time() -> None:
    old = log([("a", 0, 5, 0.2)], 3)
    old = old.set_column(old.schema.get_field_index("as_of"), "as_of", pa.array([0], pa.int64()).cast(TIMESTAMP))
    assert compare(old, log([("a", 0, 1, 0.9)], 4)).served_seconds is None


def test_two_empty_logs_have_nothing_in_common() -> None:
    with pytest.raises(DataError, match="0 served rows, 0 rows of the shadow"):
        compare(log([], 3), log([], 4))
