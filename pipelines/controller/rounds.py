"""Parts that go round: each in a thread of its own, and one that fails does not stop the others."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from components.core.errors import DriftlineError

log = logging.getLogger(__name__)

MAX_PAUSE_SECONDS = 300.0
LONGEST_ROUND_SECONDS = 3600.0
"""Replacing a schedule waits for up to two minutes for a moment without a tick, and there may be many schedules."""


class Part(NamedTuple):
    """Something that is done again and again."""

    name: str
    seconds: float
    """Between the end of one round and the start of the next one."""
    go: Callable[[], None]
    """One round. It may be killed at any point, and the next one goes on from there."""
    leader_only: bool = True
    rest: Callable[[], None] | None = None
    """What replaces a round while another process leads."""
    longest_seconds: float = MAX_PAUSE_SECONDS
    """Between two rounds after failures."""


class Standing:
    """How a part does."""

    def __init__(self) -> None:
        self.rounds = 0
        self.failures = 0
        self.failures_in_a_row = 0
        self.succeeded_at = 0.0
        """Seconds since 1970; 0: never."""
        self.begun: float | None = None
        """When the round in progress began, by the monotonic clock."""


class Rounds:
    """All parts, each with its thread and its standing."""

    def __init__(self, parts: Iterable[Part], *, is_leader: Callable[[], bool]) -> None:
        self._parts, self._is_leader = list(parts), is_leader
        self.standings = {part.name: Standing() for part in self._parts}
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(part,), name=part.name, daemon=True) for part in self._parts
        ]

    def start(self) -> None:
        """Let every part go round from now on."""
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float) -> list[str]:
        """Begin no further round, wait for at most so long, and return the parts that are still in one."""
        self._stop.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return [thread.name for thread in self._threads if thread.is_alive()]

    def lost(self, longest_round_seconds: float = LONGEST_ROUND_SECONDS) -> list[str]:
        """Return the parts that will not go on by themselves: their thread has ended, or a round does not end."""
        oldest = time.monotonic() - longest_round_seconds
        hangs = {
            name for name, at in ((n, s.begun) for n, s in self.standings.items()) if at is not None and at < oldest
        }
        return [t.name for t in self._threads if not self._stop.is_set() and (not t.is_alive() or t.name in hangs)]

    def _run(self, part: Part) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            if part.leader_only and not self._is_leader():
                if part.rest is not None:
                    part.rest()
                pause = min(1.0, part.seconds)
                continue
            pause = pause_after(part.seconds, self._round(part), part.longest_seconds)

    def _round(self, part: Part) -> int:
        """Go one round and return how many have failed in a row."""
        standing = self.standings[part.name]
        standing.rounds += 1
        standing.begun = time.monotonic()
        try:
            part.go()
        except Exception as error:
            standing.failures += 1
            standing.failures_in_a_row += 1
            # What we raise on purpose says everything; anything else is a mistake of ours, to be found.
            log.error("%s: %s", part.name, error, exc_info=None if isinstance(error, DriftlineError) else error)
        else:
            standing.failures_in_a_row = 0
            standing.succeeded_at = time.time()
        standing.begun = None
        return standing.failures_in_a_row


def pause_after(seconds: float, failures_in_a_row: int, longest_seconds: float) -> float:
    """Return how long a part rests: twice as long after each failure in a row, up to its longest pause."""
    return min(seconds * 2.0 ** min(failures_in_a_row, 16), max(seconds, longest_seconds))
