"""The replay as one self-contained HTML page: table, performance, drift, decisions on a time line, compute."""

from html import escape
from typing import Any

from components.core.metrics import sign
from components.core.pages import draw, page
from pipelines.replay.compare import Line, facts
from pipelines.replay.play import Played

# Distinguishable with colour blindness, and by marker in print.
COLOURS = ("#6b7480", "#1f5fbf", "#c4561b", "#1b7a43", "#7a3fa0", "#8a5a00")
MARKERS = ("o", "s", "^", "D", "v", "P")
DECISIONS = {
    "retrain": ("#c4561b", "^"),
    "hold": ("#8a5a00", "s"),
    "alert": ("#b3261e", "X"),
    "report": ("#9aa3ad", "o"),
    "insufficient": ("#9aa3ad", "d"),
}


def render(title: str, lines: list[Line], *, command: str) -> str:
    """Return the page."""
    best = _best(lines)
    sections = [_table(lines), _performance(lines), _drift(lines), _timeline(lines), _compute(lines), _ticks(lines)]
    windows = lines[0].play.ticks
    span = f"{windows[0].decision.window.first:%Y-%m-%d} to {windows[-1].decision.window.last:%Y-%m-%d}"
    return page(
        f"{title}: replay",
        f"<header><p class='over'>{escape(title)} · replay of {span} on a virtual clock</p><h1>{escape(best)}</h1>"
        f"<p class='quiet'>Every policy ran the compiled pipelines in a home of its own: score, watch, decide, "
        f"retrain, gate, promote. Made by <code>{escape(command)}</code>.</p></header>{''.join(sections)}",
    )


def _best(lines: list[Line]) -> str:
    known = [line for line in lines if line.mean is not None]
    if not known:
        return "No window has labels: no policy can be compared."
    better = sign(known[0].metric)
    best = max(known, key=lambda line: better * (line.mean or 0.0))
    return (
        f"Policy {best.play.policy} kept the best mean {best.metric}, {best.mean:.3f}, "
        f"with {best.promotions} promotions from {best.requests} retrainings."
    )


def _table(lines: list[Line]) -> str:
    names = list(facts(lines[0]))
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr><th scope='row'>{escape(line.play.policy)}</th>"
        + "".join(f"<td>{escape(value)}</td>" for value in facts(line).values())
        + "</tr>"
        for line in lines
    )
    return (
        f"<section><h2>Policies</h2><table><thead><tr><th scope='col'>policy</th>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></section>"
    )


def _labels(line: Line) -> list[str]:
    return [
        f"{tick.decision.window.first:%b %d}" if _short(line) else f"{tick.decision.window.first:%b}"
        for tick in line.play.ticks
    ]


def _short(line: Line) -> bool:
    first = line.play.ticks[0].decision.window
    return bool((first.last - first.first).days < 28)  # noqa: PLR2004 - shorter than any month


def _performance(lines: list[Line]) -> str:
    def paint(axes: Any) -> None:
        for line, colour, marker in zip(lines, COLOURS, MARKERS, strict=False):
            values = [float("nan") if value is None else value for value in line.performance]
            axes.plot(values, marker=marker, markersize=5, color=colour, label=line.play.policy)
        axes.set_xticks(range(len(lines[0].performance)), _labels(lines[0]))
        axes.set(ylabel=lines[0].metric)
        axes.legend(ncols=len(lines), loc="upper center", bbox_to_anchor=(0.5, -0.12))

    plot = draw(paint, "Performance per window and policy", (9.0, 3.2))
    note = "On every prediction of the window whose label came, whichever version made it. Same rows for all policies."
    return f"<section><h2>Performance</h2><figure>{plot}<figcaption>{note}</figcaption></figure></section>"


