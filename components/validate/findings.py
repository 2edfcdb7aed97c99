"""Findings: what one check saw, in values that JSON and a person can read."""

import math
from datetime import date, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from components.core.verdict import Reason
from components.validate.suite import Severity

LONGEST_VALUE = 120


class Finding(BaseModel):
    """The result of one expectation or built-in check."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str
    column: str
    check: str
    severity: Severity
    passed: bool
    message: str
    expected: str
    observed: str = ""
    failing_percent: float | None = None
    """Share of failing rows among all rows of the table; absent for checks of a whole table."""
    examples: list[dict[str, str]] = []
    """Failing rows: key columns, timestamps and the checked columns."""
    notes: str = ""
    """Why the expectation exists, from its author."""

    @property
    def name(self) -> str:
        return ".".join(part for part in (self.table, self.column, self.check) if part)

    def to_reason(self) -> Reason:
        """Return the finding as one reason of a verdict."""
        return Reason(
            check=self.name,
            passed=self.passed,
            severity=self.severity,
            message=self.message,
            measured=self.observed,
            allowed=self.expected,
        )


def show(value: Any) -> str:
    """Render a cell for a person: missing as `null`, instants in UTC, long text shortened."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "null"
    if isinstance(value, datetime):
        text = value.isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")
    elif isinstance(value, date):
        text = value.isoformat()
    elif isinstance(value, float):
        text = f"{value:.6g}"
    else:
        text = str(value)
    return shorten(text, LONGEST_VALUE)


def shorten(text: str, longest: int) -> str:
    """Cut a text to at most `longest` characters, with an ellipsis when something is missing."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def show_percent(percent: float) -> str:
    """Render a share so that a few rows among many never read as 0 %, nor almost all of them as 100 %."""
    text = f"{percent:.2f} %"
    if percent > 0 and text == "0.00 %":
        return "< 0.01 %"
    if percent < 100 and text == "100.00 %":  # noqa: PLR2004
        return "> 99.99 %"
    return text
