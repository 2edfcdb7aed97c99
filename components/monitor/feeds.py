"""Feeds that stopped: values that are missing, and values that no longer change."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from components.core.metrics import Floats, Ints
from components.core.training_set import Input
from components.monitor.finding import Check, Finding
from components.monitor.history import History

NULL_MARGIN = 0.2
"""A period has too many nulls when their share is this much above that of every period it is compared with."""
GAPPY_SHARE = 0.1
GONE_SHARE = 0.95
"""A column that had gaps before, in more than `GAPPY_SHARE` of some period, must be gone altogether."""
FROZEN_PART = 0.35
"""A column is frozen when it takes at most this part of the fewest distinct values of the periods compared with."""
FEED_PART = 0.5
"""A feed is frozen when at least half of its columns take at most this part."""
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
            return bool(share[period] > null_limit(float(share[base].max())))

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
        if view and len(names) >= max(2, 0.75 * len(members)):
            cause = (
                "its values are older than their TTL" if is_stale else "it has no value for the keys that were asked"
            )
            what = (
                f"feed {view} stopped: {len(names)} of its {len(members)} inputs are missing "
                f"in up to {worst:.0%} of the rows"
            )
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
                round(worst, 4),
                round(null_limit(usual), 4),
            )
        )
    return findings


def null_limit(usual: float) -> float:
    """Return the share of nulls that a period may have when others had at most the usual one."""
    return max(GONE_SHARE, usual) if usual > GAPPY_SHARE else usual + NULL_MARGIN


def find_frozen(history: History, inputs: Sequence[Input]) -> list[Finding]:
    """Find periods in which a feed repeats its last values: hardly any of its features takes as many as before."""
    views = dict.fromkeys(c.view for c in inputs if c.view)
    findings = []
    for view in views:
        names = [c.name for c in inputs if c.view == view and c.name in history.periods.numbers]
        parts: dict[int, dict[str, float]] = {}

        def is_frozen(period: int, base: Ints, names: list[str] = names, parts: Any = parts) -> bool:
            found = {name: part for name in names if (part := _distinct_part(history, name, period, base)) is not None}
            parts[period] = found
            return bool(found) and (
                float(np.median(list(found.values()))) <= FEED_PART or min(found.values()) <= FROZEN_PART
            )

        hit = _judge(history, is_frozen)
        if hit:
            columns = [name for name in names if any(parts[p].get(name, 1.0) <= FEED_PART for p in hit)]
            worst = {name: min(parts[p].get(name, 1.0) for p in hit) for name in columns}
            told = ", ".join(f"{name} {part:.0%}" for name, part in worst.items())
            message = (
                f"feed {view} is frozen: of the fewest distinct values a day that were seen before, there are only "
                f"{told}; probably it repeats its last values"
            )
            measured = {name: round(part, 2) for name, part in worst.items()}
            findings.append(Finding("frozen", tuple(columns), tuple(hit), message, measured, f"above {FEED_PART}"))
    return findings


def _distinct_part(history: History, name: str, period: int, base: Ints) -> float | None:
    """Return a period's distinct values as a part of the fewest before; None where the two do not compare."""
    numbers = history.periods.numbers[name]
    known = history.periods.rows - numbers.nulls
    base = base[known[base] >= COMPARABLE_ROWS * np.median(known[base])]
    fewest = int(numbers.distinct[base].min())
    comparable = known[period] >= COMPARABLE_ROWS * known[base].min()
    if fewest < MIN_DISTINCT or not comparable or not known[period]:
        return None
    return float(numbers.distinct[period] / fewest)


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
