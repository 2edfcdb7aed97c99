"""Metrics of predictions, in plain numpy; `labels` and `predictions` are float64 [n]."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Metric = Literal["auc", "logloss", "brier", "ece", "rmse", "mae", "r2"]

CLASSIFICATION: tuple[Metric, ...] = ("auc", "logloss", "brier", "ece")
REGRESSION: tuple[Metric, ...] = ("rmse", "mae", "r2")
LARGER_IS_BETTER: frozenset[Metric] = frozenset({"auc", "r2"})
CALIBRATION_BINS = 10
# A float32 probability cannot come closer to one than this; nearer ones would make a single row infinite.
SMALLEST_PROBABILITY = 1e-7


def sign(metric: Metric) -> int:
    """Return +1 when a larger value is better, else -1: differences are reported as improvements."""
    return 1 if metric in LARGER_IS_BETTER else -1


def auc(labels: Floats, predictions: Floats) -> float:
    """Return the area under the ROC curve, ties counted half (Mann-Whitney U); NaN with one class."""
    _, code = np.unique(predictions, return_inverse=True)
    negatives = np.bincount(code[labels == 0], minlength=code.max(initial=0) + 1)
    beaten = np.cumsum(negatives) - negatives / 2
    wins = beaten[code[labels == 1]].sum()
    pairs = float((labels == 1).sum()) * float((labels == 0).sum())
    return float(wins / pairs) if pairs else float("nan")


def row_logloss(labels: Floats, predictions: Floats) -> Floats:
    """Return the negative log-likelihood of every row, in nats."""
    p = np.clip(predictions, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    loss: Floats = -(labels * np.log(p) + (1 - labels) * np.log1p(-p))
    return loss


def calibration_bins(predictions: Floats, bins: int = CALIBRATION_BINS) -> Ints:
    """Return the equal-mass bin of every row, numbered without gaps; equal predictions share a bin.

    Equal mass instead of equal width: rare high scores get their own rows instead of an almost empty bin
    (adaptive calibration error, Nixon et al. 2019).
    """
    edges = np.unique(np.quantile(predictions, np.linspace(0, 1, bins + 1)[1:-1], method="higher"))
    _, numbered = np.unique(np.searchsorted(edges, predictions, side="right"), return_inverse=True)
    return numbered.astype(np.intp)


def ece(labels: Floats, predictions: Floats) -> float:
    """Return the expected calibration error: mean |observed rate - mean prediction| over equal-mass bins.

    It is biased upwards: even a perfect model has about sqrt(p (1 - p) / rows per bin).
    """
    bins = calibration_bins(predictions)
    gaps = np.bincount(bins, weights=labels - predictions)
    return float(np.abs(gaps).sum() / labels.size)


def r2(labels: Floats, predictions: Floats) -> float:
    """Return the coefficient of determination; NaN when all labels are equal."""
    total = float(np.square(labels - labels.mean()).sum())
    return 1 - float(np.square(labels - predictions).sum()) / total if total else float("nan")


MEASURES: dict[Metric, Callable[[Floats, Floats], float]] = {
    "auc": auc,
    "logloss": lambda labels, predictions: float(row_logloss(labels, predictions).mean()),
    "brier": lambda labels, predictions: float(np.square(labels - predictions).mean()),
    "ece": ece,
    "rmse": lambda labels, predictions: float(np.sqrt(np.square(labels - predictions).mean())),
    "mae": lambda labels, predictions: float(np.abs(labels - predictions).mean()),
    "r2": r2,
}


def measure(metric: Metric, labels: Floats, predictions: Floats) -> float:
    """Return one metric over all rows; NaN where it is not defined (no rows, one class, constant label)."""
    return MEASURES[metric](labels, predictions) if labels.size else float("nan")
