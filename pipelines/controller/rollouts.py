"""Watching Argo Rollouts: an aborted canary leaves Git naming a version that does not serve, so a revert is opened."""

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

GROUP, VERSION, PLURAL = "argoproj.io", "v1alpha1", "rollouts"
USE_CASE_LABEL = "driftline.dev/use-case"
VERSION_ANNOTATION = "driftline.dev/model-version"
"""Of the pod template: the release that a Rollout leads to."""
PAGE = 100
TIMEOUT_SECONDS = 20
REASON_CHARACTERS = 500


class Aborted(NamedTuple):
    """A release whose canary was aborted."""

    use_case: str
    version: int
    reason: str


def revert_aborted(client: Any, namespaces: list[str], revert: Callable[[Aborted], None], done: set[Aborted]) -> None:
    """Open the revert of each release whose canary was aborted, in any of some namespaces.

    `revert` opens one revert per release however often it is called, by whomever; `done` remembers within this process
    what need not be asked again. Raises what the Kubernetes API answers, and what `revert` raises once all others are
    opened.
    """
    errors: list[Exception] = []
    aborted = {
        one for namespace in namespaces for rollout in _list(client, namespace) for one in aborted_release(rollout)
    }
    for one in sorted(aborted - done):
        log.warning("the canary of version %d of %s was aborted: %s", one.version, one.use_case, one.reason)
        try:
            revert(one)
        except Exception as error:  # another release's revert is not to wait for this one
            errors.append(error)
        else:
            done.add(one)
    done &= aborted
    if errors:
        raise errors[0]


def aborted_release(rollout: dict[str, Any]) -> Iterator[Aborted]:
    """Yield the release that a Rollout has given up, if it has, and if it is one of ours.

    What its controller has not looked at yet, it says of the release before.
    """
    metadata, status = rollout["metadata"], rollout.get("status", {})
    if not status.get("abort") or str(status.get("observedGeneration", "")) != str(metadata["generation"]):
        return
    template = rollout.get("spec", {}).get("template", {}).get("metadata", {})
    use_case = metadata.get("labels", {}).get(USE_CASE_LABEL, "")
    version = str(template.get("annotations", {}).get(VERSION_ANNOTATION, ""))
    if not use_case or not version.isdecimal():
        log.warning(
            "Rollout %s/%s was aborted and names no release: it needs the label %s and, in its pod template, the"
            " annotation %s",
            metadata.get("namespace"),
            metadata["name"],
            USE_CASE_LABEL,
            VERSION_ANNOTATION,
        )
        return
    # Labels of Kubernetes have the use case as it is: its names are a subset of theirs.
    yield Aborted(use_case, int(version), str(status.get("message") or "the canary was aborted")[:REASON_CHARACTERS])


def _list(client: Any, namespace: str) -> Iterator[dict[str, Any]]:
    from kubernetes.client import CustomObjectsApi

    api, token = CustomObjectsApi(client), ""
    while True:
        page = api.list_namespaced_custom_object(
            GROUP, VERSION, namespace, PLURAL, limit=PAGE, _continue=token, _request_timeout=TIMEOUT_SECONDS
        )
        yield from page["items"]
        token = page["metadata"].get("continue") or ""
        if not token:
            return
