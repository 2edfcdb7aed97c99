"""What every pipeline does to its tasks: name them, place them, say what they may cache."""

from typing import Any

from kfp import dsl, kubernetes

from components.core.sections import Resources, Section
from pipelines.titles import TITLES

# Steps that only compute: equal inputs give equal outputs. `evaluate` reads who is champion; all others read the clock
# or write to a store.
CACHEABLE = ("train", "validate")

ADDRESSES = (
    "MLFLOW_TRACKING_URI",
    "DRIFTLINE_OBJECT_STORE_URL",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "DRIFTLINE_KFP_HOST",
    "DRIFTLINE_KFP_NAMESPACE",
    "DRIFTLINE_KFP_TOKEN",
)
"""Keys of the ConfigMap `driftline`, each the name of its variable."""
CREDENTIALS = (
    "DRIFTLINE_LEDGER_URL",
    "DRIFTLINE_FEATURE_REGISTRY_URL",
    "DRIFTLINE_ONLINE_STORE_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
)
"""Keys of the Secret `driftline`: addresses with passwords in them, and keys."""


def pipeline_name(use_case: str, pipeline: str) -> str:
    """Return the name of a pipeline as Kubernetes wants it."""
    return f"{use_case.replace('_', '-')}-{pipeline}"


def section(model: Section) -> dict[str, Any]:
    """Dump a section as a parameter default; KFP knows no null."""
    return model.model_dump(mode="json", exclude_none=True)


def place(task: dsl.PipelineTask, resources: dict[str, Resources]) -> dsl.PipelineTask:
    """Give a task its name for people, its identity, and what `resources` asks the cluster for."""
    task.set_display_name(TITLES[task.name])
    task.set_caching_options(task.name in CACHEABLE)
    # The pod's labels tell a step which run and which Workflow it belongs to; the local runner sets the first itself.
    kubernetes.use_field_path_as_env(task, env_name="DRIFTLINE_RUN_KEY", field_path="metadata.labels['pipeline/runid']")
    kubernetes.use_field_path_as_env(
        task, env_name="DRIFTLINE_WORKFLOW", field_path="metadata.labels['workflows.argoproj.io/workflow']"
    )
    # Locally the environment of the command counts.
    kubernetes.use_config_map_as_env(task, "driftline", {name: name for name in ADDRESSES}, optional=True)
    kubernetes.use_secret_as_env(task, "driftline", {name: name for name in CREDENTIALS}, optional=True)
    wanted = resources.get(task.name)
    if wanted is None:
        return task
    if wanted.cpu:
        task.set_cpu_request(wanted.cpu).set_cpu_limit(wanted.cpu)
    if wanted.memory:
        task.set_memory_request(wanted.memory).set_memory_limit(wanted.memory)
    if wanted.gpu:
        task.set_accelerator_type(wanted.gpu.type).set_accelerator_limit(wanted.gpu.count)
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
