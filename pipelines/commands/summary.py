"""What a finished run says about itself."""

from typing import Any

from components.core.ledger.runs import RunState
from components.core.settings import Settings
from pipelines.local import RunRecord
from pipelines.reports import published_reports, verdict

EXIT_CODES: dict[RunState, int] = {"succeeded": 0, "failed": 1, "cancelled": 1, "refused": 3, "superseded": 3}


def exit_code(state: RunState) -> int:
    """Return the process exit code of a run's state."""
    return EXIT_CODES.get(state, 1)


def summarize(settings: Settings, record: RunRecord) -> str:
    """Describe a run's outcome in a few lines, with the next step."""
    from components.core.ledger.champions import read_champion
    from components.core.ledger.engine import open_ledger

    lines = [f"run {record.id} {record.state} after {_seconds(record):.1f} s"]
    judged = verdict(record, "evaluate")
    if judged:
        lines.append(f"gate: {judged.decision}")
        lines += [f"  {'✔' if r.passed else '✘'} {r.message}" for r in judged.reasons]
    failed = record.failed_step
    if failed and failed.failure:
        lines += [f"{failed.name}: {failed.failure.type}: {failed.failure.message}", f"more: driftline why {record.id}"]
    champion = read_champion(open_ledger(settings.ledger_url), record.use_case)
    if champion:
        own = " (this run)" if champion.run_id == record.id else ""
        lines.append(f"champion: {champion.model} version {champion.version}{own}")
    lines += [f"report: {path}" for path in published_reports(settings, record.id)]
    return "\n".join(lines)


def as_json_document(settings: Settings, record: RunRecord) -> dict[str, Any]:
    """Describe a run's outcome for programs."""
    from components.core.ledger.champions import read_champion
    from components.core.ledger.engine import open_ledger

    champion = read_champion(open_ledger(settings.ledger_url), record.use_case)
    verdicts = {step: verdict(record, step) for step in ("validate", "evaluate")}
    return {
        **outline(record),
        "verdicts": {step: found.model_dump(mode="json") for step, found in verdicts.items() if found},
        "champion": champion.model_dump(mode="json") if champion else None,
        "reports": [str(path) for path in published_reports(settings, record.id)],
    }


def outline(record: RunRecord) -> dict[str, Any]:
    """Return what a run of any pipeline says about itself."""
    failed = record.failed_step
    return {
        "run": record.id,
        "use_case": record.use_case,
        "pipeline": record.pipeline,
        "state": record.state,
        "seconds": round(_seconds(record), 1),
        "steps": [{"name": s.name, "state": s.state, "seconds": round(s.seconds, 1)} for s in record.steps],
        "failure": failed.failure.model_dump() if failed and failed.failure else None,
    }


def _seconds(record: RunRecord) -> float:
    return ((record.finished_at or record.started_at) - record.started_at).total_seconds()
