"""Explaining a run on the cluster from the logs of its steps, the verdicts they obeyed, and the ledger."""

from typing import Any

from components.core.errors import ClusterError
from components.core.failures import parse_failure
from components.core.kfp_api import KfpApi
from components.core.kfp_steps import ClusterStep, read_log
from components.core.verdict import Verdict
from pipelines.cluster.artifacts import read_verdict_at
from pipelines.cluster.runs import ClusterRun
from pipelines.events import parse_inputs

# The steps that obey a verdict, and the step that wrote it.
JUDGES = {"features": "validate", "package": "evaluate"}


def explain_cluster_run(api: KfpApi, run: ClusterRun, steps: list[ClusterStep]) -> dict[str, Any]:
    """Return outcome, judging steps' reasons and, where a step failed, its exception, place and inputs.

    The same keys as of a local run (`pipelines.explain`). What cannot be reached is said in its place.
    """
    logs: dict[str, list[str]] = {}
    failed = next((step for step in steps if step.state == "failed"), None)
    for step in steps:
        if step.pods and (step is failed or step.name in JUDGES):
            try:
                logs[step.name] = read_log(api, run.id, step).splitlines()
            except ClusterError as error:
                logs[step.name] = [f"the log cannot be read: {error}"]
    explanation: dict[str, Any] = {"run": run.id, "state": run.result, "gates": _gates(logs), "failed_step": None}
    if failed is None:
        if run.reason:
            explanation["gates"][run.failed_step or "ledger"] = {"decision": run.result, "reasons": [run.reason]}
        return explanation
    inputs = parse_inputs(logs.get(failed.name, [])).get("inputs", {})
    explanation["failed_step"] = failed.name
    explanation["failure"] = parse_failure(logs.get(failed.name, [])).model_dump(exclude={"traceback"})
    explanation["traceback"] = parse_failure(logs.get(failed.name, [])).traceback
    explanation["inputs"] = {"parameters": inputs.get("parameterValues", {}), "artifacts": _uris(inputs)}
    again = "repeat the failed step" if run.result == "failed" else "a refusal is an answer; for another one, a new run"
    retry = f"driftline runs retry {run.id}" if run.result == "failed" else "driftline submit"
    explanation["reproduce"] = f"{retry} ({again}); whole log: driftline runs logs {run.id} {failed.name}"
    return explanation


def _gates(logs: dict[str, list[str]]) -> dict[str, Any]:
    gates: dict[str, Any] = {}
    for step, judge in JUDGES.items():
        uri = next(iter(_uris(parse_inputs(logs.get(step, [])).get("inputs", {})).get("verdict", [])), "")
        if not uri:
            continue
        found = read_verdict_at(uri)
        gates[judge] = (
            {"decision": found.decision, "reasons": _reasons(found)}
            if isinstance(found, Verdict)
            else {"decision": "something that cannot be read from here", "reasons": [f"{uri}: {found}"]}
        )
    return gates


def _reasons(verdict: Verdict) -> list[str]:
    return [reason.message for reason in verdict.reasons if not reason.passed] or ["every check passed"]


def _uris(inputs: dict[str, Any]) -> dict[str, list[str]]:
    return {
        name: [item["uri"] for item in value.get("artifacts", [])]
        for name, value in inputs.get("artifacts", {}).items()
    }
