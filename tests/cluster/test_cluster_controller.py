"""Two controllers on a real Kubernetes and KFP: one leads, a killed one is followed, each request is started once.

They run on this machine with the token of a service account that may do what docs/controller.md lists, and no more.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import yaml
from prometheus_client.parser import text_string_to_metric_families

from components.core.evidence import Evidence, Window
from components.core.kfp_api import KfpApi
from components.core.kfp_runs import Version, find_experiment
from components.core.kfp_runs import read_run as read_cluster_run
from components.core.ledger.engine import migrate, open_ledger
from components.core.ledger.proposals import Proposal, decide_once
from components.core.ledger.requests import read_request
from components.core.ledger.runs import claim_run, finish_run, read_run
from components.core.ledger.suppression import Limits
from components.core.settings import Settings, load_settings
from pipelines.cluster.upload import publish_version
from pipelines.compile import canonical_ir, version_name
from pipelines.controller.declared import LABEL
from pipelines.controller.lease import LEASE_NAME, LEASE_SECONDS, RENEW_SECONDS
from pipelines.controller.rollouts import (
    GROUP,
    PLURAL,
    USE_CASE_LABEL,
    VERSION,
    VERSION_ANNOTATION,
    Aborted,
    revert_aborted,
)
from pipelines.schedules.server import delete_recurring_run, list_recurring_runs

AS_OF = datetime(2013, 5, 15, tzinfo=UTC)
LIMITS = Limits(cooldown=timedelta(0), max_per_week=50, lease=timedelta(minutes=120))
RULES = [
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [LEASE_NAME],
        "verbs": ["get", "update"],
    },
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]},
    {"apiGroups": ["argoproj.io"], "resources": ["rollouts"], "verbs": ["list"]},
]
WAIT_SECONDS = 90.0


@pytest.fixture(scope="module")
def home(kubernetes_api: Any) -> Iterator[str]:
    """Yield an own namespace with the service account `controller`."""
    from kubernetes import client

    name = f"m-{uuid.uuid4().hex[:6]}"
    kubernetes_api.create_namespace({"metadata": {"name": name}})
    kubernetes_api.create_namespaced_service_account(name, {"metadata": {"name": "controller"}})
    rights = client.RbacAuthorizationV1Api()
    rights.create_namespaced_role(name, {"metadata": {"name": "controller"}, "rules": RULES})
    subject = {"kind": "ServiceAccount", "name": "controller", "namespace": name}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "controller"}
    rights.create_namespaced_role_binding(
        name, {"metadata": {"name": "controller"}, "roleRef": role, "subjects": [subject]}
    )
    yield name
    kubernetes_api.delete_namespace(name)


@pytest.fixture(scope="module")
def kubeconfig(home: str, kubernetes_api: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a kubeconfig with a token of the service account, at home in the own namespace."""
    admin = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    request = {"spec": {"expirationSeconds": 3600}}
    made = kubernetes_api.create_namespaced_service_account_token("controller", home, request)
    context = {"cluster": admin["clusters"][0]["name"], "user": "controller", "namespace": home}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": admin["clusters"][:1],
        "users": [{"name": "controller", "user": {"token": made.status.token}}],
        "contexts": [{"name": "c", "context": context}],
        "current-context": "c",
    }
    path = tmp_path_factory.mktemp("kubeconfig") / "config"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def here(postgres_url: str, kubeconfig: Path, tmp_path: Path) -> Settings:
    """Return settings with an own, empty ledger."""
    migrate(postgres_url)
    update = {"kfp_host": os.environ["KFP_HOST"], "kfp_namespace": "", "kfp_token": None, "ledger_url": postgres_url}
    return load_settings().model_copy(update={**update, "kubeconfig": kubeconfig, "home": tmp_path / "home"})


