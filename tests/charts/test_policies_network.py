"""Who reaches whom, by all NetworkPolicies of a cluster together: those of infra/policies and of the charts."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
POLICIES = ROOT / "infra/policies"
CHARTS = ROOT / "charts"
KFP = {"application-crd-id": "kubeflow-pipelines"}


def _network() -> ModuleType:
    name = "driftline_charts_network"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("network.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


network = _network()


def pod(namespace: str, **labels: str) -> Any:
    return network.Pod(namespace, labels)


def step(name: str) -> Any:
    labels = {"workflows.argoproj.io/workflow": "flights-training-x", "driftline.dev/step": name}
    return network.Pod("kubeflow", labels if name else {"workflows.argoproj.io/workflow": "flights-training-x"})


def kfp(**labels: str) -> Any:
    return network.Pod("kubeflow", KFP | labels)


def read(path: Path, namespace: str) -> list[Any]:
    objects = [document for document in yaml.safe_load_all(path.read_text()) if document]
    return [one | {"metadata": one["metadata"] | {"namespace": namespace}} for one in objects]


@pytest.fixture(scope="module")
def policies(render: Any) -> list[Any]:
    """Return all NetworkPolicies of a cluster with flights in production."""
    found = read(POLICIES / "kubeflow/network.yaml", "kubeflow")
    found += read(POLICIES / "driftline-system/network.yaml", "driftline-system")
    found += read(POLICIES / "driftline-system/stores.yaml", "driftline-system")
    for use_case in ("flights", "wind"):
        found += read(POLICIES / "use-case/network.yaml", f"ml-{use_case}")
    more = {
        "networkPolicy": {
            "git": [{"cidr": "192.0.2.10/32", "port": 443}],
            "sources": [{"cidr": "192.0.2.20/32", "port": 5432}],
        }
    }
    use_case_job = CHARTS / "pipelines/ci/use-case.yaml"
    for chart, values, name, namespace in (
        ("pipelines", [CHARTS / "pipelines/ci/prod.yaml", more], "pipelines", "kubeflow"),
        ("pipelines", [use_case_job], "flights", "kubeflow"),
        ("drift-monitor", [CHARTS / "drift-monitor/ci/prod.yaml"], "monitor", "driftline-system"),
        ("feature-store", [CHARTS / "feature-store/ci/prod.yaml"], "flights", "ml-flights"),
        ("bento-service", [CHARTS / "bento-service/ci/prod.yaml"], "flights", "ml-flights"),
    ):
        for manifest in render(chart, *values, name=name, namespace=namespace):
            if manifest["kind"] == "NetworkPolicy":
                found.append(manifest | {"metadata": manifest["metadata"] | {"namespace": namespace}})
    return found


API = kfp(app="ml-pipeline")
METADATA = kfp(app="metadata", component="metadata-grpc-server")
DNS = pod("kube-system", **{"k8s-app": "kube-dns"})
CONTROLLER = pod(
    "driftline-system",
    **{
        "app.kubernetes.io/name": "drift-monitor",
        "app.kubernetes.io/instance": "monitor",
        "app.kubernetes.io/component": "controller",
    },
)
SCHEDULES = pod(
    "kubeflow",
    **{
        "app.kubernetes.io/name": "pipelines",
        "app.kubernetes.io/instance": "flights",
        "app.kubernetes.io/component": "schedules",
    },
)
FEATURES = pod(
    "ml-flights",
    **{
        "app.kubernetes.io/name": "feature-store",
        "app.kubernetes.io/instance": "flights",
        "app.kubernetes.io/component": "server",
    },
)
POSTGRES = pod("data", **{"cnpg.io/cluster": "driftline"})
STORES = {
    "postgres": pod("driftline-system", **{"cnpg.io/cluster": "postgres", "cnpg.io/instanceName": "postgres-1"}),
    "valkey": pod("driftline-system", **{"app.kubernetes.io/name": "valkey", "app.kubernetes.io/instance": "valkey"}),
    "mlflow": pod("driftline-system", **{"app.kubernetes.io/name": "mlflow", "app.kubernetes.io/instance": "mlflow"}),
}
OPERATOR = pod("cnpg-system", **{"app.kubernetes.io/name": "cloudnative-pg"})
SERVED = pod(
    "ml-flights",
    **{
        "app.kubernetes.io/name": "bento-service",
        "app.kubernetes.io/instance": "flights",
        "app.kubernetes.io/component": "serving",
    },
)
PROMETHEUS = pod("monitoring", app="prometheus")
INTERNET = network.Host("198.51.100.7")
KUBERNETES = network.Host("10.0.0.1")
API_SERVER, BUCKET = network.Host("192.0.2.1"), network.Host("192.0.2.3")
GIT, SOURCE = network.Host("192.0.2.10"), network.Host("192.0.2.20")

ALLOWED = {
    "the UI asks KFP": (kfp(app="ml-pipeline-ui"), API, 8888),
    "KFP's agents ask KFP": (kfp(app="ml-pipeline-persistenceagent"), API, 8887),
    "the driver asks for cached results": (step(""), API, 8887),
    "the step retrain starts a run": (step("retrain"), API, 8888),
    "the controller asks KFP": (CONTROLLER, API, 8888),
    "the Job of schedules asks KFP": (SCHEDULES, API, 8888),
    "Kubernetes asks KFP's webhook": (KUBERNETES, API, 8443),
    "KFP uses its database": (API, kfp(app="mysql"), 3306),
    "KFP and its UI use the metadata": (kfp(component="metadata-envoy"), METADATA, 8080),
    "steps record metadata": (step("train"), METADATA, 8080),
    "steps keep artifacts": (step("train"), kfp(app="seaweedfs"), 8333),
    "steps reach the ledger": (step("claim"), POSTGRES, 5432),
    "steps reach the Kubernetes API": (step("train"), KUBERNETES, 6443),
    "ingest reads its sources": (step("ingest"), SOURCE, 5432),
    "claim reads Git": (step("claim"), GIT, 443),
    "promote writes Git": (step("promote"), GIT, 443),
    "the controller reaches the Kubernetes API": (CONTROLLER, KUBERNETES, 6443),
    "the controller is scraped": (PROMETHEUS, CONTROLLER, 8080),
    "the feature server is scraped": (PROMETHEUS, FEATURES, 8000),
    "MLflow keeps its records": (STORES["mlflow"], STORES["postgres"], 5432),
    "MLflow keeps artifacts": (STORES["mlflow"], BUCKET, 443),
    "KFP's plugin tells MLflow": (API, STORES["mlflow"], 5000),
    "KFP uses PostgreSQL": (API, STORES["postgres"], 5432),
    "KFP's metadata uses PostgreSQL": (METADATA, STORES["postgres"], 5432),
    "an instance follows another": (STORES["postgres"], STORES["postgres"], 5432),
    "the operator asks an instance": (OPERATOR, STORES["postgres"], 8000),
    "an instance asks Kubernetes": (STORES["postgres"], API_SERVER, 6443),
    "an instance archives": (STORES["postgres"], BUCKET, 443),
    "PostgreSQL is scraped": (PROMETHEUS, STORES["postgres"], 9187),
    "the controller moves MLflow's alias": (CONTROLLER, STORES["mlflow"], 5000),
    "MLflow is scraped": (PROMETHEUS, STORES["mlflow"], 5000),
    "a served model looks features up": (SERVED, STORES["valkey"], 6379),
    "a named caller reads features": (pod("shop", app="web"), FEATURES, 6566),
}
DENIED = {
    "a step that starts no run asks KFP": (step("train"), API, 8888),
    "a driver starts a run over HTTP": (step(""), API, 8888),
    "any pod of the namespace asks KFP": (pod("kubeflow", app="notebook"), API, 8888),
    "any pod of the namespace asks KFP over gRPC": (pod("kubeflow", app="notebook"), API, 8887),
    "a served model asks KFP": (pod("ml-flights", app="any"), API, 8888),
    "any pod of the controller's namespace asks KFP": (pod("driftline-system", app="mlflow"), API, 8888),
    "a pod that is called as the controller asks KFP": (
        pod("default", **{"app.kubernetes.io/name": "drift-monitor"}),
        API,
        8888,
    ),
    "a host outside asks KFP": (INTERNET, API, 8888),
    "a step reads KFP's database": (step("train"), kfp(app="mysql"), 3306),
    "a pod elsewhere reads KFP's database": (pod("ml-flights", app="any"), kfp(app="mysql"), 3306),
    "a pod elsewhere reads KFP's object store": (pod("ml-flights", app="any"), kfp(app="seaweedfs"), 8333),
    "a step reaches the internet": (step("train"), INTERNET, 443),
    "ingest reaches the internet": (step("ingest"), INTERNET, 443),
    "train reads the sources": (step("train"), SOURCE, 5432),
    "train writes Git": (step("train"), GIT, 443),
    "a step reaches another step": (step("train"), step("ingest"), 8080),
    "a step reaches a served model": (step("train"), pod("ml-flights", app="any"), 3000),
    "anybody reaches a step": (pod("kubeflow", app="notebook"), step("train"), 8080),
    "the Job of schedules reaches the internet": (SCHEDULES, INTERNET, 443),
    "the Job of schedules reaches the ledger": (SCHEDULES, POSTGRES, 5432),
    "the controller reaches the internet": (CONTROLLER, INTERNET, 443),
    "another namespace asks the controller": (pod("ml-flights", app="any"), CONTROLLER, 8080),
    "a pod without a policy reaches anything": (pod("ml-wind", app="new"), INTERNET, 443),
    "a pod without a policy is reached": (pod("ml-flights", app="any"), pod("ml-wind", app="new"), 80),
    "a served model reaches the database": (SERVED, STORES["postgres"], 5432),
    "a served model reaches MLflow": (SERVED, STORES["mlflow"], 5000),
    "a notebook reaches MLflow": (pod("kubeflow", app="notebook"), STORES["mlflow"], 5000),
    "a notebook reaches the database": (pod("kubeflow", app="notebook"), STORES["postgres"], 5432),
    "somebody elsewhere reaches the database": (pod("shop", app="web"), STORES["postgres"], 5432),
    "somebody elsewhere looks features up": (
        pod("shop", **{"app.kubernetes.io/name": "bento-service"}),
        STORES["valkey"],
        6379,
    ),
    "the online store reaches anything": (STORES["valkey"], INTERNET, 443),
    "the database reaches the internet": (STORES["postgres"], INTERNET, 443),
    "MLflow reaches the internet": (STORES["mlflow"], INTERNET, 443),
    "somebody else reads features": (pod("shop", app="other"), FEATURES, 6566),
    "a caller of features reads its metrics": (pod("shop", app="web"), FEATURES, 8000),
}


@pytest.mark.parametrize("what", ALLOWED)
def test_what_is_needed_is_allowed(policies: list[Any], what: str) -> None:
    assert network.connects(policies, *ALLOWED[what])


@pytest.mark.parametrize("what", DENIED)
def test_nothing_else_is(policies: list[Any], what: str) -> None:
    assert not network.connects(policies, *DENIED[what])


@pytest.mark.parametrize("who", [step("train"), SCHEDULES, CONTROLLER, FEATURES])
def test_everybody_resolves_names(policies: list[Any], who: Any) -> None:
    assert network.connects(policies, who, DNS, 53, "UDP")
    assert network.connects(policies, who, DNS, 53, "TCP")


def test_without_the_policies_everything_would_be_allowed(policies: list[Any]) -> None:
    """The model denies nothing by itself; and each denial above rests on some policy."""
    for source, target, port in DENIED.values():
        assert network.connects([], source, target, port)
    for namespace in ("kubeflow", "driftline-system", "ml-flights", "ml-wind"):
        assert any(policy["metadata"]["namespace"] == namespace for policy in policies)


@pytest.mark.parametrize(
    ("selector", "labels", "holds"),
    [
        ({}, {}, True),
        ({"matchLabels": {"a": "b"}}, {"a": "b", "c": "d"}, True),
        ({"matchLabels": {"a": "b"}}, {"a": "c"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": "b"}, False),
    ],
)
def test_selectors_are_those_of_kubernetes(selector: dict[str, Any], labels: dict[str, str], holds: bool) -> None:
    assert network.selects(selector, labels) is holds
