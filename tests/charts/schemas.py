"""Strict schemas: Kubernetes' own of three releases from a wheel, those of custom resources from their Go modules.

Nothing of them is kept in this repository. A CRD's module comes from Go's module cache or proxy; its hash must be the
one in `crd_modules.sum`, which has the form of a go.sum.
"""

import copy
import functools
import importlib.util
import json
import re
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import referencing
import yaml

KUBERNETES = ("1.30", "1.33", "1.37")

# Custom resource to the module and the file of its definition.
CRDS = (
    {
        "Rollout.argoproj.io": ("github.com/argoproj/argo-rollouts", "manifests/crds/rollout-crd.yaml"),
        "AnalysisTemplate.argoproj.io": (
            "github.com/argoproj/argo-rollouts",
            "manifests/crds/analysis-template-crd.yaml",
        ),
        "Application.argoproj.io": ("github.com/argoproj/argo-cd/v3", "manifests/crds/application-crd.yaml"),
        "ApplicationSet.argoproj.io": ("github.com/argoproj/argo-cd/v3", "manifests/crds/applicationset-crd.yaml"),
        "AppProject.argoproj.io": ("github.com/argoproj/argo-cd/v3", "manifests/crds/appproject-crd.yaml"),
        "Certificate.cert-manager.io": (
            "github.com/cert-manager/cert-manager",
            "deploy/crds/cert-manager.io_certificates.yaml",
        ),
        "Issuer.cert-manager.io": ("github.com/cert-manager/cert-manager", "deploy/crds/cert-manager.io_issuers.yaml"),
        "ClusterIssuer.cert-manager.io": (
            "github.com/cert-manager/cert-manager",
            "deploy/crds/cert-manager.io_clusterissuers.yaml",
        ),
        "Gateway.gateway.networking.k8s.io": (
            "sigs.k8s.io/gateway-api",
            "config/crd/standard/gateway.networking.k8s.io_gateways.yaml",
        ),
        "HTTPRoute.gateway.networking.k8s.io": (
            "sigs.k8s.io/gateway-api",
            "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
        ),
        "ClusterImagePolicy.policy.sigstore.dev": (
            "github.com/sigstore/policy-controller",
            "config/300-clusterimagepolicy.yaml",
        ),
        "ScaledObject.keda.sh": ("github.com/kedacore/keda/v2", "config/crd/bases/keda.sh_scaledobjects.yaml"),
    }
    | {
        f"{kind}.monitoring.coreos.com": (
            "github.com/prometheus-operator/prometheus-operator",
            f"example/prometheus-operator-crd/monitoring.coreos.com_{kind.lower()}s.yaml",
        )
        for kind in ("PodMonitor", "PrometheusRule", "ScrapeConfig", "ServiceMonitor")
    }
    | {
        f"{kind}.postgresql.cnpg.io": (
            "github.com/cloudnative-pg/cloudnative-pg",
            f"config/crd/bases/postgresql.cnpg.io_{kind.lower()}s.yaml",
        )
        for kind in ("Cluster", "Database", "ScheduledBackup")
    }
)
# Their definitions come in no module that the proxy has: a cluster checks these.
UNCHECKED = {
    "Pipeline.pipelines.kubeflow.org",
    "PipelineVersion.pipelines.kubeflow.org",
    "FeatureStore.feast.dev",
}
_SUMS = Path(__file__).with_name("crd_modules.sum")


def can_check_kubernetes() -> bool:
    return importlib.util.find_spec("kubernetes_validate") is not None


def kind_of(manifest: dict[str, Any]) -> str:
    """Return kind and group, such as `Rollout.argoproj.io`; a core object has its kind alone."""
    group, slash, _version = manifest["apiVersion"].rpartition("/")
    return f"{manifest['kind']}.{group}" if slash else manifest["kind"]


