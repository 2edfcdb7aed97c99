"""A finding: something about the input that drift cannot explain."""

from dataclasses import dataclass
from typing import Any, Literal

from components.core.verdict import Reason
from components.monitor.history import History

Check = Literal["schema", "feeds", "nulls", "frozen", "units", "swaps", "categories", "ranges"]
MATERIAL_SHARE = 0.05
"""A window is broken when at least this share of its rows is; less is a warning."""


@dataclass(frozen=True)
class Finding:
    """What is wrong, where, and why."""

    check: Check
    columns: tuple[str, ...]
    periods: tuple[int, ...]
    """Of the history; all that belong to the window are told."""
    message: str
    """Column, value, limit and the probable cause."""
    measured: Any = None
    allowed: Any = None
    is_fatal: bool = True
    """Whether it can break a window at all."""


def as_reason(finding: Finding, history: History) -> Reason | None:
    """Return the reason that a finding is, None when all its periods lie before the window.

    Critical when the affected periods hold a material share of the window's rows, else a warning. A change of unit
    after a blind month is a warning too: it may be a season.
    """
    window = range(len(history.periods))[history.window]
    hit = [p for p in finding.periods if p in window]
    if not hit:
        return None
    rows = history.periods.rows
    share = float(rows[hit].sum() / rows[history.window].sum())
    # After a season in which nothing was seen, no value need be familiar.
    is_doubtful = finding.check == "units" and history.is_blind
    is_critical = finding.is_fatal and share >= MATERIAL_SHARE and not is_doubtful
    doubt = "; nothing was seen for a month before, so this may be a season" if is_doubtful else ""
    first, last = history.periods.first[hit[0]], history.periods.last[hit[-1]]
    when = f"on {first}" if first == last else f"from {first} to {last}"
    return Reason(
        check=finding.check,
        passed=False,
        severity="critical" if is_critical else "warning",
        message=f"{finding.message}; {when}, {share:.0%} of the rows{doubt}",
        measured=finding.measured,
        allowed=finding.allowed,
    )
