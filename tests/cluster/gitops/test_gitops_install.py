"""Our charts on a real Kubernetes: everything is admitted, a served model is updated under load and leaves nothing."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.release import Release

pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow]
CHARTS = Path(__file__).parents[3] / "charts"
NAMESPACE, NAME, SERVICE = "ml-flights", "flights", "flights-bento-service"
VALUES = {"replicas": 2, "resources": {"cpu": "50m", "memory": "1Gi"}, "strategy": {"kind": "rolling"}}
CommandLine = Callable[..., str]
OWN = "deployments,replicasets,pods,services,serviceaccounts,networkpolicies,poddisruptionbudgets,configmaps,roles"
VALUE_SETS = sorted(path.relative_to(CHARTS) for path in CHARTS.glob("*/ci/*.yaml"))


def helm(*arguments: str, text: str = "") -> str:
    done = subprocess.run(["helm", *arguments], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"helm {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


@pytest.mark.parametrize("values", VALUE_SETS, ids=str)
def test_the_server_admits_every_chart_with_every_value_set(values: Path, namespace: str, kubectl: CommandLine) -> None:
    chart = CHARTS / values.parts[0]
    # A hook's Pod is only admitted where its service account is already.
    common = ("--no-hooks", "--namespace", namespace, "--values", str(CHARTS / values))
    rendered = helm("template", NAME, str(chart), *common)
    # Custom resources of add-ons that this cluster lacks are checked against their definitions in tests/charts.
    known = set(kubectl("api-resources", "--output=name").split())
    served = [each for each in yaml.safe_load_all(rendered) if each and _is_served(each, known)]
    assert served
    for each in served:
        # What a chart makes in a namespace of its choice is tried here, so that nothing has to exist.
        if "namespace" in each["metadata"]:
            each["metadata"]["namespace"] = namespace
    kubectl("apply", "--dry-run=server", "--server-side", "-n", namespace, "-f", "-", text=yaml.safe_dump_all(served))


def _is_served(manifest: dict[str, Any], known: set[str]) -> bool:
    group, _, _ = manifest["apiVersion"].rpartition("/")
    kind = manifest["kind"].lower()
    plural = kind[:-1] + "ies" if kind.endswith("y") else kind + "s"
    return (f"{plural}.{group}" if group else plural) in known


@pytest.fixture
def installed(first_release: Release, namespace: str, kubectl: CommandLine, tmp_path: Path) -> Iterator[Path]:
    """Install the chart with the first release and yield its values; it is uninstalled at the end."""
    before = objects(kubectl)
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(VALUES | {"release": first_release.model_dump(mode="json", by_alias=True)}))
    common = (NAME, str(CHARTS / "bento-service"), "--namespace", namespace, "--values", str(values))
    helm("install", *common, "--wait", "--timeout", "5m")
    try:
        yield values
    finally:
        # Not --wait: Helm 4.2 waits its whole time for what is gone before it looks.
        helm("uninstall", NAME, "--namespace", namespace)
    deadline = time.monotonic() + 180
    while objects(kubectl) != before and time.monotonic() < deadline:
        time.sleep(1)
    assert objects(kubectl) == before


def objects(kubectl: CommandLine) -> set[str]:
    return set(kubectl("-n", NAMESPACE, "get", OWN, "--output=name").split())


def test_a_model_is_replaced_under_load_and_no_request_fails(
    installed: Path, question: dict[str, Any], callers: Any, kubectl: CommandLine
) -> None:
    # Helm 4.2 waits so long for the test's pod to be gone, which is gone at once.
    helm("test", NAME, "--namespace", NAMESPACE, "--timeout", "90s")
    pods = set(kubectl("-n", NAMESPACE, "get", "pods", "--output=name").split())
    address = kubectl("-n", NAMESPACE, "get", "service", SERVICE, "-o", "jsonpath={.spec.clusterIP}")
    with callers(f"http://{address}:3000", question) as asked:
        time.sleep(3)
        chart = (NAME, str(CHARTS / "bento-service"), "--namespace", NAMESPACE, "--values", str(installed))
        helm("upgrade", *chart, "--set", "startSeconds=600", "--wait", "--timeout", "5m")
        time.sleep(15)
    statuses = asked.take().statuses
    replaced = set(kubectl("-n", NAMESPACE, "get", "pods", "--output=name").split())
    assert not pods & replaced, "no pod was replaced"
    assert set(statuses) == {"200"}, statuses
