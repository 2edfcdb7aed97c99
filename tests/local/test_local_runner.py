"""The local runner on real, small pipelines: outcomes, where a failure comes from, and that nothing outlives it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from kfp import dsl

from components.core.settings import Settings
from pipelines.compile import canonical_ir
from pipelines.events import Step
from pipelines.explain import explain_run, render
from pipelines.local import RunRecord, read_record, run_locally
from pipelines.rerun import rerun_step

IMAGE = "python:3.11-slim"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def double(number: int) -> int:
    return number * 2


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def judge(number: int, verdict: dsl.Output[dsl.Artifact]):
    from pathlib import Path

    from components.core.verdict import Reason, Verdict, write_verdict

    small = number < 10
    reason = Reason(check="size", passed=small, message=f"{number} against a limit of 10")
    decision = "promote" if small else "reject"
    write_verdict(Path(verdict.path), Verdict(gate="evaluate", subject="s", decision=decision, reasons=[reason]))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def obey(verdict: dsl.Input[dsl.Artifact]):
    from pathlib import Path

    from components.core.verdict import require_approved

    require_approved(Path(verdict.path), gate="evaluate", subject="s")


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def divide(number: int) -> float:
    return 1 / (number - number)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def sleep(marker: str):
    import os
    import time
    from pathlib import Path

    Path(marker).write_text(str(os.getpid()))
    time.sleep(600)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def litter(marker: str):
    import tempfile
    from pathlib import Path

    Path(marker).write_text(tempfile.mkdtemp())


@dsl.pipeline(name="untidy")
def untidy(marker: str):
    litter(marker=marker)


@dsl.pipeline(name="gate")
def gate(number: int = 3):
    doubled = double(number=number)
    judged = judge(number=doubled.output)
    obey(verdict=judged.outputs["verdict"])


@dsl.pipeline(name="broken")
def broken(number: int = 3):
    divide(number=double(number=number).output)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def fail_and_count(marker: str):
    from pathlib import Path

    with Path(marker).open("a") as file:
        file.write("tried\n")
    raise RuntimeError("no such luck")


@dsl.pipeline(name="retried", pipeline_config=dsl.PipelineConfig(active_deadline_seconds=60))
def retried(marker: str):
    with dsl.If(double(number=1).output == 2):
        fail_and_count(marker=marker).set_retry(2, backoff_duration="1s")


@dsl.pipeline(name="sleepy")
def sleepy(marker: str):
    sleep(marker=marker)


def run(settings: Settings, pipeline: Any, key: str = "case-1", **arguments: Any) -> tuple[RunRecord, list[str]]:
    seen: list[str] = []

    def note(step: Step) -> None:
        seen.append(f"{step.name} {step.state}")

    record = run_locally(
        settings,
        run_key=key,
        pipeline="test",
        use_case="case",
        ir=canonical_ir(pipeline),
        arguments=arguments,
        notify=note,
    )
    return record, seen


def test_every_step_is_announced_in_order_and_recorded(settings: Settings) -> None:
    record, seen = run(settings, gate)
    assert record.state == "succeeded"
    assert seen == [f"{step} {state}" for step in ("double", "judge", "obey") for state in ("running", "succeeded")]
    assert record == read_record(settings, "case-1")
    assert record.steps[0].inputs["inputs"]["parameterValues"] == {"number": 3}


def test_a_retry_of_the_cluster_is_no_wait_for_the_message_here(settings: Settings, tmp_path: Path) -> None:
    record, _ = run(settings, retried, marker=str(tmp_path / "tries"))
    assert record.state == "failed"
    assert (tmp_path / "tries").read_text() == "tried\n"


def test_a_gate_that_says_no_refuses_the_run_and_keeps_its_verdict(settings: Settings) -> None:
    record, seen = run(settings, gate, number=7)
    assert record.state == "refused"
    assert seen[-1] == "obey failed"
    failure = record.steps[-1].failure
    assert failure is not None
    assert failure.type == "GateRefused"
    assert "14 against a limit of 10" in failure.message
    assert failure.file.endswith("components/core/verdict.py")
    explanation = explain_run(record)
    assert explanation["failed_step"] == "obey"
    assert explanation["reproduce"] == "driftline runs rerun case-1 obey"
    assert "14 against a limit of 10" in render(explanation)


def test_a_failure_is_explained_by_its_own_exception(settings: Settings) -> None:
    record, seen = run(settings, broken)
    assert record.state == "failed"
    assert seen[-1] == "divide failed"
    failure = record.steps[-1].failure
    assert failure is not None
    assert (failure.type, failure.message) == ("ZeroDivisionError", "division by zero")
    assert "ZeroDivisionError" in failure.traceback


def test_a_recorded_step_can_be_executed_again(settings: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    run(settings, gate, number=7)
    assert rerun_step(settings, "case-1", "double") == 0
    assert rerun_step(settings, "case-1", "obey") != 0
    assert "GateRefused" in capfd.readouterr().err


def test_temporary_files_of_the_steps_go_with_the_run(settings: Settings, tmp_path: Path) -> None:
    record, _ = run(settings, untidy, marker=str(tmp_path / "folder"))
    assert record.state == "succeeded"
    left = Path((tmp_path / "folder").read_text())
    assert left.parent.name.startswith("driftline-run-")
    assert not left.parent.exists()


def test_ctrl_c_ends_every_process_and_the_next_run_works(settings: Settings, tmp_path: Path) -> None:
    marker = tmp_path / "pid"

    # A shell that starts us in the background has us ignore Ctrl-C, and so would our children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt() -> None:
        wait_for(marker)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        record, _ = run(settings, sleepy, marker=str(marker))
    finally:
        signal.signal(signal.SIGINT, before)
    assert record.state == "cancelled"
    assert [s.state for s in record.steps] == ["cancelled"]
    assert_gone(int(marker.read_text()))
    again, _ = run(settings, gate, key="case-2")
    assert again.state == "succeeded"


def test_kill_9_of_the_command_line_leaves_no_step_behind(settings: Settings, tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    ir = tmp_path / "ir.yaml"
    ir.write_text(canonical_ir(sleepy))
    program = (
        "import sys; from pathlib import Path; from components.core.settings import load_settings;"
        "from pipelines.local import run_locally;"
        "run_locally(load_settings(), run_key='killed', pipeline='test', use_case='case',"
        "ir=Path(sys.argv[1]).read_text(),"
        "arguments={'marker': sys.argv[2]}, notify=lambda step: None)"
    )
    command = [sys.executable, "-c", program, str(ir), str(marker)]
    parent = subprocess.Popen(command, env={**os.environ, "DRIFTLINE_HOME": str(settings.home)})
    wait_for(marker)
    parent.kill()
    parent.wait()
    assert_gone(int(marker.read_text()))


def wait_for(marker: Path) -> None:
    deadline = time.monotonic() + 60
    while not (marker.exists() and marker.read_text()):
        assert time.monotonic() < deadline, "the step did not start"
        time.sleep(0.05)


def assert_gone(pid: int) -> None:
    deadline = time.monotonic() + 15
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} outlived its run"
        time.sleep(0.05)
