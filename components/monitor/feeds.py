"""Feeds that stopped: values that are missing, and values that no longer change."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from components.core.metrics import Floats, Ints
from components.core.training_set import Input
from components.monitor.finding import Check, Finding
from components.monitor.history import History

NULL_MARGIN = 0.2
"""A period has too many nulls when their share is this much above that of every period it is compared with."""
FROZEN_PART = 1 / 3
"""A period is frozen when it has at most this part of the fewest distinct values of those it is compared with."""
MIN_DISTINCT = 6
COMPARABLE_ROWS = 0.5


def find_nulls(history: History, inputs: Sequence[Input], stale: Mapping[str, Floats]) -> list[Finding]:
    """Find periods in which an input is missing far more often than before; inputs of one view are one finding.

    `stale` is, per input, the share of rows of each period whose value was dropped because it was too old.
    """
    periods = history.periods
    hits: dict[str, list[int]] = {}
    shares: dict[str, tuple[float, float]] = {}
    for column in inputs:
        nulls = (
            (periods.numbers.get(column.name) or periods.categories[column.name]).nulls
            if _has(history, column)
            else None
        )
        if nulls is None:
            continue
        share = nulls / np.maximum(1, periods.rows)

        def is_burst(period: int, base: Ints, share: Floats = share) -> bool:
            return bool(share[period] > share[base].max() + NULL_MARGIN)

        found = _judge(history, is_burst)
        if found:
            hits[column.name] = found
            base = history.baseline(found[-1], set(found))
            shares[column.name] = float(share[found].max()), float(share[base].max())
    findings = []
    for view, names in _by_view(inputs, hits).items():
        found = sorted({p for name in names for p in hits[name]})
        members = [c.name for c in inputs if c.view == view]
        worst, usual = shares[names[0]]
        is_stale = any(name in stale and stale[name][found].max() > NULL_MARGIN for name in names)
        if view and len(names) == len(members):
            cause = (
                "its values are older than their TTL" if is_stale else "it has no value for the keys that were asked"
            )
            what = f"feed {view} stopped: all of its {len(names)} inputs are missing in up to {worst:.0%} of the rows"
            check: Check = "feeds"
        else:
            cause = (
                "values are older than their TTL"
                if is_stale
                else "the source leaves them empty, or a column was renamed"
            )
            what = f"{', '.join(names)}: up to {worst:.0%} null"
            check = "nulls"
        findings.append(
            Finding(
                check,
                tuple(names),
                tuple(found),
                f"{what}, at most {usual:.0%} before; probably {cause}",
                worst,
                usual + NULL_MARGIN,
            )
        )
    return findings


def find_frozen(history: History, inputs: Sequence[Input]) -> list[Finding]:
    """Find periods in which features of a view hardly take any value: the feed repeats its last one."""
    periods = history.periods
    hits: dict[str, list[int]] = {}
    counts: dict[str, tuple[int, int]] = {}
    for column in inputs:
        if not column.view or column.name not in periods.numbers:
            continue
        numbers = periods.numbers[column.name]
        known = periods.rows - numbers.nulls

        def is_frozen(period: int, base: Ints, distinct: Ints = numbers.distinct, known: Ints = known) -> bool:
            base = base[known[base] >= COMPARABLE_ROWS * np.median(known[base])]
            fewest = int(distinct[base].min(initial=0))
            comparable = known[period] >= COMPARABLE_ROWS * known[base].min(initial=0)
            return fewest >= MIN_DISTINCT and comparable and 0 < distinct[period] <= FROZEN_PART * fewest

        found = _judge(history, is_frozen)
        if found:
            hits[column.name] = found
            base = history.baseline(found[-1], set(found))
            counts[column.name] = int(numbers.distinct[found].min()), int(numbers.distinct[base].min())
    findings = []
    for view, names in _by_view(inputs, hits).items():
        found = sorted({p for name in names for p in hits[name]})
        told = ", ".join(f"{n} {counts[n][0]} (at least {counts[n][1]} before)" for n in names)
        findings.append(
            Finding(
                "frozen",
                tuple(names),
                tuple(found),
                f"feed {view} is frozen, distinct values a day: {told}; probably it repeats its last values",
                {n: counts[n][0] for n in names},
                {n: f"more than {counts[n][1] * FROZEN_PART:.0f}" for n in names},
            )
        )
    return findings


def _judge(history: History, is_broken: Callable[[int, Ints], bool]) -> list[int]:
    broken: set[int] = set()
    for period in history.judged:
        base = history.baseline(period, broken)
        if len(base) and is_broken(period, base):
            broken.add(period)
    return sorted(broken)


def _has(history: History, column: Input) -> bool:
    return column.name in history.periods.numbers or column.name in history.periods.categories


def _by_view(inputs: Sequence[Input], hits: Mapping[str, list[int]]) -> dict[str, list[str]]:
    """Group columns by view; those that the request brings stand alone."""
    groups: dict[str, list[str]] = defaultdict(list)
    for column in inputs:
        if column.name in hits:
            groups[column.view].append(column.name)
    return dict(groups)
