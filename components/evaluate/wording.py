"""How figures are written in reasons, report and model card."""

from components.core.bootstrap import Interval
from components.core.metrics import Metric

METRIC_NAMES: dict[Metric, str] = {
    "auc": "AUC",
    "logloss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
}

RATE_NAMES = {
    "selection_rate": "flagged",
    "true_positive_rate": "true positive rate",
    "false_positive_rate": "false positive rate",
    "mean_absolute_error": "mean absolute error",
}


def number(value: float | None, *, signed: bool = False, decimals: int | None = None) -> str:
    """Write a figure with decimals that suit its size; None as a dash."""
    if value is None:
        return "–"
    text = f"{abs(value):,.{_decimals(value) if decimals is None else decimals}f}"
    if not text.strip("0.,"):
        return text
    return ("−" if value < 0 else "+" if signed else "") + text


def range_text(interval: Interval, *, signed: bool = False) -> str:
    """Write an estimate with its interval in brackets, all with the same decimals."""
    values = (interval.estimate, interval.low, interval.high)
    decimals = min((_decimals(v) for v in values if v is not None), default=0)
    estimate, low, high = (number(v, signed=signed, decimals=decimals) for v in values)
    return estimate if interval.low is None or interval.high is None else f"{estimate} [{low}, {high}]"


def _decimals(value: float) -> int:
    size = abs(value)
    return next((digits for bound, digits in ((1000, 0), (100, 1), (0.01, 3)) if size >= bound), 4 if size else 3)
