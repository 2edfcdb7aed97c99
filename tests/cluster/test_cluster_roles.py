"""The Roles of our charts on a real cluster: every call that is needed is allowed, every other one denied.

A training runs on KFP as an account that has nothing but the Role of chart `pipelines`, under the admission rules for
steps; the account that KFP's installation made is not touched.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from components.core.kfp_api import KfpApi
from components.core.kfp_runs import Version, ensure_experiment, state_of
from components.core.ledger.champions import read_champion
from components.core.ledger.engine import open_ledger
from components.core.settings import Settings, load_settings
from pipelines.catalog import read_case
from pipelines.cluster.runs import require_run
from pipelines.cluster.upload import publish_version
from pipelines.compile import canonical_ir, compile_for_cluster
from pipelines.definitions import applied_definitions
from pipelines.image_lock import read_image_lock
from pipelines.scaffold import create_use_case

REPOSITORY = Path(__file__).parents[2]
CHARTS = REPOSITORY / "charts"
NEW = "gale"
RUN_SECONDS = 1800
ENDED = {"succeeded", "failed", "skipped", "canceled"}
ARTIFACTS = "mlpipeline-minio-artifact"
RIGHTS = "rbac.authorization.k8s.io"

pytestmark = [
    pytest.mark.skipif("KUBECONFIG" not in os.environ, reason="needs a cluster: set KUBECONFIG"),
    pytest.mark.timeout(3600),
]

# verb, resource, name; in the namespace of pipelines.
RUNNER_NEEDS = [
    ("get", "pods", ""),
    ("get", "configmaps", "kfp-launcher"),
    ("get", "secrets", ARTIFACTS),
    ("create", "workflowtaskresults.argoproj.io", ""),
    ("patch", "workflowtaskresults.argoproj.io", ""),
]
RUNNER_LACKS = [
    ("get", "secrets", "driftline"),
    ("get", "secrets", "driftline-git-write"),
    ("list", "secrets", ""),
    ("get", "configmaps", "driftline"),
    ("list", "configmaps", ""),
    ("update", "configmaps", "kfp-launcher"),
    ("list", "pods", ""),
    ("create", "pods", ""),
    ("delete", "pods", ""),
    ("create", "pods/exec", ""),
    ("get", "pods/log", ""),
    ("create", "services", ""),
    ("create", "persistentvolumeclaims", ""),
    ("create", "deployments.apps", ""),
    ("create", "jobs.batch", ""),
    ("create", "workflows.argoproj.io", ""),
    ("patch", "workflows.argoproj.io", ""),
    ("create", "scheduledworkflows.kubeflow.org", ""),
    ("create", "pipelineversions.pipelines.kubeflow.org", ""),
    ("create", "serviceaccounts/token", "pipeline-runner"),
    ("create", f"rolebindings.{RIGHTS}", ""),
    ("impersonate", "serviceaccounts", ""),
]
CONTROLLER_NEEDS = [
    ("own", "create", "leases.coordination.k8s.io", ""),
    ("own", "get", "leases.coordination.k8s.io", "driftline-controller"),
    ("own", "update", "leases.coordination.k8s.io", "driftline-controller"),
    ("pipelines", "list", "configmaps", ""),
    ("serving", "list", "rollouts.argoproj.io", ""),
]
CONTROLLER_LACKS = [
    ("own", "update", "leases.coordination.k8s.io", "other"),
    ("own", "delete", "leases.coordination.k8s.io", "driftline-controller"),
    ("own", "list", "configmaps", ""),
    *((space, verb, "secrets", "") for space in ("own", "pipelines", "serving") for verb in ("get", "list")),
    *((space, "create", "pods", "") for space in ("own", "pipelines", "serving")),
    ("pipelines", "get", "configmaps", ""),
    ("pipelines", "update", "configmaps", ""),
    ("pipelines", "create", "workflows.argoproj.io", ""),
    ("serving", "patch", "rollouts.argoproj.io", ""),
    ("serving", "list", "configmaps", ""),
    ("own", "create", f"rolebindings.{RIGHTS}", ""),
]


def kubectl(*arguments: str, objects: list[dict[str, Any]] | None = None) -> subprocess.CompletedProcess[str]:
    """Run kubectl; `objects` are its standard input."""
    text = yaml.safe_dump_all(objects) if objects else None
    return subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=False)


def may(account: str, namespace: str, verb: str, resource: str, name: str) -> bool:
    """Ask the API server as a service account. An unknown resource is an error, not a no."""
    words = ["auth", "can-i", verb, f"{resource}/{name}" if name else resource, "-n", namespace, "--as", account]
    if "/" in resource:
        kind, _, part = resource.partition("/")
        words = ["auth", "can-i", verb, f"{kind}/{name}" if name else kind, f"--subresource={part}"]
        words += ["-n", namespace, "--as", account]
    done = kubectl(*words)
    assert done.stdout.strip() in {"yes", "no"}, done.stderr
    assert "the server doesn't have a resource type" not in done.stderr, done.stderr
    return done.stdout.strip() == "yes"


@pytest.fixture(scope="module")
def helm() -> ModuleType:
    spec = importlib.util.spec_from_file_location("helm_engine", REPOSITORY / "tests/charts/helm_engine.py")
    assert spec is not None
    assert spec.loader is not None
    engine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(engine)
    if not engine.is_installed():
        pytest.skip("needs helm-python-sdk or a helm program")
    return engine


def rendered(helm: ModuleType, chart: str, values: dict[str, Any], *, name: str, namespace: str) -> list[Any]:
    """Return accounts, Roles and bindings of a chart."""
    image = {"repository": "registry.example.com/driftline-cpu", "digest": f"sha256:{'0' * 64}"}
    files = helm.render(CHARTS / chart, {"image": image} | values, name=name, namespace=namespace)
    manifests = [text for path, text in files.items() if not path.endswith("NOTES.txt")]
    objects = [document for text in manifests for document in yaml.safe_load_all(text) if document]
    return [one for one in objects if one["kind"] in {"ServiceAccount", "Role", "RoleBinding"}]


def apply(objects: list[Any], namespace: str) -> None:
    done = kubectl("create", "-n", namespace, "-f-", objects=objects)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def runner(helm: ModuleType, namespace: str) -> Iterator[str]:
    """Yield the name of an account in the namespace of pipelines that has the Role of the chart, under its own name."""
    name = f"runner-{uuid.uuid4().hex[:8]}"
    values = {
        "runner": {"name": name, "secrets": [ARTIFACTS]},
        "schedules": {"account": f"{name}-schedules"},
        "networkPolicy": {"enabled": False},
    }
    objects = rendered(helm, "pipelines", values, name=name, namespace=namespace)
    try:
        apply(objects, namespace)
        yield name
    finally:
        kubectl("delete", "-n", namespace, "--ignore-not-found", "-f-", objects=objects)


def test_the_account_of_pipelines_may_do_what_kfp_needs_and_no_more(runner: str, namespace: str) -> None:
    account = f"system:serviceaccount:{namespace}:{runner}"
    assert [right for right in RUNNER_NEEDS if not may(account, namespace, *right)] == []
    assert [right for right in RUNNER_LACKS if may(account, namespace, *right)] == []
    assert not may(account, "kube-system", "get", "pods", "")
    # Not only what the API server says of it: real calls.
    assert kubectl("get", "secret", ARTIFACTS, "-n", namespace, "--as", account).returncode == 0
    denied = kubectl("get", "secrets", "-n", namespace, "--as", account)
    assert "Forbidden" in denied.stderr, denied.stderr


def test_the_account_of_schedules_may_do_nothing_in_kubernetes(runner: str, namespace: str) -> None:
    account = f"system:serviceaccount:{namespace}:{runner}-schedules"
    assert [right for right in [*RUNNER_NEEDS, *RUNNER_LACKS] if may(account, namespace, *right)] == []


def test_the_controller_may_lead_read_schedules_and_see_rollouts(helm: ModuleType) -> None:
    mark = uuid.uuid4().hex[:8]
    spaces = {part: f"roles-{mark}-{part}" for part in ("own", "pipelines", "serving")}
    watched = {"schedulesNamespace": spaces["pipelines"], "servingNamespaces": [spaces["serving"]]}
    objects = rendered(helm, "drift-monitor", {"controller": watched}, name="monitor", namespace=spaces["own"])
    for manifest in objects:
        manifest["metadata"].setdefault("namespace", spaces["own"])
    try:
        for space in spaces.values():
            assert kubectl("create", "namespace", space).returncode == 0
        done = kubectl("create", "-f-", objects=objects)
        assert done.returncode == 0, done.stderr
        account = f"system:serviceaccount:{spaces['own']}:monitor-drift-monitor"
        assert [right for right in CONTROLLER_NEEDS if not may(account, spaces[right[0]], *right[1:])] == []
        assert [right for right in CONTROLLER_LACKS if may(account, spaces[right[0]], *right[1:])] == []
    finally:
        kubectl("delete", "namespace", "--wait=false", *spaces.values())


@pytest.fixture
def rules_for_run(runner: str, namespace: str) -> Iterator[str]:
    """Put the rules on Workflows and steps over one run alone, which is yet to be made; yield its id."""
    run_id = str(uuid.uuid4())
    done = kubectl("kustomize", str(REPOSITORY / "infra/policies/admission"))
    assert done.returncode == 0, done.stderr
    made = []
    for manifest in yaml.safe_load_all(done.stdout):
        metadata = manifest["metadata"]
        if metadata["name"].startswith("driftline-workflow-"):
            metadata["name"] += f"-{run_id}"
            if manifest["kind"] == "ValidatingAdmissionPolicyBinding":
                manifest["spec"]["policyName"] += f"-{run_id}"
                manifest["spec"]["matchResources"] = {"objectSelector": {"matchLabels": {"pipeline/runid": run_id}}}
            else:  # the account that is meant here
                for variable in manifest["spec"]["variables"]:
                    variable["expression"] = variable["expression"].replace("['pipeline-runner']", f"['{runner}']")
        else:
            continue
        made.append(manifest)
    try:
        apply(made, namespace)
        labels = {"pipeline/runid": run_id, "workflows.argoproj.io/workflow": "any"}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "foreign", "labels": labels},
            "spec": {"serviceAccountName": "default", "containers": [{"name": "main", "image": "any"}]},
        }
        deadline = time.monotonic() + 60
        while (
            "may not run as default"
            not in kubectl("create", "--dry-run=server", "-n", namespace, "-f-", objects=[pod]).stderr
        ):
            assert time.monotonic() < deadline, "the rules do not act after a minute"
            time.sleep(0.5)
        yield run_id
    finally:
        kubectl("delete", "--wait=false", "-n", namespace, "-f-", objects=made)


def run_as(account: str, namespace: str, api: KfpApi, run_id: str, version: Version, experiment_id: str) -> str:
    """Run a version as an account, check that all its pods do, and return the state it ends in."""
    body = {
        "run_id": run_id,
        "display_name": f"{version.pipeline} as {account}",
        "experiment_id": experiment_id,
        "pipeline_version_reference": {
            "pipeline_id": version.pipeline_id,
            "pipeline_version_id": version.version_id,
        },
        "service_account": account,
    }
    api.call("start the run", api.runs.run_service_create_run, body)
    seen: set[str] = set()
    deadline = time.monotonic() + RUN_SECONDS
    while (state := state_of(require_run(api, run_id))) not in ENDED:
        assert time.monotonic() < deadline, f"{run_id} is {state} after {RUN_SECONDS} s"
        done = kubectl("get", "pods", "-n", namespace, "-l", f"pipeline/runid={run_id}", "-o", "json")
        seen |= {pod["spec"]["serviceAccountName"] for pod in json.loads(done.stdout or '{"items": []}')["items"]}
        time.sleep(1)
    assert seen == {account}
    return state


@pytest.fixture
def hands_on(images: Path) -> Iterator[tuple[KfpApi, Version, str]]:
    """Yield a pipeline of two steps, an artifact from one to the other; it needs no store but KFP's."""
    from kfp import dsl

    image, name = json.loads(images.read_text())["cpu"], f"roles-{uuid.uuid4().hex[:6]}"

    @dsl.container_component
    def write(text: dsl.Output[dsl.Artifact]):
        return dsl.ContainerSpec(
            image=image, command=["sh", "-c", 'mkdir -p "$(dirname "$0")" && echo 42 > "$0"', text.path]
        )

    @dsl.container_component
    def read(text: dsl.Input[dsl.Artifact]):
        return dsl.ContainerSpec(image=image, command=["grep", "-x", "42", text.path])

    @dsl.pipeline(name=name)
    def two_steps():
        written = write().set_caching_options(False).set_retry(1, backoff_duration="1s")
        read(text=written.outputs["text"]).set_caching_options(False)

    settings = load_settings().model_copy(
        update={"kfp_host": os.environ["KFP_HOST"], "kfp_namespace": "", "kfp_token": None}
    )
    api = KfpApi(settings)
    version, experiment = publish_version(api, canonical_ir(two_steps)), ensure_experiment(api, name)
    try:
        yield api, version, experiment
    finally:
        for run in api.runs.run_service_list_runs(experiment_id=experiment).runs or []:
            api.runs.run_service_delete_run(run.run_id)
        api.experiments.experiment_service_delete_experiment(experiment)
        api.pipelines.pipeline_service_delete_pipeline_version(version.pipeline_id, version.version_id)
        api.pipelines.pipeline_service_delete_pipeline(version.pipeline_id)


