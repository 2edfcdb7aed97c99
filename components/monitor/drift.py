"""The calibrated drift test: does a window come from where the reference comes from, all columns judged at once?

Score of a column: the Jensen-Shannon distance of its two histograms (the square root of the divergence in bits, as
SciPy and Evidently define it), null being a bin like any other. Its null distribution comes from regrouping what was
seen, reference and window pooled, at the real sizes of both sides, so a small window is not taken for a moved one:

rows  a window within one UTC day: rows are dealt out again, in each column on its own
days  a longer window: whole days are dealt out again, all columns together

Rows of a day share weather and incidents, hence days. Neighbouring days are alike too; dealing them out singly hides
that, so each column's null divergence is multiplied by how much serial correlation of the reference days widens the
difference of two means (`serial_inflation`).

Every column is standardised by its own null. Its largest value over all columns is compared with the null of that
largest value (max-T, Westfall and Young 1993): one false alarm in 1/significance windows, however many columns.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from components.core.errors import DataError
from components.core.evidence import ColumnDrift, DriftTest
from components.core.profile import ColumnProfile, Counts
from components.monitor.serial_correlation import serial_inflation

Floats = npt.NDArray[np.float64]
_ROUNDING = 1e-9
"""Standardised scores nearer than this are ties: equal counts may differ in their last bits."""
_ROWS_PER_BIN = 5
"""Below so many rows of a window per bin it is faster to draw rows than counts."""
_SMALLEST_DIVERGENCE = 1e-12
"""Bits; less is rounding."""


def drift_test(
    columns: Sequence[ColumnProfile], window: Mapping[str, Counts], *, significance: float, resamples: int, seed: int
) -> DriftTest:
    """Compare a window with the reference, family-wise at a significance.

    `window` maps a column's name to int64 [days, bins], the same days for all. A column that the window lacks, that is
    the same in both or that has no rows on one side is no evidence. Deterministic by seed, whatever the order of the
    columns. No p-value is below `least_p_value`: a window of which few other choices exist is never called drifted.
    Raises DataError when the columns do not have the same days.
    """
    present = [column for column in columns if column.name in window]
    days, reference_days = _common_days(present, window)
    blocks: Literal["rows", "days"] = "days" if days > 1 else "rows"
    compared = [c for c in present if window[c.name].any() and any(map(any, c.counts))]
    choices = _choose_days(reference_days, days, resamples, seed) if blocks == "days" and compared else None
    raw, standard = np.zeros(len(compared)), np.zeros((len(compared), 1 + resamples))
    for position, column in enumerate(compared):
        if choices is None:
            null = _deal_rows(column, window[column.name], resamples, seed)
        else:
            null = _deal_days(column, window[column.name], choices)
        raw[position] = null[0]
        standard[position] = _standardise(null)
    largest = standard.max(axis=0, initial=-np.inf)
    beyond = [_share(largest, own) for own in standard[:, 0]]
    found = [
        ColumnDrift(
            column=column.name,
            score=float(score),
            p_value=_share(own, own[0]),
            drifted=family <= significance,
            importance=column.importance,
        )
        for column, score, own, family in zip(compared, raw, standard, beyond, strict=True)
    ]
    return DriftTest(
        rows=max((int(window[c.name].sum()) for c in present), default=0),
        reference_rows=max((int(c.table().sum()) for c in present), default=0),
        days=days,
        reference_days=reference_days,
        blocks=blocks,
        p_value=min(beyond, default=1.0),
        drifted=any(column.drifted for column in found),
        columns=sorted(found, key=lambda c: (-c.score, c.column)),
    )


def least_p_value(test: DriftTest, resamples: int) -> float:
    """Return the smallest p-value that a test of such sizes can reach; above the significance it can never fire."""
    from math import comb

    total = comb(test.days + test.reference_days, test.days) if test.blocks == "days" else resamples + 1
    return 1 / min(total, resamples + 1)


def js_distance(window: Floats, reference: Floats) -> Floats:
    """Return the Jensen-Shannon distance of histograms along the last axis: 0 (equal) to 1 (disjoint)."""
    return np.sqrt(_divergence(window, reference))


def _divergence(window: Floats, reference: Floats) -> Floats:
    p = window / np.maximum(window.sum(axis=-1, keepdims=True), 1)
    q = reference / np.maximum(reference.sum(axis=-1, keepdims=True), 1)
    bits = (_information(p) + _information(q)) / 2 - _information((p + q) / 2)
    found: Floats = bits.sum(axis=-1)
    found[found < _SMALLEST_DIVERGENCE] = 0.0
    return found


def _information(share: Floats) -> Floats:
    # A share of zero contributes zero, the limit.
    return share * np.log2(np.maximum(share, np.finfo(np.float64).tiny))


def _deal_rows(column: ColumnProfile, window: Counts, resamples: int, seed: int) -> Floats:
    """Return the distance of the window, then of windows of as many rows of all: float64 [1 + resamples]."""
    mine, all_rows = window.sum(axis=0), window.sum(axis=0) + column.table().sum(axis=0)
    # Keyed by the name, so that a column is dealt the same hands among any others.
    generator = np.random.default_rng([seed, zlib.crc32(column.name.encode())])
    used = all_rows > 0
    rows = int(mine.sum())
    # Dealing row by row costs by the rows, dealing bin by bin by the bins.
    method: Literal["count", "marginals"] = "count" if rows < _ROWS_PER_BIN * used.sum() else "marginals"
    dealt = generator.multivariate_hypergeometric(all_rows[used], rows, size=resamples, method=method)
    taken = np.concatenate([mine[None, used], dealt]).astype(np.float64)
    return js_distance(taken, all_rows[used] - taken)


def _deal_days(column: ColumnProfile, window: Counts, choices: Floats) -> Floats:
    """Return the distance of the window, then of the chosen days, as float64 [1 + resamples]."""
    table = np.concatenate([window, column.table()]).astype(np.float64)
    table = table[:, table.any(axis=0)]
    taken = choices @ table
    divergence = _divergence(taken, table.sum(axis=0) - taken)
    divergence[1:] *= serial_inflation(column.table(), len(window))
    return np.sqrt(divergence)


def _choose_days(reference_days: int, days: int, resamples: int, seed: int) -> Floats:
    """Return which days form a window, 0 or 1 in float64 [1 + resamples, days + reference_days], first the real one."""
    total = days + reference_days
    generator = np.random.default_rng(seed)
    order = np.argsort(generator.random((resamples, total)), axis=1)
    real = np.arange(total) < days
    return np.concatenate([real[None], order < days]).astype(np.float64)


def _standardise(null: Floats) -> Floats:
    """Return the values in units of their spread; the real one is among them, so that all are treated alike."""
    spread = null.std()
    return (null - null.mean()) / spread if spread > _ROUNDING else np.zeros_like(null)


def _share(null: Floats, value: float) -> float:
    """Return the share of a null, the real value among it, that is at least a value: above 0, at most 1."""
    return float((null >= value - _ROUNDING).mean())


def _common_days(present: Sequence[ColumnProfile], window: Mapping[str, Counts]) -> tuple[int, int]:
    sizes = {(len(window[c.name]), len(c.days)) for c in present}
    if len(sizes) > 1:
        raise DataError(
            "columns that are tested together do not have the same days",
            measured=", ".join(f"{mine} and {theirs}" for mine, theirs in sorted(sizes)),
            allowed="one number of days of the window, one of the reference",
        )
    return sizes.pop() if sizes else (0, 0)
