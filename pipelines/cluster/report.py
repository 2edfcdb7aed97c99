"""What a run on the cluster says about itself, for people and for programs."""

from typing import Any

from components.core.kfp_steps import ClusterStep
from pipelines.cluster.runs import ClusterRun

EXIT_CODES = {"succeeded": 0, "skipped": 0, "refused": 3, "superseded": 3}
MARKS = {"succeeded": "✔", "failed": "✘", "running": "…", "canceled": "✘"}


def exit_code(run: ClusterRun) -> int:
    """Return the process exit code of a run that has ended."""
    return EXIT_CODES.get(run.result, 1)


def step_line(step: ClusterStep) -> str:
    """Describe a step in one line."""
    seconds = f"  {step.seconds:.0f} s" if step.seconds is not None else ""
    notes = (["cached"] if step.cached else []) + ([f"{step.retries} retries"] if step.retries else [])
    note = f"  ({', '.join(notes)})" if notes else ""
    return f"{MARKS.get(step.state, ' ')} {step.name:<12} {step.state:<10} {step.title}{seconds}{note}"


def run_line(run: ClusterRun) -> str:
    """Describe a run in one line."""
    return f"{run.created_at:%Y-%m-%d %H:%M:%S}  {run.result:<10}  {run.id}  {run.title}  {run.reason}".rstrip()


def summarize(run: ClusterRun, steps: list[ClusterStep]) -> str:
    """Describe a run in a few lines, with the next step."""
    seconds = f" after {(run.finished_at - run.created_at).total_seconds():.0f} s" if run.finished_at else ""
    lines = [f"run {run.id} {run.result}{seconds}: {run.title}", *(step_line(step) for step in steps)]
    if run.reason:
        lines.append(f"{run.failed_step or 'reason'}: {run.reason}")
    if run.ended and exit_code(run):
        lines.append(f"more: driftline why {run.id}")
    return "\n".join(lines)


def as_json_document(run: ClusterRun, steps: list[ClusterStep]) -> dict[str, Any]:
    """Describe a run for programs."""
    return {
        **run.model_dump(mode="json"),
        "result": run.result,
        "steps": [
            step.model_dump(mode="json", exclude={"pods"})
            | {"seconds": round(step.seconds, 1) if step.seconds is not None else None}
            for step in steps
        ],
    }