def test_steps_hand_an_artifact_on_with_these_rights_and_under_these_rules(
    hands_on: tuple[KfpApi, Version, str], runner: str, namespace: str, rules_for_run: str
) -> None:
    api, version, experiment = hands_on
    assert run_as(runner, namespace, api, rules_for_run, version, experiment) == "succeeded"


def test_an_account_without_these_rights_runs_nothing(
    hands_on: tuple[KfpApi, Version, str], runner: str, namespace: str
) -> None:
    """So that the run above succeeds by the Role and not without it."""
    api, version, experiment = hands_on
    assert run_as(f"{runner}-schedules", namespace, api, str(uuid.uuid4()), version, experiment) == "failed"


def test_a_new_use_case_is_trained_and_promoted_with_these_rights_and_under_these_rules(
    cluster: Settings, runner: str, namespace: str, rules_for_run: str, images: Path, tmp_path: Path
) -> None:
    """Made after the images were, and without a champion that a model would have to beat."""
    shutil.copy(cluster.feature_repo / "feature_store.yaml", tmp_path)
    create_use_case(tmp_path, NEW, "platform")
    here = cluster.model_copy(update={"feature_repo": tmp_path})
    api = KfpApi(here)
    case, lock = read_case(tmp_path, NEW), read_image_lock(images)
    ir = compile_for_cluster(case, "training", applied_definitions(here, NEW), lock)
    experiment = ensure_experiment(api, NEW, case.use_case.title)
    state = run_as(runner, namespace, api, rules_for_run, publish_version(api, ir), experiment)
    assert state == "succeeded", f"see `driftline why {rules_for_run}`"
    champion = read_champion(open_ledger(here.ledger_url), NEW)
    assert champion is not None
    assert champion.run_id == rules_for_run
