"""Runs: one claimant each, one end each; Bentos: the first archive of a release counts."""

import multiprocessing
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from components.core.errors import LedgerError
from components.core.ledger.bentos import read_bento, record_bento
from components.core.ledger.engine import open_ledger
from components.core.ledger.runs import FinalState, claim_run, finish_run, list_runs, read_run

FORK = multiprocessing.get_context("fork")
ENDS: list[FinalState] = ["succeeded", "failed", "refused", "superseded", "cancelled"]


def claim(ledger: sa.Engine, claimant: str, run: str = "run-1", use_case: str = "flights") -> bool:
    return claim_run(ledger, run, claimant, "training", use_case)


def test_the_first_claimant_wins_and_wins_again(ledger: sa.Engine) -> None:
    assert claim(ledger, "workflow-a")
    assert not claim(ledger, "workflow-b")
    assert claim(ledger, "workflow-a")
    run = read_run(ledger, "run-1")
    assert run is not None
    assert (run.claimant, run.state, run.pipeline, run.use_case) == ("workflow-a", "running", "training", "flights")
    assert (datetime.now(UTC) - run.started_at).total_seconds() < 60
    assert run.finished_at is None


def test_fifty_processes_claim_one_run(ledger: sa.Engine, ledger_url: str) -> None:
    count = 50
    gate = FORK.Barrier(count)
    answers: Any = FORK.Queue()

    def call(claimant: str) -> None:
        own = open_ledger(ledger_url)
        gate.wait(60)
        answers.put((claimant, claim(own, claimant), claim(own, claimant)))

    processes = [FORK.Process(target=call, args=(f"workflow-{n}",)) for n in range(count)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
    winners = [claimant for claimant, first, again in found if first and again]
    assert Counter((first, again) for _, first, again in found) == {(True, True): 1, (False, False): count - 1}
    run = read_run(ledger, "run-1")
    assert run is not None
    assert [run.claimant] == winners


def test_a_run_key_belongs_to_one_use_case(ledger: sa.Engine) -> None:
    assert claim(ledger, "run-1")
    with pytest.raises(LedgerError) as raised:
        claim(ledger, "run-1", use_case="taxi")
    assert (raised.value.measured, raised.value.allowed) == ("training of taxi", "training of flights")
    assert not claim(ledger, "workflow-b", use_case="taxi")


@pytest.mark.parametrize(("run", "claimant"), [("", "workflow-a"), ("run-1", "")])
def test_a_claim_needs_an_id_and_a_claimant(ledger: sa.Engine, run: str, claimant: str) -> None:
    with pytest.raises(LedgerError, match="needs an id and a claimant"):
        claim(ledger, claimant, run)
    assert list_runs(ledger) == []


@pytest.mark.parametrize("end", ENDS)
def test_a_run_ends_once(ledger: sa.Engine, end: FinalState) -> None:
    claim(ledger, "run-1")
    as_of = datetime(2013, 4, 1, tzinfo=UTC)
    assert finish_run(ledger, "run-1", end, reason="because", failed_step="train", as_of=as_of)
    first = read_run(ledger, "run-1")
    assert first is not None
    assert (first.state, first.reason, first.failed_step, first.as_of) == (end, "because", "train", as_of)
    assert first.finished_at is not None
    assert first.finished_at >= first.started_at
    for other in ENDS:
        assert not finish_run(ledger, "run-1", other, reason="later")
    assert read_run(ledger, "run-1") == first


@pytest.mark.parametrize("end", ENDS)
def test_only_a_failed_run_runs_again_and_only_for_its_claimant(ledger: sa.Engine, end: FinalState) -> None:
    claim(ledger, "workflow-a")
    finish_run(ledger, "run-1", end, reason="because", failed_step="train")
    assert not claim(ledger, "workflow-b")
    ended = read_run(ledger, "run-1")
    assert ended is not None
    assert ended.state == end
    assert claim(ledger, "workflow-a")
    again = read_run(ledger, "run-1")
    assert again is not None
    if end == "failed":
        assert (again.state, again.reason, again.failed_step, again.finished_at) == ("running", "", "", None)
    else:
        assert again == ended


def test_an_unknown_run_cannot_end(ledger: sa.Engine) -> None:
    with pytest.raises(LedgerError, match="does not know this run"):
        finish_run(ledger, "nobody", "succeeded")


def test_runs_are_listed_newest_first(ledger: sa.Engine) -> None:
    for n in range(5):
        claim(ledger, "w", run=f"flights-{n}")
    claim(ledger, "w", run="taxi-0", use_case="taxi")
    finish_run(ledger, "flights-1", "refused")
    assert [run.id for run in list_runs(ledger, limit=2)] == ["taxi-0", "flights-4"]
    assert [run.id for run in list_runs(ledger, use_case="flights")] == [f"flights-{n}" for n in (4, 3, 2, 1, 0)]
    assert [run.id for run in list_runs(ledger, state="refused")] == ["flights-1"]
    assert list_runs(ledger, use_case="taxi", state="refused") == []
    assert read_run(ledger, "nobody") is None


def test_the_first_archive_of_a_release_counts(ledger: sa.Engine) -> None:
    assert read_bento(ledger, "release") is None
    first = record_bento(ledger, "release", "digest-1", "file-1")
    assert record_bento(ledger, "release", "digest-2", "file-2") == first
    assert read_bento(ledger, "release") == first
    assert (first.digest, first.uri) == ("digest-1", "file-1")
    assert record_bento(ledger, "another", "digest-2", "file-2").digest == "digest-2"


def test_ten_processes_record_one_archive(ledger: sa.Engine, ledger_url: str) -> None:
    count = 10
    gate = FORK.Barrier(count)
    answers: Any = FORK.Queue()

    def call(number: int) -> None:
        own = open_ledger(ledger_url)
        gate.wait(60)
        answers.put(record_bento(own, "release", f"digest-{number}", f"file-{number}"))

    processes = [FORK.Process(target=call, args=(n,)) for n in range(count)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
    assert found == [read_bento(ledger, "release")] * count
