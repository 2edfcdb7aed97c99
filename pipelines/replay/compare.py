"""Comparing what policies brought and what they cost."""

from collections.abc import Mapping
from statistics import fmean

from pydantic import BaseModel, ConfigDict

from components.core.metrics import Metric, sign
from pipelines.replay.play import Play


class Line(BaseModel):
    """One policy of the table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    play: Play
    metric: Metric
    performance: list[float | None]
    """Metric per window on all predictions whose label came; None: not defined."""
    calibration: list[float | None]
    """Expected calibration error per window of a classifier."""

    @property
    def mean(self) -> float | None:
        return _mean(self.performance)

    @property
    def worst(self) -> float | None:
        known = [value for value in self.performance if value is not None]
        return min(known, key=lambda value: sign(self.metric) * value) if known else None

    @property
    def requests(self) -> int:
        return sum(tick.decision.decision == "retrain" for tick in self.play.ticks)

    @property
    def promotions(self) -> int:
        return sum(tick.promoted is not None for tick in self.play.ticks)

    @property
    def seconds(self) -> Mapping[str, float]:
        """Wall-clock seconds per pipeline; the first training counts."""
        total = {"training": self.play.bootstrap_seconds, "monitoring": 0.0, "scoring": 0.0}
        for tick in self.play.ticks:
            for pipeline, value in tick.seconds.items():
                total[pipeline] += value
        return total


def facts(line: Line) -> dict[str, str]:
    """Return the columns of the table."""
    columns = {f"mean {line.metric}": _number(line.mean), f"worst {line.metric}": _number(line.worst)}
    if any(value is not None for value in line.calibration):
        columns["mean calibration error"] = _number(_mean(line.calibration))
    return columns | {
        "retrainings": str(line.requests),
        "promoted": str(line.promotions),
        "refused": str(line.requests - line.promotions),
        "training s": f"{line.seconds['training']:.0f}",
        "all s": f"{sum(line.seconds.values()):.0f}",
    }


def as_text(lines: list[Line]) -> str:
    """Return the table for a terminal."""
    rows = [{"policy": line.play.policy, **facts(line)} for line in lines]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    head = "  ".join(f"{name:<{width}}" for name, width in widths.items())
    body = ["  ".join(f"{row[name]:<{width}}" for name, width in widths.items()) for row in rows]
    return "\n".join(line.rstrip() for line in [head, *body])


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
