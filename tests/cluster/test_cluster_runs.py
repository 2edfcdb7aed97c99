"""Runs on a real KFP: published once, waited for, read, stopped and repeated; what is wrong is said."""

import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.errors import ClusterError, ClusterUnreachable, ConfigError, NotOnCluster, TakenOnCluster
from components.core.kfp_api import KfpApi
from components.core.kfp_runs import (
    NewRun,
    Version,
    ensure_experiment,
    find_experiment,
    find_version,
    require_version,
    short_name,
    start_run,
    state_of,
)
from components.core.kfp_steps import read_failure, read_log, read_steps
from components.core.settings import Settings, load_settings
from pipelines.cluster.control import retry_run, stop_run
from pipelines.cluster.pods import waiting_pods
from pipelines.cluster.runs import list_cluster_runs, require_run, select_step
from pipelines.cluster.submit import submit
from pipelines.cluster.upload import publish_version
from pipelines.cluster.wait import wait_for_end
from pipelines.compile import canonical_ir

WAIT_SECONDS = 300
# One line: KFP's compiler repeats defaults in a comment, which a second line would leave.
REFUSAL = "; ".join(
    [
        "echo 'Traceback (most recent call last):'",
        """echo '  File "/app/components/core/verdict.py", line 72, in require_approved'""",
        "echo 'components.core.errors.GateRefused: evaluate decided reject; next step: read the report'",
        "exit 1",
    ]
)


@pytest.fixture(scope="module")
def here() -> Settings:
    changes = {"kfp_host": os.environ["KFP_HOST"], "kfp_namespace": "", "kfp_token": None}
    return load_settings().model_copy(update=changes)


@pytest.fixture(scope="module")
def api(here: Settings) -> KfpApi:
    return KfpApi(here)


@pytest.fixture(scope="module")
def compiled(images: Path) -> Callable[..., str]:
    """Return a compiler of one-step pipelines that run a shell script in our image, under own names."""

    def make(name: str, script: str, *, image: str = "", retries: int = 0) -> str:
        from kfp import dsl

        image = image or json.loads(images.read_text())["cpu"]

        @dsl.container_component
        def work(script: str):
            return dsl.ContainerSpec(image=image, command=["sh", "-c"], args=[script])

        @dsl.pipeline(name=name)
        def one_step(script: str = script):
            task = work(script=script)
            task.set_display_name("Do the work").set_caching_options(False)
            if retries:
                task.set_retry(retries, backoff_duration="1s")

        return canonical_ir(one_step)

    return make


@pytest.fixture(scope="module")
def name(api: KfpApi) -> Iterator[str]:
    """Yield the name of an own pipeline and experiment, which are gone afterwards with all their runs."""
    own = f"d-runs-{uuid.uuid4().hex[:6]}"
    yield own
    experiment = find_experiment(api, own)
    if experiment:
        for run in api.runs.run_service_list_runs(experiment_id=experiment).runs or []:
            with suppress(Exception):
                api.runs.run_service_terminate_run(run.run_id)
            api.runs.run_service_delete_run(run.run_id)
        api.experiments.experiment_service_delete_experiment(experiment)
    with suppress(Exception):
        found = api.pipelines.pipeline_service_get_pipeline_by_name(own).pipeline_id
        for one in api.pipelines.pipeline_service_list_pipeline_versions(found).pipeline_versions or []:
            api.pipelines.pipeline_service_delete_pipeline_version(found, one.pipeline_version_id)
        api.pipelines.pipeline_service_delete_pipeline(found)


@pytest.fixture(scope="module")
def start(api: KfpApi, name: str, compiled: Callable[..., str]) -> Callable[..., str]:
    """Return what starts a run of a script and returns its id."""

    def call(script: str, **options: Any) -> str:
        version = publish_version(api, compiled(name, script, **options))
        new = NewRun(
            run_id=str(uuid.uuid4()),
            title=f"{name} test",
            version=version,
            experiment_id=ensure_experiment(api, name),
            parameters={},
        )
        assert start_run(api, new)
        assert not start_run(api, new)
        return new.run_id

    return call


def ended(api: KfpApi, run_id: str) -> Any:
    lines: list[str] = []
    return wait_for_end(
        api, run_id, timeout_seconds=WAIT_SECONDS, notify=lambda step: lines.append(step.name), warn=pytest.fail
    )


def test_a_version_is_published_once_and_linked_to_its_runs(
    api: KfpApi, name: str, compiled: Callable[..., str], start: Callable[..., str]
) -> None:
    ir = compiled(name, "echo hello")
    first = publish_version(api, ir)
    assert publish_version(api, ir) == first
    assert first.name.startswith(f"{name}-")
    assert require_version(api, name, first.name).version_id == first.version_id
    run_id = start("echo hello")
    run = ended(api, run_id)
    assert state_of(run) == "succeeded"
    assert run.pipeline_version_reference.pipeline_version_id == first.version_id
    (step,) = read_steps(api, run)
    assert (step.title, step.state, step.retries) == ("Do the work", "succeeded", 0)
    assert step.seconds is not None
    assert step.seconds < WAIT_SECONDS
    assert "hello" in read_log(api, run_id, step)
    listed = list_cluster_runs(api, None, limit=50, wanted={name})
    assert run_id in [shown.id for shown in listed]
    assert {shown.pipeline for shown in listed} == {name}


