"""A replacement waits for a moment in which no tick is due."""

from datetime import UTC, datetime, timedelta
from itertools import takewhile

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.schedules.cron import fire_times, parse_cron
from pipelines.schedules.quiet import AFTER_TICK, BEFORE_TICK, LONGEST_WAIT, seconds_until_quiet

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
CRONS = st.sampled_from(
    ["0 0 * * * *", "0 */5 * * * *", "30 * * * * *", "*/30 * * * * *", "0 0 6 * * MON", "10 0,1 * * * *"]
)


@settings(max_examples=80, deadline=None)
@given(st.lists(CRONS, min_size=1, max_size=2), st.integers(0, 7200))
def test_the_wait_is_the_shortest_that_ends_in_a_quiet_moment(crons: list[str], offset: int) -> None:
    """Looked for second by second."""
    now = NOON + timedelta(seconds=offset)
    longest = int(LONGEST_WAIT.total_seconds())
    since, until = now - AFTER_TICK - timedelta(seconds=1), now + LONGEST_WAIT + BEFORE_TICK
    ticks = [t for cron in crons for t in takewhile(lambda t: t <= until, fire_times(parse_cron(cron), since))]
    moments = [now + timedelta(seconds=second) for second in range(longest + 1)]
    quiet = [m for m in moments if not any(m - AFTER_TICK < tick <= m + BEFORE_TICK for tick in ticks)]
    wait = seconds_until_quiet([parse_cron(cron) for cron in crons], now)
    assert wait == ((quiet[0] - now).total_seconds() if quiet else 0)


def test_a_plan_applied_at_the_full_hour_lets_the_hourly_run_start_first() -> None:
    assert seconds_until_quiet([parse_cron("@hourly")], NOON) == 45
    assert seconds_until_quiet([parse_cron("@hourly")], NOON + timedelta(minutes=30)) == 0
    assert seconds_until_quiet([parse_cron("@hourly")], NOON - timedelta(seconds=10)) == 55
    # Every 30 s there is no such moment, and waiting would not help.
    assert seconds_until_quiet([parse_cron("*/30 * * * * *")], NOON) == 0
