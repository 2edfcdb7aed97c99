"""The steps of a run on Kubeflow Pipelines, and what they wrote."""

import json
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from components.core.errors import ClusterError, NotOnCluster
from components.core.failures import Failure, parse_failure
from components.core.kfp_api import KfpApi
from components.core.kfp_pods import TaskSpec, driver_pod, executor_nodes, task_specs
from components.core.kfp_runs import State, state_of

LOG_ERROR = '{"error_message"'
SHOWN_CHARACTERS = 400


class ClusterStep(BaseModel):
    """One task of a run, as KFP knows it."""

    model_config = ConfigDict(frozen=True)

    name: str
    title: str
    state: State
    """`pending` also of a step whose turn has not come, `skipped` also of one after a failure."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    cached: bool = False
    """Its outputs are those of an earlier run."""
    retries: int = 0
    pods: list[str] = []
    """Names of what executed it, the last try last; of its driver where that failed."""

    @property
    def seconds(self) -> float | None:
        if self.started_at is None:
            return None
        return ((self.finished_at or datetime.now(UTC)) - self.started_at).total_seconds()


def read_steps(api: KfpApi, run: Any) -> list[ClusterStep]:
    """Return the steps of a run, those that started first, then the others in the order of the pipeline.

    Raises what `KfpApi.call` raises.
    """
    return steps_of(task_specs(pipeline_spec(api, run)), run)


def steps_of(specs: dict[str, TaskSpec], run: Any) -> list[ClusterStep]:
    """Return the steps of a run from the nodes that the API lists: drivers, branches and executors among them."""
    details = (run.run_details.task_details if run.run_details else None) or []
    steps = [_step(spec, details) for spec in specs.values()]
    order = list(specs)
    never = datetime.max.replace(tzinfo=UTC)
    return sorted(steps, key=lambda step: (step.started_at or never, order.index(step.name)))


def workflow_state(run: Any, workflow: str) -> State | None:
    """Return the state of one of a run's Workflows, None when the API has none; the run's own is that of either."""
    details = (run.run_details.task_details if run.run_details else None) or []
    return next((state_of(detail) for detail in details if detail.display_name == workflow), None)


def _step(spec: TaskSpec, details: list[Any]) -> ClusterStep:
    # Of several, as with a second Workflow of this run, the one that got farthest.
    own = max((d for d in details if d.display_name == spec.name), key=_progress, default=None)
    driver = max((d for d in details if d.display_name == f"{spec.name}-driver"), key=_progress, default=None)
    step = ClusterStep(name=spec.name, title=spec.title, state="pending")
    if driver is not None and state_of(driver) == "failed":
        pods = [driver_pod(workflow, spec) for workflow in _workflows(details)]
        return step.model_copy(update={"state": "failed", "pods": pods, **_times(driver)})
    if own is None:
        return step
    state = state_of(own)
    if state in ("unknown", "skipped"):  # Argo's Omitted is no state of the API
        return step.model_copy(update={"state": "skipped"})
    nodes: dict[str, str] = {}
    for workflow in {_workflow(child.pod_name) for child in own.child_tasks or [] if child.pod_name}:
        nodes |= executor_nodes(workflow, spec)
    listed = {child.pod_name for detail in details for child in detail.child_tasks or []}
    cached = spec.may_be_cached and _is_cached(own, details)
    pods = [] if cached else [pod for node, pod in nodes.items() if node in listed]
    update = {"state": state, "pods": pods, "retries": max(len(pods) - 1, 0), "cached": cached, **_times(own)}
    return step.model_copy(update=update)


def _is_cached(own: Any, details: list[Any]) -> bool:
    """Return whether a step's executor was left out; the API does not tie it to its step, but both begin together."""
    return state_of(own) == "succeeded" and any(
        d.display_name == "executor" and state_of(d) == "skipped" and d.start_time == own.start_time for d in details
    )


def read_log(api: KfpApi, run_id: str, step: ClusterStep) -> str:
    """Return what a step wrote in its last try. Raises ClusterError when its pod is gone or never was."""
    if not step.pods:
        reason = "its outputs are those of an earlier run" if step.cached else "no pod of it has started"
        raise NotOnCluster(f"step {step.name} has no log", measured=reason)
    pod = step.pods[-1]
    text = api.get_text(f"read the log of {step.name}", f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log")
    if text.startswith(LOG_ERROR):  # its status is 200 all the same
        reason = str(json.loads(text)["error_message"])
        raise NotOnCluster(f"the log of step {step.name} cannot be read", measured=reason[:SHOWN_CHARACTERS])
    return text


def read_failure(api: KfpApi, run_id: str, step: ClusterStep) -> Failure:
    """Return why a step failed; an unreadable log is said in its place."""
    try:
        return parse_failure(read_log(api, run_id, step).splitlines())
    except ClusterError as error:
        return Failure(type="Unknown", message=f"step {step.name} failed and its log cannot be read: {error}")


def pipeline_spec(api: KfpApi, run: Any) -> Any:
    """Return the spec that a run executes. Raises what `KfpApi.call` raises."""
    if run.pipeline_spec:
        return run.pipeline_spec
    reference = run.pipeline_version_reference
    if reference is None:
        return {}
    version = api.call(
        f"read the pipeline of run {run.run_id}",
        api.pipelines.pipeline_service_get_pipeline_version,
        reference.pipeline_id,
        reference.pipeline_version_id,
    )
    return version.pipeline_spec


def _progress(detail: Any) -> tuple[bool, datetime]:
    started = _instant(detail.start_time)
    return (started is not None, started or datetime.min.replace(tzinfo=UTC))


def _workflows(details: list[Any]) -> list[str]:
    children = [child.pod_name for detail in details for child in detail.child_tasks or [] if child.pod_name]
    return sorted({_workflow(child) for child in children})


def _workflow(node: str) -> str:
    """Return the Workflow of a node's id."""
    return node.rpartition("-")[0]


def _times(detail: Any) -> dict[str, datetime | None]:
    return {"started_at": _instant(detail.start_time), "finished_at": _instant(detail.end_time)}


def _instant(value: datetime | None) -> datetime | None:
    """Return an instant of the API; it writes 1970, or a year before, for none."""
    return value if value is not None and value.year > datetime.fromtimestamp(0, UTC).year else None