def errors(manifest: dict[str, Any], kubernetes: str) -> list[str]:
    """Return what is wrong with an object for one release of Kubernetes; unknown fields are wrong."""
    kind = kind_of(manifest)
    if kind in UNCHECKED:
        return []
    if kind in CRDS:
        validator = _custom(kind, manifest["apiVersion"].rpartition("/")[2])
    else:
        validator = _builtin(manifest["kind"], manifest["apiVersion"], kubernetes)
    name = f"{manifest['kind']} {manifest['metadata'].get('name')}"
    return [f"{name}: {error.json_path}: {error.message[:300]}" for error in validator.iter_errors(manifest)]


@functools.cache
def _folder(kubernetes: str) -> Path:
    return Path(str(resources.files("kubernetes_validate"))) / f"kubernetes-json-schema/v{kubernetes}.0-local-strict"


@functools.cache
def _definitions(kubernetes: str) -> Any:
    contents = json.loads((_folder(kubernetes) / "_definitions.json").read_text())
    return referencing.Resource.from_contents(contents) @ referencing.Registry()


@functools.cache
def _builtin(kind: str, api_version: str, kubernetes: str) -> Any:
    # rbac.authorization.k8s.io/v1 is rbac-v1 there.
    short = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    path = _folder(kubernetes) / f"{kind.lower()}-{short}.json"
    if not path.is_file():
        raise LookupError(f"no schema of {api_version} {kind} in Kubernetes {kubernetes}: add it to CRDS or UNCHECKED")
    return jsonschema.Draft202012Validator(json.loads(path.read_text()), registry=_definitions(kubernetes))


@functools.cache
def modules() -> dict[str, Path]:
    """Return the folders of the Go modules that hold the definitions. Raises OSError with the reason for none."""
    if not shutil.which("go"):
        raise OSError("Go is not installed")
    pinned = {line.split()[0]: line.split()[1:] for line in _SUMS.read_text().splitlines()}
    with tempfile.TemporaryDirectory() as outside:
        command = ["go", "mod", "download", "-json", *(f"{module}@{pin[0]}" for module, pin in pinned.items())]
        done = subprocess.run(command, cwd=outside, capture_output=True, text=True, check=False, timeout=300)
    folders, position = {}, 0
    answer = done.stdout.strip()
    while position < len(answer):
        found, end = json.JSONDecoder().raw_decode(answer[position:])
        position += end + len(answer[position + end :]) - len(answer[position + end :].lstrip())
        if "Error" in found:
            raise OSError(f"{found['Path']}: {found['Error']}")
        wanted = pinned[found["Path"]][1]
        if found["Sum"] != wanted:
            raise ValueError(f"{found['Path']} has the hash {found['Sum']}; pinned: {wanted}")
        folders[found["Path"]] = Path(found["Dir"])
    if folders.keys() != pinned.keys():
        raise OSError(done.stderr or "go mod download answered nothing")
    return folders


@functools.cache
def _custom(kind: str, version: str) -> Any:
    module, file = CRDS[kind]
    definition = yaml.load((modules()[module] / file).read_text(), Loader=yaml.CSafeLoader)
    served = {v["name"]: v["schema"]["openAPIV3Schema"] for v in definition["spec"]["versions"] if v["served"]}
    if version not in served:
        raise LookupError(f"{kind} has no version {version}; served: {', '.join(served)}")
    schema = copy.deepcopy(served[version])
    # The API server knows these of every object; some definitions leave them out.
    known = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    schema["properties"] |= known
    return jsonschema.Draft202012Validator(_strict(schema))


def _strict(schema: Any) -> Any:
    """Refuse what the API server would prune, and read Kubernetes' own keywords."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {
        key: {name: _strict(sub) for name, sub in value.items()} if key == "properties" else _strict(value)
        for key, value in schema.items()
        if key not in {"default", "description", "example"}
    }
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields") and schema.get("type"):
        strict.setdefault("additionalProperties", False)
    if schema.get("nullable") and "type" in schema:
        strict["type"] = [schema["type"], "null"]
    return strict
