"""The real command as a process: it answers probes and scrapes, bears a broken ledger, and ends on SIGTERM."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from components.core.ledger.engine import migrate, open_ledger
from components.core.ledger.runs import claim_run, finish_run
from components.core.settings import Settings
from pipelines.controller.run import Controller, Options

ROOT = Path(__file__).parents[3]
START_SECONDS = 60


class Process:
    """A controller without Kubernetes, on a free port."""

    def __init__(self, settings: Settings, log: Path, **environment: str) -> None:
        self.log = log
        away = ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KFP_HOST")
        inherited = {name: value for name, value in os.environ.items() if name not in away}
        command = [str(Path(sys.executable).with_name("driftline")), "controller", "--port", "0", "--seconds", "1"]
        with log.open("w") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**inherited, **settings.environment(), **environment},
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + START_SECONDS
        while not (found := re.search(r"answering on port (\d+)", log.read_text())):
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        self.url = f"http://127.0.0.1:{found[1]}"

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=10)

    def metric(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        return {
            tuple(sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.get("/metrics").text)
            for sample in family.samples
            if sample.name == name
        }

    def until(self, path: str, status: int) -> httpx.Response:
        deadline = time.monotonic() + START_SECONDS
        while (answer := self.get(path)).status_code != status:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.05)
        return answer


@pytest.fixture
def started() -> Iterator[list[Process]]:
    made: list[Process] = []
    yield made
    for one in made:
        one.process.kill()
        one.process.wait(20)


def test_one_life(settings: Settings, tmp_path: Path, started: list[Process]) -> None:
    """Without a ledger it lives, is not ready and says so; once there is one, it counts; SIGTERM ends it."""
    controller = Process(settings, tmp_path / "log", DRIFTLINE_KFP_HOST="http://127.0.0.1:9")
    started.append(controller)
    assert controller.until("/livez", 200).text == "ok\n"
    assert "ledger" in controller.until("/readyz", 503).text
    assert controller.get("/elsewhere").status_code == 404
    migrate(settings.ledger_url)
    ledger = open_ledger(settings.ledger_url)
    claim_run(ledger, "r1", "c", "training", "birds")
    finish_run(ledger, "r1", "failed", failed_step="train")
    controller.until("/readyz", 200)
    labels = (("outcome", "failed"), ("pipeline", "training"), ("use_case", "birds"))
    deadline = time.monotonic() + 20
    while controller.metric("driftline_pipeline_runs_total").get(labels) != 1:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # Nobody listens where KFP should be: that is counted, and everything else goes on.
    while controller.metric("driftline_kfp_up") != {(): 0.0}:
        assert time.monotonic() < deadline + 30
        time.sleep(0.1)
    assert controller.metric("driftline_controller_failures_total")[("part", "kfp"),] >= 1
    assert controller.metric("driftline_ledger_up") == {(): 1.0}
    assert controller.metric("driftline_controller_leader") == {(): 1.0}
    body = controller.get("/metrics").text
    assert "process_" not in body, "nothing but what is registered"
    assert "does not answer" in controller.log.read_text()
    told = time.monotonic()
    controller.process.send_signal(signal.SIGTERM)
    assert controller.process.wait(20) == 0
    assert time.monotonic() - told < 8


def test_a_port_that_is_taken_is_a_clear_error(settings: Settings, tmp_path: Path, started: list[Process]) -> None:
    migrate(settings.ledger_url)
    first = Process(settings, tmp_path / "log")
    started.append(first)
    port = first.url.rpartition(":")[2]
    environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    command = [str(Path(sys.executable).with_name("driftline")), "controller", "--port", port]
    environment |= settings.environment()
    second = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert second.returncode == 2
    assert f"port {port} cannot be used" in second.stderr
    assert "next step" in second.stderr


def test_a_kubeconfig_that_is_none_is_a_clear_error(settings: Settings, tmp_path: Path) -> None:
    migrate(settings.ledger_url)
    (tmp_path / "config").write_text("not: a kubeconfig")
    environment = {**os.environ, **settings.environment(), "KUBECONFIG": str(tmp_path / "config")}
    command = [str(Path(sys.executable).with_name("driftline")), "controller", "--port", "0"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "KUBECONFIG" in done.stderr


@pytest.mark.parametrize(
    ("ledger_url", "mlflow_uri", "mirrors"),
    [
        ("sqlite:///here/ledger.db", "sqlite:///here/mlflow.db", True),
        ("postgresql+psycopg://db/ledger", "http://mlflow:5000", True),
        ("postgresql+psycopg://db/ledger", "sqlite:///here/mlflow.db", False),
    ],
)
def test_the_alias_is_moved_in_the_mlflow_of_the_ledgers_models(
    settings: Settings, ledger_url: str, mlflow_uri: str, mirrors: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """In a pod without an address of MLflow the default is an empty store of its own, which knows no model."""
    told = settings.model_copy(update={"ledger_url": ledger_url, "mlflow_uri": mlflow_uri})
    assert ("mirror" in Controller(told, Options()).rounds.standings) is mirrors
    assert ("mirror is off" in caplog.text) is not mirrors
