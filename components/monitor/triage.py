"""Why a number looks unlike itself: another unit, or another column's values.

Two traces tell a number from another. Its *values*: most measurements come in steps, so nearly every value of a day
was seen before; after a change of unit hardly any was, and undoing the right conversion finds them all again. Where
values are not stepped, its *shape*: the quantiles of a period lie beyond those of every period it is compared with, and
undoing the conversion, or looking at the other column, brings them back. A shape can lie by chance, values cannot: a
shape must hold for several periods in a row.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from components.monitor.history import History
from components.monitor.looks import BEYOND, STRANGE, Look, NumberColumn, look_at
from components.monitor.units import CONVERSIONS, undo

MIN_DISTINCT = 5
FAMILIAR = 0.8
"""An explanation must find this part of the usual share."""
GAIN = 0.1
"""Values of each swapped column must be known to the other by this much more, of both together by `STRANGE`."""
CLOSER = 0.35
"""An explanation must bring a shape this much closer, and within the limit."""
SHAPE_RUN = 3
ORDERED = 0.99
"""Share of rows in which one column is not the smaller, for an order that is worth the name."""


@dataclass(frozen=True)
class Explained:
    """What is wrong with a column in some periods."""

    column: str
    cause: str
    """`unit` or `swap`."""
    what: str
    """The conversion, or the other column."""
    periods: list[int]


def explain_numbers(history: History) -> list[Explained]:
    """Return what is wrong with which numbers in which judged periods."""
    columns = [
        NumberColumn(
            name, n.values, np.searchsorted(history.periods.of_row, np.arange(len(history.periods) + 1)), n.quantiles
        )
        for name, n in history.periods.numbers.items()
    ]
    for column in columns:
        for period in range(history.start):
            column.learn(period)
    causes: dict[tuple[str, str, str], dict[int, tuple[str, bool]]] = {}
    for period in history.judged:
        looks = {c.name: look_at(c, history, period) for c in columns}
        for name, cause, what, is_sure in _explain(looks):
            # On a day on which little happens several units fit; it is one fault all the same.
            one = "" if cause == "unit" else what
            causes.setdefault((name, cause, one), {})[period] = what, is_sure
            looks[name].column.broken.add(period)
        for column in columns:
            if period not in column.broken:
                column.learn(period)
    return [
        Explained(name, cause, _most_told(hits), periods)
        for (name, cause, _), hits in causes.items()
        if (periods := _credible({period: is_sure for period, (_, is_sure) in hits.items()}))
    ]


def _most_told(hits: dict[int, tuple[str, bool]]) -> str:
    """Return the explanation of most periods, of those that values prove if there are any."""
    proven = [what for what, is_sure in hits.values() if is_sure]
    return Counter(proven or [what for what, _ in hits.values()]).most_common(1)[0][0]


def _credible(hits: dict[int, bool]) -> list[int]:
    """Keep the periods that are sure by their values, and those whose shapes agree for several periods in a row."""
    kept: list[int] = []
    for run in _runs(sorted(hits)):
        if len(run) >= SHAPE_RUN or any(hits[p] for p in run):
            kept += run
    return kept


def _runs(periods: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for period in periods:
        if runs and period == runs[-1][-1] + 1:
            runs[-1].append(period)
        else:
            runs.append([period])
    return runs


def _explain(looks: dict[str, Look]) -> Iterator[tuple[str, str, str, bool]]:
    """Yield column, cause, what, and whether values prove it; two swapped columns explain each other."""
    units = {n: found for n, look in looks.items() if look.is_strange and (found := _find_conversion(look)) is not None}
    explained = {name for name, (_, is_sure) in units.items() if is_sure}
    pairs = [(fit, a, b) for a, b in _suspects(looks) if (fit := _fit_swap(looks[a], looks[b])) is not None]
    # The surest and closest first: a strange column resembles more than one other.
    for fit, a, b in sorted(pairs, key=lambda pair: (not pair[0].is_sure, pair[0].distance)):
        if not explained & {a, b}:
            explained |= {a, b}
            units.pop(a, None)
            units.pop(b, None)
            yield a, "swap", b, fit.is_sure
            yield b, "swap", a, fit.is_sure
    for name, (conversion, is_sure) in units.items():
        yield name, "unit", conversion, is_sure


def _suspects(looks: dict[str, Look]) -> list[tuple[str, str]]:
    """Return the pairs of which one is strange, or whose quantiles have all changed their order."""
    names = list(looks)
    strange = np.array([look.is_strange for look in looks.values()])
    now = np.stack([look.quantiles for look in looks.values()])
    unknown = np.full(now.shape[1], np.nan)
    centre = np.stack([unknown if look.shape is None else look.shape.centre for look in looks.values()])
    signs = [np.sign(found[:, None] - found[None]) for found in (centre, now)]
    turned = (signs[0] * signs[1] < 0).all(axis=-1) & (np.ptp(signs[0], axis=-1) == 0)
    found = np.triu(turned | strange[:, None] | strange[None], 1)
    return [(names[i], names[j]) for i, j in np.argwhere(found)]


class _Fit(NamedTuple):
    is_sure: bool
    distance: float
    """Of both columns to each other's usual shape, in limits."""


