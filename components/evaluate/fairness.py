"""Differences between declared groups of rows.

Classification: equalized odds difference (Hardt et al. 2016), the larger of the differences of the true and false
positive rates, at the threshold that flags as many rows as are positive. Regression: difference of the mean absolute
error, in units of the label.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from components.core.bootstrap import day_totals, interval
from components.core.metrics import Floats, Ints
from components.evaluate.holdout import group_values
from components.evaluate.measurements import Fairness, Group


def operating_threshold(labels: Floats, predictions: Floats) -> float:
    """Return the probability at or above which about as many rows lie as are positive."""
    share = float(labels.mean())
    return float(np.quantile(predictions, 1 - share, method="higher"))


def measure_fairness(
    rows: pa.Table,
    column: str,
    *,
    task: str,
    labels: Floats,
    predictions: Floats,
    day: Ints,
    weights: Floats,
    min_rows: int,
    confidence: float,
) -> Fairness:
    """Measure the rates of every group with enough rows and the largest difference between two groups."""
    names, group = group_values(rows, column)
    counts = np.bincount(group, minlength=len(names))
    kept = [position for position in range(len(names)) if counts[position] >= min_rows]
    chosen = np.isin(group, kept)
    outcome = predictions
    if task == "classification":
        outcome = (predictions >= operating_threshold(labels, predictions)).astype(np.float64)
    rates = _rates(task, labels[chosen], outcome[chosen], np.asarray(names, dtype=object)[group[chosen]])
    measure = "equalized odds difference" if task == "classification" else "difference of mean absolute error"
    terms = _numerators(task, labels, outcome)
    days = weights.shape[1]
    gaps = []
    for numerator, members in terms:
        ratio = []
        for position in kept:
            inside = (group == position) & members
            totals = day_totals(np.stack([numerator[inside], np.ones(int(inside.sum()))], axis=1), day[inside], days)
            # The first row weighs every day once: the estimate itself.
            sums = np.concatenate([np.ones((1, days)), weights]) @ totals
            ratio.append(np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0))
        gaps.append(np.ptp(np.stack(ratio), axis=0) if len(ratio) > 1 else np.full(len(weights) + 1, np.nan))
    worst = np.max(np.stack(gaps), axis=0)
    return Fairness(
        column=column,
        measure=measure,
        difference=interval(float(worst[0]), worst[1:], days=days, confidence=confidence, reflect=True),
        groups=[Group(value=names[k], rows=int(counts[k]), rates=rates[names[k]]) for k in kept],
        left_out=int((counts > 0).sum()) - len(kept),
    )


def _numerators(task: str, labels: Floats, outcome: Floats) -> list[tuple[Floats, Any]]:
    """Return per rate what is averaged and over which rows."""
    if task == "classification":
        return [(outcome, labels == 1), (outcome, labels == 0)]
    return [(np.abs(labels - outcome), np.ones(labels.shape, dtype=bool))]


def _rates(task: str, labels: Floats, outcome: Floats, group: Any) -> dict[str, dict[str, float]]:
    """Return the rates of every group, as fairlearn defines them."""
    if not labels.size:
        return {}
    from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate, true_positive_rate
    from sklearn.metrics import mean_absolute_error

    metrics = {"mean_absolute_error": mean_absolute_error}
    if task == "classification":
        metrics = {
            "selection_rate": selection_rate,
            "true_positive_rate": true_positive_rate,
            "false_positive_rate": false_positive_rate,
        }
    table = MetricFrame(metrics=metrics, y_true=labels, y_pred=outcome, sensitive_features=group).by_group
    return {str(name): {k: float(v) for k, v in row.items()} for name, row in table.to_dict(orient="index").items()}
