"""Add-ons of the platform: what our values make of the charts of others, and that one add-on fits the other.

The charts themselves are not kept here. Where DRIFTLINE_CHARTS names a folder with one folder per add-on (such as
`postgres` with the chart `cluster` of its version) each is rendered by Helm with our values of each environment.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from pipelines.infra.generate import addon_values
from pipelines.infra.model import Addon, Lock, LockedImage
from pipelines.infra.read import read_addons, read_clusters

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
SECURITY = ROOT / "docs/security.md"
ENVIRONMENTS = ("local", "staging", "prod")
ADDONS = read_addons(INFRA)
THIRD_PARTY = sorted(name for name, addon in ADDONS.items() if not addon.source.path)
Manifest = dict[str, Any]


def merge(*values: Any) -> Manifest:
    merged: Manifest = {}
    for one in values:
        for key, value in (one or {}).items():
            both = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = merge(merged[key], value) if both else value
    return merged


def our_values(name: str, environment: str) -> Manifest:
    folder = INFRA / "addons" / name
    return merge(*(yaml.safe_load((folder / f).read_text()) for f in ("values.yaml", f"values-{environment}.yaml")))


def namespaces() -> dict[str, str]:
    """Return each namespace of infra/policies and the Pod Security level that it enforces."""
    found = {}
    for path in INFRA.glob("policies/*/namespace*.yaml"):
        for one in yaml.safe_load_all(path.read_text()):
            if one["kind"] == "Namespace":
                found[one["metadata"]["name"]] = one["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    return found


# ---- one add-on and the other
def test_every_namespace_of_an_add_on_is_declared_with_a_level() -> None:
    for cluster in ("staging", "prod"):
        policies = yaml.safe_load((INFRA / f"clusters/{cluster}/policies/kustomization.yaml").read_text())
        assert "../../../policies/addons" in policies["resources"]
        for element in read_clusters(INFRA)[cluster].addons.elements:
            namespace = ADDONS[element["addon"]].namespace
            assert namespace.startswith("ml-") or namespace in namespaces(), element


def postgres(environment: str = "prod") -> Manifest:
    return our_values("postgres", environment)


def test_kfp_finds_the_database_server_that_the_add_on_makes() -> None:
    host = f"{postgres()['fullnameOverride']}-rw.{ADDONS['postgres'].namespace}"
    for environment in ENVIRONMENTS:
        overlay = yaml.safe_load((INFRA / f"kfp/overlays/{environment}/kustomization.yaml").read_text())
        (patch,) = [yaml.safe_load(p["patch"]) for p in overlay["patches"] if "pipeline-install-config" in p["patch"]]
        assert patch["data"]["postgresHost"] == host
        assert "../../components/postgres" in overlay["components"]


def test_each_database_has_an_owner_whose_password_is_in_a_secret_that_the_docs_name() -> None:
    told = (ROOT / "docs/operator.md").read_text()
    for environment in ENVIRONMENTS:
        cluster = postgres(environment)["cluster"]
        secrets = {role["name"]: role["passwordSecret"]["name"] for role in cluster["roles"]}
        secrets[cluster["initdb"]["owner"]] = cluster["initdb"]["secret"]["name"]
        owners = {database["name"]: database["owner"] for database in postgres(environment)["databases"]}
        owners[cluster["initdb"]["database"]] = cluster["initdb"]["owner"]
        # MLflow, the ledger, the feature registry, and KFP's two (kfp/components/postgres).
        assert owners.keys() == {"driftline", "feast", "mlflow", "mlpipeline", "metadb"}
        assert set(owners.values()) == secrets.keys()
        for secret in secrets.values():
            assert f"`{secret}`" in told, secret
        assert cluster["enableSuperuserAccess"] is False
        assert not [role for role in cluster["roles"] if role.get("superuser") or "password" in role]


def test_a_database_that_counts_is_backed_up_with_a_credential_from_elsewhere() -> None:
    for environment in ("staging", "prod"):
        backups = postgres(environment)["backups"]
        assert backups["enabled"] is True
        assert backups["secret"] == {"create": False, "name": "postgres-backup"}
        assert "s3" not in backups, "keys in values"
        assert backups["destinationPath"].endswith(f"/{environment}"), "one archive per cluster"
    assert postgres("prod")["cluster"]["instances"] > 1
    assert postgres("prod")["cluster"]["postgresql"]["synchronous"]["number"] >= 1


def test_mlflow_answers_to_the_name_that_its_clients_use() -> None:
    """By MLflow's own rule: a server refuses Host headers that it was not told of."""
    from mlflow.server.security_utils import is_allowed_host_header

    values = our_values("mlflow", "prod")
    allowed = values["server"]["value_options"]["allowed_hosts"].split(",")
    plugin = (INFRA / "kfp/components/mlflow-plugin/config.json").read_text()
    (host,) = re.findall(r'"endpoint": "http://([^"]+)"', plugin)
    assert is_allowed_host_header(allowed, host)
    assert is_allowed_host_header(allowed, "10.244.0.7:5000"), "Prometheus asks pods by address"
    assert not is_allowed_host_header(allowed, "mlflow.example.com:5000")
    (pin,) = ADDONS["mlflow"].images
    assert str(pin.image).endswith("-full"), "the plain image has neither psycopg2 nor boto3"


