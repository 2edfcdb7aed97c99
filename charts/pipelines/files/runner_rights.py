"""Ask the API server, as the account of pipelines, what it may do: all that KFP needs, and nothing that it does not."""

import json
import ssl
import sys
import urllib.request
from pathlib import Path

MOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
NAMESPACE = MOUNT.joinpath("namespace").read_text()
NEEDED = [
    ("", "pods", "get", ""),
    ("", "configmaps", "get", "kfp-launcher"),
    ("argoproj.io", "workflowtaskresults", "create", ""),
]
DENIED = [
    ("", "secrets", "list", ""),
    ("", "pods", "create", ""),
    ("", "pods/exec", "create", ""),
    ("", "configmaps", "list", ""),
    ("apps", "deployments", "create", ""),
    ("batch", "jobs", "create", ""),
    ("argoproj.io", "workflows", "create", ""),
    ("rbac.authorization.k8s.io", "rolebindings", "create", ""),
]


def allowed(group: str, resource: str, verb: str, name: str) -> bool:
    kind, _, part = resource.partition("/")
    asked = {"namespace": NAMESPACE, "group": group, "resource": kind, "subresource": part, "verb": verb, "name": name}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    request = urllib.request.Request(
        "https://kubernetes.default.svc/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {MOUNT.joinpath('token').read_text()}", "Content-Type": "application/json"},
    )
    context = ssl.create_default_context(cafile=str(MOUNT / "ca.crt"))
    with urllib.request.urlopen(request, context=context, timeout=10) as answer:  # noqa: S310  the address is above
        return bool(json.load(answer)["status"]["allowed"])


missing = [right for right in NEEDED if not allowed(*right)]
excess = [right for right in DENIED if allowed(*right)]
sys.stdout.write(f"missing: {missing}\ntoo much: {excess}\n")
sys.exit(1 if missing or excess else 0)
