"""Champions: swapped against the version the gate compared with, once per run."""

import multiprocessing
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from components.core.errors import LedgerError
from components.core.ledger.champions import (
    Candidate,
    list_champions,
    list_promotions,
    list_unmirrored,
    mark_mirrored,
    promote,
    read_champion,
)
from components.core.ledger.connections import reading
from components.core.ledger.engine import open_ledger
from components.core.ledger.runs import claim_run, finish_run, read_run
from components.core.ledger.schema import champions

FORK = multiprocessing.get_context("fork")
AS_OF = datetime(2013, 4, 1, tzinfo=UTC)


def candidate(ledger: sa.Engine, version: int, *, run: str = "", model: str = "flights") -> Candidate:
    """Claim a run and describe the version it trained."""
    run_id = run or f"run-{model}-{version}"
    assert claim_run(ledger, run_id, run_id, "training", model)
    return Candidate(
        model=model,
        version=version,
        digest=f"model-{version}",
        bento_digest=f"bento-{version}",
        bento_uri=f"bentos/bento-{version}.tar",
        run_id=run_id,
        verdict_digest=f"verdict-{version}",
        as_of=AS_OF,
    )


def state(ledger: sa.Engine, run_id: str) -> str:
    run = read_run(ledger, run_id)
    assert run is not None
    return run.state


def test_the_first_champion(ledger: sa.Engine) -> None:
    assert read_champion(ledger, "flights") is None
    assert promote(ledger, candidate(ledger, 1), None) == "promoted"
    champion = read_champion(ledger, "flights")
    assert champion is not None
    assert (champion.version, champion.digest, champion.run_id) == (1, "model-1", "run-flights-1")
    assert (champion.bento_digest, champion.bento_uri) == ("bento-1", "bentos/bento-1.tar")
    run = read_run(ledger, "run-flights-1")
    assert run is not None
    assert (run.state, run.as_of) == ("succeeded", AS_OF)
    (line,) = list_promotions(ledger, "flights")
    assert (line.version, line.previous_version, line.outcome) == (1, None, "promoted")
    assert (line.run_id, line.verdict_digest) == ("run-flights-1", "verdict-1")


def test_the_next_champion_replaces_the_one_it_was_compared_with(ledger: sa.Engine) -> None:
    promote(ledger, candidate(ledger, 1), None)
    assert promote(ledger, candidate(ledger, 2), 1) == "promoted"
    with reading(ledger) as connection:
        rows = connection.execute(sa.select(champions)).all()
    assert [(row.version, row.revision, row.verdict_digest) for row in rows] == [(2, 2, "verdict-2")]
    assert [(p.version, p.previous_version) for p in list_promotions(ledger, "flights")] == [(1, None), (2, 1)]


@pytest.mark.parametrize("expected", [None, 1, 7])
def test_a_candidate_compared_with_another_champion_is_superseded(ledger: sa.Engine, expected: int | None) -> None:
    promote(ledger, candidate(ledger, 1), None)
    promote(ledger, candidate(ledger, 2), 1)
    before = read_champion(ledger, "flights")
    assert promote(ledger, candidate(ledger, 3), expected) == "superseded"
    assert read_champion(ledger, "flights") == before
    run = read_run(ledger, "run-flights-3")
    assert run is not None
    assert (run.state, run.as_of) == ("superseded", AS_OF)
    assert run.reason == f"the gate compared version 3 with champion {expected}, now it is 2"
    assert [(p.version, p.previous_version, p.outcome) for p in list_promotions(ledger, "flights")][-1] == (
        3,
        expected,
        "superseded",
    )


def test_a_candidate_compared_with_a_champion_that_never_was_is_superseded(ledger: sa.Engine) -> None:
    assert promote(ledger, candidate(ledger, 2), 1) == "superseded"
    assert read_champion(ledger, "flights") is None