def test_the_image_policy_that_the_docs_give_is_one(check: Callable[[list[Manifest]], None]) -> None:
    (sample,) = re.findall(r"```yaml\n(apiVersion: policy\.sigstore\.dev.*?)```", SECURITY.read_text(), re.DOTALL)
    policy = yaml.safe_load(sample)
    check([policy])
    (authority,) = policy["spec"]["authorities"]
    assert authority["key"]["secretRef"]["name"], "a key of one's own, and nothing of Sigstore's public services"
    assert not {"keyless", "ctlog"} & authority.keys()


# ---- charts of others
def chart_of(name: str) -> Path:
    return Path(os.environ.get("DRIFTLINE_CHARTS", "")) / name


def at_hand() -> list[Any]:
    """Return each add-on whose chart is at hand with each environment, or one case that is skipped with the reason."""
    found = [name for name in THIRD_PARTY if (chart_of(name) / "Chart.yaml").is_file()]
    if os.environ.get("DRIFTLINE_CHARTS") and found:
        return [pytest.param((name, e), id=f"{name}-{e}") for name in found for e in ENVIRONMENTS]
    reason = "needs charts of others: let DRIFTLINE_CHARTS name a folder with ADD-ON/Chart.yaml"
    return [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]


def locked(addon: Addon) -> tuple[Manifest, dict[str, str]]:
    """Return values with a digest per image, and digest to image."""
    digests = {str(pin.image): f"sha256:{number:064x}" for number, pin in enumerate(addon.images, 1)}
    lock = Lock(images={image: LockedImage(digest=digest) for image, digest in digests.items()})
    values = addon_values(addon, lock)
    assert values is not None
    return yaml.safe_load(values), {digest: image for image, digest in digests.items()}


@pytest.fixture
def rendered(request: pytest.FixtureRequest, helm: ModuleType) -> tuple[Addon, list[Manifest], dict[str, str]]:
    name, environment = request.param
    addon, chart = ADDONS[name], chart_of(name)
    version = yaml.safe_load((chart / "Chart.yaml").read_text())["version"]
    assert version == addon.source.version, f"DRIFTLINE_CHARTS holds {name} {version}"
    digests, images = locked(addon)
    files = helm.render(chart, merge(our_values(name, environment), digests), name=name, namespace=addon.namespace)
    objects = [
        one
        for path, text in sorted(files.items())
        if not path.endswith("NOTES.txt")
        # Helm splits at "---" whatever follows it.
        for one in yaml.load_all(re.sub(r"(?m)^---(?=\S)", "---\n", text), Loader=yaml.CSafeLoader)
        # Argo CD passes tests over.
        if one and not str((one["metadata"].get("annotations") or {}).get("helm.sh/hook", "")).startswith("test")
    ]
    assert objects
    return addon, objects, images


