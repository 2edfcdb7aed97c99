"""Dispatch: real processes run the attempts, die at awkward moments, and the next sweep goes on."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
import sqlalchemy as sa

from components.core.errors import ConfigError, LedgerError
from components.core.evidence import Evidence, Window
from components.core.ledger.attempts import Attempt, attempt_id
from components.core.ledger.champions import Candidate, list_promotions, promote, read_champion
from components.core.ledger.decisions import list_decisions
from components.core.ledger.dispatch import sweep
from components.core.ledger.engine import open_ledger
from components.core.ledger.proposals import Proposal, decide_once
from components.core.ledger.requests import Request, fail_attempt, open_requests, read_attempt, read_request
from components.core.ledger.runs import claim_run, finish_run, list_runs, read_run
from components.core.ledger.suppression import Limits

FORK = multiprocessing.get_context("fork")
AS_OF = datetime(2013, 5, 15, tzinfo=UTC)
LIMITS = Limits(cooldown=timedelta(hours=48), max_per_week=1, lease=timedelta(minutes=120))
Work = Literal["promote", "refuse", "fail", "hang", "claim and hang", "claim and die", "claim, wait and promote"]


def now() -> datetime:
    return datetime.now(UTC)


def request_retraining(ledger: sa.Engine, model: str = "flights") -> str:
    window = Window(first=AS_OF - timedelta(days=9), last=AS_OF - timedelta(days=2))
    evidence = Evidence(
        use_case=model, window=window, as_of=AS_OF, version=1, model="7", rows=900, labelled_rows=900, sanity=[]
    )
    proposal = Proposal(
        decision="retrain", rung="performance", reasons=["r"], policy="ladder", policy_digest="5", evidence=evidence
    )
    made = decide_once(ledger, proposal, LIMITS, now()).request
    assert made is not None
    return made


def promote_run(ledger: sa.Engine, attempt: Attempt) -> str:
    champion = read_champion(ledger, attempt.model)
    expected = champion.version if champion else None
    card = {
        "model": attempt.model,
        "version": (expected or 0) + 1,
        "digest": "m",
        "bento_digest": "b",
        "bento_uri": "u",
    }
    candidate = Candidate.model_validate(card | {"run_id": attempt.run_id, "verdict_digest": "v", "as_of": AS_OF})
    return promote(ledger, candidate, expected)


class Processes:
    """Runs attempts in processes; what each one does is set beforehand."""

    def __init__(self, url: str, *, dead: Literal["absent", "ended"] = "absent") -> None:
        self.url, self.dead = url, dead
        self.works: list[Work] = []
        self.running: dict[str, Any] = {}
        self.started: list[str] = []
        self.reached, self.wake, self.told = FORK.Semaphore(0), FORK.Event(), FORK.Queue()

    def state(self, run_id: str) -> Literal["absent", "running", "ended"]:
        process = self.running.get(run_id)
        if process is not None and process.is_alive():
            return "running"
        run = read_run(open_ledger(self.url), run_id)
        if run is not None and run.state != "running":
            return "ended"
        return self.dead if process is not None else "absent"

    def start(self, attempt: Attempt) -> None:
        process = FORK.Process(target=self._execute, args=(attempt, self.works.pop(0)))
        process.start()
        self.running[attempt.run_id] = process
        self.started.append(attempt.run_id)
        # Until it has ended, or has come to where it was told to stop.
        assert self.reached.acquire(timeout=60)
        if self.works_to_the_end:
            process.join(60)

    works_to_the_end = True

    def _execute(self, attempt: Attempt, work: Work) -> None:
        ledger = open_ledger(self.url)
        if work == "hang":
            self.reached.release()
            self.wake.wait(120)
        elif not claim_run(ledger, attempt.run_id, f"process {os.getpid()}", "training", attempt.model):
            self.told.put("not claimed")
        elif work == "promote":
            promote_run(ledger, attempt)
        elif work in ("refuse", "fail"):
            finish_run(ledger, attempt.run_id, "refused" if work == "refuse" else "failed", reason=work)
        elif work == "claim and die":
            self.reached.release()
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            self.reached.release()
            self.wake.wait(120)
            if work == "claim, wait and promote":
                try:
                    self.told.put(promote_run(ledger, attempt))
                except LedgerError as error:
                    self.told.put(str(error))
        self.reached.release()

    def kill(self, run_id: str) -> None:
        os.kill(self.running[run_id].pid, signal.SIGKILL)
        self.running[run_id].join(60)


@pytest.fixture
def processes(ledger: sa.Engine, ledger_url: str) -> Iterator[Callable[..., Processes]]:
    made: list[Processes] = []

    def make(*works: Work, hangs: bool = False, dead: Literal["absent", "ended"] = "absent") -> Processes:
        made.append(Processes(ledger_url, dead=dead))
        made[-1].works = list(works)
        made[-1].works_to_the_end = not hangs
        return made[-1]

    yield make
    for one in made:
        for process in one.running.values():
            process.kill()
            process.join(60)


def look(ledger: sa.Engine, request_id: str) -> Request:
    found = read_request(ledger, request_id)
    assert found is not None
    return found


def test_a_request_becomes_one_run_and_one_promotion(ledger: sa.Engine, processes: Callable[..., Processes]) -> None:
    request = request_retraining(ledger)
    dispatcher = processes("promote")
    (started,) = sweep(ledger, dispatcher, now=now())
    assert (started.run_id, started.as_of, started.model) == (attempt_id(request, 1), AS_OF, "flights")
    assert sweep(ledger, dispatcher, now=now()) == []
    assert dispatcher.started == [started.run_id]
    assert look(ledger, request).outcome == "promoted"
    assert [line.outcome for line in list_promotions(ledger, "flights")] == ["promoted"]


def test_a_run_killed_before_its_claim_is_started_again_under_its_id(
    ledger: sa.Engine, processes: Callable[..., Processes]
) -> None:
    request = request_retraining(ledger)
    dispatcher = processes("hang", "promote", hangs=True)
    (first,) = sweep(ledger, dispatcher, now=now())
    assert sweep(ledger, dispatcher, now=now()) == []
    dispatcher.kill(first.run_id)
    dispatcher.works_to_the_end = True
    (second,) = sweep(ledger, dispatcher, now=now())
    assert second.run_id == first.run_id
    assert (look(ledger, request).outcome, look(ledger, request).attempt) == ("promoted", 1)


@pytest.mark.parametrize("dead", ["absent", "ended"])
def test_a_run_killed_after_its_claim_is_followed_by_the_next_attempt(
    ledger: sa.Engine, processes: Callable[..., Processes], dead: str
) -> None:
    request = request_retraining(ledger)
    dispatcher = processes("claim and die", "promote", dead=dead)
    (first,) = sweep(ledger, dispatcher, now=now())
    (second,) = sweep(ledger, dispatcher, now=now())
    assert (second.attempt, second.run_id) == (2, attempt_id(request, 2))
    failed, run = read_attempt(ledger, first.run_id), read_run(ledger, first.run_id)
    assert failed is not None
    assert run is not None
    reason = "its process is gone" if dead == "absent" else "it ended without telling the ledger"
    assert (failed.state, failed.reason, run.state, run.reason) == ("failed", reason, "failed", reason)
    assert look(ledger, request).outcome == "promoted"


def test_a_zombie_that_wakes_after_its_lease_promotes_nothing(
    ledger: sa.Engine, processes: Callable[..., Processes]
) -> None:
    request = request_retraining(ledger)
    dispatcher = processes("claim, wait and promote", "promote", hangs=True)
    assert len(sweep(ledger, dispatcher, now=now())) == 1
    assert sweep(ledger, dispatcher, now=now() + timedelta(minutes=119)) == []
    dispatcher.works_to_the_end = False
    (second,) = sweep(ledger, dispatcher, now=now() + timedelta(minutes=121))
    dispatcher.running[second.run_id].join(60)
    dispatcher.wake.set()
    assert "has ended and promotes nothing" in dispatcher.told.get(timeout=60)
    champion = read_champion(ledger, "flights")
    assert champion is not None
    assert (champion.run_id, champion.version) == (second.run_id, 1)
    assert look(ledger, request).outcome == "promoted"
    assert len(list_promotions(ledger, "flights")) == 1


def test_a_process_that_comes_late_does_not_claim(ledger: sa.Engine, processes: Callable[..., Processes]) -> None:
    request_retraining(ledger)
    dispatcher = processes("hang", hangs=True)
    (first,) = sweep(ledger, dispatcher, now=now())
    assert fail_attempt(ledger, first.run_id, "it took too long")
    late = processes("promote")
    late.start(first)
    assert late.told.get(timeout=60) == "not claimed"
    assert read_champion(ledger, "flights") is None


def test_three_failures_end_in_an_alert_and_the_next_window_may_try(
    ledger: sa.Engine, processes: Callable[..., Processes]
) -> None:
    request = request_retraining(ledger)
    dispatcher = processes("fail", "claim and die", "fail")
    while sweep(ledger, dispatcher, now=now()):
        pass
    assert dispatcher.started == [attempt_id(request, n) for n in (1, 2, 3)]
    assert (look(ledger, request).state, look(ledger, request).outcome) == ("failed", "failed")
    assert [d.decision for d in list_decisions(ledger)] == ["alert", "retrain"]
    assert {run.state for run in list_runs(ledger)} == {"failed"}


def test_the_gates_no_is_an_answer(ledger: sa.Engine, processes: Callable[..., Processes]) -> None:
    request = request_retraining(ledger)
    dispatcher = processes("refuse")
    while sweep(ledger, dispatcher, now=now()):
        pass
    assert len(dispatcher.started) == 1
    assert (look(ledger, request).state, look(ledger, request).reason) == ("refused", "refuse")


class Unreachable(Processes):
    """A dispatcher that cannot start runs of one model."""

    def start(self, attempt: Attempt) -> None:
        if attempt.model == "taxi":
            raise ConfigError("there is no use case taxi")
        super().start(attempt)


def test_a_request_that_cannot_be_started_holds_up_no_other_one_and_burns_no_attempt(
    ledger: sa.Engine, ledger_url: str
) -> None:
    taxi, flights = request_retraining(ledger, "taxi"), request_retraining(ledger)
    dispatcher = Unreachable(ledger_url)
    dispatcher.works = ["promote"]
    for _ in range(5):
        with pytest.raises(ConfigError, match="no use case taxi"):
            sweep(ledger, dispatcher, now=now())
    assert look(ledger, flights).outcome == "promoted"
    assert (look(ledger, taxi).state, look(ledger, taxi).attempt) == ("dispatched", 1)
    assert sweep(ledger, dispatcher, model="flights", now=now()) == []
    able = Processes(ledger_url)
    able.works = ["promote"]
    assert [attempt.attempt for attempt in sweep(ledger, able, model="taxi", now=now())] == [1]


def test_a_run_that_ended_before_the_ledger_was_restored_is_not_waited_for(
    ledger: sa.Engine, processes: Callable[..., Processes]
) -> None:
    """The dispatcher knows the run of a request that the ledger has not dispatched."""
    request = request_retraining(ledger)
    dispatcher = processes("promote", dead="ended")
    gone = FORK.Process(target=int)
    gone.start()
    gone.join()
    dispatcher.running[attempt_id(request, 1)] = gone
    (started,) = sweep(ledger, dispatcher, now=now())
    assert started.run_id == attempt_id(request, 2)
    assert look(ledger, request).outcome == "promoted"


class Careless:
    """Starts whatever it is told to, in its own process, as KFP does with two requests of one run id."""

    def __init__(self, url: str) -> None:
        self.ledger = open_ledger(url)

    def state(self, run_id: str) -> Literal["absent", "running", "ended"]:
        run = read_run(self.ledger, run_id)
        return "absent" if run is None else "running" if run.state == "running" else "ended"

    def start(self, attempt: Attempt) -> None:
        if claim_run(self.ledger, attempt.run_id, f"process {os.getpid()}", "training", attempt.model):
            promote_run(self.ledger, attempt)


def test_ten_sweeps_at_once_execute_one_run(ledger: sa.Engine, ledger_url: str, tmp_path: Path) -> None:
    request = request_retraining(ledger)
    gate = FORK.Barrier(10)

    def call() -> None:
        dispatcher = Careless(ledger_url)
        gate.wait(60)
        sweep(dispatcher.ledger, dispatcher, now=now())

    callers = [FORK.Process(target=call) for _ in range(10)]
    for process in callers:
        process.start()
    for process in callers:
        process.join(120)
    assert [process.exitcode for process in callers] == [0] * 10
    assert look(ledger, request).outcome == "promoted"
    assert open_requests(ledger) == []
    assert [run.id for run in list_runs(ledger)] == [attempt_id(request, 1)]
    assert len(list_promotions(ledger, "flights")) == 1
