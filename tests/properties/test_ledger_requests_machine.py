"""Any sequence of decisions, dispatches, claims, ends, expiries and promotions keeps the rules of a retraining."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from components.core.errors import LedgerError
from components.core.evidence import Evidence, Window
from components.core.ledger.attempts import attempt_id
from components.core.ledger.champions import Candidate, list_promotions, promote, read_champion
from components.core.ledger.decisions import list_decisions
from components.core.ledger.engine import migrate, open_ledger
from components.core.ledger.holds import hold, release
from components.core.ledger.proposals import Proposal, decide_once
from components.core.ledger.requests import (
    expire_leases,
    fail_attempt,
    next_dispatch,
    open_requests,
    read_attempt,
    read_request,
)
from components.core.ledger.runs import claim_run, finish_run, list_runs, read_run
from components.core.ledger.schema import attempts, metadata, requests
from components.core.ledger.suppression import Limits

START = datetime(2013, 4, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
LIMITS = Limits(cooldown=timedelta(hours=48), max_per_week=1, lease=timedelta(minutes=120))
MODEL = "flights"
# None: the attempt that the newest request waits for; else an attempt of one of the newest requests.
RUN = st.none() | st.none() | st.tuples(st.integers(0, 2), st.integers(1, 3))
RARELY = st.integers(0, 4).map(lambda n: n == 4)
Which = tuple[int, int] | None


class Retrainings(RuleBasedStateMachine):
    """A small model beside the ledger: which attempt each open request waits for, and who is champion."""

    ledger: sa.Engine

    def __init__(self) -> None:
        super().__init__()
        with self.ledger.begin() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(sa.delete(table))
        self.week = 0
        self.asked: list[str] = []
        """Requests, oldest first."""
        self.current: dict[str, tuple[str, int]] = {}
        """Request to state and attempt."""
        self.dispatched: set[str] = set()
        self.claimed: set[str] = set()
        self.champion: str | None = None
        self.held = False

    # -- what the ledger should say

    def owner(self, run_id: str) -> str | None:
        """Return the request that waits for a dispatched run."""
        for request, (state, number) in self.current.items():
            if state in ("dispatched", "claimed") and attempt_id(request, number) == run_id:
                return request
        return None

    def run_of(self, which: Which) -> str:
        """Return the run of an attempt of one of the newest requests, perhaps one that never was."""
        back, number = which or (0, self.current[self.asked[-1]][1])
        return attempt_id(self.asked[-1 - back % len(self.asked)], number)

    def ended(self, request: str, end: str) -> None:
        _, number = self.current[request]
        if end in ("done", "refused"):
            self.current[request] = (end, number)
        else:
            self.current[request] = ("requested", number + 1) if number < 3 else ("failed", number)

    # -- what may happen

    @rule(weeks=st.sampled_from([0, 1, 2, 10, 10, 10]), go_on=st.booleans())
    def decide(self, weeks: int, go_on: bool) -> None:
        self.week += weeks
        first = START + self.week * WEEK
        watched = read_champion(self.ledger, MODEL)
        evidence = Evidence(
            use_case=MODEL,
            window=Window(first=first, last=first + WEEK),
            as_of=first + WEEK + timedelta(hours=48),
            version=watched.version if watched else 1,
            model="7",
            rows=900,
            labelled_rows=900,
            sanity=[],
        )
        proposal = Proposal(
            decision="retrain", rung="drift", reasons=["r"], policy="ladder", policy_digest="5", evidence=evidence
        )
        known = len(self.asked)
        decision = decide_once(self.ledger, proposal, LIMITS, datetime.now(UTC))
        if decision.request is not None and decision.request not in self.asked:
            assert not self.held
            assert all(state in ("done", "refused", "failed") for state, _ in self.current.values())
            self.asked.append(decision.request)
            self.current[decision.request] = ("requested", 1)
        assert (decision.decision == "retrain") == (decision.request is not None)
        assert len(self.asked) <= known + 1
        if go_on and len(self.asked) > known:
            self.dispatch_and_claim("a")

    @initialize()
    def begin(self) -> None:
        self.decide(0, go_on=True)

    @rule(rarely=RARELY)
    def hold_or_release(self, rarely: bool) -> None:
        if not self.held and not rarely:
            return
        if self.held:
            assert release(self.ledger, MODEL)
        else:
            hold(self.ledger, MODEL, reason="audit", held_by="ada", now=datetime.now(UTC))
        self.held = not self.held

    @precondition(lambda self: all(state in ("done", "refused", "failed") for state, _ in self.current.values()))
    @rule()
    def ask_again(self) -> None:
        self.decide(10, go_on=True)

    @precondition(lambda self: self.asked)
    @rule(claimant=st.sampled_from(["a", "b"]))
    def dispatch_and_claim(self, claimant: str) -> None:
        self.dispatch(0)
        self.claim(None, claimant)

    @precondition(lambda self: self.asked)
    @rule(back=st.sampled_from([0, 0, 1, 2]))
    def dispatch(self, back: int) -> None:
        request = self.asked[-1 - back % len(self.asked)]
        state, number = self.current[request]
        attempt = next_dispatch(self.ledger, request, now=datetime.now(UTC))
        assert (attempt is not None) == (state in ("requested", "dispatched"))
        if attempt is not None:
            assert attempt.run_id == attempt_id(request, number)
            self.current[request] = ("dispatched", number)
            self.dispatched.add(attempt.run_id)

    @precondition(lambda self: self.asked)
    @rule(which=RUN, claimant=st.sampled_from(["a", "b"]))
    def claim(self, which: Which, claimant: str) -> None:
        run_id = self.run_of(which)
        if run_id not in self.dispatched:
            return  # its id is nobody's yet
        owner = self.owner(run_id)
        run = read_run(self.ledger, run_id)
        expected = owner is not None and (run is None or run.claimant == claimant)
        assert claim_run(self.ledger, run_id, claimant, "training", MODEL) == expected
        if expected and owner is not None:
            self.current[owner] = ("claimed", self.current[owner][1])
            self.claimed.add(run_id)

    @precondition(lambda self: self.claimed)
    @rule(which=RUN, state=st.sampled_from(["succeeded", "refused", "failed", "superseded", "cancelled"]))
    def end_run(self, which: Which, state: Any) -> None:
        run_id = self.run_of(which)
        if run_id not in self.claimed:
            return
        owner = self.owner(run_id)
        assert finish_run(self.ledger, run_id, state, reason="r") == (owner is not None)
        if owner is not None:
            self.ended(owner, {"succeeded": "done"}.get(state, state))

    @precondition(lambda self: self.asked)
    @rule(which=RUN, rarely=RARELY)
    def give_up(self, which: Which, rarely: bool) -> None:
        run_id = self.run_of(which)
        owner = self.owner(run_id)
        if owner is not None and not rarely:
            return
        assert fail_attempt(self.ledger, run_id, "gone") == (owner is not None)
        if owner is not None:
            self.ended(owner, "failed")

    @rule(late=RARELY)
    def expire(self, late: bool) -> None:
        expired = expire_leases(self.ledger, datetime.now(UTC) + timedelta(hours=3 if late else 1))
        running = [r for r, (state, _) in self.current.items() if state in ("dispatched", "claimed")]
        assert expired == ([attempt_id(r, self.current[r][1]) for r in running] if late else [])
        for request in running if late else []:
            self.ended(request, "failed")

    @precondition(lambda self: self.claimed)
    @rule(which=RUN, stale=RARELY)
    def promote_attempt(self, which: Which, stale: bool) -> None:
        run_id = self.run_of(which)
        if run_id not in self.claimed:
            return
        before = read_champion(self.ledger, MODEL)
        known = {line.run_id: line.outcome for line in list_promotions(self.ledger, MODEL)}
        owner = self.owner(run_id)
        expected = 10_000 if stale else before.version if before else None
        if run_id not in known and owner is None:
            try:
                self._promote(run_id, expected)
            except LedgerError:
                return
            raise AssertionError("a zombie promoted")
        outcome = self._promote(run_id, expected)
        assert outcome == known.get(run_id, "superseded" if stale else "promoted")
        if run_id not in known and owner is not None:
            self.ended(owner, "done" if outcome == "promoted" else "superseded")
            self.champion = run_id if outcome == "promoted" else self.champion

    @precondition(lambda self: any(state == "claimed" for state, _ in self.current.values()))
    @rule(rarely=RARELY)
    def promote_by_hand(self, rarely: bool) -> None:
        if not rarely:
            return
        before = read_champion(self.ledger, MODEL)
        run_id = f"manual-{len(list_promotions(self.ledger, MODEL))}"
        assert claim_run(self.ledger, run_id, run_id, "training", MODEL)
        assert self._promote(run_id, before.version if before else None) == "promoted"
        self.champion = run_id

    def _promote(self, run_id: str, expected: int | None) -> str:
        version = len(list_promotions(self.ledger, MODEL)) + 1
        card = {"model": MODEL, "version": version, "digest": "m", "bento_digest": "b", "bento_uri": "u"}
        candidate = Candidate.model_validate(card | {"run_id": run_id, "verdict_digest": "v", "as_of": START})
        return promote(self.ledger, candidate, expected)

    # -- what must always hold

    @invariant()
    def the_ledger_says_what_the_model_says(self) -> None:
        with self.ledger.connect() as connection:
            found = {row.id: (row.state, row.attempt) for row in connection.execute(sa.select(requests))}
            tried = {row.run_id: row.state for row in connection.execute(sa.select(attempts))}
        assert found == self.current
        assert set(tried) == self.dispatched
        assert len(open_requests(self.ledger)) <= 1
        champion = read_champion(self.ledger, MODEL)
        assert (champion.run_id if champion else None) == self.champion
        for run_id, state in tried.items():
            assert (state in ("dispatched", "claimed")) == (self.owner(run_id) is not None)
        # A run that its request does not wait for is over.
        running = [run.id for run in list_runs(self.ledger, limit=1000, state="running")]
        assert all(self.owner(run_id) is not None for run_id in running)

    @invariant()
    def every_request_has_its_decision_and_every_failure_its_alert(self) -> None:
        decisions = list_decisions(self.ledger)
        assert sorted(d.request for d in decisions if d.decision == "retrain" and d.request) == sorted(self.asked)
        failed = sorted(r for r, (state, _) in self.current.items() if state == "failed")
        assert sorted(d.request for d in decisions if d.decision == "alert" and d.request) == failed
        assert all(d.suppressed_by for d in decisions if d.decision == "hold")

    def teardown(self) -> None:
        for request in self.asked:
            found = read_request(self.ledger, request)
            assert found is not None
            assert all(read_attempt(self.ledger, attempt_id(request, n)) for n in range(1, found.attempt))


@pytest.mark.parametrize("examples", [10, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_no_sequence_breaks_a_rule(examples: int, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    machine = type("Machine", (Retrainings,), {"ledger": open_ledger(url)})
    chosen = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    run_state_machine_as_test(machine, settings=chosen)
