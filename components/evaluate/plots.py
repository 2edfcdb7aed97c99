"""Plots of the report."""

from typing import TYPE_CHECKING, Any

import numpy as np

from components.core.bootstrap import day_totals, small_sample_factor
from components.core.metrics import Floats, Ints, Metric, calibration_bins, measure
from components.core.pages import draw
from components.evaluate.curves import roc_curve
from components.evaluate.measurements import Importance
from components.evaluate.wording import METRIC_NAMES

if TYPE_CHECKING:
    from components.evaluate.judging import Judgement

ROLES = ("challenger", "champion", "baseline")
# Distinguishable with colour blindness, and by dash in print.
COLOURS = {"challenger": "#1f5fbf", "champion": "#c4561b", "baseline": "#6b7480"}
DASHES: dict[str, Any] = {"challenger": "-", "champion": (0, (5, 2)), "baseline": (0, (1, 1.5))}


def roc_plot(judgement: "Judgement") -> str:
    """Draw the ROC curve of every model."""
    labels = judgement.holdout.labels

    def paint(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color="#c3c9d0", linewidth=1)
        for role in present(judgement):
            predictions = judgement.predictions[role]
            fpr, tpr, _ = roc_curve(labels, predictions)
            name = f"{role} {measure('auc', labels, predictions):.3f}"
            axes.plot(fpr, tpr, color=COLOURS[role], linestyle=DASHES[role], label=name)
        axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01))
        axes.legend(loc="lower right", title="AUC", alignment="left")

    return draw(paint, "ROC curves of the compared models")


def reliability_plot(judgement: "Judgement", confidence: float) -> str:
    """Draw the observed rate against the prediction, per equal-mass bin, with day-block bands."""
    holdout, predictions = judgement.holdout, judgement.predictions["challenger"]
    centre, observed, low, high = reliability(holdout.labels, predictions, holdout.day, judgement.weights, confidence)

    def paint(axes: Any) -> None:
        top = 1.05 * max(float(np.nanmax(high)), float(centre.max()))
        bottom = min(0.0, float(np.nanmin(low)), float(centre.min()))
        axes.plot([bottom, top], [bottom, top], color="#c3c9d0", linewidth=1, label="perfect")
        if judgement.predictions.get("champion") is not None:
            x, y, _, _ = reliability(
                holdout.labels, judgement.predictions["champion"], holdout.day, judgement.weights, confidence
            )
            axes.plot(x, y, color=COLOURS["champion"], linestyle=DASHES["champion"], linewidth=1.2, label="champion")
        axes.fill_between(centre, low, high, color=COLOURS["challenger"], alpha=0.15, linewidth=0)
        axes.plot(centre, observed, "o-", color=COLOURS["challenger"], markersize=4, label="challenger")
        axes.set(xlabel="mean prediction", ylabel="mean label", xlim=(bottom, top), ylim=(bottom, top))
        axes.legend(loc="upper left")

    return draw(paint, "Reliability: observed against predicted, with bands that respect days")


def reliability(
    labels: Floats, predictions: Floats, day: Ints, weights: Floats, confidence: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return mean prediction, mean label and its day-block band per equal-mass bin."""
    bins = calibration_bins(predictions)
    count = np.bincount(bins).astype(np.float64)
    centre = np.bincount(bins, weights=predictions) / count
    observed = np.bincount(bins, weights=labels) / count
    members = (bins[:, None] == np.arange(len(count))).astype(np.float64)
    days = weights.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = (weights @ day_totals(members * labels[:, None], day, days)) / (
            weights @ day_totals(members, day, days)
        )
    if days < 2:  # noqa: PLR2004
        return centre, observed, observed, observed
    tail = 0.5 - confidence / 2
    band = np.nanquantile(rates, [tail, 1 - tail], axis=0) - observed
    band *= small_sample_factor(days, confidence)
    return centre, observed, observed + band[0], observed + band[1]


def histogram_plot(judgement: "Judgement", task: str) -> str:
    """Draw the predictions by class, or the residuals of a regression."""
    labels, predictions = judgement.holdout.labels, judgement.predictions["challenger"]

    def paint(axes: Any) -> None:
        if task == "classification":
            edges = np.linspace(0, max(float(predictions.max()), 1e-6), 41)
            for value, colour, name in ((0, "#9db8dd", "label 0"), (1, "#c4561b", "label 1")):
                axes.hist(predictions[labels == value], edges, color=colour, alpha=0.65, label=name)
            axes.set(xlabel="prediction", ylabel="rows")
            axes.legend(loc="upper right")
        else:
            axes.hist(labels - predictions, 41, color="#9db8dd")
            axes.axvline(0, color="#5b646e", linewidth=1)
            axes.set(xlabel="label − prediction", ylabel="rows")

    what = "predictions by class" if task == "classification" else "residuals"
    return draw(paint, f"Histogram of the challenger's {what}")


def daily_plot(judgement: "Judgement", metric: Metric) -> str:
    """Draw the metric of every day, challenger against champion or else baseline."""
    holdout = judgement.holdout
    roles = [role for role in present(judgement) if role != "baseline" or "champion" not in judgement.predictions]

    def paint(axes: Any) -> None:
        x = np.arange(holdout.days)
        for role in roles:
            daily = [
                measure(metric, holdout.labels[holdout.day == d], judgement.predictions[role][holdout.day == d])
                for d in range(holdout.days)
            ]
            axes.plot(
                x, daily, "o", linestyle=DASHES[role], color=COLOURS[role], markersize=3.5, linewidth=1.3, label=role
            )
        step = max(1, holdout.days // 10)
        axes.set_xticks(x[::step], [date[5:] for date in holdout.dates[::step]])
        axes.set(ylabel=METRIC_NAMES[metric], xlabel="day (UTC)")
        axes.legend(loc="lower left", ncols=2, bbox_to_anchor=(0, 1))

    return draw(paint, f"{METRIC_NAMES[metric]} by day of the holdout", (9.0, 2.7))


def importance_plot(importances: list[Importance], metric: Metric, limit: int = 15) -> str:
    """Draw the inputs whose shuffling costs most."""
    shown = importances[:limit][::-1]

    def paint(axes: Any) -> None:
        y = np.arange(len(shown))
        axes.barh(
            y,
            [i.drop for i in shown],
            xerr=[i.spread for i in shown],
            color="#8fb0df",
            error_kw={"ecolor": "#3a424c", "elinewidth": 1},
        )
        axes.set_yticks(y, [i.name for i in shown])
        axes.set(xlabel=f"loss of {METRIC_NAMES[metric]} when shuffled")
        axes.grid(visible=False, axis="y")

    return draw(paint, "Permutation importance of the inputs", (9.0, 0.9 + 0.25 * max(3, len(shown))))


def present(judgement: "Judgement") -> list[str]:
    """Return the roles that have predictions, challenger first."""
    return [role for role in ROLES if role in judgement.predictions]