def test_a_version_whose_name_is_taken_by_another_content_is_refused(
    api: KfpApi, name: str, compiled: Callable[..., str], tmp_path: Path
) -> None:
    own = f"{name}-taken"
    ir = compiled(own, "echo one")
    from pipelines.compile import version_name

    forged = tmp_path / "forged.yaml"
    forged.write_text(compiled(own, "echo two"))
    made = api.pipelines.pipeline_service_create_pipeline({"name": own, "display_name": own}).pipeline_id
    try:
        api.uploads.upload_pipeline_version(
            str(forged), name=short_name(own, version_name(ir)), display_name="forged", pipelineid=made
        )
        with pytest.raises(TakenOnCluster, match="holds another pipeline"):
            publish_version(api, ir)
        versions = api.pipelines.pipeline_service_list_pipeline_versions(made).pipeline_versions
        assert [one.display_name for one in versions] == ["forged"]
    finally:
        for one in api.pipelines.pipeline_service_list_pipeline_versions(made).pipeline_versions or []:
            api.pipelines.pipeline_service_delete_pipeline_version(made, one.pipeline_version_id)
        api.pipelines.pipeline_service_delete_pipeline(made)


def test_a_failed_step_is_found_read_and_repeated(api: KfpApi, start: Callable[..., str]) -> None:
    run_id = start(REFUSAL, retries=1)
    run = ended(api, run_id)
    assert state_of(run) == "failed"
    step = select_step(read_steps(api, run), "")
    assert (step.name, step.state, step.retries, len(step.pods)) == ("work", "failed", 1, 2)
    failure = read_failure(api, run_id, step)
    assert failure.is_refusal
    assert failure.message.startswith("evaluate decided reject")
    assert (failure.file, failure.line) == ("/app/components/core/verdict.py", 72)
    retry_run(api, None, run_id)
    again = ended(api, run_id)
    assert state_of(again) == "failed"
    assert again.finished_at > run.finished_at


def test_a_run_is_stopped_and_has_really_ended(api: KfpApi, start: Callable[..., str]) -> None:
    run_id = start("sleep 600")
    with pytest.raises(ClusterError, match="has not ended in time") as raised:
        wait_for_end(api, run_id, timeout_seconds=5, notify=lambda _: None, warn=lambda _: None)
    assert run_id in raised.value.next_step
    with pytest.raises(ConfigError, match="nothing to repeat"):
        retry_run(api, None, run_id)
    assert state_of(stop_run(api, None, run_id, timeout_seconds=120)) in ("canceled", "failed")
    # Once more is safe.
    stop_run(api, None, run_id, timeout_seconds=5)


def test_an_image_that_cannot_be_pulled_is_named(api: KfpApi, here: Settings, start: Callable[..., str]) -> None:
    run_id = start("true", image="registry.invalid/nothing@sha256:" + "0" * 64)
    said: list[str] = []
    with pytest.raises(ClusterError):
        wait_for_end(api, run_id, timeout_seconds=75, notify=lambda _: None, warn=said.append)
    assert any("registry.invalid/nothing" in line and "Pull" in line for line in said), said
    assert any("registry.invalid/nothing" in line for line in waiting_pods(here, run_id))
    stop_run(api, None, run_id, timeout_seconds=120)


def test_what_is_not_there_is_said(api: KfpApi, here: Settings, images: Path) -> None:
    unknown = str(uuid.uuid4())
    with pytest.raises(NotOnCluster, match="there is no run"):
        require_run(api, unknown)
    with pytest.raises(NotOnCluster, match="is not on"):
        require_version(api, "no-such-pipeline", "no-such-pipeline-0123456789ab")
    assert find_version(api, "no-such-pipeline", "x") is None
    with pytest.raises(NotOnCluster, match="no experiment 'no-such-experiment'"):
        submit(here, "flights", "monitoring", parameters={}, images=images, experiment="no-such-experiment")
    with pytest.raises(ConfigError, match="not a UUID"):
        submit(here, "flights", "monitoring", parameters={}, images=images, run_id="7")
    with pytest.raises(ConfigError, match="no images are locked"):
        submit(here, "flights", "monitoring", parameters={}, images=images.with_name("absent.json"))
    dead = KfpApi(here.model_copy(update={"kfp_host": "http://127.0.0.1:1"}))
    with pytest.raises(ClusterUnreachable, match="does not answer"):
        require_run(dead, unknown)


def test_a_server_that_is_not_the_api_is_told(here: Settings) -> None:
    other = KfpApi(here.model_copy(update={"kfp_host": os.environ["KFP_S3_ENDPOINT"]}))
    with pytest.raises(ClusterError):
        require_run(other, str(uuid.uuid4()))


def test_the_server_holds_what_was_sent(api: KfpApi, name: str, compiled: Callable[..., str]) -> None:
    ir = compiled(name, "echo held")
    held: Version = publish_version(api, ir)
    spec = held.spec.get("pipeline_spec", held.spec)
    assert spec["pipelineInfo"]["name"] == next(iter(yaml.safe_load_all(ir)))["pipelineInfo"]["name"]
