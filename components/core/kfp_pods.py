"""Names of the pods of a step: KFP's API does not tell them, Argo and KFP's compiler derive them.

Argo: a node is named by its way from the root, and its id is `<workflow>-<FNV-1a of that name>`; the pod's name has the
template in between (argo-workflows `workflow/util/pod_name.go`). KFP: the template's name tells retries and metadata
(kubeflow/pipelines `backend/src/v2/compiler/argocompiler/container.go`, release 2.17.0).
"""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict

EXECUTOR = "system-container-impl"
DRIVER = "system-container-driver"


class TaskSpec(BaseModel):
    """A task of a pipeline that executes something."""

    model_config = ConfigDict(frozen=True)

    name: str
    title: str
    path: str
    """Its way from the root, such as `root.condition-1.train`."""
    template: str
    """Template of its pods."""
    attempts: int
    """How often it is tried at most; 0: it is not repeated, and its pod has no number."""
    may_be_cached: bool


def task_specs(spec: Any) -> dict[str, TaskSpec]:
    """Return the tasks that execute something, of all branches and sub-pipelines, in the order of the pipeline."""
    whole = spec or {}
    pipeline, platform = (
        (whole["pipeline_spec"], whole.get("platform_spec")) if "pipeline_spec" in whole else (whole, {})
    )
    executors = (
        (platform or {}).get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    )
    components = pipeline.get("components", {})
    found: dict[str, TaskSpec] = {}

    def walk(part: Any, path: str) -> None:
        for name, task in _in_order(part.get("dag", {}).get("tasks", {})):
            component = components.get(task.get("componentRef", {}).get("name", ""), {})
            way = f"{path}.{name}"
            if "executorLabel" not in component:
                walk(component, way)
                continue
            retry = task.get("retryPolicy")
            metadata = executors.get(component["executorLabel"], {}).get("podMetadata")
            template = f"retry-{EXECUTOR}" if retry is not None else EXECUTOR
            if metadata is not None:
                counts = (len(metadata.get("annotations", {})), len(metadata.get("labels", {})))
                template = f"metadata-{counts[0]}-{counts[1]}-{template}"
            found[name] = TaskSpec(
                name=name,
                title=task.get("taskInfo", {}).get("name", name),
                path=way,
                template=template,
                attempts=int(retry.get("maxRetryCount", 0)) + 1 if retry is not None else 0,
                may_be_cached=bool(task.get("cachingOptions", {}).get("enableCache", False)),
            )

    walk(pipeline.get("root", {}), "root")
    return found


def _in_order(tasks: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield tasks after those they depend on; a spec is a mapping without an order."""
    left = dict(tasks)
    while left:
        ready = [name for name, task in left.items() if not left.keys() & set(task.get("dependentTasks", []))]
        for name in ready or list(left):
            yield name, left.pop(name)


def executor_nodes(workflow: str, task: TaskSpec) -> dict[str, str]:
    """Return the node ids of a task's executions, first one first, with the names of their pods."""
    node = f"{workflow}.{task.path}.executor"
    names = [f"{node}({attempt})" for attempt in range(task.attempts)] if task.attempts else [node]
    return {node_id(workflow, name): pod_name(workflow, task.template, name) for name in names}


def driver_pod(workflow: str, task: TaskSpec) -> str:
    """Return the name of the pod that prepares a task."""
    return pod_name(workflow, DRIVER, f"{workflow}.{task.path}-driver")


def node_id(workflow: str, node: str) -> str:
    """Return Argo's id of a node."""
    return f"{workflow}-{fnv1a(node)}"


def pod_name(workflow: str, template: str, node: str) -> str:
    """Return Argo's name of a node's pod."""
    return f"{workflow}-{template}-{fnv1a(node)}"


def fnv1a(text: str) -> int:
    """Return the 32 bit FNV-1a hash of a text in UTF-8."""
    value = 2166136261
    for byte in text.encode():
        value = (value ^ byte) * 16777619 % 2**32
    return value