class Controller:
    """The real command as a process."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.log = log
        command = [str(Path(sys.executable).with_name("driftline")), "controller", "--port", "0", "--seconds", "2"]
        with log.open("w") as output:
            self.process = subprocess.Popen(
                command, env={**os.environ, **settings.environment()}, stdout=output, stderr=output
            )

    @property
    def url(self) -> str:
        found = re.search(r"answering on port (\d+)", self.log.read_text())
        return f"http://127.0.0.1:{found[1]}" if found else ""

    def metric(self, name: str, **labels: str) -> float | None:
        """Return a value, None where it is not scraped."""
        with suppress(httpx.HTTPError):
            text = httpx.get(f"{self.url}/metrics", timeout=10).text if self.url else ""
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    if sample.name == name and sample.labels == labels:
                        return sample.value
        return None

    def leads(self) -> bool:
        return self.process.poll() is None and self.metric("driftline_controller_leader") == 1


@pytest.fixture
def start(here: Settings, tmp_path: Path) -> Iterator[Callable[[], Controller]]:
    """Yield what starts a controller; all are killed at the end."""
    made: list[Controller] = []

    def begin(settings: Settings = here) -> Controller:
        made.append(Controller(settings, tmp_path / f"controller-{len(made)}.log"))
        return made[-1]

    yield begin
    for one in made:
        one.process.kill()
        one.process.wait(20)


def until(condition: Callable[[], object], what: str, seconds: float = WAIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def holder(namespace: str) -> str:
    from kubernetes import client

    found = client.CoordinationV1Api().read_namespaced_lease(LEASE_NAME, namespace)
    return str(found.spec.holder_identity or "")


def test_one_leads_and_a_killed_or_stopped_one_is_followed(
    here: Settings, home: str, start: Callable[..., Controller]
) -> None:
    without_kfp = here.model_copy(update={"kfp_host": ""})
    both = [start(without_kfp), start(without_kfp)]
    until(lambda: any(one.leads() for one in both), "nobody leads")
    for _ in range(10):
        assert sum(one.leads() for one in both) <= 1
        time.sleep(0.3)
    first = next(one for one in both if one.leads())
    other = next(one for one in both if one is not first)
    assert other.metric("driftline_ledger_up") == 1, "a follower serves metrics too"
    assert other.metric("driftline_controller_leader") == 0
    first.process.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    until(other.leads, "the dead leader is not followed", LEASE_SECONDS + 2 * RENEW_SECONDS + 5)
    took = time.monotonic() - killed
    assert took <= LEASE_SECONDS + 2 * RENEW_SECONDS + 1
    third = start(without_kfp)
    until(lambda: third.metric("driftline_ledger_up") == 1, "it does not start")
    assert not third.leads()
    other.process.send_signal(signal.SIGTERM)
    told = time.monotonic()
    assert other.process.wait(20) == 0
    until(third.leads, "the stopped leader is not followed", 10)
    given_back = time.monotonic() - told
    assert given_back < LEASE_SECONDS / 2, "the Lease was not given back"
    print(f"killed: followed after {took:.1f} s; stopped: after {given_back:.1f} s")  # noqa: T201


def test_a_paused_leader_stops_leading_before_another_one_begins(
    here: Settings, home: str, start: Callable[..., Controller]
) -> None:
    without_kfp = here.model_copy(update={"kfp_host": ""})
    both = [start(without_kfp), start(without_kfp)]
    until(lambda: any(one.leads() for one in both), "nobody leads", 2 * WAIT_SECONDS)
    first = next(one for one in both if one.leads())
    other = next(one for one in both if one is not first)
    until(lambda: other.metric("driftline_ledger_up") == 1, "it does not start")
    first.process.send_signal(signal.SIGSTOP)
    until(other.leads, "the paused leader is not followed", 2 * LEASE_SECONDS)
    first.process.send_signal(signal.SIGCONT)
    for _ in range(15):
        assert other.leads()
        assert not first.leads(), "it believes what it knew before its pause"
        time.sleep(0.2)


def test_a_canary_that_argo_rollouts_aborts_is_seen_with_its_release_until_git_moves_on(
    home: str, kubeconfig: Path, images: Path
) -> None:
    """By the real controller of Argo Rollouts, with the rights of our own; the pod only sleeps."""
    from kubernetes import client, config

    api = client.CustomObjectsApi()
    where = (GROUP, VERSION, home, PLURAL)
    try:
        api.list_namespaced_custom_object(*where)
    except client.ApiException:
        pytest.skip("this cluster has no Argo Rollouts")
    api.create_namespaced_custom_object(*where, sleeping_rollout(json.loads(images.read_text())["cpu"]))
    own = client.Configuration()
    config.load_kube_config(str(kubeconfig), client_configuration=own)
    own_client = client.ApiClient(own)
    seen: list[Aborted] = []
    done: set[Aborted] = set()

    def look() -> list[Aborted]:
        revert_aborted(own_client, [home], seen.append, done)
        return seen

    def status(key: str) -> Any:
        return api.get_namespaced_custom_object(*where, "m").get("status", {}).get(key)

    def lead_to(version: str) -> None:
        patch = {"spec": {"template": {"metadata": {"annotations": {VERSION_ANNOTATION: version}}}}}
        api.patch_namespaced_custom_object(*where, "m", patch)

    until(lambda: status("phase") == "Healthy", "version 1 is not healthy")
    lead_to("2")
    until(lambda: status("phase") == "Paused", "no canary of version 2")
    assert look() == []
    api.patch_namespaced_custom_object_status(*where, "m", {"status": {"abort": True}})
    until(lambda: status("phase") == "Degraded", "not aborted")
    until(look, "the aborted canary is not seen", 20)
    assert [(one.use_case, one.version) for one in seen] == [("m", 2)]
    assert "aborted" in seen[0].reason
    assert look() == seen, "asked once in this process"
    lead_to("1")
    until(lambda: status("phase") == "Healthy", "it does not go back")
    assert look() == seen
    assert done == set()
    api.delete_namespaced_custom_object(*where, "m")


def sleeping_rollout(image: str) -> dict[str, Any]:
    """Return a Rollout of release 1 that stops after its first step."""
    labels = {"app": "m"}
    container = {"name": "c", "image": image, "command": ["python3", "-c", "import time; time.sleep(3600)"]}
    template = {
        "metadata": {"labels": labels, "annotations": {VERSION_ANNOTATION: "1"}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "Rollout",
        "metadata": {"name": "m", "labels": {USE_CASE_LABEL: "m"}},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}},
            "template": template,
        },
    }


@pytest.fixture
def model(here: Settings) -> Iterator[str]:
    """Yield the name of an own use case; its pipelines, schedules, runs and its experiment are gone afterwards."""
    api, name = KfpApi(here), f"m_{uuid.uuid4().hex[:6]}"
    others = list_recurring_runs(api)
    if others:
        # An undeclared schedule is deleted; these belong to somebody else on this cluster.
        pytest.skip(f"this KFP has schedules that the controller would delete: {', '.join(o.name for o in others)}")
    yield name
    for found in list_recurring_runs(api):
        delete_recurring_run(api, found.id)
    experiment = find_experiment(api, name)
    if experiment:
        for run in api.runs.run_service_list_runs(experiment_id=experiment).runs or []:
            api.runs.run_service_delete_run(run.run_id)
        api.experiments.experiment_service_delete_experiment(experiment)
    pipelines = api.pipelines.pipeline_service_list_pipelines(page_size=100).pipelines or []
    for pipeline in pipelines:
        if (pipeline.name or "").startswith(name.replace("_", "-")):
            listed = api.pipelines.pipeline_service_list_pipeline_versions(pipeline.pipeline_id)
            for version in listed.pipeline_versions or []:
                with suppress(Exception):
                    api.pipelines.pipeline_service_delete_pipeline_version(
                        pipeline.pipeline_id, version.pipeline_version_id
                    )
            api.pipelines.pipeline_service_delete_pipeline(pipeline.pipeline_id)


def publish(api: KfpApi, model: str, images: Path, note: str) -> tuple[Version, Version]:
    """Put a training of one short step on the server, and a monitor that names it, as `compile` does."""
    from kfp import dsl

    image = json.loads(images.read_text())["cpu"]

    @dsl.component(base_image=image, install_kfp_package=False)
    def train(note: str):
        print(note)  # noqa: T201

    @dsl.component(base_image=image, install_kfp_package=False)
    def retrain(training: str):
        print(training)  # noqa: T201

    short = model.replace("_", "-")

    @dsl.pipeline(name=f"{short}-training", description=f"Tiny {note}: train")
    def training(as_of: str = ""):
        train(note=note).set_caching_options(False)

    trained = canonical_ir(training)

    @dsl.pipeline(name=f"{short}-monitoring", description=f"Tiny {note}: watch")
    def monitoring(as_of: str = ""):
        retrain(training=version_name(trained)).set_caching_options(False)

    return publish_version(api, trained), publish_version(api, canonical_ir(monitoring))


def declare(kubernetes_api: Any, home: str, model: str, files: dict[str, dict[str, Any] | str]) -> None:
    """Write the ConfigMap that kustomize would make of a use case's schedule files."""
    key, value = LABEL.split("=")
    data = {name: text if isinstance(text, str) else yaml.safe_dump(text) for name, text in files.items()}
    name = f"{model.replace('_', '-')}-schedules"
    body = {"metadata": {"name": name, "labels": {key: value}}, "data": data}
    with suppress(Exception):
        kubernetes_api.delete_namespaced_config_map(name, home)
    kubernetes_api.create_namespaced_config_map(home, body)


