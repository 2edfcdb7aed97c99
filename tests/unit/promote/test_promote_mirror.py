"""MLflow's alias follows the ledger after a `git revert`: by the step `claim`, or by the controller."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from components.claim.claim import claim
from components.core.errors import StorageFailed
from components.core.ledger.bentos import record_bento
from components.core.ledger.champions import Candidate, list_unmirrored, read_champion
from components.core.ledger.champions import promote as swap_champion
from components.core.ledger.engine import open_ledger
from components.core.ledger.runs import claim_run
from components.core.mirror import mirror_changed
from components.core.release_publishing import observe_release
from components.core.settings import Settings
from components.core.tracking import champion_alias, register_version, set_champion_alias, start_run
from components.promote.promote import promote

Approve = Callable[..., Any]
IMAGE = "registry.example/team/driftline-serve@sha256:" + "4" * 64
START_SECONDS = 90
NOBODY = "http://127.0.0.1:9"


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    return subprocess.run(
        ["git", *identity, "-C", str(folder), *words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def reverted(embedded: Settings, approve: Approve, tmp_path: Path) -> Settings:
    """Return settings whose second champion was taken back in Git, which nobody has looked at yet."""
    bare, work = tmp_path / "gitops.git", tmp_path / "work"
    subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", str(bare)], check=True)
    subprocess.run(["git", "clone", "--quiet", str(bare), str(work)], check=True, capture_output=True)
    git(work, "checkout", "--quiet", "-B", "main")
    git(work, "commit", "--quiet", "--allow-empty", "-m", "The tree")
    git(work, "push", "--quiet", "origin", "main")
    settings = embedded.model_copy(update={"git_url": str(bare), "git_environment": "staging"})
    for version in (1, 2):
        step = approve(settings, version, version - 1 or None)
        assert promote(step.settings, "flights", **step.arguments, serving_image=IMAGE) == "promoted"
    git(work, "pull", "--quiet", "origin", "main")
    git(work, "revert", "--no-edit", "HEAD")
    git(work, "push", "--quiet", "origin", "main")
    assert champion_alias(settings, "flights") == champion_of(settings) == 2
    return settings


def champion_of(settings: Settings) -> int | None:
    found = read_champion(open_ledger(settings.ledger_url), "flights")
    return found.version if found else None


def test_a_run_that_sees_a_revert_takes_the_alias_along(reverted: Settings) -> None:
    assert claim(reverted.model_copy(update={"run_key": "run-9"}), "monitoring", "flights")
    assert champion_of(reverted) == 1
    assert champion_alias(reverted, "flights") == 1
    assert list_unmirrored(open_ledger(reverted.ledger_url)) == []


@pytest.mark.parametrize("address", [NOBODY, "postgresql+psycopg://mlflow:secret@127.0.0.1:9/mlflow"])
def test_an_mlflow_that_is_away_holds_up_no_run_and_the_controller_comes_again(
    reverted: Settings, address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = reverted.model_copy(update={"mlflow_uri": address, "run_key": "run-9"})
    begin = time.monotonic()
    assert claim(away, "monitoring", "flights")
    assert time.monotonic() - begin < 10
    assert champion_of(reverted) == 1
    assert "the alias of flights does not follow the ledger yet" in caplog.text
    assert "secret" not in caplog.text
    assert list_unmirrored(open_ledger(reverted.ledger_url)) == ["flights"]
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StorageFailed):
        mirror_changed(away)
    assert champion_alias(reverted, "flights") == 2
    mirror_changed(reverted)
    assert champion_alias(reverted, "flights") == 1
    set_champion_alias(reverted, "flights", 2)
    mirror_changed(reverted)  # nothing changed in the ledger: nothing is written
    assert champion_alias(reverted, "flights") == 2


def test_a_model_that_mlflow_cannot_point_to_holds_up_no_other_one(reverted: Settings) -> None:
    """`birds` is in the ledger and not in MLflow, as after a registry was lost."""
    ledger = open_ledger(reverted.ledger_url)
    register_version(reverted, "wind", start_run(reverted, "wind", "run-w"))
    for model in ("birds", "wind"):
        run = f"run-{model}"
        assert claim_run(ledger, run, run, "training", model)
        record_bento(ledger, f"{model}-1", "b" * 64, "b.tar")
        digests = {"digest": "d" * 64, "bento_digest": "b" * 64, "bento_uri": "b.tar", "verdict_digest": "v" * 64}
        promoted_at = "2013-04-01T00:00:00Z"
        candidate = Candidate.model_validate(
            {"model": model, "version": 1, "run_id": run, "as_of": promoted_at, **digests}
        )
        assert swap_champion(ledger, candidate, None) == "promoted"
    observe_release(reverted, "flights")
    with pytest.raises(StorageFailed, match="birds"):
        mirror_changed(reverted)
    assert list_unmirrored(ledger) == ["birds"]
    assert (champion_alias(reverted, "wind"), champion_alias(reverted, "flights")) == (1, 1)


@pytest.fixture
def processes() -> Iterator[list["subprocess.Popen[bytes]"]]:
    made: list[subprocess.Popen[bytes]] = []
    yield made
    for one in made:
        os.killpg(one.pid, signal.SIGKILL)
        one.wait(20)


@pytest.mark.slow
def test_the_controller_moves_the_alias_once_mlflow_is_back(
    reverted: Settings, tmp_path: Path, processes: list["subprocess.Popen[bytes]"]
) -> None:
    """A real controller beside a real MLflow server that is away at first: the champion follows Git all the same."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    remote = reverted.model_copy(update={"mlflow_uri": f"http://127.0.0.1:{port}"})
    log = tmp_path / "controller.log"
    command = [str(Path(sys.executable).with_name("driftline")), "controller", "--port", "0", "--seconds", "1"]
    inherited = {name: value for name, value in os.environ.items() if name not in ("KUBECONFIG", "KFP_HOST")}
    environment = inherited | remote.environment() | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    with log.open("w") as output:
        processes.append(
            subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        )
    until(lambda: champion_of(reverted) == 1, log)
    until(lambda: "mirror: MLflow at http://127.0.0.1" in log.read_text(), log)
    found = re.search(r"answering on port (\d+)", log.read_text())
    assert found
    assert metric(found[1], "driftline_controller_failures_total", part="mirror") >= 1
    assert metric(found[1], "driftline_controller_failures_total", part="releases") == 0
    assert champion_alias(reverted, "flights") == 2
    server = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server += ["--backend-store-uri", reverted.mlflow_uri, "--artifacts-destination", str(tmp_path / "artifacts")]
    with (tmp_path / "server.log").open("w") as output:
        processes.append(subprocess.Popen(server, cwd=tmp_path, stdout=output, stderr=output, start_new_session=True))
    until(lambda: champion_alias(reverted, "flights") == 1, log)
    until(lambda: list_unmirrored(open_ledger(reverted.ledger_url)) == [], log)


def until(holds: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not holds():
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


def metric(port: str, name: str, **labels: str) -> float:
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    (found,) = (sample.value for sample in samples if sample.name == name and sample.labels == labels)
    return found
