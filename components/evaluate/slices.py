"""Parts of the holdout where the challenger may be worse although the whole is better."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from components.core.bootstrap import resample, simultaneous_intervals
from components.core.metrics import Floats, Ints, Metric, measure, sign
from components.evaluate.holdout import group_values
from components.evaluate.measurements import Slice, Slices


def measure_slices(
    rows: pa.Table,
    columns: Sequence[str],
    *,
    metric: Metric,
    labels: Floats,
    challenger: Floats,
    reference: Floats,
    reference_name: str,
    day: Ints,
    weights: Floats,
    min_rows: int,
    confidence: float,
) -> Slices:
    """Measure every value of every column, worst difference first; numbers are cut into quarters.

    The intervals hold for all slices together, so a long list does not produce alarms by its length.
    """
    found: list[tuple[str, str, int, float, float]] = []
    samples: list[Floats] = []
    left_out = 0
    for column in columns:
        names, group = group_values(rows, column)
        for position, name in enumerate(names):
            inside = group == position
            count = int(inside.sum())
            new = measure(metric, labels[inside], challenger[inside])
            old = measure(metric, labels[inside], reference[inside])
            if count < min_rows or not np.isfinite(new) or not np.isfinite(old):
                left_out += count > 0
                continue
            found.append((column, name, count, new, old))
            part = labels[inside], day[inside]
            difference = resample(metric, part[0], challenger[inside], part[1], weights) - resample(
                metric, part[0], reference[inside], part[1], weights
            )
            samples.append(sign(metric) * difference)
    if not found:
        return Slices(reference=reference_name, slices=[], left_out=left_out)
    intervals = simultaneous_intervals(
        [sign(metric) * (new - old) for _, _, _, new, old in found],
        np.stack(samples),
        days=weights.shape[1],
        confidence=confidence,
    )
    slices = [
        Slice(column=column, value=value, rows=count, challenger=new, reference=old, difference=difference)
        for (column, value, count, new, old), difference in zip(found, intervals, strict=True)
    ]
    slices.sort(key=lambda s: s.difference.estimate if s.difference.estimate is not None else 0.0)
    return Slices(reference=reference_name, slices=slices, left_out=left_out)
