"""Explaining a local run from its record and its verdicts."""

import json
from typing import Any

from pipelines.local import RunRecord
from pipelines.reports import verdict

SHOWN_CHARACTERS = 160


def explain_run(record: RunRecord) -> dict[str, Any]:
    """Return state, judging steps' reasons and, where a step failed, its exception, place and inputs."""
    gates = {}
    for step in ("validate", "evaluate"):
        found = verdict(record, step)
        if found:
            gates[step] = {
                "decision": found.decision,
                "reasons": [r.message for r in found.reasons if not r.passed] or ["every check passed"],
            }
    explanation: dict[str, Any] = {"run": record.id, "state": record.state, "gates": gates, "failed_step": None}
    failed = record.failed_step
    if failed is None:
        return explanation
    inputs = failed.inputs.get("inputs", {})
    artifacts = {
        name: [item["uri"] for item in value.get("artifacts", [])]
        for name, value in inputs.get("artifacts", {}).items()
    }
    explanation["failed_step"] = failed.name
    explanation["failure"] = failed.failure.model_dump(exclude={"traceback"}) if failed.failure else None
    explanation["inputs"] = {"parameters": inputs.get("parameterValues", {}), "artifacts": artifacts}
    explanation["reproduce"] = f"driftline runs rerun {record.id} {failed.name}"
    return explanation


def render(explanation: dict[str, Any]) -> str:
    """Write an explanation for a terminal."""
    lines = [f"run {explanation['run']}: {explanation['state']}"]
    for step, gate in explanation["gates"].items():
        lines.append(f"{step} decided {gate['decision']}")
        lines += [f"  - {reason}" for reason in gate["reasons"]]
    if explanation["failed_step"] is None:
        return "\n".join(lines)
    failure = explanation["failure"]
    lines.append(f"step {explanation['failed_step']} ended the run")
    if failure:
        lines.append(f"  {failure['type']}: {failure['message']}")
        if failure["file"]:
            lines.append(f"  at {failure['file']}:{failure['line']} in {failure['function']}")
    lines.append("inputs")
    for name, value in explanation["inputs"]["parameters"].items():
        text = json.dumps(value)
        lines.append(f"  {name} = {text[:SHOWN_CHARACTERS]}{'…' if len(text) > SHOWN_CHARACTERS else ''}")
    lines += [f"  {name} = {', '.join(uris)}" for name, uris in explanation["inputs"]["artifacts"].items()]
    lines.append(f"reproduce: {explanation['reproduce']}")
    return "\n".join(lines)