def _fit_swap(a: Look, b: Look) -> _Fit | None:
    """Return how well a swap explains two columns; None: it does not."""
    strange = a.is_strange or b.is_strange
    own = a.reach(a), b.reach(b)
    other = a.reach(b), b.reach(a)
    if strange and (_values_prove(a, b) or _moved(a, b) or _moved(b, a)):
        return _Fit(True, sum(other))
    if max(other) <= BEYOND and a.shape and b.shape and _order_turned(a, b):
        return _Fit(True, sum(other))
    fits = strange and max(own) > BEYOND and max(other) <= 1 and sum(other) <= CLOSER * sum(own)
    return _Fit(False, sum(other)) if fits and all(o <= w for o, w in zip(other, own, strict=True)) else None


def _values_prove(a: Look, b: Look) -> bool:
    """Return whether each column's values are known to the other, and clearly less so to itself.

    Each must gain: a cold day in summer is new to the temperature, and known to a dew point that knows itself as well.
    """
    gains = []
    for own, other, usual in (
        (a.share, b.column.share_seen(a.values), b.column.usual),
        (b.share, a.column.share_seen(b.values), a.column.usual),
    ):
        if not usual or own is None or other is None or other < FAMILIAR * usual:
            return False
        gains.append(other - own)
    return min(gains) >= GAIN and sum(gains) >= STRANGE


def _moved(a: Look, b: Look) -> bool:
    """Return whether the values of a stepped column are found in one without steps, and in itself are not."""
    if not a.has_strange_values or b.column.usual or a.reach(b) > BEYOND:
        return False
    share = a.column.share_seen(b.values)
    return share is not None and share >= FAMILIAR * a.column.usual


def _order_turned(a: Look, b: Look) -> bool:
    """Return whether one column never was the smaller and now never is the larger, row by row."""
    larger, smaller = a.column.order(b.column, a.before)
    now_larger, now_smaller = a.column.order(b.column, [a.period])
    if larger < smaller:
        larger, smaller, now_larger, now_smaller = smaller, larger, now_smaller, now_larger
    return larger >= 1 - STRANGE and now_smaller >= 1 - STRANGE and max(smaller, now_larger) <= 1 - ORDERED


def _find_conversion(look: Look) -> tuple[str, bool] | None:
    """Return the conversion that explains a strange column, and whether its values prove it."""
    best: tuple[float, str] | None = None
    if look.has_strange_values:
        for conversion in CONVERSIONS:
            share = look.column.share_seen(undo(conversion, look.values)) or 0.0
            if share >= FAMILIAR * look.column.usual and (best is None or share > best[0]):
                best = share, conversion.name
        if best is not None:
            # One value finds a likeness in some unit by chance.
            return best[1], len(np.unique(look.values)) >= MIN_DISTINCT
    if look.shape is None or look.distance <= BEYOND * look.shape.limit:
        return None
    distance, name = min((look.shape.distance(undo(c, look.quantiles)), c.name) for c in CONVERSIONS)
    if distance <= look.shape.limit and distance <= CLOSER * look.distance:
        return name, False
    return None
