"""Cron expressions are read as KFP's controller reads them, and what it would misread is refused."""

import calendar
from datetime import UTC, date, datetime, timedelta
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.errors import ConfigError
from pipelines.schedules.cron import FIELDS, fire_times, next_after, parse_cron

BOUNDS = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]
START = datetime(2004, 1, 1, tzinfo=UTC)
INSTANTS = st.integers(0, 32 * 365 * 86_400).map(lambda seconds: START + timedelta(seconds=seconds))


@st.composite
def parts(draw: st.DrawFn, low: int, high: int) -> str:
    """Draw what stands between two commas."""
    first = draw(st.integers(low, high))
    span = draw(
        st.sampled_from(["*", "?", str(first), f"{first}-{draw(st.integers(first, high))}"]),
    )
    return span + draw(st.one_of(st.just(""), st.integers(1, high).map(lambda step: f"/{step}")))


@st.composite
def expressions(draw: st.DrawFn) -> str:
    fields = []
    for low, high in BOUNDS:
        listed = st.lists(parts(low, high), min_size=1, max_size=3).map(",".join)
        fields.append(draw(st.one_of(st.just("*"), listed)))
    return " ".join(fields)


def matches(expression: str, instant: datetime) -> bool:
    """Decide by the definition whether an expression names an instant: an oracle that steps through nothing."""
    values = [instant.second, instant.minute, instant.hour, instant.day, instant.month, instant.isoweekday() % 7]
    hits = [
        any(_in_part(part, value, *bounds) for part in field.split(","))
        for field, value, bounds in zip(expression.split(), values, BOUNDS, strict=True)
    ]
    day_fields = (expression.split()[3], expression.split()[5])
    starred = any(part.startswith(("*", "?")) for field in day_fields for part in field.split(","))
    days = (hits[3] and hits[5]) if starred else (hits[3] or hits[5])
    return all(hits[:3]) and hits[4] and days


def _in_part(part: str, value: int, low: int, high: int) -> bool:
    span, _, step = part.partition("/")
    if span in ("*", "?"):
        first, last = low, high
    else:
        left, hyphen, right = span.partition("-")
        first = int(left)
        last = int(right) if hyphen else high if step else first
    return first <= value <= last and (value - first) % int(step or 1) == 0


def scan(expression: str, after: datetime, seconds: int) -> list[datetime]:
    """Look at every second of a span."""
    start = after.replace(microsecond=0)
    return [t for n in range(1, seconds + 1) if matches(expression, t := start + timedelta(seconds=n))]


@settings(max_examples=60, deadline=None)
@given(expressions(), INSTANTS)
def test_every_second_of_half_an_hour_agrees_with_the_definition(expression: str, after: datetime) -> None:
    try:
        cron = parse_cron(expression)
    except ConfigError as error:
        assert "no such day" in error.what  # noqa: PT017, most expressions are fine
        return
    span = timedelta(seconds=1800)
    end = after.replace(microsecond=0) + span
    found = []
    for tick in fire_times(cron, after):
        if tick > end:
            break
        found.append(tick)
    assert found == scan(expression, after, 1800)


@settings(max_examples=60, deadline=None)
@given(expressions(), INSTANTS)
def test_the_next_tick_is_named_and_no_day_before_it_is(expression: str, after: datetime) -> None:
    try:
        cron = parse_cron(expression)
    except ConfigError:
        return
    tick = next_after(cron, after)
    assert tick is not None
    assert tick > after
    assert matches(expression, tick)
    day = after.date() + timedelta(days=1)
    while day < tick.date():
        assert not cron.on(day)
        day += timedelta(days=1)
    midnight = tick.replace(hour=0, minute=0, second=0) - timedelta(seconds=1)
    since = max(after.replace(microsecond=0), midnight, tick - timedelta(hours=1))
    found = scan(expression, since, int((tick - since).total_seconds()))
    assert found == [tick]


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(1, 12), min_size=1, max_size=3), st.integers(1, 31), st.sampled_from(["*", "?"]))
def test_dates_that_no_month_has_are_refused(months: set[int], day: int, star: str) -> None:
    """A controller that finds no next tick looks for it for ever, so that no other schedule fires either."""
    expression = f"0 0 0 {day} {','.join(map(str, sorted(months)))} {star}"
    exists = any(day <= calendar.monthrange(2024, month)[1] for month in months)
    if exists:
        assert next_after(parse_cron(expression), datetime(2025, 1, 1, tzinfo=UTC)) is not None
    else:
        with pytest.raises(ConfigError, match="no such day"):
            parse_cron(expression)


