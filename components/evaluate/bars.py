"""Intervals drawn as small SVG bars on a common scale: a forest plot inside a table."""

from collections.abc import Iterable
from html import escape

from components.core.bootstrap import Interval
from components.evaluate.wording import range_text

WIDTH, HEIGHT = 260, 22
Scale = tuple[float, float]


def common_scale(intervals: Iterable[Interval], limits: Iterable[float] = ()) -> Scale:
    """Return a scale that holds every bound, every limit and zero, with a little air."""
    values = [0.0, *limits]
    for found in intervals:
        values += [v for v in (found.estimate, found.low, found.high) if v is not None]
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or 0.01
    return low - air, high + air


def interval_bar(interval: Interval, scale: Scale, *, limit: float | None = None, tone: str = "") -> str:
    """Draw an estimate and its interval; a grey line marks zero, a dashed one the limit."""
    if interval.estimate is None:
        return "<span class='quiet'>not defined</span>"
    low, high = scale

    def x(value: float) -> str:
        return f"{(value - low) / (high - low) * WIDTH:.1f}"

    middle = HEIGHT / 2
    parts = [f'<line x1="{x(0)}" x2="{x(0)}" y1="0" y2="{HEIGHT}" class="zero"/>']
    if limit is not None and limit != 0:
        parts.append(f'<line x1="{x(limit)}" x2="{x(limit)}" y1="0" y2="{HEIGHT}" class="limit"/>')
    if interval.low is not None and interval.high is not None:
        parts.append(
            f'<line x1="{x(interval.low)}" x2="{x(interval.high)}" y1="{middle}" y2="{middle}" class="range"/>'
        )
    parts.append(f'<circle cx="{x(interval.estimate)}" cy="{middle}" r="4"/>')
    alt = escape(range_text(interval, signed=True), quote=True)
    return (
        f'<svg class="bar {tone}" role="img" aria-label="{alt}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}">{"".join(parts)}</svg>'
    )
