"""Joining labels equals its definition, row by row, for labels that are late, doubled, corrected or never come."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import DataError
from components.core.label_join import by_entity, join_labels
from components.core.tables import TIMESTAMP

START = datetime(2013, 4, 1, tzinfo=UTC)
hours = st.integers(0, 5).map(lambda n: START + timedelta(hours=n))
carriers = st.sampled_from(["AA", "B6", None])
badges = st.sampled_from([1, 2**62, None])
ON = by_entity(["carrier", "badge"])

predictions = st.lists(st.fixed_dictionaries({"key_carrier": carriers, "key_badge": badges, "as_of": hours}))
labels = st.lists(
    st.fixed_dictionaries(
        {
            "ride": st.integers(0, 2),
            "carrier": carriers,
            "badge": badges,
            "event_timestamp": hours,
            "label_timestamp": st.none() | hours,
            "created_timestamp": hours,
            "is_late": st.none() | st.sampled_from([0.0, 1.0]),
        }
    ),
    max_size=30,
)
MINE = pa.schema({"key_carrier": pa.string(), "key_badge": pa.int64(), "as_of": TIMESTAMP})
THEIRS = pa.schema(
    {
        "ride": pa.int64(),
        "carrier": pa.string(),
        "badge": pa.int64(),
        "event_timestamp": TIMESTAMP,
        "label_timestamp": TIMESTAMP,
        "created_timestamp": TIMESTAMP,
        "is_late": pa.float64(),
    }
)


def join(mine: list[Any], theirs: list[Any], as_of: datetime, ids: tuple[str, ...] = ()) -> pa.Table:
    left, right = pa.Table.from_pylist(mine, MINE), pa.Table.from_pylist(theirs, THEIRS)
    return join_labels(left, right, on=ON, label="is_late", as_of=as_of, ids=ids)


def known_versions(row: Any, theirs: list[Any], as_of: datetime) -> list[Any]:
    """Return the labels of a prediction that were known, the one that became known last at the end."""
    found = [
        other
        for other in theirs
        if other["is_late"] is not None
        and other["label_timestamp"] is not None
        and other["label_timestamp"] <= as_of
        and all(row[mine] == other[its] for mine, its in ON.items())
    ]
    return sorted(found, key=lambda other: (other["label_timestamp"], other["created_timestamp"]))


@given(mine=predictions, theirs=labels, as_of=hours, with_ids=st.booleans())
def test_it_equals_its_definition(mine: list[Any], theirs: list[Any], as_of: datetime, with_ids: bool) -> None:
    joined = join(mine, theirs, as_of, ("ride",) if with_ids else ())
    assert joined.select(MINE.names).to_pylist() == mine
    for row, given_label in zip(mine, joined.select(["label", "label_timestamp"]).to_pylist(), strict=True):
        versions = known_versions(row, theirs, as_of)
        if not versions or (with_ids and len({version["ride"] for version in versions}) > 1):
            assert given_label == {"label": None, "label_timestamp": None}
        else:
            last = versions[-1]
            assert given_label == {"label": last["is_late"], "label_timestamp": last["label_timestamp"]}


@given(mine=predictions, theirs=labels, more=labels, as_of=hours)
def test_what_becomes_known_later_changes_no_earlier_answer(
    mine: list[Any], theirs: list[Any], more: list[Any], as_of: datetime
) -> None:
    later = [label for label in more if label["label_timestamp"] is None or label["label_timestamp"] > as_of]
    assert join(mine, theirs + later, as_of).equals(join(mine, theirs, as_of))


@given(mine=predictions, theirs=labels, as_of=hours)
def test_a_label_that_arrives_twice_counts_once(mine: list[Any], theirs: list[Any], as_of: datetime) -> None:
    joined = join(mine, theirs * 2, as_of)
    assert joined.num_rows == len(mine)
    assert joined.equals(join(mine, theirs, as_of))


@given(theirs=labels, as_of=hours)
def test_the_order_of_predictions_does_not_matter(theirs: list[Any], as_of: datetime) -> None:
    mine = [{"key_carrier": t["carrier"], "key_badge": t["badge"], "as_of": t["event_timestamp"]} for t in theirs]
    forward = join(mine, theirs, as_of).column("label").to_pylist()
    assert join(mine[::-1], theirs, as_of).column("label").to_pylist() == forward[::-1]


def test_callers_may_name_their_requests() -> None:
    left = pa.table({"request_id": ["7", "8", "7"], "prediction": [0.1, 0.2, 0.3]})
    right = pa.Table.from_pylist(
        [{"ride": 7, "is_late": 1.0, "label_timestamp": START, "event_timestamp": START}], THEIRS
    )
    joined = join_labels(left, right, on={"request_id": "ride"}, label="is_late", as_of=START)
    assert joined.column("label").to_pylist() == [1.0, None, 1.0]


def test_columns_that_are_missing_or_do_not_compare_are_named() -> None:
    left, right = MINE.empty_table(), THEIRS.empty_table()
    with pytest.raises(DataError, match="tail"):
        join_labels(left, right, on={"key_carrier": "tail"}, label="is_late", as_of=START)
    with pytest.raises(DataError, match="missing"):
        join_labels(left, right, on=ON, label="delay", as_of=START)
    numbers = pa.table({"key_badge": [1]})
    texts = pa.Table.from_pylist([{"carrier": "AA", "label_timestamp": START, "is_late": 1.0}], THEIRS)
    with pytest.raises(DataError, match="does not compare"):
        join_labels(numbers, texts, on={"key_badge": "carrier"}, label="is_late", as_of=START)
