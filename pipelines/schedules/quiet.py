"""A moment for replacing a schedule in which no tick of it is due: none is run twice, none is lost.

KFP's controller starts a run up to half a minute after its tick. Replaced in between, the old recurring run would not
start it any more; created before a tick and enabled after it, the new one would start what the old one started too.
"""

from datetime import datetime, timedelta
from itertools import takewhile

from pipelines.schedules.cron import Cron, fire_times

AFTER_TICK = timedelta(seconds=45)
BEFORE_TICK = timedelta(seconds=15)
LONGEST_WAIT = timedelta(seconds=120)


def seconds_until_quiet(crons: list[Cron], now: datetime) -> float:
    """Return how long to wait, 0 for not at all; 0 too when ticks leave no such moment in the next two minutes."""
    until = now + LONGEST_WAIT + BEFORE_TICK
    ticks = [tick for cron in crons for tick in takewhile(lambda t: t <= until, fire_times(cron, now - AFTER_TICK))]
    moments = [now, *sorted(tick + AFTER_TICK for tick in ticks)]
    for moment in moments:
        due = any(moment - AFTER_TICK < tick <= moment + BEFORE_TICK for tick in ticks)
        if now <= moment <= now + LONGEST_WAIT and not due:
            return (moment - now).total_seconds()
    return 0.0
