"""charts/feature-store: one use case, read-only by default; what the operator is asked for."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from pipelines.commands.features import command

CHART = Path(__file__).parents[2] / "charts/feature-store"
SETS = {path.stem: yaml.safe_load(path.read_text()) for path in (CHART / "ci").glob("*.yaml")}
PLAIN = [name for name, values in SETS.items() if values.get("mode", "plain") == "plain"]


def by_kind(objects: list[Any], kind: str) -> list[Any]:
    return [manifest for manifest in objects if manifest["kind"] == kind]


@pytest.mark.parametrize("name", PLAIN)
def test_the_server_only_reads_and_is_told_two_addresses(render: Any, name: str) -> None:
    objects = render("feature-store", SETS[name])
    (deployment,) = by_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    program, group, name, *words = container["args"]
    assert (program, group, name) == ("driftline", "features", "serve")
    parsed = command.commands["serve"].make_context("serve", words).params
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert parsed == {
        "use_case": "flights",
        "host": "0.0.0.0",  # noqa: S104 - of a pod
        "port": ports["http"],
        "metrics_port": ports["metrics"],
    }
    secret = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in container["env"] if "valueFrom" in e}
    assert set(secret) == {"DRIFTLINE_FEATURE_REGISTRY_URL", "DRIFTLINE_ONLINE_STORE_URL"}
    assert not any(reference.get("optional") for reference in secret.values())
    assert not by_kind(objects, "FeatureStore")


def test_a_scaler_owns_the_number_of_pods(render: Any) -> None:
    for kind in ("none", "hpa"):
        objects = render("feature-store", SETS["prod"], {"autoscaling": {"kind": kind}})
        (deployment,) = by_kind(objects, "Deployment")
        assert ("replicas" in deployment["spec"]) is (kind == "none")
        assert len(by_kind(objects, "HorizontalPodAutoscaler")) == (kind == "hpa")


def test_the_operator_is_asked_for_a_server_on_our_stores_and_nothing_else(render: Any) -> None:
    objects = render("feature-store", SETS["operator"])
    (store,) = by_kind(objects, "FeatureStore")
    assert {m["kind"] for m in objects} == {"FeatureStore", "NetworkPolicy"}
    spec = store["spec"]
    assert spec["feastProject"] == "wind"
    services = spec["services"]
    assert services["disableInitContainers"] is True
    assert services["runFeastApplyOnInit"] is False, "definitions come from `driftline features apply`"
    assert "@sha256:" in services["onlineStore"]["server"]["image"]
    assert services["onlineStore"]["persistence"]["store"] == {
        "type": "redis",
        "secretRef": {"name": "feast-data-stores"},
    }
    registry = services["registry"]["local"]
    assert registry == {"persistence": {"store": {"type": "sql", "secretRef": {"name": "feast-data-stores"}}}}
    (policy,) = by_kind(objects, "NetworkPolicy")
    assert policy["spec"]["podSelector"]["matchLabels"] == {"feast.dev/name": store["metadata"]["name"]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"useCase": ""}, "/useCase"),
        ({"useCase": "Flights"}, "/useCase"),
        ({"mode": "both"}, "/mode"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        ({"image": {"tag": "1"}}, "tag"),
        ({"networkPolicy": {"egress": [{"cidr": "0.0.0.0/0", "port": 443}]}}, "/networkPolicy/egress"),
        ({"redis": "redis://:password@host"}, "redis"),
    ],
)
def test_nonsense_is_refused_by_name(render: Any, helm: ModuleType, change: dict[str, Any], says: str) -> None:
    with pytest.raises(helm.RenderError, match=says):
        render("feature-store", SETS["prod"], change)
