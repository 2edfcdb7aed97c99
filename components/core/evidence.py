"""Evidence: what the monitor measured in one window, before anything is decided.

monitor → evidence.json → decide
"""

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from components.core.bootstrap import Interval
from components.core.digests import json_digest
from components.core.storage import write_text
from components.core.verdict import Reason


class Measured(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Window(Measured):
    """A calendar-aligned span of prediction instants in UTC: first included, last excluded."""

    first: datetime
    last: datetime


class ColumnDrift(Measured):
    """How far one column moved."""

    column: str
    score: float
    """Jensen-Shannon distance of reference and window, base 2: 0 (equal) to 1."""
    p_value: float
    """Of this column alone."""
    drifted: bool
    """Whether it is beyond the family-wise threshold."""
    importance: float = 0.0


class DriftTest(Measured):
    """One family-wise test at the configured level."""

    rows: int
    reference_rows: int
    days: int
    reference_days: int
    blocks: Literal["rows", "days"]
    """What was permuted for the null."""
    p_value: float
    """Of the largest standardised score of all columns (max-T)."""
    drifted: bool
    columns: list[ColumnDrift]
    """Largest score first."""


class Performance(Measured):
    """One metric on the window's matured labels beside the champion's own holdout."""

    metric: str
    window: Interval
    champion: Interval
    fell: bool | None
    """None: cannot tell."""
    message: str


class Evidence(Measured):
    """All that `decide` may look at."""

    use_case: str
    window: Window
    as_of: datetime
    version: int
    """Version of the model that was watched, in the model registry."""
    model: str
    rows: int
    """Predictions of this model in the window."""
    labelled_rows: int
    """Of these, those whose label is known at `as_of`."""
    sanity: list[Reason]
    """A failed critical one means that the data is broken, and that nothing may be learned from it."""
    drift: DriftTest | None = None
    """Of the inputs; None: too few rows."""
    prediction_drift: DriftTest | None = None
    performance: list[Performance] = []
    evidently: bool | None = None
    """Dataset drift flag of Evidently's own preset; None: not asked."""
    notes: list[str] = []

    @property
    def digest(self) -> str:
        """Identity of what was measured, whenever that was."""
        return json_digest(self.model_dump(mode="json", exclude={"as_of"}))

    @property
    def broken(self) -> list[Reason]:
        return [finding for finding in self.sanity if not finding.passed and finding.severity == "critical"]


def write_evidence(path: Path, evidence: Evidence) -> None:
    """Write evidence as JSON."""
    write_text(path, evidence.model_dump_json(indent=2))


def read_evidence(path: Path) -> Evidence:
    """Read evidence."""
    return Evidence.model_validate_json(path.read_text(encoding="utf-8"))
