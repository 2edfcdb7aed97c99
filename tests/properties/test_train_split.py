"""What the time split promises for any instants, delays and lengths."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import DataError
from components.core.sections import Train
from components.train.split import split_by_time

HOUR = np.timedelta64(1, "h")


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, Train]:
    """Draw prediction instants, label instants and lengths; one timely row keeps each part from being empty."""
    holdout, validation = draw(st.integers(2, 30)), draw(st.integers(1, 30))
    begins = 24 * (90 - holdout - validation)
    anchors = [begins - 1, begins, 24 * 90]
    hours = draw(st.lists(st.integers(0, 24 * 90), max_size=80))
    delays = draw(st.lists(st.integers(0, 24 * 10), min_size=len(hours), max_size=len(hours)))
    predicted = np.datetime64("2024-01-01T00:00:00", "us") + np.array([*hours, *anchors]) * HOUR
    config = Train.model_validate(
        {
            "trainer": {"kind": "xgboost"},
            "holdout_days": holdout,
            "validation_days": validation,
            "window_days": draw(st.integers(0, 40)),
        }
    )
    return predicted, predicted + np.array([*delays, 0, 0, 0]) * HOUR, config


def micros(instant: datetime) -> np.datetime64:
    return np.datetime64(instant.astimezone(UTC).replace(tzinfo=None), "us")


@given(cases())
def test_parts_are_disjoint_and_in_order(case: tuple[np.ndarray, np.ndarray, Train]) -> None:
    predicted, _, _ = case
    split = split_by_time(*case)
    parts = (split.training, split.validation, split.holdout)
    assert len(np.unique(np.concatenate(parts))) == sum(map(len, parts))
    assert predicted[split.training].max() < micros(split.validation_from) <= predicted[split.validation].min()
    assert predicted[split.validation].max() < micros(split.holdout_from) <= predicted[split.holdout].min()


@given(cases())
def test_no_label_is_used_before_it_was_known(case: tuple[np.ndarray, np.ndarray, Train]) -> None:
    _, known, _ = case
    split = split_by_time(*case)
    assert known[split.training].max() < micros(split.validation_from)
    assert known[split.validation].max() < micros(split.holdout_from)


@given(cases())
def test_only_late_labels_and_the_window_leave_rows_out(case: tuple[np.ndarray, np.ndarray, Train]) -> None:
    predicted, known, config = case
    split = split_by_time(*case)
    left_out = np.ones(len(predicted), dtype=bool)
    left_out[np.concatenate([split.training, split.validation, split.holdout])] = False
    validation_from, holdout_from = micros(split.validation_from), micros(split.holdout_from)
    window_from = validation_from - np.timedelta64(config.window_days, "D") if config.window_days else predicted.min()
    late = (predicted < validation_from) & (known >= validation_from)
    late |= (predicted >= validation_from) & (predicted < holdout_from) & (known >= holdout_from)
    assert np.array_equal(left_out, late | (predicted < window_from))


@given(cases())
def test_the_parts_have_the_declared_lengths(case: tuple[np.ndarray, np.ndarray, Train]) -> None:
    predicted, _, config = case
    split = split_by_time(*case)
    assert (split.holdout_from - split.validation_from).days == config.validation_days
    assert predicted.max() - micros(split.holdout_from) == np.timedelta64(config.holdout_days, "D")


@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(case: tuple[np.ndarray, np.ndarray, Train], random: object) -> None:
    predicted, known, config = case
    split = split_by_time(*case)
    order = np.array(random.sample(range(len(predicted)), len(predicted)))  # type: ignore[attr-defined]
    shuffled = split_by_time(predicted[order], known[order], config)
    assert shuffled.holdout_from == split.holdout_from
    for name in ("training", "validation", "holdout"):
        assert sorted(order[getattr(shuffled, name)]) == list(getattr(split, name))


def test_no_rows_at_all_is_an_error() -> None:
    nothing = np.array([], dtype="datetime64[us]")
    with pytest.raises(DataError, match="no labelled rows"):
        split_by_time(nothing, nothing, Train.model_validate({"trainer": {"kind": "xgboost"}}))


@pytest.mark.parametrize(
    ("days", "part"), [([0, 30], "validation"), ([25, 30], "training"), ([0, 25, 30], None)], ids=str
)
def test_an_empty_part_is_named(days: list[int], part: str | None) -> None:
    predicted = np.datetime64("2024-01-01", "us") + np.array(days) * np.timedelta64(1, "D")
    config = Train.model_validate({"trainer": {"kind": "xgboost"}, "holdout_days": 2, "validation_days": 7})
    if part is None:
        assert len(split_by_time(predicted, predicted, config).training) == 1
        return
    with pytest.raises(DataError, match=f"the {part} part has no rows") as caught:
        split_by_time(predicted, predicted, config)
    assert "holdout_days" in caught.value.next_step
