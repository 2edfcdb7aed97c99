"""The virtual clock: every window is judged once, every day is scored once, and the monitor agrees about the window."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.calendar import last_window, window_of
from components.core.errors import ConfigError
from components.core.sections import Monitor
from pipelines.replay.clock import ceil_day, parse_span, plan_ticks

UNITS = st.sampled_from(["day", "week", "month"])
INSTANTS = st.integers(0, 6_000_000).map(
    lambda minutes: datetime(2012, 1, 1, tzinfo=UTC) + timedelta(minutes=3 * minutes)
)


def section(unit: str, delay_hours: int) -> Monitor:
    return Monitor.model_validate({"window": unit, "label_delay_hours": delay_hours, "cooldown_hours": delay_hours})


@given(UNITS, INSTANTS, st.integers(0, 120), st.integers(0, 400))
def test_ticks_cover_the_span_once_and_name_the_window_that_the_monitor_judges(
    unit: str, instant: datetime, delay_hours: int, days: int
) -> None:
    config = section(unit, delay_hours)
    first = window_of(config.window, instant).first
    last = first + timedelta(days=days)
    if window_of(config.window, first).last > last:
        with pytest.raises(ConfigError, match="no whole"):
            plan_ticks(config, first, last)
        return
    ticks = plan_ticks(config, first, last)
    delay = timedelta(hours=delay_hours)
    assert ticks[0].scored_from == ticks[0].window.first == first
    for tick in ticks:
        assert tick.window == last_window(config.window, tick.as_of, delay)
        assert tick.window.last + delay <= tick.as_of < tick.window.last + delay + timedelta(days=1)
        assert tick.as_of == ceil_day(tick.as_of)
    for earlier, later in pairwise(ticks):
        assert earlier.window.last == later.window.first
        assert earlier.as_of == later.scored_from
    assert ticks[-1].window.last <= last < window_of(config.window, ticks[-1].window.last).last


def test_months_and_days_are_spans_with_both_ends_included() -> None:
    assert parse_span("2013-04", "2013-12") == (datetime(2013, 4, 1, tzinfo=UTC), datetime(2014, 1, 1, tzinfo=UTC))
    assert parse_span("2013-04-08", "2013-04-14") == (
        datetime(2013, 4, 8, tzinfo=UTC),
        datetime(2013, 4, 15, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("first", "until", "message"),
    [
        ("2013-13", "2014-01", "--from is not an ISO 8601"),
        ("April", "2014-01", "--from is not an ISO 8601"),
        ("2013-04", "soon", "--until is not an ISO 8601"),
        ("2013-04", "2013-02", "--until lies before --from"),
    ],
)
def test_a_span_that_is_none_is_refused(first: str, until: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_span(first, until)


def test_a_begin_inside_a_window_is_refused_with_both_neighbours() -> None:
    with pytest.raises(ConfigError, match="not the first day of a month; measured: 2013-04-10") as refused:
        plan_ticks(section("month", 48), datetime(2013, 4, 10, tzinfo=UTC), datetime(2014, 1, 1, tzinfo=UTC))
    assert refused.value.allowed == "2013-04-01 or 2013-05-01"
