"""Calendar windows: which span of predictions is judged at an instant."""

from datetime import UTC, datetime, timedelta
from typing import Literal

from components.core.evidence import Window

Unit = Literal["day", "week", "month"]
LONGEST = {"day": timedelta(days=1), "week": timedelta(days=7), "month": timedelta(days=31)}


def last_window(unit: Unit, as_of: datetime, label_delay: timedelta) -> Window:
    """Return the newest calendar window, in UTC, that ended at least `label_delay` before `as_of`.

    Every instant between two ends gives the same window, so that late and repeated monitors judge the same thing.
    """
    last = _floor(unit, as_of.astimezone(UTC) - label_delay)
    return Window(first=_floor(unit, last - timedelta(microseconds=1)), last=last)


def window_of(unit: Unit, instant: datetime) -> Window:
    """Return the calendar window, in UTC, that an instant lies in."""
    first = _floor(unit, instant.astimezone(UTC))
    return Window(first=first, last=_floor(unit, first + LONGEST[unit]))


def _floor(unit: Unit, instant: datetime) -> datetime:
    """Return the start of the calendar unit that an instant lies in; weeks start on Monday (ISO 8601)."""
    day = instant.replace(hour=0, minute=0, second=0, microsecond=0)
    if unit == "month":
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if unit == "week" else day
