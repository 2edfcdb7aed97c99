"""How a number looks in one period, beside how it looked before: its values and its shape."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from components.core.metrics import Floats, Ints
from components.monitor.history import History
from components.monitor.units import key

MIN_VALUES = 20
STEPPED_SHARE = 0.8
"""A column is stepped when at least this share of a period's values was seen before."""
STRANGE = 0.5
"""Its values are strange when less than this part of the usual share was seen before."""
BEYOND = 1.5
"""A shape is strange when it is this many times as far off as the farthest period that it is compared with."""
SMALLEST_LIMIT = 0.02


@dataclass
class NumberColumn:
    """What is known of a column so far."""

    name: str
    values: Floats
    bounds: Ints
    quantiles: Floats
    seen: set[float] = field(default_factory=set)
    shares: list[float] = field(default_factory=list)
    """Of the periods so far, the share of values that was seen before."""
    broken: set[int] = field(default_factory=set)

    def of(self, period: int) -> Floats:
        """Return the finite values of a period."""
        found = self.values[self.bounds[period] : self.bounds[period + 1]]
        return found[np.isfinite(found)]

    @property
    def usual(self) -> float:
        """The share of values that usually was seen before; zero for a column without steps."""
        usual = float(np.median(self.shares[-28:])) if self.shares else 0.0
        return usual if usual >= STEPPED_SHARE else 0.0

    def share_seen(self, values: Floats) -> float | None:
        """Return the share of values that was seen before; None: too few to tell (zero is zero in many units)."""
        keys, counts = np.unique(key(values[values != 0]), return_counts=True)
        if counts.sum() < MIN_VALUES:
            return None
        known = np.fromiter((k in self.seen for k in keys.tolist()), dtype=bool, count=len(keys))
        return float(counts[known].sum() / counts.sum())

    def order(self, other: "NumberColumn", periods: Sequence[int]) -> tuple[float, float]:
        """Return the share of rows in which this is the larger number, and that in which it is the smaller."""
        parts = [slice(self.bounds[p], self.bounds[p + 1]) for p in periods]
        differences = np.concatenate([self.values[part] - other.values[part] for part in parts])
        differences = differences[np.isfinite(differences)]
        if len(differences) < MIN_VALUES:
            return 0.0, 0.0
        return float((differences > 0).mean()), float((differences < 0).mean())

    def learn(self, period: int) -> None:
        values = self.of(period)
        share = self.share_seen(values)
        if share is not None and self.seen:
            self.shares.append(share)
        self.seen.update(np.unique(key(values)).tolist())


@dataclass(frozen=True)
class Shape:
    """How a column's quantiles usually lie."""

    centre: Floats
    spread: float
    limit: float
    """The largest distance among the periods compared with."""

    def distance(self, quantiles: Floats) -> float:
        return float(np.abs(quantiles - self.centre).mean() / self.spread)


def shape_of(quantiles: Floats) -> Shape | None:
    known = quantiles[~np.isnan(quantiles[:, 0])]
    if not len(known):
        return None
    centre = np.median(known, axis=0)
    spread = float(np.median(known[:, -1] - known[:, 0]))
    if spread <= 0:
        return None
    distances = np.abs(known - centre).mean(axis=1) / spread
    return Shape(centre, spread, max(SMALLEST_LIMIT, float(distances.max())))


@dataclass(frozen=True)
class Look:
    """One column in one period."""

    column: NumberColumn
    period: int
    before: list[int]
    """The periods that it is compared with."""
    values: Floats
    quantiles: Floats
    shape: Shape | None
    share: float | None
    distance: float

    def reach(self, other: "Look") -> float:
        """Return how far this period's shape is from another column's usual one, in that one's limits."""
        if other.shape is None or np.isnan(self.quantiles[0]):
            return 0.0
        return other.shape.distance(self.quantiles) / other.shape.limit

    @property
    def is_stepped(self) -> bool:
        return self.share is not None and self.column.usual > 0

    @property
    def has_strange_values(self) -> bool:
        return self.share is not None and self.share < STRANGE * self.column.usual

    @property
    def is_strange(self) -> bool:
        # A stepped column whose values are familiar has its unit, however far the season has moved it.
        if self.is_stepped and not self.has_strange_values:
            return False
        return self.has_strange_values or (self.shape is not None and self.distance > BEYOND * self.shape.limit)


def look_at(column: NumberColumn, history: History, period: int) -> Look:
    values = column.of(period)
    quantiles = column.quantiles[period]
    before = history.baseline(period, column.broken)
    shape = shape_of(column.quantiles[before])
    distance = 0.0 if shape is None or np.isnan(quantiles[0]) else shape.distance(quantiles)
    return Look(column, period, before.tolist(), values, quantiles, shape, column.share_seen(values), distance)
