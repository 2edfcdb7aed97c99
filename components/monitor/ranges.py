"""Values that cannot be: infinite, or far outside of all that was ever seen."""

import numpy as np

from components.monitor.finding import Finding
from components.monitor.history import History

WIDTHS = 10.0
"""A value is impossible when it lies this many times the known range beyond it."""
IMPOSSIBLE_SHARE = 0.01


def find_impossible(history: History) -> list[Finding]:
    """Find numbers with infinite or impossible values; fatal where they are one percent of a window's rows."""
    periods = history.periods
    start = history.window.start
    is_window = periods.of_row >= start
    findings = []
    for name, numbers in periods.numbers.items():
        values = numbers.values
        known = values[~is_window & np.isfinite(values)]
        inside = values[is_window]
        infinite = np.isinf(inside)
        low, high = (float(known.min()), float(known.max())) if known.size else (-np.inf, np.inf)
        margin = WIDTHS * (high - low) if high > low else np.inf
        far = np.isfinite(inside) & ((inside < low - margin) | (inside > high + margin))
        for mask, what in ((infinite, "infinite"), (far, "impossible")):
            if not mask.any():
                continue
            example = float(inside[mask][0])
            hit = tuple(np.unique(periods.of_row[is_window][mask]).tolist())
            share = float(mask.mean())
            message = (
                f"{name}: {mask.sum():,} {what} values ({share:.1%}) such as {example:g}, seen before were {low:g} to "
                f"{high:g}; probably a marker for a missing value, or a division by zero"
            )
            is_fatal = share >= IMPOSSIBLE_SHARE
            findings.append(Finding("ranges", (name,), hit, message, str(example), f"{low:g} to {high:g}", is_fatal))
    return findings
