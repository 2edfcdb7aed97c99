"""What every pipeline does to its tasks: name them, place them, say what they may cache."""

import re
from typing import Any

from kfp import dsl, kubernetes

from components.core.images import GPU
from components.core.sections import MAX_RUN_SECONDS, Resources, Section
from components.core.usecase import UseCase
from pipelines.environment import ADDRESSES, CONFIG_FILES, CREDENTIALS, FILES, IDENTITY, SECRET_FILES, SHARED, VARIABLES
from pipelines.resources import step_resources
from pipelines.titles import TITLES

# Steps that only compute: equal inputs give equal outputs. `evaluate` reads who is champion; all others read the clock
# or write to a store. KFP 2.17.0 finds them again only below the very same input artifacts (docs/cluster.md).
CACHEABLE = ("train", "validate")


def pipeline_name(use_case: str, pipeline: str) -> str:
    """Return the name of a pipeline as Kubernetes wants it."""
    return f"{use_case.replace('_', '-')}-{pipeline}"


def run_limits() -> dsl.PipelineConfig:
    """Return what ends a run that makes no progress: a pod that finds no node has no timeout of its own."""
    return dsl.PipelineConfig(active_deadline_seconds=MAX_RUN_SECONDS)


def own_group(parameter: Any) -> dsl.If:
    """Return a group around all tasks of a pipeline, which always runs; any parameter of the pipeline will do.

    Two Workflows of one run share the run's metadata execution, and KFP refuses two tasks of one name below one
    execution (kubeflow/pipelines `backend/src/v2/metadata/client.go`, GetExecutionsInDAG, release 2.17.0). Of a group
    each Workflow has an execution of its own, so that the tasks of one are not seen by the other (docs/adr/0015).
    """
    return dsl.If(parameter == parameter, name="all steps")  # noqa: PLR0124 - KFP wants a condition over a parameter


def section(model: Section) -> dict[str, Any]:
    """Dump a section as a parameter default; KFP knows no null."""
    return model.model_dump(mode="json", exclude_none=True)


def place(task: dsl.PipelineTask, use_case: UseCase, pipeline: str) -> dsl.PipelineTask:
    """Give a task its name for people, its identity, its addresses, and what it asks the cluster for."""
    task.set_display_name(TITLES[task.name])
    task.set_caching_options(task.name in CACHEABLE)
    # Locally the environment of the command counts.
    for variable, field in IDENTITY.items():
        kubernetes.use_field_path_as_env(task, env_name=variable, field_path=field)
    addresses = {key: VARIABLES.get(key, key) for key in ADDRESSES}
    kubernetes.use_config_map_as_env(task, SHARED, addresses, optional=True)
    kubernetes.use_secret_as_env(task, SHARED, {name: name for name in CREDENTIALS}, optional=True)
    for name in SECRET_FILES.get(task.name, ()):
        kubernetes.use_secret_as_volume(task, name, mount_path=mount_path(name), optional=True)
    for name in CONFIG_FILES.get(task.name, ()):
        kubernetes.use_config_map_as_volume(task, name, mount_path=mount_path(name), optional=True)
    for name, value in labels(use_case, pipeline).items():
        kubernetes.add_pod_label(task, name, value)
    kubernetes.add_pod_label(task, "driftline.dev/step", task.name)
    return ask(task, step_resources(use_case, task.name))


def mount_path(name: str) -> str:
    """Return the folder in which a pod sees the files of a Secret or ConfigMap."""
    return f"{FILES}/{name.removeprefix(f'{SHARED}-')}"


def labels(use_case: UseCase, pipeline: str) -> dict[str, str]:
    """Return the labels by which costs are told apart."""
    return {
        "driftline.dev/use-case": label_value(use_case.name),
        "driftline.dev/pipeline": pipeline,
        "driftline.dev/team": label_value(use_case.owner),
    }


def label_value(text: str) -> str:
    """Return a text as a Kubernetes label value: at most 63 letters, digits, '-', '_', '.', none of the last three at
    an end."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:63].strip("-_.")


def ask(task: dsl.PipelineTask, wanted: Resources) -> dsl.PipelineTask:
    """Ask the cluster for what a step wants; the local runner ignores all of it but retries."""
    task.set_cpu_request(wanted.cpu).set_memory_request(wanted.memory).set_memory_limit(wanted.memory)
    if wanted.cpu_limit:
        task.set_cpu_limit(wanted.cpu_limit)
    if wanted.gpu:
        task.set_accelerator_type(wanted.gpu.type).set_accelerator_limit(wanted.gpu.count)
        task.set_container_image(GPU)
    if wanted.retries:
        task.set_retry(wanted.retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="600s")
    if wanted.timeout_seconds:
        kubernetes.set_timeout(task, wanted.timeout_seconds)
    for label, value in wanted.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in wanted.tolerations:
        kubernetes.add_toleration(
            task,
            key=toleration.key,
            operator=toleration.operator,
            value=toleration.value or None,
            effect=toleration.effect,
        )
    return task
