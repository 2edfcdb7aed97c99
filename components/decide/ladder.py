"""The decision ladder: from what was measured in a window to a proposal, in words. Pure.

broken data → alert    too few rows → insufficient    performance fell → retrain    drift, k of n → retrain    report
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from components.core.calendar import window_of
from components.core.digests import json_digest
from components.core.evidence import DriftTest, Evidence
from components.core.ledger.decisions import Rung
from components.core.ledger.proposals import Proposal, Proposed
from components.core.sections import Monitor

NAMED_COLUMNS = 3


class Finding(NamedTuple):
    """Where the ladder ends."""

    decision: Proposed
    rung: Rung
    reasons: list[str]


FIXED = {
    "never": Finding("report", "report", ["the policy never retrains"]),
    "scheduled": Finding("retrain", "schedule", ["the policy retrains after every window"]),
}


def propose(evidence: Evidence, config: Monitor, history: Sequence[Evidence]) -> Proposal:
    """Return what a policy concludes from a window; `history` is the evidence of earlier windows, of any model version.

    Broken data and too few rows end every policy: from them nothing may be learned.
    """
    found = _judge_rows(evidence, config) or _judge(evidence, config, history)
    return Proposal(
        decision=found.decision,
        rung=found.rung,
        reasons=found.reasons,
        policy=config.policy,
        policy_digest=json_digest(config.model_dump(mode="json")),
        evidence=evidence,
    )


def _judge_rows(evidence: Evidence, config: Monitor) -> Finding | None:
    if evidence.broken:
        return Finding("alert", "data", [finding.message for finding in evidence.broken])
    if evidence.rows < config.min_rows:
        few = f"{evidence.rows} predictions in the window, a verdict needs {config.min_rows}"
        return Finding("insufficient", "rows", [few])
    return None


def _judge(evidence: Evidence, config: Monitor, history: Sequence[Evidence]) -> Finding:
    if config.policy in FIXED:
        return FIXED[config.policy]
    if config.policy == "evidently":
        return _judge_flag(evidence)
    performance = _judge_performance(evidence, config)
    if config.policy == "performance" or (config.policy == "ladder" and performance.decision == "retrain"):
        return performance
    drift = _judge_drift(evidence, config, history)
    if config.policy == "drift":
        return drift
    # Too few rows for one of the two is no verdict; it takes too few for both to have none.
    judged = performance if drift.decision == "insufficient" else drift
    return judged._replace(reasons=performance.reasons + drift.reasons)


def _judge_flag(evidence: Evidence) -> Finding:
    if evidence.evidently is None:
        return Finding("report", "report", ["Evidently was not asked"])
    words = "found" if evidence.evidently else "found no"
    reason = f"Evidently's preset {words} dataset drift in {evidence.rows} rows"
    return Finding("retrain", "evidently", [reason]) if evidence.evidently else Finding("report", "report", [reason])


def _judge_performance(evidence: Evidence, config: Monitor) -> Finding:
    if evidence.labelled_rows < config.min_rows:
        few = f"{evidence.labelled_rows} labels are known, a verdict on performance needs {config.min_rows}"
        return Finding("insufficient", "rows", [few])
    fell = [measured.message for measured in evidence.performance if measured.fell]
    if fell:
        return Finding("retrain", "performance", fell)
    held = [measured.message for measured in evidence.performance]
    return Finding("report", "report", held or ["performance was not measured"])


def _judge_drift(evidence: Evidence, config: Monitor, history: Sequence[Evidence]) -> Finding:
    """Judge drift: this window drifted, and with it enough of the calendar windows before it, of the same version."""
    inputs, prediction = evidence.drift, evidence.prediction_drift
    if inputs is None or prediction is None:
        return Finding("insufficient", "rows", ["drift was not measured: too few rows"])
    reasons = [_inputs_in_words(inputs), _predictions_in_words(prediction)]
    drifted = {
        (earlier.window.first, earlier.window.last)
        for earlier in history
        if earlier.version == evidence.version and has_drifted(earlier)
    }
    span = [window for window in windows_before(evidence.window.first, config) if window in drifted]
    count = len(span) + has_drifted(evidence)
    reasons.append(
        f"{count} of {config.of_windows} windows of version {evidence.version} drifted in inputs and predictions,"
        f" {config.drifted_windows} are needed"
    )
    if has_drifted(evidence) and count >= config.drifted_windows:
        return Finding("retrain", "drift", reasons)
    return Finding("report", "report", reasons)


def has_drifted(evidence: Evidence) -> bool:
    """Return whether the window's inputs and its predictions both drifted; never of broken data."""
    tests = (evidence.drift, evidence.prediction_drift)
    return not evidence.broken and all(test is not None and test.drifted for test in tests)


def windows_before(first: datetime, config: Monitor) -> list[tuple[datetime, datetime]]:
    """Return the `of_windows - 1` calendar windows before the one that begins at `first`, newest first."""
    found = []
    for _ in range(config.of_windows - 1):
        earlier = window_of(config.window, first - timedelta(microseconds=1))
        found.append((earlier.first, earlier.last))
        first = earlier.first
    return found


def _inputs_in_words(test: DriftTest) -> str:
    moved = [column for column in test.columns if column.drifted]
    named = ", ".join(f"{column.column} ({column.score:.3f})" for column in moved[:NAMED_COLUMNS])
    more = f" and {len(moved) - NAMED_COLUMNS} more" if len(moved) > NAMED_COLUMNS else ""
    which = f": {named}{more}" if test.drifted and moved else ""
    return f"inputs {'drifted' if test.drifted else 'did not drift'} (p {test.p_value:.4f}, {test.rows} rows){which}"


def _predictions_in_words(test: DriftTest) -> str:
    return f"predictions {'drifted' if test.drifted else 'did not drift'} (p {test.p_value:.4f})"
