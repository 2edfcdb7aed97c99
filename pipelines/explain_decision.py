"""Explaining a decision from its row in the ledger."""

from components.core.evidence import DriftTest, Performance
from components.core.ledger.decisions import Decision

SHOWN_COLUMNS = 5


def render(decision: Decision) -> str:
    """Write a decision for a terminal: what was decided, why, on what evidence, and what came of it."""
    window, evidence = decision.window, decision.evidence
    lines = [
        f"decision {decision.id[:10]}: {decision.decision} ({decision.rung})",
        f"{decision.model} version {decision.version}, {window.first:%Y-%m-%d} to {window.last:%Y-%m-%d}, policy "
        f"{decision.policy}, as of {decision.as_of:%Y-%m-%d %H:%M}",
        *(f"  - {reason}" for reason in decision.reasons),
    ]
    if decision.suppressed_by:
        lines.append(f"held back: {decision.suppressed_by}")
    lines.append(f"evidence: {evidence.rows:,} predictions, {evidence.labelled_rows:,} with a known label")
    lines += [f"  ✘ {finding.check}: {finding.message}" for finding in evidence.sanity if not finding.passed]
    lines += [f"  {_performance(found)}" for found in evidence.performance]
    if evidence.drift:
        lines.append(f"  inputs {_drift(evidence.drift)}")
        moved = [f"{column.column} {column.score:.3f}" for column in evidence.drift.columns if column.drifted]
        if moved:
            lines.append(f"    moved most: {', '.join(moved[:SHOWN_COLUMNS])}")
    if evidence.prediction_drift:
        lines.append(f"  predictions {_drift(evidence.prediction_drift)}")
    lines += [f"  note: {note}" for note in evidence.notes]
    if decision.cost_estimate_seconds is not None:
        lines.append(f"a retraining was estimated at {decision.cost_estimate_seconds:.0f} s")
    if decision.request:
        lines.append(f"request {decision.request}: {decision.request_state}")
    if decision.run:
        lines.append(f"run {decision.run}: {decision.outcome or 'not ended'}; more: driftline why {decision.run}")
    return "\n".join(lines)


def _performance(found: Performance) -> str:
    mark = {True: "✘", False: "✔", None: "?"}[found.fell]
    return f"{mark} {found.message}"


def _drift(test: DriftTest) -> str:
    word = "drifted" if test.drifted else "did not drift"
    return (
        f"{word}: p = {test.p_value:.4f} over {len(test.columns)} columns, {test.rows:,} rows on {test.days} days "
        f"against {test.reference_rows:,} on {test.reference_days}, null from permuted {test.blocks}"
    )
