"""How much more the mean of consecutive days wanders than the mean of as many days picked at random."""

import numpy as np
import numpy.typing as npt

from components.core.profile import Counts

LEAST_DAYS = 10
"""Fewer tell nothing about correlation: a window's days then count as one."""
_LARGEST = 0.95
"""Of the lag-1 correlation; nearer to 1, a season and a drift are the same thing."""

Floats = npt.NDArray[np.float64]


def serial_inflation(reference: Counts, days: int) -> float:
    """Return the factor, at least 1, by which serial correlation widens a squared distance of window and reference.

    `reference` is int64 [reference days, bins], oldest first. Its days are projected on the direction in which they
    differ most (first principal component in the chi-square metric, to which the divergence is proportional for small
    differences); that series is taken for a first-order autoregression plus sampling noise, whose correlation falls
    geometrically after lag 1. Of a mean of n such days the variance grows by 1 + 2 sum (1 - k/n) correlation[k]
    (Bartlett 1946), here for the window and for the reference.
    """
    table = reference[reference.any(axis=1)].astype(np.float64)
    total = len(table)
    if total < LEAST_DAYS:
        return float(days)
    series = _main_direction(table)
    if series is None:
        return 1.0
    first, decay = _correlations(series)
    of_window, of_reference = _mean_inflation(first, decay, days), _mean_inflation(first, decay, total)
    # Var(window mean - reference mean) with and without correlation, days being of equal variance.
    return max(1.0, (of_window / days + of_reference / total) / (1 / days + 1 / total))


def _main_direction(table: Floats) -> Floats | None:
    """Return the days' coordinate in the direction of their largest variance, float64 [days]; None if all are equal."""
    shares = table / table.sum(axis=1, keepdims=True)
    pooled = table.sum(axis=0) / table.sum()
    used = pooled > 0
    centred = (shares - shares.mean(axis=0))[:, used] / np.sqrt(pooled[used])
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(left[:, 0], dtype=np.float64) if singular[0] > 1e-9 else None  # noqa: PLR2004


def _correlations(series: Floats) -> tuple[float, float]:
    """Return the lag-1 correlation and the ratio by which it falls per further lag, both corrected for their bias."""
    total = len(series)
    centred = series - series.mean()
    lag = [float(centred[: total - k] @ centred[k:]) / float(centred @ centred) for k in (1, 2)]
    # Estimated correlations are too small by about (1 + 3 r) / n (Marriott and Pope 1954).
    first = min(_LARGEST, max(0.0, lag[0] + (1 + 3 * max(0.0, lag[0])) / total))
    # The ratio of two lags is free of sampling noise, but only where there is a correlation to speak of.
    ratio = lag[1] / lag[0] if lag[0] > 2 / np.sqrt(total) else 0.0
    decay = max(ratio, first)
    return first, min(_LARGEST, decay + (1 + 3 * decay) / total)


def _mean_inflation(first: float, decay: float, days: int) -> float:
    lags = np.arange(1, days)
    return float(1 + 2 * np.sum((1 - lags / days) * first * decay ** (lags - 1)))
