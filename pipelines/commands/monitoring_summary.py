"""What a finished monitoring run says about itself, and about the retrainings that it started."""

from typing import Any

from components.core.ledger.decisions import Decision, read_decision
from components.core.settings import Settings
from pipelines.commands import summary
from pipelines.commands.decisions import as_document
from pipelines.explain_decision import render
from pipelines.local import RunRecord
from pipelines.reports import output, published_reports


def summarize(settings: Settings, record: RunRecord, retrained: list[RunRecord]) -> str:
    """Describe the decision, then each retraining."""
    decision = made(settings, record)
    if decision is None:
        return summary.summarize(settings, record)
    lines = [render(decision), *(f"report: {path}" for path in published_reports(settings, record.id))]
    lines += [summary.summarize(settings, run) for run in retrained]
    return "\n".join(lines)


def as_json_document(settings: Settings, record: RunRecord, retrained: list[RunRecord]) -> dict[str, Any]:
    """Describe a monitoring run for programs."""
    decision = made(settings, record)
    return {
        **summary.as_json_document(settings, record),
        "decision": as_document(decision) if decision else None,
        "retrainings": [summary.as_json_document(settings, run) for run in retrained],
    }


def made(settings: Settings, record: RunRecord) -> Decision | None:
    """Return the decision of a monitoring run, None when it did not come to one."""
    from components.core.ledger.engine import open_ledger

    found = output(record, "decide")
    return read_decision(open_ledger(settings.ledger_url), found) if found else None