each = pytest.mark.parametrize("rendered", at_hand(), indirect=True)


def pod_specs(objects: list[Manifest]) -> list[tuple[str, Manifest]]:
    return [
        (f"{one['kind']} {one['metadata']['name']}", one["spec"]["template"]["spec"])
        for one in objects
        if one["kind"] in {"Deployment", "StatefulSet", "DaemonSet", "Job"}
    ]


def image_texts(value: Any, key: str = "") -> set[str]:
    if isinstance(value, dict):
        return {text for name, item in value.items() for text in image_texts(item, name)}
    if isinstance(value, list):
        return {text for item in value for text in image_texts(item, key)}
    known = re.compile(r"(docker\.io|quay\.io|ghcr\.io|registry\.k8s\.io)/\S+:\S+")
    if isinstance(value, str) and (key in {"image", "imageName"} or known.search(value)):
        return {value}
    return set()


@each
def test_what_argo_cd_would_apply_is_valid(rendered: Any, check: Callable[[list[Manifest]], None]) -> None:
    # Definitions of the operator's own two have no module of their size in the list.
    unchecked = {"CustomResourceDefinition", "Alertmanager", "Prometheus"}
    check([one for one in rendered[1] if one["kind"] not in unchecked])


@each
def test_every_image_is_named_by_digest_and_every_digest_is_used(rendered: Any) -> None:
    _addon, objects, images = rendered
    found = {
        text
        for one in objects
        if one["kind"] not in {"CustomResourceDefinition", "ConfigMap"}
        for text in image_texts(one)
    }
    assert not [text for text in found if "@sha256:" not in text]
    used = {f"sha256:{digest}" for text in found for digest in re.findall(r"sha256:([0-9a-f]{64})", text)}
    assert used == images.keys()


@each
def test_no_credential_is_rendered(rendered: Any) -> None:
    """A webhook's certificate is filled in later; Alertmanager's configuration names no receiver."""
    empty = {"external-secrets-webhook", "alertmanager-kube-prometheus-stack-alertmanager"}
    assert {one["metadata"]["name"] for one in rendered[1] if one["kind"] == "Secret"} <= empty


@each
def test_pods_are_what_their_namespace_admits(rendered: Any) -> None:
    addon, objects, _images = rendered
    level = namespaces()[addon.namespace]
    if level == "privileged":
        return
    for name, spec in pod_specs(objects):
        pod = spec.get("securityContext") or {}
        assert not [v for v in spec.get("volumes", []) if "hostPath" in v], name
        assert not spec.get("hostNetwork"), name
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            own = container.get("securityContext") or {}
            what = f"{name} {container['name']}"
            assert own.get("runAsNonRoot", pod.get("runAsNonRoot")) is True, what
            assert own.get("runAsUser", pod.get("runAsUser")) != 0, what
            profile = own.get("seccompProfile") or pod.get("seccompProfile") or {}
            assert profile.get("type") == "RuntimeDefault", what
            assert own.get("allowPrivilegeEscalation") is False, what
            assert (own.get("capabilities") or {}).get("drop") == ["ALL"], what


@each
def test_secrets_that_are_asked_for_are_in_the_docs(rendered: Any) -> None:
    told = (ROOT / "docs/operator.md").read_text()
    made = {one["metadata"]["name"] for one in rendered[1] if one["kind"] == "Secret"}
    made |= {one["spec"]["secretName"] for one in rendered[1] if one["kind"] == "Certificate"}
    asked: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if key in {"secretKeyRef", "secretRef", "passwordSecret", "accessKeyId"} and "name" in item:
                    asked.add(item["name"])
                if key == "secret" and isinstance(item, dict) and not item.get("optional"):
                    asked.add(item.get("secretName") or item.get("name", ""))
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    for one in rendered[1]:
        if one["kind"] != "CustomResourceDefinition":
            walk(one.get("spec"))
    own = {name for name in asked if name in made or re.search(r"-(webhook|ca|tls|admission|cert)$", name)}
    assert not [name for name in sorted(asked - own - {""}) if f"`{name}`" not in told]
