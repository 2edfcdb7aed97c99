"""What goes wrong on a cluster: a gate refuses, a pod is taken away, the object store is away for a minute."""

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.core.bundle import read_card
from components.core.kfp_api import KfpApi
from components.core.kfp_steps import read_steps
from components.core.ledger.champions import read_champion
from components.core.ledger.engine import migrate, open_ledger
from components.core.ledger.runs import read_run
from components.core.settings import Settings, embedded_settings
from components.core.tracking import download_bundle
from pipelines.catalog import override, read_case
from pipelines.cluster.runs import require_run
from pipelines.compile import compile_pipeline
from pipelines.definitions import applied_definitions
from pipelines.local import run_locally

USE_CASE = "wind"
OUTAGE_SECONDS = 60
LONG_ROUNDS = 4000
LONG = (
    f"train.trainer.rounds={LONG_ROUNDS}",
    f"train.trainer.early_stopping_rounds={LONG_ROUNDS}",
    "train.trainer.learning_rate=0.002",
    "train.trainer.subsample=0.8",
    "train.trainer.checkpoint_every_rounds=100",
)
"""Overrides that make a training long enough to be killed in the middle, with samplers that a resumption must keep."""
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
    before = newest_version(cluster)
    run_id = json.loads(submit().stdout)["run_id"]
    pod = running_pod(cluster, kubernetes_api, namespace, run_id, "train")
    kubernetes_api.delete_namespaced_pod(pod, namespace, grace_period_seconds=0)
    shown = wait_for(driftline, run_id)
    assert shown["result"] == "succeeded", shown
    champion = read_champion(open_ledger(cluster.ledger_url), USE_CASE)
    assert champion is not None
    # One version, although training began twice.
    assert (champion.version, champion.run_id) == (before + 1, run_id)
    assert newest_version(cluster) == before + 1


def test_a_long_training_goes_on_from_its_checkpoint_in_a_new_pod(
    cluster: Settings,
    kubernetes_api: Any,
    namespace: str,
    submit: CommandLine,
    driftline: CommandLine,
    tmp_path: Path,
) -> None:
    """Its model is that of an uninterrupted training here; the new pod has nothing but the object store."""
    before = newest_version(cluster)
    run_id = json.loads(submit(*(word for param in LONG for word in ("--param", param))).stdout)["run_id"]
    pod = running_pod(cluster, kubernetes_api, namespace, run_id, "train")
    wait_for_line(kubernetes_api, namespace, pod, "rounds, best validation")
    kubernetes_api.delete_namespaced_pod(pod, namespace, grace_period_seconds=0)
    shown = wait_for(driftline, run_id)
    assert shown["result"] in ("succeeded", "refused"), shown
    # Argo gives a pod that was deleted the same name again, so that no retry is counted.
    resumed = re.search(r"resuming at round (\d+)", driftline("runs", "logs", run_id, "train").stdout)
    assert resumed is not None
    assert 0 < int(resumed.group(1)) < LONG_ROUNDS
    assert newest_version(cluster) == before + 1

    here = embedded_settings(tmp_path / "home", cluster.feature_repo)
    migrate(here.ledger_url)
    case = read_case(here.feature_repo, USE_CASE)
    ir = compile_pipeline(case, "training", applied_definitions(here, USE_CASE))
    arguments = override(case, LONG, None, pipeline="training")
    run_locally(
        here,
        run_key="whole",
        pipeline="training",
        use_case=USE_CASE,
        ir=ir,
        arguments=arguments,
        notify=lambda _step: None,
    )
    assert newest_version(here) == 1
    assert model_of(cluster, before + 1) == model_of(here, 1)


def test_a_failed_run_is_repeated_with_what_it_has(
    cluster: Settings, kubernetes_api: Any, namespace: str, submit: CommandLine, driftline: CommandLine
) -> None:
    """A container that is killed, as for its memory, fails its step; `features` is not repeated by itself."""
    run_id = json.loads(submit("--as-of", "2013-05-10T00:00:00+00:00").stdout)["run_id"]
    pod = running_pod(cluster, kubernetes_api, namespace, run_id, "features")
    kill_container(kubernetes_api, namespace, pod)
    shown = wait_for(driftline, run_id)
    assert (shown["result"], shown["failed_step"]) == ("failed", "features"), shown
    claimed = read_run(open_ledger(cluster.ledger_url), run_id)
    assert claimed is not None
    assert claimed.state == "failed"
    done = driftline("runs", "retry", run_id, "--wait", check=False)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    after = read_run(open_ledger(cluster.ledger_url), run_id)
    assert after is not None
    assert after.state in {0: ("succeeded",), 3: ("refused", "superseded")}[done.returncode]
    assert after.claimant == claimed.claimant
    again = json.loads(driftline("runs", "show", run_id, "--json").stdout)
    assert [s["started_at"] for s in again["steps"][:3]] == [s["started_at"] for s in shown["steps"][:3]]
    repeated = driftline("runs", "retry", run_id, check=False)
    assert repeated.returncode == 2
    assert "nothing to repeat" in repeated.stderr or "ended with an answer" in repeated.stderr


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


def wait_for_line(kubernetes_api: Any, namespace: str, pod: str, text: str) -> None:
    """Wait until a pod's own container has written a line."""
    deadline = time.monotonic() + 300
    while text not in kubernetes_api.read_namespaced_pod_log(pod, namespace, container="main"):
        assert time.monotonic() < deadline, f"{pod} never wrote {text!r}"
        time.sleep(0.2)


def kill_container(kubernetes_api: Any, namespace: str, pod: str) -> None:
    """Kill every process of a pod's own container but the one that watches it."""
    from kubernetes.stream import stream

    command = ["sh", "-c", "kill -9 -1"]
    stream(
        kubernetes_api.connect_get_namespaced_pod_exec,
        pod,
        namespace,
        container="main",
        command=command,
        stdout=True,
        stderr=True,
    )


def newest_version(settings: Settings) -> int:
    """Return the newest version in the model registry, 0 without one."""
    from mlflow import MlflowClient

    found = MlflowClient(settings.mlflow_uri, settings.mlflow_uri).search_model_versions(f"name = '{USE_CASE}'")
    return max((int(version.version) for version in found), default=0)


def model_of(settings: Settings, version: int) -> str:
    """Return the digest of the model in a version's bundle."""
    with tempfile.TemporaryDirectory() as folder:
        return read_card(download_bundle(settings, USE_CASE, version, Path(folder) / "bundle")).model
