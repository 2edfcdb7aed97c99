"""What each period is compared with: the recent past where the log has enough of it, else the reference.

A season is not a fault, so a period is compared with the good periods just before it, not with the training data. A
period that was found broken never becomes part of what later ones are compared with.
"""

from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np

from components.core.metrics import Floats, Ints
from components.monitor.periods import QUANTILES, CategoryPeriods, NumberPeriods, Periods

RECENT_PERIODS = 28
ENOUGH_PERIODS = 14


@dataclass(frozen=True)
class History:
    """Periods of the reference, of the log before the window, and of the window, in this order."""

    periods: Periods
    reference: int
    """How many belong to the reference."""
    past: int
    """How many belong to the log before the window."""

    @cached_property
    def start(self) -> int:
        """The first period that is judged: enough of the past is taken as it is, or none of it."""
        return self.reference + (ENOUGH_PERIODS if self.past >= ENOUGH_PERIODS else 0)

    @property
    def window(self) -> slice:
        return slice(self.reference + self.past, len(self.periods))

    @cached_property
    def is_blind(self) -> bool:
        """Whether what is judged first came long after the reference, with too little seen in between."""
        if not self.reference or self.past >= ENOUGH_PERIODS or self.start == len(self.periods):
            return False
        seen, judged = (date.fromisoformat(self.periods.first[p]) for p in (self.reference - 1, self.start))
        return (judged - seen).days > RECENT_PERIODS

    @property
    def judged(self) -> range:
        return range(self.start, len(self.periods))

    def baseline(self, period: int, broken: set[int]) -> Ints:
        """Return the periods that one is compared with."""
        log = [p for p in range(self.reference, period) if p not in broken][-RECENT_PERIODS:]
        compared = log if len(log) >= ENOUGH_PERIODS else [*range(self.reference), *log]
        return np.array(compared, dtype=np.intp)


def make_history(reference: Periods, past: Periods, window: Periods) -> History:
    """Put the periods of reference, past and window behind each other; a column that one lacks is unknown there."""
    return History(_merge([reference, past, window]), len(reference), len(past))


def _merge(parts: list[Periods]) -> Periods:
    offsets = np.cumsum([0, *(len(part) for part in parts)])
    numbers = {name: _merge_numbers(name, parts) for name in dict.fromkeys(n for p in parts for n in p.numbers)}
    categories = {
        name: _merge_categories(name, parts) for name in dict.fromkeys(n for p in parts for n in p.categories)
    }
    return Periods(
        first=[date for part in parts for date in part.first],
        last=[date for part in parts for date in part.last],
        rows=np.concatenate([part.rows for part in parts]),
        of_row=np.concatenate([part.of_row + offset for part, offset in zip(parts, offsets, strict=False)]),
        numbers=numbers,
        categories=categories,
    )


def _merge_numbers(name: str, parts: list[Periods]) -> NumberPeriods:
    found = [part.numbers.get(name) or _unknown_number(part) for part in parts]
    return NumberPeriods(
        nulls=np.concatenate([f.nulls for f in found]),
        distinct=np.concatenate([f.distinct for f in found]),
        quantiles=np.concatenate([f.quantiles for f in found]),
        infinite=np.concatenate([f.infinite for f in found]),
        values=np.concatenate([f.values for f in found]),
    )


def _unknown_number(part: Periods) -> NumberPeriods:
    none = np.zeros(len(part), dtype=np.intp)
    unknown: Floats = np.full((len(part), len(QUANTILES)), np.nan)
    return NumberPeriods(none, none, unknown, none, np.full(len(part.of_row), np.nan))


def _merge_categories(name: str, parts: list[Periods]) -> CategoryPeriods:
    empty = [
        CategoryPeriods(np.zeros(len(p), dtype=np.int64), [], np.zeros((len(p), 0), dtype=np.int64)) for p in parts
    ]
    found = [part.categories.get(name) or blank for part, blank in zip(parts, empty, strict=True)]
    levels = list(dict.fromkeys(level for f in found for level in f.levels))
    place = {level: code for code, level in enumerate(levels)}
    tables = []
    for f in found:
        table = np.zeros((f.counts.shape[0], len(levels)), dtype=np.int64)
        table[:, [place[level] for level in f.levels]] = f.counts
        tables.append(table)
    return CategoryPeriods(np.concatenate([f.nulls for f in found]), levels, np.concatenate(tables))
