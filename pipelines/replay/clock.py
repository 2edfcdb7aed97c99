"""The virtual clock of a replay: one tick per calendar window, when its labels are known."""

from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict

from components.core.calendar import window_of
from components.core.clock import parse_instant
from components.core.errors import ConfigError
from components.core.evidence import Window
from components.core.sections import Monitor

DAY = timedelta(days=1)


class Tick(BaseModel):
    """What happens at one instant: the days since the last tick are scored, then a window is judged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: Window
    scored_from: datetime
    as_of: datetime
    """Midnight UTC: scoring goes by whole days."""


def plan_ticks(config: Monitor, first: datetime, last: datetime) -> list[Tick]:
    """Return the ticks for all windows from the one that begins at `first` to the one that ends at or before `last`.

    Raises ConfigError when `first` is not the begin of a window or no window fits.
    """
    window = window_of(config.window, first)
    if window.first != first:
        raise ConfigError(
            f"--from is not the first day of a {config.window}",
            measured=first.date(),
            allowed=f"{window.first.date()} or {window.last.date()}",
        )
    ticks: list[Tick] = []
    scored_from = first
    while window.last <= last:
        as_of = ceil_day(window.last + timedelta(hours=config.label_delay_hours))
        ticks.append(Tick(window=window, scored_from=scored_from, as_of=as_of))
        scored_from = as_of
        window = window_of(config.window, window.last)
    if not ticks:
        raise ConfigError(
            f"no whole {config.window} lies between --from and --until", measured=f"{first.date()} to {last.date()}"
        )
    return ticks


def ceil_day(instant: datetime) -> datetime:
    """Return the first midnight UTC at or after an instant."""
    midnight = instant.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight if midnight == instant else midnight + DAY


def parse_span(first: str, until: str) -> tuple[datetime, datetime]:
    """Turn `--from` and `--until`, months or days, both included, into instants; the second is excluded.

    Raises ConfigError for what is neither a month nor a day, and for an end before the begin.
    """
    begin = parse_instant(first + "-01" if is_month(first) else first, what="--from")
    end = parse_instant(until + "-01" if is_month(until) else until, what="--until")
    end = window_of("month" if is_month(until) else "day", end).last
    if end <= begin:
        raise ConfigError("--until lies before --from", measured=f"{first} to {until}")
    return begin, end


def is_month(text: str) -> bool:
    return len(text) == len("2013-04") and text[4] == "-"