@pytest.mark.parametrize(("expected", "outcome"), [(1, "promoted"), (None, "superseded")])
def test_a_run_has_one_outcome(ledger: sa.Engine, expected: int | None, outcome: str) -> None:
    promote(ledger, candidate(ledger, 1), None)
    second = candidate(ledger, 2)
    assert promote(ledger, second, expected) == outcome
    history = list_promotions(ledger, "flights")
    promote(ledger, candidate(ledger, 3), 2 if outcome == "promoted" else 1)
    after = read_champion(ledger, "flights")
    for again in (expected, 3, None):
        assert promote(ledger, second, again) == outcome
    assert list_promotions(ledger, "flights")[:2] == history
    assert len(list_promotions(ledger, "flights")) == 3
    assert read_champion(ledger, "flights") == after


def test_models_do_not_meet(ledger: sa.Engine) -> None:
    promote(ledger, candidate(ledger, 1), None)
    assert promote(ledger, candidate(ledger, 1, model="taxi"), None) == "promoted"
    assert [(c.model, c.version) for c in list_champions(ledger)] == [("flights", 1), ("taxi", 1)]
    assert len(list_promotions(ledger, "taxi")) == 1


def test_a_champion_is_unmirrored_until_its_own_version_is_marked(ledger: sa.Engine) -> None:
    assert list_unmirrored(ledger) == []
    promote(ledger, candidate(ledger, 1), None)
    assert list_unmirrored(ledger) == ["flights"]
    mark_mirrored(ledger, "flights", 1)
    assert list_unmirrored(ledger) == []
    promote(ledger, candidate(ledger, 2), 1)
    mark_mirrored(ledger, "flights", 1)
    assert list_unmirrored(ledger) == ["flights"]
    promote(ledger, candidate(ledger, 3), 1)
    mark_mirrored(ledger, "taxi", 2)
    assert list_unmirrored(ledger) == ["flights"]
    mark_mirrored(ledger, "flights", 2)
    assert list_unmirrored(ledger) == []


@pytest.mark.parametrize("end", ["failed", "cancelled", "refused"])
def test_a_run_that_was_declared_dead_promotes_nothing(ledger: sa.Engine, end: Any) -> None:
    zombie = candidate(ledger, 1)
    finish_run(ledger, zombie.run_id, end, reason="lease expired")
    with pytest.raises(LedgerError) as raised:
        promote(ledger, zombie, None)
    assert raised.value.measured == end
    assert read_champion(ledger, "flights") is None
    assert list_promotions(ledger, "flights") == []
    assert state(ledger, zombie.run_id) == end


def test_an_unclaimed_run_promotes_nothing(ledger: sa.Engine) -> None:
    stranger = candidate(ledger, 1).model_copy(update={"run_id": "nobody"})
    with pytest.raises(LedgerError, match="does not know this run"):
        promote(ledger, stranger, None)
    assert read_champion(ledger, "flights") is None


@pytest.mark.parametrize("expected", [None, 1])
def test_many_processes_promote_against_one_champion(ledger: sa.Engine, ledger_url: str, expected: int | None) -> None:
    """Eight runs, each by two processes at once (a retried pod): one champion, one line of history per run."""
    if expected:
        promote(ledger, candidate(ledger, 1), None)
    candidates = [candidate(ledger, version) for version in range(2, 10) for _ in range(2)]
    gate = FORK.Barrier(len(candidates))
    answers: Any = FORK.Queue()

    def call(mine: Candidate) -> None:
        own = open_ledger(ledger_url)
        gate.wait(60)
        answers.put((mine.version, promote(own, mine, expected)))

    processes = [FORK.Process(target=call, args=(mine,)) for mine in candidates]
    for process in processes:
        process.start()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
    champion = read_champion(ledger, "flights")
    assert champion is not None
    assert Counter(found) == {
        (version, "promoted" if version == champion.version else "superseded"): 2 for version in range(2, 10)
    }
    history = [line for line in list_promotions(ledger, "flights") if line.version > 1]
    assert sorted(line.version for line in history) == list(range(2, 10))
    assert [line.version for line in history if line.outcome == "promoted"] == [champion.version]
    for line in history:
        assert state(ledger, line.run_id) == ("succeeded" if line.outcome == "promoted" else "superseded")
