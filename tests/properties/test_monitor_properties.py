"""Rules of the monitor that hold for every input."""

from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from components.core.bootstrap import Interval
from components.core.calendar import last_window
from components.monitor.performance import judge_metric
from components.monitor.units import CONVERSIONS, key, undo

instants = st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
units = st.sampled_from(["day", "week", "month"])
delays = st.integers(0, 24 * 60).map(lambda hours: timedelta(hours=hours))


@given(units, instants, delays)
def test_a_window_is_the_newest_that_has_matured(unit: str, as_of: datetime, delay: timedelta) -> None:
    window = last_window(unit, as_of, delay)
    assert window.last <= as_of - delay
    assert window.first < window.last
    # The one after it has not matured.
    assert last_window(unit, window.last, timedelta(0)) == window
    following = last_window(unit, window.last + timedelta(days={"day": 1, "week": 7, "month": 31}[unit]), timedelta(0))
    assert following.last > as_of - delay


@given(units, instants, delays)
def test_windows_touch_and_never_overlap(unit: str, as_of: datetime, delay: timedelta) -> None:
    window = last_window(unit, as_of, delay)
    before = last_window(unit, window.first, timedelta(0))
    assert before.last == window.first


@given(units, instants)
def test_windows_are_whole_calendar_units(unit: str, as_of: datetime) -> None:
    window = last_window(unit, as_of, timedelta(0))
    for edge in (window.first, window.last):
        assert (edge.hour, edge.minute, edge.second, edge.microsecond) == (0, 0, 0, 0)
        assert unit != "week" or edge.weekday() == 0
        assert unit != "month" or edge.day == 1


@given(instants, delays, st.timedeltas(timedelta(0), timedelta(days=1)))
def test_every_instant_between_two_ends_gives_the_same_window(
    as_of: datetime, delay: timedelta, later: timedelta
) -> None:
    now, then = (last_window("week", instant, delay) for instant in (as_of, as_of + later))
    assert then.last >= now.last
    assert (then == now) == (as_of + later - delay < now.last + timedelta(days=7))


@given(
    st.sampled_from(CONVERSIONS),
    st.lists(st.floats(-1e6, 1e6).filter(lambda v: v == 0 or abs(v) > 1e-2), min_size=1, max_size=50),
)
def test_undoing_a_conversion_finds_the_values_again(conversion: object, values: list[float]) -> None:
    old = np.array(values)
    new = conversion.factor * old + conversion.offset  # type: ignore[attr-defined]
    again = undo(conversion, new)  # type: ignore[arg-type]
    assert np.allclose(again, old, rtol=1e-9, atol=1e-6)
    assert (key(old) == key(old.copy())).all()


@given(st.floats(0.001, 1e5), st.floats(1.0001, 3))
def test_keys_tell_values_apart_that_differ_in_the_fourth_digit(value: float, factor: float) -> None:
    assert key(np.array([value])) != key(np.array([value * factor]))


values = st.floats(0.3, 0.9)
intervals = st.tuples(values, st.floats(0, 0.2), st.floats(0, 0.2)).map(
    lambda v: Interval(estimate=v[0], low=v[0] - v[1], high=v[0] + v[2])
)


@given(intervals, intervals, st.sampled_from(["auc", "logloss"]))
def test_a_metric_fell_only_where_it_is_worse_and_surely_so(window: Interval, gate: Interval, metric: str) -> None:
    found = judge_metric(metric, window, gate, rows=1000, days=30, min_rows=300)
    assert None not in (window.estimate, window.low, window.high, gate.estimate, gate.low, gate.high)
    if metric == "auc":
        expected = window.estimate < gate.low and window.high < gate.estimate
    else:
        expected = window.estimate > gate.high and window.low > gate.estimate
    assert found.fell is expected
    # An equal window never fell.
    assert judge_metric(metric, gate, gate, rows=1000, days=30, min_rows=300).fell is False
