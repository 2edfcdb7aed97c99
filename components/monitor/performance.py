"""How good the watched model was on the labels that have come, beside what its gate had measured."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.core.bootstrap import Interval, draw_days, interval, resample
from components.core.evidence import Performance
from components.core.label_join import LABEL
from components.core.metrics import Floats, Ints, Metric, measure, sign
from components.core.profile import HoldoutPerformance, utc_days
from components.core.sections import Evaluate

NAMES: dict[Metric, str] = {
    "auc": "AUC",
    "logloss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
}


def judge_performance(
    rows: pa.Table, holdout: HoldoutPerformance, config: Evaluate, *, task: str, min_rows: int
) -> list[Performance]:
    """Measure the deciding metric, and the calibration of a classifier, on labelled rows.

    `rows` has as_of, prediction and label (null while unknown). Intervals come from resampled UTC days. `fell` is
    None where it cannot be told: fewer than `min_rows` labels, one day, one class, or no such figure of the gate.
    """
    known = rows.filter(pc.and_(pc.is_valid(rows.column(LABEL)), pc.is_valid(rows.column("prediction"))))
    labels, predictions = (_floats(known, name) for name in (LABEL, "prediction"))
    days, day = utc_days(known.column("as_of"))
    metrics: Sequence[Metric] = [config.metric, "ece"] if task == "classification" else [config.metric]
    return [
        judge_metric(
            metric,
            _estimate(metric, labels, predictions, day, len(days), config),
            holdout.metrics.get(metric, Interval(estimate=None)),
            rows=labels.size,
            days=len(days),
            min_rows=min_rows,
        )
        for metric in metrics
    ]


def _estimate(metric: Metric, labels: Floats, predictions: Floats, day: Ints, days: int, config: Evaluate) -> Interval:
    if not labels.size:
        return Interval(estimate=None)
    weights = draw_days(days, config.bootstrap_samples, config.seed)
    samples = resample(metric, labels, predictions, day, weights)
    # A calibration error is a distance: noise only adds to it.
    return interval(
        measure(metric, labels, predictions), samples, days=days, confidence=config.confidence, reflect=metric == "ece"
    )


def judge_metric(
    metric: Metric, window: Interval, champion: Interval, *, rows: int, days: int, min_rows: int
) -> Performance:
    """Say whether a metric fell: worse than the bad end of the champion's own interval, and surely not its estimate."""
    name = NAMES[metric]
    fell: bool | None = None
    if rows < min_rows:
        message = f"{name} cannot be told: {rows:,} labels are known, {min_rows:,} are needed"
    elif days < 2:  # noqa: PLR2004
        message = f"{name} cannot be told: all labels are of one day, and days differ"
    elif window.estimate is None or window.low is None or window.high is None:
        message = f"{name} is not defined on these labels, such as when all are of one class"
    elif champion.estimate is None or champion.low is None or champion.high is None:
        message = f"{name} is {window.estimate:.3f}, and the gate measured none to compare with"
    else:
        better = sign(metric)
        bad_end, sure_end = (champion.low, window.high) if better > 0 else (champion.high, window.low)
        is_worse = better * (window.estimate - bad_end) < 0
        is_sure = better * (sure_end - champion.estimate) < 0
        fell = is_worse and is_sure
        changed = "fell" if better > 0 else "rose"
        message = (
            f"{name} {changed if fell else 'held'}: {window.estimate:.3f} [{window.low:.3f}, {window.high:.3f}] on "
            f"{rows:,} labels, the gate measured {champion.estimate:.3f} [{champion.low:.3f}, {champion.high:.3f}]"
        )
    return Performance(metric=metric, window=window, champion=champion, fell=fell, message=message)


def _floats(rows: pa.Table, name: str) -> Floats:
    return np.asarray(rows.column(name).cast(pa.float64()).to_numpy(), dtype=np.float64)