def schedule(model: str, version: Version, **update: Any) -> dict[str, Any]:
    known = {"name": f"{model.replace('_', '-')}-monitoring", "use_case": model, "pipeline": "monitoring"}
    return known | {"cron": "0 0 0 1 1 *", "version": version.name} | update


def ask_for_retraining(ledger: sa.Engine, model: str, day: int) -> str:
    at = AS_OF + timedelta(days=day)
    window = Window(first=at - timedelta(days=9), last=at - timedelta(days=2))
    evidence = Evidence(
        use_case=model, window=window, as_of=at, version=1, model="7", rows=900, labelled_rows=900, sanity=[]
    )
    proposal = Proposal(
        decision="retrain", rung="performance", reasons=["r"], policy="ladder", policy_digest="5", evidence=evidence
    )
    made = decide_once(ledger, proposal, LIMITS, datetime.now(UTC)).request
    assert made is not None
    return made


def workflows_of(namespace: str, run_id: str) -> list[str]:
    from kubernetes import client

    found = client.CustomObjectsApi().list_namespaced_custom_object(
        "argoproj.io", "v1alpha1", namespace, "workflows", label_selector=f"pipeline/runid={run_id}"
    )
    return sorted(item["metadata"]["name"] for item in found["items"])


def version_of_run(api: KfpApi, run_id: str) -> str:
    run = api.runs.run_service_get_run(run_id)
    return str(run.pipeline_version_reference.pipeline_version_id)


