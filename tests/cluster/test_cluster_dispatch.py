"""From many alerts to one retraining on a real KFP: two monitors, a kill after a POST, two Workflows of one run.

The training is tiny but its claim is the real one: in PostgreSQL, keyed by the name of the Workflow.
"""

import json
import multiprocessing
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from components.core.kfp_api import KfpApi
from components.core.kfp_runs import Version, state_of
from components.core.ledger.attempts import Attempt
from components.core.ledger.engine import migrate, open_ledger
from components.core.ledger.requests import next_dispatch, note_started, read_request, starting_until
from components.core.ledger.runs import list_runs
from components.core.settings import Settings, load_settings
from components.retrain.dispatcher import ALONE, KfpDispatcher, start_open
from pipelines.cluster.runs import describe_run, require_run
from pipelines.cluster.upload import publish_version
from pipelines.cluster.wait import wait_for_end
from pipelines.compile import canonical_ir
from pipelines.wiring import own_group

FORK = multiprocessing.get_context("fork")
WAIT_SECONDS = 400
WORKFLOWS = ("argoproj.io", "v1alpha1", "workflows")


@pytest.fixture(scope="module")
def here(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Yield settings with an own ledger that pods reach."""
    import psycopg

    name = f"dispatch_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(f"{postgres_server}/postgres".replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        url = f"{postgres_server}/{name}"
        migrate(url)
        yield load_settings().model_copy(
            update={"kfp_host": os.environ["KFP_HOST"], "kfp_namespace": "", "kfp_token": None, "ledger_url": url}
        )
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(scope="module")
def api(here: Settings) -> KfpApi:
    return KfpApi(here)


@pytest.fixture(scope="module")
def version(api: KfpApi, here: Settings, images: Path) -> Iterator[Version]:
    """Yield a training pipeline of two steps: claim the run, and end it as trained."""
    from kfp import dsl, kubernetes

    image = json.loads(images.read_text())["cpu"]

    @dsl.component(base_image=image, install_kfp_package=False)
    def claim(model: str) -> bool:
        from components.claim.claim import claim as claim_run
        from components.core.settings import load_settings

        return claim_run(load_settings(), "training", model)

    @dsl.component(base_image=image, install_kfp_package=False)
    def train():
        from components.core.ledger.engine import open_ledger
        from components.core.ledger.runs import finish_run
        from components.core.settings import load_settings

        here = load_settings()
        assert finish_run(open_ledger(here.ledger_url), here.run_key, "succeeded", reason=here.workflow)

    name = f"d-training-{uuid.uuid4().hex[:6]}"

    @dsl.pipeline(name=name)
    def training(model: str, as_of: str):
        with own_group(as_of):
            won = claim(model=model)
            with dsl.If(won.output == True):  # noqa: E712
                trained = train()
        for task in (won, trained):
            task.set_caching_options(False)
            task.set_env_variable("DRIFTLINE_LEDGER_URL", here.ledger_url)
            label = "metadata.labels['pipeline/runid']"
            kubernetes.use_field_path_as_env(task, env_name="DRIFTLINE_RUN_KEY", field_path=label)
            label = "metadata.labels['workflows.argoproj.io/workflow']"
            kubernetes.use_field_path_as_env(task, env_name="DRIFTLINE_WORKFLOW", field_path=label)

    found = publish_version(api, canonical_ir(training))
    yield found
    with suppress(Exception):
        versions = api.pipelines.pipeline_service_list_pipeline_versions(found.pipeline_id)
        for one in versions.pipeline_versions or []:
            api.pipelines.pipeline_service_delete_pipeline_version(found.pipeline_id, one.pipeline_version_id)
    api.pipelines.pipeline_service_delete_pipeline(found.pipeline_id)


@pytest.fixture
def model(api: KfpApi, namespace: str) -> Iterator[str]:
    """Yield the name of an own use case; its runs, their Workflows and its experiment are gone afterwards."""
    from components.core.kfp_runs import find_experiment

    name = f"d_{uuid.uuid4().hex[:6]}"
    yield name
    experiment = find_experiment(api, name)
    if experiment:
        for run in api.runs.run_service_list_runs(experiment_id=experiment).runs or []:
            for workflow in workflows_of(namespace, run.run_id):  # KFP deletes the one that it knows
                group, version, plural = WORKFLOWS
                _workflows().delete_namespaced_custom_object(group, version, namespace, plural, workflow)
            api.runs.run_service_delete_run(run.run_id)
        api.experiments.experiment_service_delete_experiment(experiment)


class Dispatcher(KfpDispatcher):
    """Of the tiny pipeline, which asks for the model too."""

    def start(self, attempt: Attempt) -> None:
        from components.core.kfp_runs import NewRun, ensure_experiment, start_run

        parameters = {"model": attempt.model, "as_of": attempt.as_of.isoformat()}
        new = NewRun(
            run_id=attempt.run_id,
            title=f"{attempt.model} retraining",
            version=self._version(attempt.model),
            experiment_id=ensure_experiment(self._api, attempt.model),
            parameters=parameters,
        )
        start_run(self._api, new)


def _workflows() -> Any:
    from kubernetes import client, config

    config.load_kube_config()
    return client.CustomObjectsApi()


def workflows_of(namespace: str, run_id: str) -> list[str]:
    group, version, plural = WORKFLOWS
    label = f"pipeline/runid={run_id}"
    found = _workflows().list_namespaced_custom_object(group, version, namespace, plural, label_selector=label)
    return sorted(item["metadata"]["name"] for item in found["items"])


def wait(api: KfpApi, run_id: str) -> str:
    run = wait_for_end(api, run_id, timeout_seconds=WAIT_SECONDS, notify=lambda _: None, warn=pytest.fail)
    return state_of(run)


def test_fifty_alerts_from_two_monitors_are_one_training(
    api: KfpApi, here: Settings, version: Version, model: str, namespace: str, ask_for_retraining: Callable[..., str]
) -> None:
    gate = FORK.Barrier(2)

    def monitor() -> None:
        ledger = open_ledger(here.ledger_url)
        dispatcher = Dispatcher(KfpApi(here), ledger, version=lambda _: version)
        gate.wait(60)
        for _ in range(25):
            ask_for_retraining(ledger, model)
            start_open(ledger, dispatcher, model=model)

    monitors = [FORK.Process(target=monitor) for _ in range(2)]
    for process in monitors:
        process.start()
    for process in monitors:
        process.join(300)
    assert [process.exitcode for process in monitors] == [0, 0]
    ledger = open_ledger(here.ledger_url)
    request = read_request(ledger, ask_for_retraining(ledger, model))
    assert request is not None
    assert len(workflows_of(namespace, request.run_id)) == 1
    assert wait(api, request.run_id) == "succeeded"
    ended = read_request(ledger, request.id)
    assert ended is not None
    assert (ended.state, ended.outcome, ended.attempt) == ("done", "succeeded", 1)


class Mute:
    """A proxy before the API that passes everything on, but keeps the answer to the POST of a run to itself."""

    def __init__(self, target: str) -> None:
        self._target = (urlsplit(target).hostname or "", urlsplit(target).port or 80)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.posted = FORK.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._server.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        upstream = socket.create_connection(self._target)
        mute = threading.Event()

        def back() -> None:
            with suppress(OSError):
                while data := upstream.recv(65536):
                    if mute.is_set():
                        self.posted.set()  # the server has answered: the run exists
                    else:
                        client.sendall(data)

        threading.Thread(target=back, daemon=True).start()
        with suppress(OSError):
            while data := client.recv(65536):
                if data.startswith(b"POST /apis/v2beta1/runs"):
                    mute.set()
                upstream.sendall(data)

    def close(self) -> None:
        self._server.close()


def test_a_monitor_killed_between_post_and_answer_loses_and_repeats_nothing(
    api: KfpApi, here: Settings, version: Version, model: str, namespace: str, ask_for_retraining: Callable[..., str]
) -> None:
    proxy = Mute(here.kfp_host)
    alone = timedelta(seconds=15)
    ledger = open_ledger(here.ledger_url)
    request = read_request(ledger, ask_for_retraining(ledger, model))
    assert request is not None

    def monitor() -> None:
        through = KfpApi(here.model_copy(update={"kfp_host": proxy.url}))
        own = open_ledger(here.ledger_url)
        start_open(own, Dispatcher(through, own, version=lambda _: version), model=model, alone=alone)

    process = FORK.Process(target=monitor)
    process.start()
    assert proxy.posted.wait(60)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(60)
    proxy.close()
    assert process.exitcode == -signal.SIGKILL
    assert starting_until(ledger, model) is not None
    assert start_open(ledger, Dispatcher(api, ledger, version=lambda _: version), model=model, alone=alone) == []
    assert len(workflows_of(namespace, request.run_id)) == 1
    assert wait(api, request.run_id) == "succeeded"
    ended = read_request(ledger, request.id)
    assert ended is not None
    assert (ended.state, ended.attempt) == ("done", 1)


@pytest.mark.parametrize("posts", [2, 6])
def test_several_workflows_of_one_run_train_once_and_the_run_succeeds(
    api: KfpApi,
    here: Settings,
    version: Version,
    model: str,
    namespace: str,
    ask_for_retraining: Callable[..., str],
    posts: int,
) -> None:
    """Whoever posts without looking starts another Workflow; one trains, the others end quietly, whatever sweeps see.

    KFP 2.17.0 files the steps of all of them below one metadata execution, `run/<run id>`; each one's group of all its
    tasks has an execution of its own (`pipelines.wiring.own_group`).
    """
    from kfp_server_api import V2beta1PipelineVersionReference, V2beta1Run, V2beta1RuntimeConfig

    from components.core.errors import TakenOnCluster
    from components.core.kfp_runs import ensure_experiment

    ledger = open_ledger(here.ledger_url)
    request = read_request(ledger, ask_for_retraining(ledger, model))
    assert request is not None
    attempt = next_dispatch(ledger, request.id, now=datetime.now(UTC), alone=ALONE)
    assert attempt is not None
    body = V2beta1Run(
        run_id=attempt.run_id,
        display_name="several",
        experiment_id=ensure_experiment(api, model),
        pipeline_version_reference=V2beta1PipelineVersionReference(
            pipeline_id=version.pipeline_id, pipeline_version_id=version.version_id
        ),
        runtime_config=V2beta1RuntimeConfig(parameters={"model": model, "as_of": ""}),
    )
    api.call("start it", api.runs.run_service_create_run, body)
    note_started(ledger, attempt.run_id)
    for _ in range(posts - 1):
        with pytest.raises(TakenOnCluster):
            api.call("start it again", api.runs.run_service_create_run, body)
    workflows = workflows_of(namespace, attempt.run_id)
    assert len(workflows) == posts
    dispatcher = Dispatcher(api, ledger, version=lambda _: version)
    deadline = time.monotonic() + WAIT_SECONDS
    while set(phases := [_phase(namespace, name) for name in workflows]) != {"Succeeded"}:
        assert not {"Failed", "Error"} & set(phases), phases
        assert start_open(ledger, dispatcher, model=model) == []
        shown = describe_run(api, ledger, require_run(api, attempt.run_id), {})
        assert not shown.ended or shown.outcome == "succeeded", shown
        assert time.monotonic() < deadline, phases
        time.sleep(1)
    assert start_open(ledger, dispatcher, model=model) == []
    ended = read_request(ledger, request.id)
    assert ended is not None
    assert (ended.state, ended.outcome, ended.attempt) == ("done", "succeeded", 1)
    (tried,) = list_runs(ledger, limit=10, use_case=model)
    assert (tried.id, tried.state) == (attempt.run_id, "succeeded")
    assert tried.claimant == tried.reason
    assert tried.claimant in workflows
    assert wait(api, attempt.run_id) == "succeeded"


def _phase(namespace: str, workflow: str) -> str:
    group, version, plural = WORKFLOWS
    found: Any = _workflows().get_namespaced_custom_object(group, version, namespace, plural, workflow)
    return str(found.get("status", {}).get("phase", "Pending"))
