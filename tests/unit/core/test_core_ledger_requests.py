"""Requests and attempts: who may claim, how an end moves the request, and that a zombie promotes nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from components.core.errors import LedgerError
from components.core.evidence import Evidence, Window
from components.core.ledger.attempts import Attempt, attempt_id
from components.core.ledger.champions import Candidate, list_promotions, promote, read_champion
from components.core.ledger.decisions import list_decisions
from components.core.ledger.proposals import Proposal, decide_once
from components.core.ledger.requests import (
    Request,
    expire_leases,
    fail_attempt,
    next_dispatch,
    open_requests,
    read_attempt,
    read_request,
)
from components.core.ledger.runs import claim_run, finish_run, read_run
from components.core.ledger.suppression import Limits

AS_OF = datetime(2013, 5, 15, tzinfo=UTC)
LIMITS = Limits(cooldown=timedelta(hours=48), max_per_week=1, lease=timedelta(minutes=120))


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def request_id(ledger: sa.Engine) -> str:
    """Return the id of an open request of flights."""
    window = Window(first=AS_OF - timedelta(days=9), last=AS_OF - timedelta(days=2))
    evidence = Evidence(
        use_case="flights", window=window, as_of=AS_OF, version=1, model="7", rows=900, labelled_rows=900, sanity=[]
    )
    proposal = Proposal(
        decision="retrain", rung="performance", reasons=["r"], policy="ladder", policy_digest="5", evidence=evidence
    )
    made = decide_once(ledger, proposal, LIMITS, now()).request
    assert made is not None
    return made


def dispatch(ledger: sa.Engine, request_id: str) -> Attempt:
    attempt = next_dispatch(ledger, request_id, now=now())
    assert attempt is not None
    return attempt


def claim(ledger: sa.Engine, run_id: str, claimant: str = "workflow") -> bool:
    return claim_run(ledger, run_id, claimant, "training", "flights")


def look(ledger: sa.Engine, request_id: str) -> Request:
    request = read_request(ledger, request_id)
    assert request is not None
    return request


def candidate(run_id: str, version: int) -> Candidate:
    return Candidate(
        model="flights",
        version=version,
        digest=f"model-{version}",
        bento_digest="b",
        bento_uri="u",
        run_id=run_id,
        verdict_digest="v",
        as_of=AS_OF,
    )


def test_a_dispatch_that_is_asked_for_again_is_the_same_attempt(ledger: sa.Engine, request_id: str) -> None:
    first = dispatch(ledger, request_id)
    assert (first.run_id, first.attempt, first.state) == (attempt_id(request_id, 1), 1, "dispatched")
    assert (first.model, first.as_of, first.policy) == ("flights", AS_OF, "ladder")
    assert look(ledger, request_id).state == "dispatched"
    again = dispatch(ledger, request_id)
    assert again.lease_expires_at > first.lease_expires_at
    assert again.model_copy(update={"lease_expires_at": first.lease_expires_at}) == first
    assert claim(ledger, first.run_id)
    assert next_dispatch(ledger, request_id, now=now()) is None
    with pytest.raises(LedgerError, match="does not know this request"):
        next_dispatch(ledger, "nothing", now=now())


def test_the_first_claimant_of_the_current_attempt_wins(ledger: sa.Engine, request_id: str) -> None:
    attempt = dispatch(ledger, request_id)
    assert claim(ledger, attempt.run_id, "a")
    assert not claim(ledger, attempt.run_id, "b")
    first = read_attempt(ledger, attempt.run_id)
    assert first is not None
    assert (first.state, first.claimant, look(ledger, request_id).state) == ("claimed", "a", "claimed")
    assert abs(first.lease_expires_at - now() - LIMITS.lease) < timedelta(minutes=1)
    assert claim(ledger, attempt.run_id, "a")
    renewed = read_attempt(ledger, attempt.run_id)
    assert renewed is not None
    assert renewed.lease_expires_at > first.lease_expires_at
    assert read_attempt(ledger, "manual") is None


def test_a_run_that_no_longer_is_the_current_attempt_claims_nothing(ledger: sa.Engine, request_id: str) -> None:
    attempt = dispatch(ledger, request_id)
    assert fail_attempt(ledger, attempt.run_id, "never started")
    assert not claim(ledger, attempt.run_id)
    assert read_run(ledger, attempt.run_id) is None
    assert look(ledger, request_id).state == "requested"
    assert read_attempt(ledger, attempt_id(request_id, 2)) is None


def test_an_attempt_trains_the_model_of_its_request(ledger: sa.Engine, request_id: str) -> None:
    attempt = dispatch(ledger, request_id)
    for pipeline, use_case in (("training", "taxi"), ("scoring", "flights")):
        with pytest.raises(LedgerError, match="belongs to another pipeline or use case"):
            claim_run(ledger, attempt.run_id, "workflow", pipeline, use_case)
    assert look(ledger, request_id).state == "dispatched"


@pytest.mark.parametrize(
    ("state", "ends"),
    [("succeeded", "done"), ("refused", "refused"), ("failed", None), ("superseded", None), ("cancelled", None)],
)
def test_an_end_moves_the_request(ledger: sa.Engine, request_id: str, state: Any, ends: str | None) -> None:
    attempt = dispatch(ledger, request_id)
    claim(ledger, attempt.run_id)
    assert finish_run(ledger, attempt.run_id, state, reason="because")
    ended = read_attempt(ledger, attempt.run_id)
    assert ended is not None
    assert (ended.state, ended.reason) == (state, "because")
    request = look(ledger, request_id)
    assert request.reason == "because"
    if ends:
        assert (request.state, request.outcome, request.attempt) == (ends, state, 1)
        assert request.ended_at is not None
        assert open_requests(ledger) == []
    else:
        assert (request.state, request.outcome, request.attempt, request.ended_at) == ("requested", "", 2, None)
        assert dispatch(ledger, request_id).run_id == attempt_id(request_id, 2)
    assert not finish_run(ledger, attempt.run_id, "failed")
    assert not fail_attempt(ledger, attempt.run_id, "again")
    assert look(ledger, request_id).attempt == (1 if ends else 2)


@pytest.mark.parametrize("how", ["failed run", "given up", "expired", "superseded"])
def test_three_attempts_then_an_alert(ledger: sa.Engine, request_id: str, how: str) -> None:
    for number in (1, 2, 3):
        attempt = dispatch(ledger, request_id)
        assert attempt.attempt == number
        claim(ledger, attempt.run_id)
        if how == "given up":
            assert fail_attempt(ledger, attempt.run_id, f"broken {number}")
        elif how == "expired":
            assert expire_leases(ledger, now()) == []
            assert expire_leases(ledger, now() + timedelta(hours=3)) == [attempt.run_id]
        else:
            finish_run(ledger, attempt.run_id, "failed" if how == "failed run" else "superseded", reason=f"no {number}")
        run, ended = read_run(ledger, attempt.run_id), read_attempt(ledger, attempt.run_id)
        assert run is not None
        assert ended is not None
        assert ended.state == {"failed run": "failed", "given up": "failed"}.get(how, how)
        assert run.state == ("superseded" if how == "superseded" else "failed")
    request = look(ledger, request_id)
    assert (request.state, request.outcome, request.attempt) == ("failed", "failed", 3)
    assert next_dispatch(ledger, request_id, now=now()) is None
    alert, decision = list_decisions(ledger)
    assert (alert.decision, alert.rung, alert.request) == ("alert", "attempts", request_id)
    assert [f"run {attempt_id(request_id, n)}" in alert.reasons[n] for n in (1, 2, 3)] == [True] * 3
    assert (decision.decision, decision.run) == ("retrain", attempt_id(request_id, 3))
    assert decision.outcome == f"failed: {request.reason}"


def test_an_unclaimed_attempt_expires_too(ledger: sa.Engine, request_id: str) -> None:
    attempt = dispatch(ledger, request_id)
    later = now() + timedelta(hours=3)
    assert expire_leases(ledger, later, "taxi") == []
    assert expire_leases(ledger, later, "flights") == [attempt.run_id]
    assert expire_leases(ledger, later) == []
    assert (look(ledger, request_id).attempt, read_run(ledger, attempt.run_id)) == (2, None)


def test_a_promotion_ends_run_attempt_and_request(ledger: sa.Engine, request_id: str) -> None:
    attempt = dispatch(ledger, request_id)
    claim(ledger, attempt.run_id)
    assert promote(ledger, candidate(attempt.run_id, 1), None) == "promoted"
    assert promote(ledger, candidate(attempt.run_id, 1), None) == "promoted"
    request, ended = look(ledger, request_id), read_attempt(ledger, attempt.run_id)
    assert ended is not None
    assert (request.state, request.outcome, ended.state) == ("done", "promoted", "succeeded")
    (decision,) = list_decisions(ledger)
    assert (decision.outcome, decision.run) == ("promoted", attempt.run_id)
    assert len(list_promotions(ledger, "flights")) == 1


def test_a_zombie_promotes_nothing_whenever_it_wakes(ledger: sa.Engine, request_id: str) -> None:
    zombie = dispatch(ledger, request_id)
    claim(ledger, zombie.run_id)
    expire_leases(ledger, now() + timedelta(hours=3))

    def wake() -> None:
        assert not claim(ledger, zombie.run_id)
        with pytest.raises(LedgerError, match="promotes nothing"):
            promote(ledger, candidate(zombie.run_id, 9), None)
        assert not finish_run(ledger, zombie.run_id, "succeeded")

    wake()
    second = dispatch(ledger, request_id)
    wake()
    claim(ledger, second.run_id)
    wake()
    assert promote(ledger, candidate(second.run_id, 1), None) == "promoted"
    wake()
    champion = read_champion(ledger, "flights")
    assert champion is not None
    assert (champion.version, champion.run_id) == (1, second.run_id)
    assert look(ledger, request_id).outcome == "promoted"


def test_the_fence_itself_holds_where_the_run_still_runs(ledger: sa.Engine, request_id: str) -> None:
    """A run row that says `running` does not help an attempt that its request does not wait for."""
    first = dispatch(ledger, request_id)
    claim(ledger, first.run_id)
    with ledger.begin() as connection:
        connection.execute(sa.text("UPDATE requests SET attempt = 2, state = 'requested'"))
    with pytest.raises(LedgerError, match="not the attempt that its request waits for") as raised:
        promote(ledger, candidate(first.run_id, 9), None)
    assert raised.value.measured == "attempt 1 (claimed) of a request that is requested with attempt 2"
    assert read_champion(ledger, "flights") is None


def test_a_manual_promotion_makes_the_requested_run_start_over(ledger: sa.Engine, request_id: str) -> None:
    first = dispatch(ledger, request_id)
    claim(ledger, first.run_id)
    claim(ledger, "manual")
    assert promote(ledger, candidate("manual", 1), None) == "promoted"
    assert look(ledger, request_id).state == "claimed"
    assert promote(ledger, candidate(first.run_id, 2), None) == "superseded"
    request = look(ledger, request_id)
    assert (request.state, request.attempt) == ("requested", 2)
    assert request.reason == "the gate compared version 2 with champion None, now it is 1"
    second = dispatch(ledger, request_id)
    claim(ledger, second.run_id)
    assert promote(ledger, candidate(second.run_id, 3), 1) == "promoted"
    assert look(ledger, request_id).outcome == "promoted"


def test_runs_without_a_request_are_as_they_were(ledger: sa.Engine, request_id: str) -> None:
    assert claim(ledger, "manual")
    assert not fail_attempt(ledger, "manual", "no attempt")
    assert finish_run(ledger, "manual", "failed")
    assert claim(ledger, "manual")
    assert look(ledger, request_id).state == "requested"
