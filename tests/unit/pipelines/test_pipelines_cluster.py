"""Pure parts of runs on the cluster: arguments, contents, steps and what is shown of them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from kfp_server_api import V2beta1PipelineTaskDetail, V2beta1Run, V2beta1RunDetails

from components.core.errors import ConfigError
from components.core.kfp_pods import task_specs
from components.core.kfp_runs import state_of
from components.core.kfp_steps import ClusterStep, steps_of
from components.core.settings import Settings
from components.core.usecase import list_use_cases
from pipelines.catalog import read_case
from pipelines.cluster.arguments import run_arguments
from pipelines.cluster.report import exit_code, run_line, step_line, summarize
from pipelines.cluster.runs import ClusterRun, select_step
from pipelines.cluster.upload import same_content
from pipelines.compile import PIPELINES, compile_for_cluster
from pipelines.titles import TITLES

REPO = Path(__file__).parents[3] / "feature_repo"
CASE = list_use_cases(REPO)[0]
IMAGES = {name: f"registry/{name}@sha256:{'0' * 64}" for name in ("cpu", "gpu", "serve")}
MORNING = datetime(2026, 11, 25, 8, tzinfo=UTC)


@pytest.fixture(scope="module", params=PIPELINES)
def ir(request: pytest.FixtureRequest) -> str:
    return compile_for_cluster(read_case(REPO, CASE), request.param, "", IMAGES)


def as_the_server_holds_it(ir: str) -> dict[str, Any]:
    """Send an IR through protobuf, as the API server does."""
    spec, platform = yaml.safe_load_all(ir)
    messages = (
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec()),
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec()),
    )
    held = [json_format.MessageToDict(message) for message in messages]
    return {"pipeline_spec": held[0], "platform_spec": held[1]}


def test_what_the_server_holds_is_the_ir_it_was_given(ir: str) -> None:
    assert same_content(as_the_server_holds_it(ir), ir)


def test_a_changed_default_image_or_label_is_another_content(ir: str) -> None:
    held = as_the_server_holds_it(ir)
    executor = next(iter(held["pipeline_spec"]["deploymentSpec"]["executors"].values()))
    executor["container"]["image"] = "other@sha256:" + "1" * 64
    assert not same_content(held, ir)
    held = as_the_server_holds_it(ir)
    del held["platform_spec"]["platforms"]
    assert not same_content(held, ir)
    held = as_the_server_holds_it(ir)
    held["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]["as_of"]["description"] = "x"
    assert not same_content(held, ir)


def run_with(*nodes: tuple[str, str, int, int | None]) -> V2beta1Run:
    details = [
        V2beta1PipelineTaskDetail(
            display_name=name,
            state=state,
            start_time=MORNING + timedelta(seconds=first),
            end_time=MORNING + timedelta(seconds=last) if last is not None else datetime(1970, 1, 1, tzinfo=UTC),
        )
        for name, state, first, last in nodes
    ]
    return V2beta1Run(run_id="r", state="RUNNING", run_details=V2beta1RunDetails(task_details=details))


def test_steps_are_those_of_the_pipeline_with_their_titles(ir: str) -> None:
    spec, platform = yaml.safe_load_all(ir)
    specs = task_specs({"pipeline_spec": spec, "platform_spec": platform})
    assert all(spec.title == TITLES[name] for name, spec in specs.items())
    assert len(specs) >= 4
    steps = steps_of(
        specs,
        run_with(
            ("root", "RUNNING", 0, None),
            ("claim-driver", "SUCCEEDED", 1, 4),
            ("executor", "SUCCEEDED", 5, 9),
            ("claim", "SUCCEEDED", 4, 9),
            ("ingest", "RUNNING", 10, None),
        ),
    )
    assert [(s.name, s.state) for s in steps[:2]] == [("claim", "succeeded"), ("ingest", "running")]
    assert steps[0].seconds == 5
    assert {s.state for s in steps[2:]} == {"pending"}
    assert len(steps) == len(specs)
    assert all(s.seconds is None for s in steps[2:])


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ("SUCCEEDED", "succeeded"),
        ("FAILED", "failed"),
        ("CANCELED", "canceled"),
        ("CANCELING", "canceling"),
        ("SKIPPED", "skipped"),
        ("PAUSED", "paused"),
        ("PENDING", "pending"),
        ("RUNNING", "running"),
        ("RUNTIME_STATE_UNSPECIFIED", "unknown"),
        (None, "unknown"),
    ],
)
def test_every_state_of_the_api_is_known(told: str | None, meant: str) -> None:
    assert state_of(V2beta1Run(state=told)) == meant


def shown(state: Any, outcome: Any = "", reason: str = "") -> ClusterRun:
    return ClusterRun(
        id="r", title="t", pipeline="p", state=state, outcome=outcome, reason=reason, created_at=MORNING,
        finished_at=MORNING + timedelta(seconds=61),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "outcome", "result", "code"),
    [
        ("succeeded", "succeeded", "succeeded", 0),
        ("failed", "refused", "refused", 3),
        ("failed", "failed", "failed", 1),
        ("succeeded", "superseded", "superseded", 3),
        ("canceled", "cancelled", "cancelled", 1),
        ("canceled", "", "cancelled", 1),
        ("skipped", "", "skipped", 0),
        ("succeeded", "", "succeeded", 0),
        ("failed", "", "failed", 1),
        ("failed", "running", "failed", 1),
        ("running", "running", "running", 1),
    ],
)
def test_the_ledger_tells_how_a_run_ended(state: str, outcome: str, result: str, code: int) -> None:
    run = shown(state, outcome)
    assert run.result == result
    assert exit_code(run) == code


def test_a_refused_run_is_shown_with_its_reason_and_the_next_step() -> None:
    step = ClusterStep(
        name="package", title="Package and probe", state="failed", started_at=MORNING, finished_at=MORNING
    )
    text = summarize(shown("failed", "refused", "GateRefused: worse"), [step])
    assert "run r refused after 61 s" in text
    assert "GateRefused: worse" in text
    assert "driftline why r" in text
    assert "Package and probe" in step_line(step)
    assert "refused" in run_line(shown("failed", "refused"))


def test_the_step_of_a_log_is_the_failed_one_unless_named() -> None:
    def step(name: str, state: Any, started: bool = True) -> ClusterStep:
        return ClusterStep(name=name, title=name, state=state, started_at=MORNING if started else None)

    steps = [step("claim", "succeeded"), step("ingest", "failed"), step("train", "pending", started=False)]
    assert select_step(steps, "").name == "ingest"
    assert select_step(steps[:1], "").name == "claim"
    assert select_step(steps, "claim").name == "claim"
    with pytest.raises(ConfigError, match="did you mean 'claim'"):
        select_step(steps, "clam")
    with pytest.raises(ConfigError, match="has not started"):
        select_step(steps, "train")


def arguments(settings: Settings, pipeline: str, *params: str, **given: str | None) -> dict[str, Any]:
    period = {"as_of": None, "first": None, "last": None} | given
    return run_arguments(settings, CASE, pipeline, params=params, **period)


def test_overrides_are_whole_checked_sections(settings: Settings) -> None:
    sent = arguments(settings, "training", "evaluate.margin=0.25", as_of="2013-04-01T00:00:00Z")
    assert sent["as_of"] == "2013-04-01T00:00:00Z"
    assert sent["evaluate"]["margin"] == 0.25
    assert sent["evaluate"]["metric"] == read_case(REPO, CASE).use_case.evaluate.metric
    assert set(sent) == {"as_of", "evaluate"}
    assert arguments(settings, "training") == {}


@pytest.mark.parametrize(
    ("pipeline", "params", "given", "says"),
    [
        ("training", ("evaluate.margn=1",), {}, "did you mean 'margin'"),
        ("training", ("evaluate.margin=-1",), {}, "greater than or equal to 0"),
        ("training", ("monitor.seed=1",), {}, "not a parameter"),
        ("training", ("nothing",), {}, "not a parameter"),
        ("training", (), {"first": "2013-01-01"}, "has no period"),
        ("monitoring", (), {"as_of": "yesterday"}, "--as-of"),
        ("scoring", (), {"first": "2013-02-02", "last": "2013-02-01"}, "2013"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_sent(
    settings: Settings, pipeline: str, params: tuple[str, ...], given: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        arguments(settings, pipeline, *params, **given)
    assert says in str(raised.value)
