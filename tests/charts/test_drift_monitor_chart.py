"""charts/drift-monitor: the controller is told what it reads and no more, and may do what it does and no more."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.commands.controller import command
from pipelines.controller.lease import LEASE_NAME
from pipelines.wiring import mount_path

CHART = Path(__file__).parents[2] / "charts/drift-monitor"
SETS = {path.stem: yaml.safe_load(path.read_text()) for path in (CHART / "ci").glob("*.yaml")}


def by_kind(objects: list[Any], kind: str) -> list[Any]:
    return [manifest for manifest in objects if manifest["kind"] == kind]


def pod_of(objects: list[Any]) -> Any:
    (deployment,) = by_kind(objects, "Deployment")
    return deployment["spec"]["template"]["spec"]


@pytest.mark.parametrize("name", SETS)
def test_the_command_line_says_what_the_values_say(render: Any, name: str) -> None:
    values = SETS[name]
    program, subcommand, *words = pod_of(render("drift-monitor", values, namespace="system"))["containers"][0]["args"]
    assert (program, subcommand) == ("driftline", "controller")
    parsed = command.make_context("controller", words).params
    wanted = {"schedulesNamespace": "kubeflow", "servingNamespaces": [], "seconds": 60} | values.get("controller", {})
    assert parsed == {
        "port": 8080,
        "lease_namespace": "system",
        "schedules_namespace": wanted["schedulesNamespace"],
        "serving_namespaces": tuple(wanted["servingNamespaces"]),
        "seconds": float(wanted["seconds"]),
    }


@pytest.mark.parametrize("name", SETS)
def test_a_controller_that_comes_before_its_secret_waits_for_it(render: Any, name: str) -> None:
    """Else it would lead with an empty ledger of its own, and no change of a Secret restarts a pod."""
    (container,) = pod_of(render("drift-monitor", SETS[name], namespace="system"))["containers"]
    references = {e["name"]: next(iter(e["valueFrom"].values())) for e in container["env"] if "valueFrom" in e}
    waits_for = {key for key, reference in references.items() if not reference.get("optional")}
    assert waits_for == {"DRIFTLINE_LEDGER_URL", "DRIFTLINE_KFP_HOST"}


@pytest.mark.parametrize("name", SETS)
def test_rights_are_where_they_are_used(render: Any, name: str) -> None:
    """Its Lease, the ConfigMaps of one namespace, the Rollouts of those that it watches; nothing of the cluster."""
    values = SETS[name].get("controller", {})
    objects = render("drift-monitor", SETS[name], namespace="system")
    rights = {
        (role["metadata"]["namespace"], resource, verb, *rule.get("resourceNames", []))
        for role in by_kind(objects, "Role")
        for rule in role["rules"]
        if rule["apiGroups"] != ["pipelines.kubeflow.org"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert rights == {
        ("system", "leases", "create"),
        ("system", "leases", "get", LEASE_NAME),
        ("system", "leases", "update", LEASE_NAME),
        (values.get("schedulesNamespace", "kubeflow"), "configmaps", "list"),
        *((namespace, "rollouts", "list") for namespace in values.get("servingNamespaces", [])),
    }
    for binding in by_kind(objects, "RoleBinding"):
        assert binding["metadata"]["namespace"] == next(
            role["metadata"]["namespace"]
            for role in by_kind(objects, "Role")
            if role["metadata"]["name"] == binding["roleRef"]["name"]
            and role["metadata"]["namespace"] == binding["metadata"]["namespace"]
        )
        (subject,) = binding["subjects"]
        assert subject["namespace"] == "system"
        assert subject["name"] == pod_of(objects)["serviceAccountName"]
    assert not by_kind(objects, "ClusterRole")


def test_where_kfp_asks_who_calls_the_controller_may_start_runs_and_keep_schedules(render: Any) -> None:
    objects = render("drift-monitor", SETS["multi-user"], namespace="system")
    role = next(role for role in by_kind(objects, "Role") if role["metadata"]["name"].endswith("-kfp"))
    assert role["metadata"]["namespace"] == "team-flights"
    verbs = {resource: set(rule["verbs"]) for rule in role["rules"] for resource in rule["resources"]}
    assert verbs["runs"] == {"create", "get", "list"}
    assert verbs["jobs"] == {"create", "get", "list", "enable", "disable", "delete"}
    assert verbs["pipelines"] == verbs["pipelineversions"] == {"get", "list"}
    told = {entry["name"]: entry.get("value") for entry in pod_of(objects)["containers"][0]["env"]}
    assert told["DRIFTLINE_KFP_NAMESPACE"] == "team-flights"
    assert not [r for r in by_kind(render("drift-monitor", SETS["prod"]), "Role") if "kfp" in r["metadata"]["name"]]


def test_kfp_is_shown_a_token_that_is_good_for_kfp_alone_and_for_an_hour(render: Any) -> None:
    spec = pod_of(render("drift-monitor", SETS["prod"]))
    (source,) = next(v["projected"]["sources"] for v in spec["volumes"] if v["name"] == "kfp-token")
    token = {"path": "token", "audience": "pipelines.kubeflow.org", "expirationSeconds": 3600}
    assert source == {"serviceAccountToken": token}
    container = spec["containers"][0]
    mount = next(m["mountPath"] for m in container["volumeMounts"] if m["name"] == "kfp-token")
    told = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert told["DRIFTLINE_KFP_TOKEN"] == f"{mount}/token"


def test_of_the_secret_it_reads_the_ledger_alone(render: Any) -> None:
    for name, values in SETS.items():
        container = pod_of(render("drift-monitor", values))["containers"][0]
        secret = [e["name"] for e in container["env"] if "secretKeyRef" in e.get("valueFrom", {})]
        assert secret == ["DRIFTLINE_LEDGER_URL"], name
        assert "envFrom" not in container


def test_of_the_config_map_it_reads_addresses_of_kfp_mlflow_and_git_alone(render: Any) -> None:
    for name, values in SETS.items():
        container = pod_of(render("drift-monitor", values))["containers"][0]
        read = {e["name"] for e in container["env"] if "configMapKeyRef" in e.get("valueFrom", {})}
        git = {f"DRIFTLINE_{what}" for what in ("GIT_URL", "GIT_BRANCH", "GIT_ENVIRONMENT", "FORGE_URL")}
        assert read == {"DRIFTLINE_KFP_HOST", "MLFLOW_TRACKING_URI"} | git, name


def test_the_key_for_git_is_where_settings_look_for_it(render: Any) -> None:
    container = pod_of(render("drift-monitor", SETS["prod"]))["containers"][0]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted["git"] == mount_path("driftline-git-write")
    assert "git" not in {
        m["name"] for m in pod_of(render("drift-monitor", SETS["local"]))["containers"][0]["volumeMounts"]
    }


@pytest.mark.parametrize(
    ("scrape", "annotated", "monitors"), [("none", 0, 0), ("annotations", 1, 0), ("serviceMonitor", 0, 1)]
)
def test_it_is_scraped_in_one_way_or_none(render: Any, scrape: str, annotated: int, monitors: int) -> None:
    objects = render("drift-monitor", SETS["prod"], {"metrics": {"scrape": scrape}})
    (deployment,) = by_kind(objects, "Deployment")
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations.get("prometheus.io/port") == ("8080" if annotated else None)
    assert len(by_kind(objects, "ServiceMonitor")) == monitors
