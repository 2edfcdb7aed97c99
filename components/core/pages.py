"""Reports for people: self-contained HTML pages, with plots as inline SVG.

Text stays text, nothing is loaded from elsewhere, equal input gives equal bytes.
"""

import io
import re
from html import escape
from pathlib import Path
from typing import Any

STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa3ad",
    "axes.labelcolor": "#3a424c",
    "xtick.color": "#5b646e",
    "ytick.color": "#5b646e",
    "axes.grid": True,
    "grid.color": "#e8ebef",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
}


def draw(paint: Any, alt: str, size: tuple[float, float] = (3.7, 3.1)) -> str:
    """Let `paint(axes)` fill one plot and return it as accessible SVG."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # The salt keeps ids of different plots on one page apart.
    with mpl.rc_context({**STYLE, "svg.hashsalt": alt}):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure.add_subplot())
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(
            buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{alt}" ', 1)


def page(title: str, body: str) -> str:
    """Return a whole document in the style of all reports; `body` is HTML that goes into <main>."""
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<meta name='viewport' content='width=device-width, initial-scale=1'><style>{style}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )
