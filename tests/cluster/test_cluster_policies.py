"""What a real API server refuses and admits by infra/policies, and what the Roles of our charts allow.

The rules are those of infra/policies, under other names and for the namespaces of this test alone, so that nothing else
on the cluster notices. Pods and the rest are sent as server-side dry runs.
"""

import functools
import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
DIGESTED = "registry.example.com/team/driftline-cpu@sha256:" + "0123456789abcdef" * 4
MARK = "driftline.dev/policy-test"
ACTIVE_SECONDS = 60

pytestmark = pytest.mark.skipif("KUBECONFIG" not in os.environ, reason="needs a cluster: set KUBECONFIG")


def kubectl(*arguments: str, objects: list[dict[str, Any]] | None = None) -> subprocess.CompletedProcess[str]:
    """Run kubectl; `objects` are its standard input."""
    text = yaml.safe_dump_all(objects) if objects else None
    return subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=False)


def must(*arguments: str, objects: list[dict[str, Any]] | None = None) -> str:
    done = kubectl(*arguments, objects=objects)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def space() -> Iterator[str]:
    """Yield an own namespace that enforces Pod Security as those of use cases do; it is deleted at the end."""
    name = f"ml-policies-{uuid.uuid4().hex[:8]}"
    labels = {MARK: name} | {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    must(
        "create",
        "-f-",
        objects=[{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}],
    )
    for account in ("pipeline-runner", "rich"):
        must("-n", name, "create", "serviceaccount", account)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def rules(space: str) -> Iterator[str]:
    """Install the admission rules for `space` alone and yield its name once they act."""
    made = list(yaml.safe_load_all(must("kustomize", str(REPOSITORY / "infra/policies/admission"))))
    for manifest in made:
        manifest["metadata"]["name"] += f"-{space}"
        if manifest["kind"] == "ValidatingAdmissionPolicyBinding":
            manifest["spec"]["policyName"] += f"-{space}"
            manifest["spec"]["matchResources"] = {"namespaceSelector": {"matchLabels": {MARK: space}}}
    try:
        must("create", "-f-", objects=made)
        deadline = time.monotonic() + ACTIVE_SECONDS
        waiting = [
            (pod(image="python:3.11"), "images without a digest"),
            (deployment("a:b"), "images without a digest"),
            (workflow("rich"), "may not run as rich"),
            (pod(account="rich", of_workflow=True), "may not run as rich"),
        ]
        while waiting and time.monotonic() < deadline:
            waiting = [(manifest, reason) for manifest, reason in waiting if reason not in send(space, manifest).stderr]
            time.sleep(0.5)
        assert not waiting, "a rule does not act after a minute"
        yield space
    finally:
        kubectl("delete", "--wait=false", "-f-", objects=made)


def pod(
    *, image: str = DIGESTED, account: str = "pipeline-runner", of_workflow: bool = False, step: str = "", **spec: Any
) -> dict[str, Any]:
    """Return a restricted pod, such as a step of a pipeline is."""
    labels = {"workflows.argoproj.io/workflow": "flights-training-x"} if of_workflow else {}
    container = {
        "name": "main",
        "image": image,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "16Mi"}},
    } | spec.pop("container", {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "step-", "labels": labels | ({"driftline.dev/step": step} if step else {})},
        "spec": {
            "serviceAccountName": account,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        }
        | spec,
    }


def workflow(account: str, **spec: Any) -> dict[str, Any]:
    template = {"name": "main", "container": {"image": DIGESTED, "command": ["true"]}}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": "flights-training-", "labels": {}},
        "spec": {"entrypoint": "main", "serviceAccountName": account, "templates": [template], **spec},
    }


def deployment(image: str) -> dict[str, Any]:
    labels = {"app": "served"}
    template = pod(image=image)
    template["metadata"] = {"labels": labels}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"generateName": "served-"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {key: template[key] for key in ("metadata", "spec")},
        },
    }


def send(space: str, manifest: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return kubectl("create", "--dry-run=server", "-n", space, "-f-", objects=[manifest])


def secret_in(place: str, name: str) -> dict[str, Any]:
    """Return what a pod's spec has where it reads a Secret in one of the ways there are."""
    if place == "env":
        reference = {"secretKeyRef": {"name": name, "key": "password"}}
        return {"container": {"env": [{"name": "PASSWORD", "valueFrom": reference}]}}
    if place == "envFrom":
        return {"container": {"envFrom": [{"secretRef": {"name": name}}]}}
    if place == "volume":
        return {"volumes": [{"name": "secret", "secret": {"secretName": name}}]}
    return {"volumes": [{"name": "secret", "projected": {"sources": [{"secret": {"name": name}}]}}]}


def foreign_secret(place: str) -> dict[str, Any]:
    return pod(of_workflow=True, step="train", **secret_in(place, "mysql-secret"))


def anonymous() -> dict[str, Any]:
    made = workflow("")
    del made["spec"]["serviceAccountName"]
    return made


ADMITTED: dict[str, Callable[[], dict[str, Any]]] = {
    "a pod by digest": pod,
    "a step of a pipeline": lambda: pod(of_workflow=True, step="train"),
    "a step with its credentials": lambda: pod(of_workflow=True, step="train", **secret_in("envFrom", "driftline")),
    "promote with the key for Git": lambda: pod(
        of_workflow=True, step="promote", **secret_in("volume", "driftline-git-write")
    ),
    "package with the key for models": lambda: pod(
        of_workflow=True, step="package", **secret_in("volume", "driftline-model-signing")
    ),
    "a pod of no pipeline with a Secret": lambda: pod(**secret_in("env", "anything")),
    "a Workflow of pipelines' account": lambda: workflow("pipeline-runner"),
    "a Deployment by digest": lambda: deployment(DIGESTED),
}

REFUSED: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "an image by tag": (lambda: pod(image="python:3.11"), "images without a digest: python:3.11"),
    "an image without anything": (lambda: pod(image="python"), "images without a digest: python;"),
    "a short digest": (lambda: pod(image="python@sha256:0123"), "images without a digest"),
    "an init container by tag": (
        lambda: pod(initContainers=[pod()["spec"]["containers"][0] | {"name": "first", "image": "busybox:1"}]),
        "images without a digest: busybox:1",
    ),
    "a Deployment by tag": (lambda: deployment("python:3.11"), "images without a digest: python:3.11"),
    "a Workflow as another account": (lambda: workflow("rich"), "may not run as rich; allowed: pipeline-runner"),
    "a Workflow as nobody in particular": (
        anonymous,
        "may not run as default",
    ),
    "one template as another account": (
        lambda: workflow("pipeline-runner", templates=[{"name": "main", "serviceAccountName": "rich"}]),
        "may not run as rich",
    ),
    "all templates as another account": (
        lambda: workflow("pipeline-runner", templateDefaults={"serviceAccountName": "rich"}),
        "may not run as rich",
    ),
    "an executor as another account": (
        lambda: workflow("pipeline-runner", executor={"serviceAccountName": "rich"}),
        "may not run as rich",
    ),
    "a template's executor as another account": (
        lambda: workflow("pipeline-runner", templates=[{"name": "m", "executor": {"serviceAccountName": "rich"}}]),
        "may not run as rich",
    ),
    "a Workflow that is elsewhere": (
        lambda: workflow("pipeline-runner", workflowTemplateRef={"name": "other"}),
        "workflowTemplateRef",
    ),
    "a patched pod as another account": (
        lambda: pod(of_workflow=True, account="rich"),
        "a step may not run as rich; allowed: pipeline-runner",
    ),
    **{
        f"a step with a foreign Secret in {place}": (
            functools.partial(foreign_secret, place),
            "a step may not read Secret mysql-secret",
        )
        for place in ("env", "envFrom", "volume", "projected")
    },
    "train with the key for Git": (
        lambda: pod(of_workflow=True, step="train", **secret_in("volume", "driftline-git-write")),
        'step "train" may not read Secret driftline-git-write',
    ),
    "a step without a name with the key for models": (
        lambda: pod(of_workflow=True, **secret_in("envFrom", "driftline-model-signing")),
        "may not read Secret driftline-model-signing",
    ),
    "a privileged pod": (lambda: pod(container={"securityContext": {"privileged": True}}), "violates PodSecurity"),
    "a pod as root": (
        lambda: pod(securityContext={"runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}}),
        "violates PodSecurity",
    ),
    "a pod with the node's files": (
        lambda: pod(volumes=[{"name": "node", "hostPath": {"path": "/"}}]),
        "violates PodSecurity",
    ),
}


@pytest.mark.parametrize("what", ADMITTED)
def test_what_we_need_is_admitted(rules: str, what: str) -> None:
    done = send(rules, ADMITTED[what]())
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr


@pytest.mark.parametrize("what", REFUSED)
def test_what_nobody_needs_is_refused_with_the_reason(rules: str, what: str) -> None:
    make, reason = REFUSED[what]
    done = send(rules, make())
    assert done.returncode != 0
    assert reason in done.stderr, done.stderr


def test_an_ephemeral_container_by_tag_is_refused(rules: str) -> None:
    made = json.loads(must("create", "-n", rules, "-f-", "-o", "json", objects=[pod(image=DIGESTED)]))
    done = kubectl("debug", "-n", rules, made["metadata"]["name"], "--image=busybox:1", "--profile=restricted")
    assert done.returncode != 0
    assert "images without a digest: busybox:1" in done.stderr, done.stderr


def test_what_ran_before_the_rules_may_still_be_updated(space: str, request: pytest.FixtureRequest) -> None:
    """A Deployment by tag that is scaled goes on; another tag is refused."""
    # Made in the window before the rules of another namespace would act: the namespace is not marked.
    name = f"{space}-b"
    must("create", "namespace", name)
    request.addfinalizer(lambda: kubectl("delete", "namespace", name, "--wait=false"))
    old = deployment("python:3.11") | {"metadata": {"name": "old"}}
    old["spec"]["replicas"] = 0
    must("create", "-n", name, "-f-", objects=[old])
    rules = request.getfixturevalue("rules")
    must("label", "namespace", name, f"{MARK}={rules}", "pod-security.kubernetes.io/enforce=restricted")
    deadline = time.monotonic() + ACTIVE_SECONDS
    while send(name, deployment("python:3.11")).returncode == 0 and time.monotonic() < deadline:
        time.sleep(0.5)
    must("scale", "deployment/old", "-n", name, "--replicas=1", "--dry-run=server")
    must("annotate", "deployment/old", "-n", name, "a=b", "--dry-run=server")
    done = kubectl("set", "image", "deployment/old", "-n", name, "main=python:3.12", "--dry-run=server")
    assert "images without a digest: python:3.12" in done.stderr, done.stderr


@pytest.mark.parametrize(("level", "admitted"), [("restricted", True), ("baseline", False), (None, False)])
def test_a_namespace_of_ours_enforces_pod_security(rules: str, level: str | None, admitted: bool) -> None:
    labels = {MARK: rules} | ({"pod-security.kubernetes.io/enforce": level} if level else {})
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "ml-", "labels": labels}}
    done = kubectl("create", "--dry-run=server", "-f-", objects=[made])
    assert (done.returncode == 0) is admitted, done.stderr
    if not admitted:
        assert f'enforces Pod Security "{level or "privileged"}"; allowed: restricted' in done.stderr


def test_every_rule_type_checks(rules: str) -> None:
    """The API server found no field that does not exist in any of the rules' expressions."""
    found = json.loads(must("get", "validatingadmissionpolicies", "-o", "json"))["items"]
    ours = [policy for policy in found if policy["metadata"]["name"].endswith(rules)]
    deadline = time.monotonic() + ACTIVE_SECONDS
    while any("typeChecking" not in policy.get("status", {}) for policy in ours) and time.monotonic() < deadline:
        time.sleep(0.5)
        found = json.loads(must("get", "validatingadmissionpolicies", "-o", "json"))["items"]
        ours = [policy for policy in found if policy["metadata"]["name"].endswith(rules)]
    assert len(ours) == 5
    warnings = {policy["metadata"]["name"]: policy["status"].get("typeChecking") for policy in ours}
    assert all(not (found or {}).get("expressionWarnings") for found in warnings.values()), warnings