def test_a_leap_day_is_fine_and_a_leap_day_on_a_sunday_too_rare() -> None:
    leap = parse_cron("0 0 0 29 2 ?")
    assert next_after(leap, datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2028, 2, 29, tzinfo=UTC)
    with pytest.raises(ConfigError, match="more than 5 years"):
        parse_cron("0 0 0 29 2 */7")
    # Without a star either day is enough: every Monday of February, and the 30th that never comes.
    assert next_after(parse_cron("0 0 0 30 2 MON"), datetime(2026, 1, 1, tzinfo=UTC)) == datetime(
        2026, 2, 2, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("expression", "ticks"),
    [
        ("0 30 6 * * MON", ["2026-11-30 06:30:00", "2026-12-07 06:30:00"]),
        ("0 0 9-17/4 ? * mon-fri", ["2026-11-25 13:00:00", "2026-11-25 17:00:00"]),
        ("5/20 * * * * *", ["2026-11-25 12:00:05", "2026-11-25 12:00:25"]),
        ("0 0 0 1 Jan,JUL ?", ["2027-01-01 00:00:00", "2027-07-01 00:00:00"]),
        ("0 0 0 31 * *", ["2026-12-31 00:00:00", "2027-01-31 00:00:00"]),
        ("@daily", ["2026-11-26 00:00:00", "2026-11-27 00:00:00"]),
        ("@weekly", ["2026-11-29 00:00:00", "2026-12-06 00:00:00"]),
        ("@monthly", ["2026-12-01 00:00:00", "2027-01-01 00:00:00"]),
        ("@yearly", ["2027-01-01 00:00:00", "2028-01-01 00:00:00"]),
        ("@hourly", ["2026-11-25 13:00:00", "2026-11-25 14:00:00"]),
    ],
)
def test_known_expressions(expression: str, ticks: list[str]) -> None:
    found = islice(fire_times(parse_cron(expression), datetime(2026, 11, 25, 12, tzinfo=UTC)), 2)
    assert [f"{tick:%Y-%m-%d %H:%M:%S}" for tick in found] == ticks


def test_five_fields_are_refused_with_the_six_that_were_meant() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_cron("30 6 * * MON")
    assert "five fields" in caught.value.what
    assert caught.value.next_step == "put the seconds first: '0 30 6 * * MON'"
    parse_cron("0 30 6 * * MON")


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * *",
        "* * * * * * *",
        "60 * * * * *",
        "* 60 * * * *",
        "* * 24 * * *",
        "* * * 0 * *",
        "* * * 32 * *",
        "* * * * 13 *",
        "* * * * * 7",
        "* * * * MON *",
        "* * * * * JAN",
        "* * * * * monday",
        "*/0 * * * * *",
        "*/x * * * * *",
        "1//2 * * * * *",
        "1-2-3 * * * * *",
        "10-5 * * * * *",
        "-1 * * * * *",
        "+1 * * * * *",
        "1,,2 * * * * *",
        ", * * * * *",
        "*-5 * * * * *",
        "L * * * * *",
        "* * * 15W * *",
        "@every 5m",
        "@Daily",
        "@reboot",
        "TZ=UTC 0 * * * * *",
    ],
)
def test_what_the_grammar_has_not_is_refused(expression: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_cron(expression)
    assert repr(expression) in caught.value.what
    assert caught.value.allowed


def test_the_fields_of_the_oracle_are_those_of_the_parser() -> None:
    assert [(field.low, field.high) for field in FIELDS] == BOUNDS
    assert date(2026, 11, 29).isoweekday() % 7 == 0
