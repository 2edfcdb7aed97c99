"""Why a step does not start: KFP's API does not tell, the pods do, where this machine or pod may look at them."""

import logging
from typing import Any

from components.core.settings import Settings

log = logging.getLogger(__name__)

# A pod in one of these does not start without a person.
STUCK = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "CrashLoopBackOff",
    "Unschedulable",
)
TIMEOUT_SECONDS = 5


def waiting_pods(settings: Settings, run_id: str) -> list[str]:
    """Return a sentence for each pod of a run that cannot start, or how to look where this process may not.

    Needs a kubeconfig, or a service account that may list pods.
    """
    try:
        pods = _pods(settings, run_id)
    except Exception as error:
        # Whatever is wrong with the way to the pods, the run itself goes on.
        reason = type(error).__name__
        return [
            f"no step has changed for a while; look with `kubectl get pods -A -l pipeline/runid={run_id}` ({reason})"
        ]
    return [line for pod in pods for line in describe_pod(pod)]


def describe_pod(pod: Any) -> list[str]:
    """Return why a pod cannot start: the image, a missing ConfigMap or Secret, or no node for it."""
    name = (pod.metadata.labels or {}).get("driftline.dev/step", pod.metadata.name)
    lines = [
        f"{name} waits for a node: {condition.message}"
        for condition in pod.status.conditions or []
        if condition.type == "PodScheduled" and condition.reason in STUCK
    ]
    for status in (pod.status.init_container_statuses or []) + (pod.status.container_statuses or []):
        waiting = status.state.waiting if status.state else None
        if waiting is not None and waiting.reason in STUCK:
            lines.append(
                f"{name} cannot start: {waiting.reason}, image {status.image}: {waiting.message or ''}".rstrip(": ")
            )
    return lines


def _pods(settings: Settings, run_id: str) -> list[Any]:
    from kubernetes import client, config

    try:
        config.load_incluster_config()
    except config.ConfigException:
        config.load_kube_config()
    api = client.CoreV1Api()
    selector = {"label_selector": f"pipeline/runid={run_id}", "_request_timeout": TIMEOUT_SECONDS}
    if settings.kfp_namespace:
        return list(api.list_namespaced_pod(settings.kfp_namespace, **selector).items)
    return list(api.list_pod_for_all_namespaces(**selector).items)
