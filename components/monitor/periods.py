"""Rows summed up by short periods: what a column looked like, day by day.

A period is a UTC day, or as many following days as it takes to hold enough rows to describe a distribution.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.core.metrics import Floats, Ints
from components.core.profile import utc_days
from components.core.training_set import Input

MIN_PERIOD_ROWS = 40
QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class NumberPeriods:
    """A number by period; NaN where a period has too few values."""

    nulls: Ints
    distinct: Ints
    quantiles: Floats
    """At `QUANTILES` of the finite values, [periods, 7]."""
    infinite: Ints
    values: Floats
    """Of all rows, oldest first; NaN is null."""


@dataclass(frozen=True)
class CategoryPeriods:
    """A category by period."""

    nulls: Ints
    levels: list[str]
    counts: Counts
    """[periods, levels]."""


@dataclass(frozen=True)
class Periods:
    """Consecutive periods, oldest first."""

    first: list[str]
    """First UTC day of each."""
    last: list[str]
    rows: Ints
    of_row: Ints
    """Period of every row, oldest row first."""
    numbers: dict[str, NumberPeriods]
    categories: dict[str, CategoryPeriods]

    def __len__(self) -> int:
        return len(self.first)


def summarise(rows: pa.Table, inputs: Sequence[Input], *, prefix: str, instant: str) -> Periods:
    """Sum up the inputs that the rows have, by period of `instant`; a number that is text is left out."""
    table = rows.sort_by(instant)
    dates, day = utc_days(table.column(instant))
    group = _group_days(np.bincount(day, minlength=len(dates)))
    period = group[day]
    count = int(group.max(initial=-1)) + 1
    numbers, categories = {}, {}
    for column in inputs:
        name = prefix + column.name
        if name not in table.column_names:
            continue
        values = table.column(name)
        if column.kind == "category":
            categories[column.name] = _category(values, period, count)
        elif pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
            numbers[column.name] = _number(values, period, count)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    ends = np.flatnonzero(np.diff(group, append=count))
    return Periods(
        first=[dates[i] for i in starts],
        last=[dates[i] for i in ends],
        rows=np.bincount(period, minlength=count),
        of_row=period,
        numbers=numbers,
        categories=categories,
    )


def _group_days(rows: Ints) -> Ints:
    """Return the period of each day: consecutive days until there are enough rows; a poor rest joins the last."""
    group, current, held = np.zeros(len(rows), dtype=np.intp), 0, 0
    for day, count in enumerate(rows):
        if held >= MIN_PERIOD_ROWS:
            current, held = current + 1, 0
        group[day] = current
        held += int(count)
    if current and held < MIN_PERIOD_ROWS:
        group[group == current] = current - 1
    return group


def _number(values: pa.ChunkedArray, period: Ints, count: int) -> NumberPeriods:
    numbers = np.asarray(values.cast(pa.float64()).to_numpy(), dtype=np.float64)
    missing, finite = np.isnan(numbers), np.isfinite(numbers)
    order = np.lexsort([numbers[finite], period[finite]])
    ordered, where = numbers[finite][order], period[finite][order]
    is_new = np.ones(len(ordered), dtype=bool)
    is_new[1:] = (np.diff(ordered) != 0) | (np.diff(where) != 0)
    bounds = np.searchsorted(where, np.arange(count + 1))
    quantiles = np.full((count, len(QUANTILES)), np.nan)
    for p, (low, high) in enumerate(pairwise(bounds)):
        if high - low >= MIN_PERIOD_ROWS // 2:
            quantiles[p] = ordered[low + np.rint(np.array(QUANTILES) * (high - low - 1)).astype(np.intp)]
    return NumberPeriods(
        nulls=np.bincount(period[missing], minlength=count),
        distinct=np.bincount(where[is_new], minlength=count),
        quantiles=quantiles,
        infinite=np.bincount(period[np.isinf(numbers)], minlength=count),
        values=numbers,
    )


def _category(values: pa.ChunkedArray, period: Ints, count: int) -> CategoryPeriods:
    encoded = values.cast(pa.string()).combine_chunks().dictionary_encode()
    levels: list[str] = encoded.dictionary.to_pylist()
    codes = pc.fill_null(encoded.indices, len(levels)).to_numpy(zero_copy_only=False).astype(np.intp)
    wide = len(levels) + 1
    table = np.bincount(period * wide + codes, minlength=count * wide).reshape(count, wide)
    return CategoryPeriods(nulls=table[:, -1], levels=levels, counts=table[:, :-1])
