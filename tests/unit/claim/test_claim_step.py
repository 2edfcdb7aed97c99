"""Claiming a run: in the component, and across kill -9 at every statement and commit."""

import multiprocessing
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from components.claim.claim import claim
from components.claim.component import claim as claim_step
from components.core.errors import LedgerError
from components.core.evidence import Evidence, Window
from components.core.ledger.engine import migrate, open_ledger
from components.core.ledger.proposals import Proposal, decide_once
from components.core.ledger.requests import fail_attempt, next_dispatch
from components.core.ledger.runs import list_runs, read_run
from components.core.ledger.suppression import Limits
from components.core.settings import Settings

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def run(settings: Settings, ledger_url: str) -> Settings:
    migrate(ledger_url)
    return settings.model_copy(update={"ledger_url": ledger_url, "run_key": "run-1"})


def workflow(settings: Settings, name: str) -> Settings:
    return settings.model_copy(update={"workflow": name})


def test_a_local_run_claims_itself(run: Settings) -> None:
    assert claim(run, "training", "flights")
    assert claim(run, "training", "flights")
    found = read_run(open_ledger(run.ledger_url), "run-1")
    assert found is not None
    assert found.claimant == "run-1"


def test_of_two_workflows_of_one_run_the_second_ends_quietly(run: Settings) -> None:
    assert claim(workflow(run, "training-abc"), "training", "flights")
    assert claim(workflow(run, "training-xyz"), "training", "flights") is False
    assert claim(workflow(run, "training-abc"), "training", "flights")
    found = read_run(open_ledger(run.ledger_url), "run-1")
    assert found is not None
    assert found.claimant == "training-abc"


def test_a_step_does_not_migrate(settings: Settings) -> None:
    with pytest.raises(LedgerError, match="driftline ledger migrate"):
        claim(settings.model_copy(update={"run_key": "run-1"}), "training", "flights")
    assert not Path(settings.ledger_url.removeprefix("sqlite:///")).exists()


def test_the_component_returns_one_bool(run: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"LEDGER_URL": run.ledger_url, "RUN_KEY": "run-1", "HOME": str(run.home)}
    for name, value in environment.items():
        monkeypatch.setenv(f"DRIFTLINE_{name}", value)
    monkeypatch.setenv("DRIFTLINE_WORKFLOW", "training-abc")
    assert claim_step.python_func(pipeline="training", use_case="flights") is True
    monkeypatch.setenv("DRIFTLINE_WORKFLOW", "training-xyz")
    assert claim_step.python_func(pipeline="training", use_case="flights") is False


def test_a_run_that_its_request_no_longer_waits_for_ends_quietly(run: Settings) -> None:
    ledger = open_ledger(run.ledger_url)
    as_of = datetime(2013, 5, 15, tzinfo=UTC)
    window = Window(first=as_of - timedelta(days=9), last=as_of - timedelta(days=2))
    measured: dict[str, Any] = {"as_of": as_of, "version": 1, "model": "7", "rows": 900, "labelled_rows": 900}
    evidence = Evidence(use_case="flights", window=window, **measured, sanity=[])
    proposal = Proposal(
        decision="retrain", rung="drift", reasons=["r"], policy="ladder", policy_digest="5", evidence=evidence
    )
    limits = Limits(cooldown=timedelta(hours=48), max_per_week=1, lease=timedelta(hours=2))
    request_id = str(decide_once(ledger, proposal, limits, datetime.now(UTC)).request)
    attempt = next_dispatch(ledger, request_id, now=datetime.now(UTC))
    assert attempt is not None
    mine = run.model_copy(update={"run_key": attempt.run_id})
    assert claim(workflow(mine, "training-abc"), "training", "flights")
    assert not claim(workflow(mine, "training-xyz"), "training", "flights")
    assert fail_attempt(ledger, attempt.run_id, "its process is gone")
    assert claim(workflow(mine, "training-abc"), "training", "flights") is False


def claim_and_die(settings: Settings, at: int) -> int:
    """Claim in a process that kills itself before its `at`-th statement or commit; return its exit code."""

    def call() -> None:
        seen = 0

        def count(*_: Any, **__: Any) -> None:
            nonlocal seen
            seen += 1
            if seen == at:
                os.kill(os.getpid(), signal.SIGKILL)

        sa.event.listen(sa.Engine, "before_cursor_execute", count)
        sa.event.listen(sa.Engine, "commit", count)
        claim(settings, "training", "flights")

    process = FORK.Process(target=call)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def test_a_claim_survives_kill_9_at_every_statement_and_commit(run: Settings) -> None:
    """A killed claim is either recorded or not, and the retried pod of the same Workflow wins in both cases."""
    killed = 0
    for at in range(1, 1000):
        one = workflow(run.model_copy(update={"run_key": f"run-{at}"}), "training-abc")
        if claim_and_die(one, at) == 0:
            break
        killed += 1
        assert claim(one, "training", "flights")
        assert not claim(workflow(one, "training-xyz"), "training", "flights")
    assert killed >= 4
    assert {r.state for r in list_runs(open_ledger(run.ledger_url), limit=1000)} == {"running"}
    assert len(list_runs(open_ledger(run.ledger_url), limit=1000)) == killed + 1