def _drift(lines: list[Line]) -> str:
    def paint(axes: Any) -> None:
        for line, colour, marker in zip(lines, COLOURS, MARKERS, strict=False):
            values = [_largest_score(tick) for tick in line.play.ticks]
            axes.plot(values, marker=marker, markersize=5, color=colour, label=f"{line.play.policy}: inputs")
            predictions = [_prediction_score(tick) for tick in line.play.ticks]
            axes.plot(predictions, marker=marker, markersize=4, color=colour, linestyle=(0, (2, 1.5)))
            for position, tick in enumerate(line.play.ticks):
                if tick.decision.evidence.prediction_drift and tick.decision.evidence.prediction_drift.drifted:
                    axes.plot(position, predictions[position], marker=marker, markersize=10, color=colour, alpha=0.35)
        axes.set_xticks(range(len(lines[0].play.ticks)), _labels(lines[0]))
        axes.set(ylabel="Jensen-Shannon distance", ylim=(0, None))
        axes.legend(ncols=len(lines), loc="upper center", bbox_to_anchor=(0.5, -0.12))

    plot = draw(paint, "Drift scores per window and policy", (9.0, 3.2))
    note = (
        "Solid: the column that moved most, against the champion's own reference. Dashed: the predictions; a halo "
        "marks windows where they drifted at the configured level. A promotion moves the reference."
    )
    return f"<section><h2>Drift</h2><figure>{plot}<figcaption>{note}</figcaption></figure></section>"


def _largest_score(tick: Played) -> float:
    drift = tick.decision.evidence.drift
    return drift.columns[0].score if drift and drift.columns else float("nan")


def _prediction_score(tick: Played) -> float:
    drift = tick.decision.evidence.prediction_drift
    return drift.columns[0].score if drift and drift.columns else float("nan")


def _timeline(lines: list[Line]) -> str:
    def paint(axes: Any) -> None:
        for row, line in enumerate(lines):
            for position, tick in enumerate(line.play.ticks):
                colour, marker = DECISIONS[tick.decision.decision]
                axes.plot(position, row, marker=marker, markersize=9, color=colour, linestyle="")
                if tick.promoted:
                    axes.plot(position + 0.22, row, marker="*", markersize=14, color="#1b7a43", linestyle="")
                    axes.annotate(
                        f"v{tick.promoted}", (position + 0.22, row), (0, 8), textcoords="offset points", ha="center"
                    )
        for decision, (colour, marker) in DECISIONS.items():
            axes.plot([], [], marker=marker, color=colour, linestyle="", label=decision)
        axes.plot([], [], marker="*", markersize=11, color="#1b7a43", linestyle="", label="promoted")
        axes.set_yticks(range(len(lines)), [line.play.policy for line in lines])
        axes.set_xticks(range(len(lines[0].play.ticks)), _labels(lines[0]))
        axes.set(ylim=(len(lines) - 0.4, -0.8))
        axes.legend(ncols=6, loc="upper center", bbox_to_anchor=(0.5, -0.12))

    plot = draw(paint, "Decisions and promotions on one time line", (9.0, 1.4 + 0.5 * len(lines)))
    return f"<section><h2>Decisions and promotions</h2><figure>{plot}</figure></section>"


def _compute(lines: list[Line]) -> str:
    def paint(axes: Any) -> None:
        left = [0.0] * len(lines)
        for pipeline, colour in (("training", "#1f5fbf"), ("monitoring", "#c4561b"), ("scoring", "#9aa3ad")):
            width = [line.seconds[pipeline] for line in lines]
            axes.barh(range(len(lines)), width, left=left, color=colour, label=pipeline, height=0.6)
            left = [a + b for a, b in zip(left, width, strict=True)]
        axes.set_yticks(range(len(lines)), [line.play.policy for line in lines])
        axes.set(xlabel="wall-clock seconds", ylim=(len(lines) - 0.4, -0.6))
        axes.legend(ncols=3, loc="lower right")

    plot = draw(paint, "Compute spent per policy", (9.0, 1.1 + 0.4 * len(lines)))
    return f"<section><h2>Compute</h2><figure>{plot}</figure></section>"


def _ticks(lines: list[Line]) -> str:
    blocks = []
    for line in lines:
        rows = "".join(
            f"<tr><th scope='row'>{tick.decision.window.first:%Y-%m-%d}</th><td>{escape(tick.decision.decision)}</td>"
            f"<td>{escape(tick.decision.rung)}</td><td class='words'>{escape('; '.join(tick.decision.reasons))}</td>"
            f"<td>{escape(tick.decision.outcome or tick.decision.suppressed_by or '')}</td></tr>"
            for tick in line.play.ticks
        )
        blocks.append(
            f"<details><summary>{escape(line.play.policy)}: every decision</summary><table class='facts'><thead><tr>"
            "<th scope='col'>window</th><th scope='col'>decision</th><th scope='col'>rung</th><th scope='col'>reasons"
            f"</th><th scope='col'>outcome</th></tr></thead><tbody>{rows}</tbody></table></details>"
        )
    return f"<section><h2>Every decision</h2>{''.join(blocks)}</section>"
