"""Verdicts: a judging step always finishes and writes one; the next step obeys it.

KFP drops the artifacts of a failed task, so the step that judges must not be the one that raises.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from components.core.errors import DataError, GateRefused
from components.core.storage import write_text

Decision = Literal["pass", "promote", "hold", "reject"]


class Reason(BaseModel):
    """One check behind a decision, in words a reviewer understands."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    check: str
    passed: bool
    severity: Literal["critical", "warning", "info"] = "critical"
    message: str
    measured: Any = None
    allowed: Any = None


class Verdict(BaseModel):
    """What a gate decided about one subject, identified by its content digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: str
    subject: str
    """Digest of the thing that was judged: a snapshot's or a model's."""
    decision: Decision
    reasons: list[Reason]
    evidence: dict[str, Any] = {}

    @property
    def approved(self) -> bool:
        return self.decision in ("pass", "promote")


def write_verdict(path: Path, verdict: Verdict) -> None:
    """Write a verdict as JSON."""
    write_text(path, verdict.model_dump_json(indent=2))


def read_verdict(path: Path) -> Verdict:
    """Read a verdict from JSON."""
    return Verdict.model_validate_json(path.read_text(encoding="utf-8"))


def require_approved(path: Path, *, gate: str, subject: str) -> Verdict:
    """Return the verdict if this gate approved exactly this subject.

    Raises GateRefused when the gate said no, DataError when the verdict judges something else.
    """
    verdict = read_verdict(path)
    if verdict.gate != gate or verdict.subject != subject:
        raise DataError(
            f"the verdict at hand does not judge this {gate} subject",
            measured=f"{verdict.gate}:{verdict.subject[:12]}",
            allowed=f"{gate}:{subject[:12]}",
            next_step="run the judging step again on this input",
        )
    if not verdict.approved:
        failed = [r for r in verdict.reasons if not r.passed and r.severity == "critical"]
        raise GateRefused(
            f"{gate} decided {verdict.decision}: " + " | ".join(r.message for r in failed),
            next_step=f"read the {gate} report of this run",
        )
    return verdict
