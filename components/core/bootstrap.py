"""Paired day-block bootstrap.

Rows of one day share weather, congestion and incidents, so they are not independent: intervals from resampled
rows are several times too narrow. Whole calendar days (UTC, of the prediction instant) are drawn with replacement
instead, the same days for both models.

No sample touches the rows again. Every metric is a function of totals per day, so a sample is a product with the
matrix of day weights [samples, days]; the AUC is a quadratic form in the day weights, because the pairs of a positive
of day d and a negative of day e count weight[d] * weight[e] times.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from components.core.metrics import Floats, Ints, Metric, calibration_bins, row_logloss

# More undefined samples than this (no positive among the drawn days) leave an interval undefined.
MAX_UNDEFINED_SHARE = 0.05


class Interval(BaseModel):
    """An estimate with its interval; None where the rows do not define it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    estimate: float | None
    low: float | None = None
    high: float | None = None


def draw_days(days: int, samples: int, seed: int) -> Floats:
    """Draw how often each day occurs in each sample: float64 [samples, days], rows sum to `days`."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(days, np.full(days, 1 / days), size=samples).astype(np.float64)


def day_totals(values: Floats, day: Ints, days: int) -> Floats:
    """Sum columns of row values [n, k] by day: float64 [days, k]."""
    return np.stack([np.bincount(day, weights=column, minlength=days) for column in values.T], axis=1)


def day_wins(labels: Floats, predictions: Floats, day: Ints, days: int) -> Floats:
    """Count, for each pair of days (d, e), the positives of d that outrank negatives of e, ties half: [days, days]."""
    _, code = np.unique(predictions, return_inverse=True)
    positive = labels == 1
    positive_code, positive_day = code[positive], day[positive]
    negative_code, negative_day = code[~positive], day[~positive]
    wins = np.zeros((days, days))
    for e in range(days):
        negatives = np.bincount(negative_code[negative_day == e], minlength=code.max(initial=0) + 1)
        beaten = np.cumsum(negatives) - negatives / 2
        wins[:, e] = np.bincount(positive_day, weights=beaten[positive_code], minlength=days)
    return wins


def resample(metric: Metric, labels: Floats, predictions: Floats, day: Ints, weights: Floats) -> Floats:
    """Return the metric of every sample, float64 [samples]; NaN where a sample leaves it undefined.

    `day` is intp [n] with values below weights.shape[1]. ECE keeps the bins of the original rows.
    """
    days = weights.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        if metric == "auc":
            wins = day_wins(labels, predictions, day, days)
            classes = weights @ day_totals(np.stack([labels, 1 - labels], axis=1), day, days)
            value: Floats = ((weights @ wins) * weights).sum(axis=1) / (classes[:, 0] * classes[:, 1])
            return value
        totals = weights @ day_totals(_row_terms(metric, labels, predictions), day, days)
        rows = totals[:, 0]
        match metric:
            case "ece":
                value = np.abs(totals[:, 1:]).sum(axis=1) / rows
            case "rmse":
                value = np.sqrt(totals[:, 1] / rows)
            case "r2":
                spread = totals[:, 3] - np.square(totals[:, 2]) / rows
                # Equal labels leave a rounding residue instead of zero.
                spread[spread <= 1e-12 * np.abs(totals[:, 3])] = np.nan
                value = 1 - totals[:, 1] / spread
            case _:
                value = totals[:, 1] / rows
        return value


def _row_terms(metric: Metric, labels: Floats, predictions: Floats) -> Floats:
    """Return what must be summed per day: a column of ones, then the metric's own terms."""
    ones = np.ones_like(labels)
    match metric:
        case "logloss":
            return np.stack([ones, row_logloss(labels, predictions)], axis=1)
        case "mae":
            return np.stack([ones, np.abs(labels - predictions)], axis=1)
        case "ece":
            bins = calibration_bins(predictions)
            members = bins[:, None] == np.arange(bins.max(initial=0) + 1)
            return np.column_stack([ones, members * (labels - predictions)[:, None]])
        case "r2":
            centred = labels - labels.mean()
            return np.stack([ones, np.square(labels - predictions), centred, np.square(centred)], axis=1)
        case _:
            return np.stack([ones, np.square(labels - predictions)], axis=1)


def small_sample_factor(days: int, confidence: float) -> float:
    """Return by how much an interval from `days` blocks must be wider than the bootstrap's own.

    The bootstrap divides by n, not n - 1, and knows no Student t (expanded percentile interval, Hesterberg 2015).
    """
    from scipy.special import ndtri, stdtrit

    upper = 0.5 + confidence / 2
    return float(stdtrit(days - 1, upper) / ndtri(upper) * np.sqrt(days / (days - 1)))


def interval(estimate: float, samples: Floats, *, days: int, confidence: float, reflect: bool = False) -> Interval:
    """Return the expanded percentile interval of an estimate.

    `reflect` turns the samples around the estimate (basic bootstrap). Distances such as ECE and the difference
    between groups need it: noise only adds to them, so plain percentiles lie too high and exclude a true zero.
    """
    from scipy.special import ndtr, ndtri

    defined = samples[np.isfinite(samples)]
    if not np.isfinite(estimate):
        return Interval(estimate=None)
    if days < 2 or defined.size < (1 - MAX_UNDEFINED_SHARE) * samples.size:  # noqa: PLR2004
        return Interval(estimate=estimate)
    tail = float(ndtr(small_sample_factor(days, confidence) * ndtri(0.5 - confidence / 2)))
    low, high = (float(q) for q in np.quantile(defined, [tail, 1 - tail]))
    if reflect:
        low, high = max(0.0, 2 * estimate - high), max(0.0, 2 * estimate - low)
    return Interval(estimate=estimate, low=low, high=high)


def simultaneous_intervals(
    estimates: Sequence[float], samples: Floats, *, days: int, confidence: float
) -> list[Interval]:
    """Return intervals that all hold together with the given confidence.

    `samples` is float64 [k, samples] of k estimates resampled together. The width comes from the largest
    standardised deviation over all k in each sample (max-T), so correlated estimates are not over-corrected
    as by Bonferroni.
    """
    point = np.asarray(estimates, dtype=np.float64)
    undefined = ~np.isfinite(samples)
    usable = np.isfinite(point) & (undefined.mean(axis=1) <= MAX_UNDEFINED_SHARE) & (days > 1)
    if not usable.any():
        return [Interval(estimate=_defined(value)) for value in estimates]
    deviation = np.where(undefined, 0.0, samples - point[:, None])[usable]
    error = np.sqrt(np.square(deviation).mean(axis=1))
    standardised = np.abs(deviation) / np.where(error > 0, error, 1.0)[:, None]
    width = float(np.quantile(standardised.max(axis=0), confidence)) * small_sample_factor(days, confidence)
    half = np.full(point.shape, np.nan)
    half[usable] = width * error
    return [
        Interval(estimate=value, low=value - float(h), high=value + float(h))
        if np.isfinite(h)
        else Interval(estimate=_defined(value))
        for value, h in zip(estimates, half, strict=True)
    ]


def _defined(value: float) -> float | None:
    return value if np.isfinite(value) else None
