"""What goes wrong on a cluster: a gate refuses, a pod is taken away, the object store is away for a minute."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.core.kfp_api import KfpApi
from components.core.kfp_steps import read_steps
from components.core.ledger.champions import read_champion
from components.core.ledger.engine import open_ledger
from components.core.settings import Settings
from pipelines.cluster.runs import require_run

USE_CASE = "wind"
OUTAGE_SECONDS = 60
CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def submit(cluster: Settings, driftline: CommandLine, images: Path) -> CommandLine:
    """Return `driftline submit training`, as JSON."""

    def call(*words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        common = ("submit", "training", "--use-case", USE_CASE, "--images", str(images), "--json")
        return driftline(*common, *words, check=check)

    return call


def test_a_pod_that_is_taken_away_in_training_delays_the_run(
    cluster: Settings, kubernetes_api: Any, namespace: str, submit: CommandLine, driftline: CommandLine
) -> None:
    run_id = json.loads(submit().stdout)["run_id"]
    pod = running_pod(cluster, kubernetes_api, namespace, run_id, "train")
    kubernetes_api.delete_namespaced_pod(pod, namespace, grace_period_seconds=0)
    shown = wait_for(driftline, run_id)
    assert shown["result"] == "succeeded", shown
    champion = read_champion(open_ledger(cluster.ledger_url), USE_CASE)
    assert champion is not None
    # One version, although training began twice.
    assert (champion.version, champion.run_id) == (1, run_id)


def test_a_refusal_keeps_its_report_and_the_champion(
    cluster: Settings, submit: CommandLine, driftline: CommandLine
) -> None:
    before = read_champion(open_ledger(cluster.ledger_url), USE_CASE)
    done = submit("--param", "evaluate.min_lift=1000", "--wait", check=False)
    assert done.returncode == 3, done.stdout + done.stderr
    document = json.loads(done.stdout)
    states = {step["name"]: step["state"] for step in document["steps"]}
    assert (states["evaluate"], states["package"]) == ("succeeded", "failed")
    assert document["result"] == "refused"
    explained = json.loads(driftline("why", document["id"], "--json").stdout)
    assert explained["gates"]["evaluate"]["decision"] == "reject"
    assert any("improvement" in reason for reason in explained["gates"]["evaluate"]["reasons"])
    assert explained["failure"]["type"] == "GateRefused"
    assert read_champion(open_ledger(cluster.ledger_url), USE_CASE) == before


def test_a_minute_without_the_object_store_delays_the_run(
    cluster: Settings,
    object_store_proxy: Any,
    kubernetes_api: Any,
    namespace: str,
    submit: CommandLine,
    driftline: CommandLine,
) -> None:
    object_store_proxy.close()
    try:
        # Another instant than the other tests': what is taken already is not written again.
        run_id = json.loads(submit("--as-of", "2013-03-20T00:00:00+00:00").stdout)["run_id"]
        running_pod(cluster, kubernetes_api, namespace, run_id, "ingest")
        time.sleep(OUTAGE_SECONDS)
    finally:
        object_store_proxy.open()
    shown = wait_for(driftline, run_id)
    assert shown["result"] in ("succeeded", "refused"), shown
    ingest = next(step for step in shown["steps"] if step["name"] == "ingest")
    assert (ingest["state"], ingest["retries"]) == ("succeeded", 0)
    assert ingest["seconds"] > OUTAGE_SECONDS / 2
    assert "the object store does not answer" in driftline("runs", "logs", run_id, "ingest").stdout


def running_pod(settings: Settings, kubernetes_api: Any, namespace: str, run_id: str, step: str) -> str:
    """Wait until a step's own container runs and return its pod."""
    api = KfpApi(settings)
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        steps = read_steps(api, require_run(api, run_id))
        for pod in [pod for found in steps if found.name == step for pod in found.pods]:
            found = kubernetes_api.list_namespaced_pod(namespace, field_selector=f"metadata.name={pod}").items
            if found and found[0].status.phase == "Running" and "-impl-" in pod:
                return pod
        time.sleep(0.2)
    pytest.fail(f"{step} of {run_id} never ran")


def wait_for(driftline: CommandLine, run_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        shown: dict[str, Any] = json.loads(driftline("runs", "show", run_id, "--json").stdout)
        if shown["finished_at"]:
            return shown
        time.sleep(3)
    pytest.fail(f"{run_id} did not end")