def test_schedules_follow_git_and_each_request_starts_once(
    here: Settings,
    home: str,
    namespace: str,
    model: str,
    images: Path,
    kubernetes_api: Any,
    start: Callable[..., Controller],
) -> None:
    """The whole loop: declared, applied, a request started with the pinned version, the leader killed, Git reverted."""
    api, ledger = KfpApi(here), open_ledger(here.ledger_url)
    old_training, old = publish(api, model, images, "old")
    _, new = publish(api, model, images, "new")
    good, wrong = schedule(model, old), schedule(model, old, name=f"{model.replace('_', '-')}-wrong")
    files: dict[str, dict[str, Any] | str] = {
        "monitoring.yaml": good,
        "unpinned.yaml": wrong | {"version": ""},
        "unknown.yaml": schedule(model, old, name="u") | {"version": old.name[:-4] + "0000"},
    }
    declare(kubernetes_api, home, model, files)
    both = [start(), start()]
    until(lambda: len(list_recurring_runs(api)) == 1, "the schedule is not applied")
    leader = _leader(both)
    assert list_recurring_runs(api)[0].has["version"] == old.name
    until(lambda: leader.metric("driftline_schedules", use_case=model, status="refused") == 2, "refused ones", 30)
    assert leader.metric("driftline_schedules", use_case=model, status="current") == 1

    # Git moves on and comes back: the newest version on the server is not the one that counts.
    for version in (new, old):
        declare(kubernetes_api, home, model, files | {"monitoring.yaml": schedule(model, version)})
        until(lambda v=version: [r.has["version"] for r in list_recurring_runs(api)] == [v.name], "not replaced")  # type: ignore[misc]
    request = read_request(ledger, ask_for_retraining(ledger, model, 0))
    assert request is not None
    until(lambda: workflows_of(namespace, request.run_id), "the request is not started")
    # The API writes the run's record after it has made the Workflow.
    until(lambda: read_cluster_run(api, request.run_id), "the run has no record")
    assert version_of_run(api, request.run_id) == old_training.version_id

    # It trains and ends; the next request finds no leader and is started once by the next one.
    _train(ledger, request.run_id, workflows_of(namespace, request.run_id)[0], model)
    leader.process.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    second = read_request(ledger, ask_for_retraining(ledger, model, 30))
    assert second is not None
    until(lambda: workflows_of(namespace, second.run_id), "the second request is not started")
    took = time.monotonic() - killed
    time.sleep(6)  # three more rounds
    assert len(workflows_of(namespace, request.run_id)) == len(workflows_of(namespace, second.run_id)) == 1
    survivor = _leader(both)
    assert survivor is not leader
    assert survivor.metric("driftline_kfp_up") == 1
    runs = {"use_case": model, "pipeline": "monitoring", "status": "running"}
    assert survivor.metric("driftline_kfp_runs", **runs) == 0
    year = survivor.metric("driftline_schedule_period_seconds", use_case=model, pipeline="monitoring")
    assert year == 366 * 86_400
    until(
        lambda: survivor.metric("driftline_retraining_requests_open", use_case=model) == 1, "the request is not counted"
    )
    _train(ledger, second.run_id, workflows_of(namespace, second.run_id)[0], model)

    # Nothing declared any more, by a ConfigMap that is there: the schedule goes. Without any ConfigMap it would stay.
    declare(kubernetes_api, home, model, {"broken.yaml": "a: ["})
    time.sleep(6)
    assert len(list_recurring_runs(api)) == 1, "a file that cannot be read may be any schedule's"
    declare(kubernetes_api, home, model, {})
    until(lambda: list_recurring_runs(api) == [], "the undeclared schedule stays")
    print(f"started {took:.1f} s after the leader was killed")  # noqa: T201


