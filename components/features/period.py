"""A period of whole UTC days."""

from datetime import UTC, datetime, time, timedelta

from components.core.clock import parse_instant
from components.core.errors import ConfigError

DAY = timedelta(days=1)


def whole_days(first: str, last: str, *, as_of: datetime) -> tuple[datetime, datetime]:
    """Return the period [first, last) of ISO 8601 days in UTC that were over at `as_of`.

    An empty `last` is the day of `as_of`, an empty `first` the day before `last`: yesterday. A day that is not over is
    refused, because a scored day is final. Raises ConfigError for anything else than whole days in order.
    """
    today = datetime.combine(as_of.astimezone(UTC).date(), time(tzinfo=UTC))
    end = _day(last, "last") if last else today
    start = _day(first, "first") if first else end - DAY
    if start >= end:
        raise ConfigError(
            "the period to score is empty",
            measured=f"{start.date()} to {end.date()}",
            allowed="first before last; last itself is not part of the period",
        )
    if end > today:
        raise ConfigError(
            "the period to score has not ended",
            measured=f"last {end.date()}",
            allowed=f"up to {today.date()}, since data is known as of {as_of.isoformat()}",
            next_step="choose an earlier last day, or a later as_of",
        )
    return start, end


def _day(text: str, what: str) -> datetime:
    instant = parse_instant(text, what=what)
    if instant != datetime.combine(instant.date(), time(tzinfo=UTC)):
        raise ConfigError(f"{what} is not a whole UTC day", measured=text, allowed="2013-04-01")
    return instant
