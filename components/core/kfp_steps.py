"""The steps of a run on Kubeflow Pipelines, and what they wrote."""

import logging
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from components.core.errors import ClusterError
from components.core.failures import Failure, parse_failure
from components.core.kfp_api import KfpApi
from components.core.kfp_runs import State, state_of

log = logging.getLogger(__name__)


class ClusterStep(BaseModel):
    """One task of a run, as KFP knows it."""

    model_config = ConfigDict(frozen=True)

    name: str
    title: str
    state: State
    """`pending` also of a step whose turn has not come."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    cached: bool = False
    retries: int = 0
    pods: list[str] = []
    """Names of what executed it, as far as the API tells."""

    @property
    def seconds(self) -> float | None:
        if self.started_at is None:
            return None
        return ((self.finished_at or datetime.now(UTC)) - self.started_at).total_seconds()


def read_steps(api: KfpApi, run: Any) -> list[ClusterStep]:
    """Return the steps of a run, those that started first, then the others in the order of the pipeline.

    Raises what `KfpApi.call` raises.
    """
    return steps_of(step_titles(pipeline_spec(api, run)), run)


def steps_of(titles: dict[str, str], run: Any) -> list[ClusterStep]:
    """Return the steps of a run from the nodes that the API lists: drivers, branches and executors among them."""
    details = (run.run_details.task_details if run.run_details else None) or []
    found = {}
    for name, title in titles.items():
        # Of several, as with a second Workflow of this run, the one that got farthest.
        own = sorted((d for d in details if d.display_name == name), key=_progress)
        if not own:
            found[name] = ClusterStep(name=name, title=title, state="pending")
            continue
        detail = own[-1]
        found[name] = ClusterStep(
            name=name,
            title=title,
            state=state_of(detail),
            started_at=_instant(detail.start_time),
            finished_at=_instant(detail.end_time),
            pods=[child.pod_name for child in detail.child_tasks or [] if child.pod_name],
        )
    order = list(titles)
    never = datetime.max.replace(tzinfo=UTC)
    return sorted(found.values(), key=lambda step: (step.started_at or never, order.index(step.name)))


def step_titles(spec: Any) -> dict[str, str]:
    """Return the name and display name of every task that executes something, of all branches and sub-pipelines."""
    pipeline = (spec or {}).get("pipeline_spec", spec) or {}
    components = pipeline.get("components", {})
    titles = {}
    for part in (pipeline.get("root", {}), *components.values()):
        for name, task in part.get("dag", {}).get("tasks", {}).items():
            if "executorLabel" in components.get(task.get("componentRef", {}).get("name", ""), {}):
                titles[name] = task.get("taskInfo", {}).get("name", name)
    return titles


def read_log(api: KfpApi, run_id: str, step: ClusterStep) -> str:
    """Return what a step wrote, from its pod. Raises ClusterError when the pod is gone, what `KfpApi.call` raises."""
    return "\n".join(
        api.get_text(f"read the log of {pod}", f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log") for pod in step.pods
    )


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


def _instant(value: datetime | None) -> datetime | None:
    """Return an instant of the API; it writes 1970 for none."""
    return value if value is not None and value.year > datetime.fromtimestamp(0, UTC).year else None