def test_a_run_that_died_unseen_is_ended_in_the_ledger(
    here: Settings, model: str, images: Path, namespace: str, kubernetes_api: Any, start: Callable[..., Controller]
) -> None:
    """A run that claimed and whose last step told nothing: KFP knows its end, the ledger learns it."""
    from components.core.kfp_runs import NewRun, ensure_experiment, start_run

    api, ledger = KfpApi(here), open_ledger(here.ledger_url)
    training, _ = publish(api, model, images, "dies")
    run_id = str(uuid.uuid4())
    experiment = ensure_experiment(api, model)
    start_run(api, NewRun(run_id=run_id, title="t", version=training, experiment_id=experiment, parameters={}))
    until(lambda: workflows_of(namespace, run_id), "no Workflow")
    claim_run(ledger, run_id, workflows_of(namespace, run_id)[0], "training", model)
    controller = start()

    def ended() -> bool:
        run = read_run(ledger, run_id)
        return run is not None and run.state == "failed"

    until(ended, "the ledger does not learn it", 180)
    labels = {"use_case": model, "pipeline": "training"}
    until(lambda: controller.metric("driftline_pipeline_consecutive_failures", **labels) == 1, "it is not counted", 30)


def _leader(both: list[Controller]) -> Controller:
    until(lambda: any(one.leads() for one in both), "nobody leads")
    return next(one for one in both if one.leads())


def _train(ledger: sa.Engine, run_id: str, workflow: str, model: str) -> None:
    """Do what the steps of a training tell the ledger."""
    assert claim_run(ledger, run_id, workflow, "training", model)
    assert finish_run(ledger, run_id, "succeeded")
