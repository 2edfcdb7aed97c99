"""How figures are written in reasons, report and model card."""

from components.evaluate.measurements import Interval
from components.evaluate.metrics import Metric

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


def number(value: float | None, *, signed: bool = False) -> str:
    """Write a figure with three decimals, four below 0.01, four significant digits from 100 on; None as a dash."""
    if value is None:
        return "–"
    size = abs(value)
    text = f"{size:,.4g}" if size >= 100 else f"{size:.3f}" if size >= 0.01 or not size else f"{size:.4f}"  # noqa: PLR2004
    if float(text.replace(",", "")) == 0:
        return text
    return ("−" if value < 0 else "+" if signed else "") + text


def range_text(interval: Interval, *, signed: bool = False) -> str:
    """Write an estimate with its interval in brackets."""
    text = number(interval.estimate, signed=signed)
    if interval.low is None or interval.high is None:
        return text
    return f"{text} [{number(interval.low, signed=signed)}, {number(interval.high, signed=signed)}]"
