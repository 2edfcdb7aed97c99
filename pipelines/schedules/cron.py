"""Cron expressions as KFP's controller reads them: six fields, seconds first, in UTC.

The grammar is robfig/cron v1.2 (`parser.go`, `spec.go`), which KFP 2.17 links. Where that one accepts what it then
misreads, this one refuses: five fields, which it takes for seconds to months; empty lists, which never match; `*-5`,
whose end it drops.
"""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from components.core.errors import ConfigError

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class Bounds(NamedTuple):
    name: str
    low: int
    high: int
    names: dict[str, int]


FIELDS = (
    Bounds("seconds", 0, 59, {}),
    Bounds("minutes", 0, 59, {}),
    Bounds("hours", 0, 23, {}),
    Bounds("day of month", 1, 31, {}),
    Bounds("month", 1, 12, {name: number for number, name in enumerate(MONTHS, 1)}),
    Bounds("day of week", 0, 6, {name: number for number, name in enumerate(WEEKDAYS)}),
)
DESCRIPTORS = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
SIX = "six fields: seconds minutes hours day-of-month month day-of-week"
YEARS_SEARCHED = 5
"""KFP's controller looks no farther; when it finds nothing until then it searches for ever."""
CYCLE = (date(2001, 1, 1), date(2041, 1, 1))
"""Holds every combination of leap year and weekday of this century."""


class Cron(NamedTuple):
    """An expression as the values that each field allows."""

    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    both_days: bool
    """Day of month and day of week must both match: one of them has a star. Otherwise either is enough."""

    def on(self, day: date) -> bool:
        """Return whether it fires on a day."""
        if day.month not in self.months:
            return False
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (of_month and of_week) if self.both_days else (of_month or of_week)


def parse_cron(text: str) -> Cron:
    """Read an expression.

    Raises ConfigError for another number of fields, what a field does not allow, `@every`, and an expression that fires
    never or so rarely that KFP's controller would search for ever.
    """
    spelled = DESCRIPTORS.get(text.strip(), text)
    if spelled.strip().startswith("@"):
        raise _wrong(text, "unknown descriptor", allowed=", ".join(DESCRIPTORS) + f", or {SIX}")
    fields = spelled.split()
    if len(fields) == len(FIELDS) - 1:
        raise _wrong(
            text,
            "five fields, which KFP would read as seconds to month",
            allowed=SIX,
            next_step=f"put the seconds first: {' '.join(['0', *fields])!r}",
        )
    if len(fields) != len(FIELDS):
        raise _wrong(text, f"{len(fields)} fields", allowed=SIX)
    seconds, minutes, hours, days, months, weekdays = (
        _values(text, field, bounds) for field, bounds in zip(fields, FIELDS, strict=True)
    )
    starred = any(part[0] in "*?" for field in (fields[3], fields[5]) for part in field.split(","))
    cron = Cron(seconds, minutes, hours, days, months, weekdays, both_days=starred)
    _require_firing(text, cron)
    return cron


def next_after(cron: Cron, instant: datetime) -> datetime | None:
    """Return the first instant after another one at which it fires; None when there is none in the next five years."""
    return next(fire_times(cron, instant), None)


def fire_times(cron: Cron, after: datetime) -> Iterator[datetime]:
    """Yield the instants after another one at which it fires, in order and in UTC."""
    after = after.astimezone(UTC)
    day, found = after.date(), after
    while day.year <= found.year + YEARS_SEARCHED:
        if cron.on(day):
            for hour in sorted(cron.hours):
                if day == after.date() and hour < after.hour:
                    continue
                for minute in sorted(cron.minutes):
                    for second in sorted(cron.seconds):
                        fires = datetime.combine(day, time(hour, minute, second), tzinfo=UTC)
                        if fires > after:
                            found = fires
                            yield fires
        day += timedelta(days=1)


def _values(text: str, field: str, bounds: Bounds) -> frozenset[int]:
    return frozenset(value for part in field.split(",") for value in _range(text, part, bounds))


def _range(text: str, part: str, bounds: Bounds) -> range:
    """Return the values of `*`, `?`, `N`, `N-M`, each with an optional `/STEP`; `N/STEP` runs to the field's end."""
    span, slash, step = part.partition("/")
    low, hyphen, high = span.partition("-")
    if slash and (not step.isdecimal() or int(step) == 0):
        raise _wrong(text, f"{bounds.name}: step {step!r}", allowed="a number above 0")
    if low in ("*", "?") and not hyphen:
        first, last = bounds.low, bounds.high
    else:
        first = _number(text, low, bounds)
        last = _number(text, high, bounds) if hyphen else bounds.high if slash else first
    if first > last:
        raise _wrong(text, f"{bounds.name}: {part}", allowed="a range that does not go backwards; list two ranges")
    return range(first, last + 1, int(step) if slash else 1)


def _number(text: str, word: str, bounds: Bounds) -> int:
    value = bounds.names.get(word.lower(), int(word) if re.fullmatch(r"[0-9]{1,9}", word) else None)
    if value is None or not bounds.low <= value <= bounds.high:
        names = f" or {', '.join(bounds.names)}" if bounds.names else ""
        raise _wrong(text, f"{bounds.name}: {word!r}", allowed=f"{bounds.low} to {bounds.high}{names}")
    return value


def _require_firing(text: str, cron: Cron) -> None:
    first, end = CYCLE
    year, day = first.year, first
    while day < end:
        if cron.on(day):
            year = day.year
        elif day.year > year + YEARS_SEARCHED:
            raise _wrong(
                text,
                f"no such day in more than {YEARS_SEARCHED} years, and KFP's controller searches for ever then",
                allowed="a day that comes at least every five years",
            )
        day += timedelta(days=1)


def _wrong(text: str, problem: str, *, allowed: str, next_step: str = "") -> ConfigError:
    return ConfigError(
        f"cron {text!r} is not usable: {problem}", allowed=allowed, next_step=next_step or "correct `cron`"
    )
