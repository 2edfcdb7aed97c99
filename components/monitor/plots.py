"""Plots of a window's page as inline SVG."""

from typing import Any

import numpy as np
import pyarrow as pa

from components.core.evidence import DriftTest, Performance
from components.core.pages import draw
from components.monitor.watched import WatchedModel

MAX_COLUMNS = 25
DRIFTED, QUIET, REFERENCE = "#c4561b", "#8fb0df", "#6b7480"


def drift_plot(test: DriftTest) -> str:
    """Draw the distance of every column, the farthest on top; drifted ones in another colour."""
    # Whatever drifted is shown, however small its distance is beside that of a column that always wanders.
    chosen = sorted(test.columns, key=lambda c: (not c.drifted, -c.score))[:MAX_COLUMNS]
    shown = sorted(chosen, key=lambda c: c.score)

    def paint(axes: Any) -> None:
        y = np.arange(len(shown))
        axes.barh(y, [c.score for c in shown], color=[DRIFTED if c.drifted else QUIET for c in shown])
        for place, column in zip(y, shown, strict=True):
            axes.text(column.score, place, f" p {column.p_value:.3g}", va="center", fontsize=7.5, color="#5b646e")
        axes.set_yticks(y, [c.column for c in shown])
        axes.set(xlabel="Jensen-Shannon distance to the reference; orange: beyond the family-wise limit")
        axes.set_xlim(0, 1.15 * max(0.05, *(c.score for c in shown)))
        axes.grid(visible=False, axis="y")

    return draw(paint, "Distance of every input to the reference", (9.0, 0.9 + 0.24 * max(3, len(shown))))


def performance_plot(measured: list[Performance]) -> str:
    """Draw each metric's interval in the window above that of the gate; nothing where none is known."""
    known = [p for p in measured if p.window.low is not None and p.champion.low is not None]
    if not known:
        return ""
    figures = []
    for p in known:

        def paint(axes: Any, p: Performance = p) -> None:
            for place, interval, colour, name in (
                (1, p.window, DRIFTED if p.fell else "#1f5fbf", "this window"),
                (0, p.champion, REFERENCE, "the gate"),
            ):
                axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=5, alpha=0.35)
                axes.plot([interval.estimate], [place], "o", color=colour, label=name)
            axes.set_yticks([0, 1], ["the gate", "this window"])
            axes.set(xlabel=p.metric, ylim=(-0.6, 1.6))
            axes.grid(visible=False, axis="y")

        figures.append(draw(paint, f"{p.metric} of the window beside that of the gate", (4.4, 1.5)))
    return f"<div class='grid'>{''.join(f'<div>{figure}</div>' for figure in figures)}</div>"


def prediction_plot(model: WatchedModel, rows: pa.Table) -> str:
    """Draw the histogram of the window's predictions over that of the reference, in bins of equal width."""
    before = np.asarray(model.reference.column("prediction").to_numpy(), dtype=np.float64)
    now = np.asarray(rows.column("prediction").to_numpy(), dtype=np.float64)
    before, now = before[np.isfinite(before)], now[np.isfinite(now)]
    low, high = (float(q) for q in np.quantile(np.concatenate([before, now]), [0.001, 0.999]))
    edges = np.linspace(low, high, 41)

    def paint(axes: Any) -> None:
        for values, colour, name in ((before, REFERENCE, "reference"), (now, "#1f5fbf", "this window")):
            is_reference = name == "reference"
            shares = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / max(1, len(values))
            axes.stairs(shares, edges, color=colour, fill=is_reference, alpha=0.35 if is_reference else 1, label=name)
        axes.set(xlabel="prediction", ylabel="share of rows")
        axes.legend(loc="upper right")

    return draw(paint, "Histogram of predictions, window and reference", (9.0, 2.6))
