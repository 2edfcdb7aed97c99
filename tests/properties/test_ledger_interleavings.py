"""Promotions and retrainings by two actors, interleaved at every statement and commit on real connections.

A scheduler stops each actor before each statement and each commit and lets one of them go on, by a seeded choice. An
actor that waits for the other's lock inside the database is noticed by its silence and left alone until it comes back.
"""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

from components.core.errors import LedgerError
from components.core.evidence import Evidence, Window
from components.core.ledger.attempts import attempt_id
from components.core.ledger.champions import Candidate, list_promotions, promote, read_champion
from components.core.ledger.connections import reading
from components.core.ledger.decisions import list_decisions
from components.core.ledger.proposals import Proposal, decide_once
from components.core.ledger.requests import expire_leases, fail_attempt, next_dispatch, open_requests, read_request
from components.core.ledger.runs import claim_run, finish_run, list_runs, read_run
from components.core.ledger.schema import champions
from components.core.ledger.suppression import Limits
from components.core.mirror import mirror_champion
from components.core.settings import Settings
from components.core.tracking import champion_alias, register_version, set_champion_alias, start_run

SILENCE_SECONDS = 0.02
DEADLINE_SECONDS = 120


class Interleaving:
    """Run actors in threads, one step at a time, in an order drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a schedule
        self.changed = threading.Condition()
        self.stopped: set[threading.Thread] = set()
        self.granted: set[threading.Thread] = set()
        self.actors: list[threading.Thread] = []
        self.errors: list[Exception] = []
        self.steps = 0

    def stop(self, *_: Any, **__: Any) -> None:
        """Wait for the scheduler; a listener of every statement and commit in this process."""
        me = threading.current_thread()
        if me in self.actors:
            with self.changed:
                self.stopped.add(me)
                self.changed.notify_all()
                self.changed.wait_for(lambda: me in self.granted, DEADLINE_SECONDS)
                self.granted.discard(me)

    @contextmanager
    def listening(self) -> Iterator[None]:
        events = ("before_cursor_execute", "commit")
        for name in events:
            sa.event.listen(sa.Engine, name, self.stop)
        try:
            yield
        finally:
            for name in events:
                sa.event.remove(sa.Engine, name, self.stop)

    def run(self, *works: Callable[[], None]) -> None:
        """Run every work to its end; raise the first error of one."""
        self.actors = [threading.Thread(target=self._call, args=(work,), daemon=True) for work in works]
        with self.listening():
            for actor in self.actors:
                actor.start()
            while any(actor.is_alive() for actor in self.actors):
                self._step()
        if self.errors:
            raise self.errors[0]

    def _call(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self.errors.append(error)
        finally:
            with self.changed:
                self.actors.remove(threading.current_thread())
                self.changed.notify_all()

    def _step(self) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.stopped or not self.actors, DEADLINE_SECONDS), "all are blocked"
            if not self.stopped:
                return
            chosen = self.random.choice(sorted(self.stopped, key=lambda actor: actor.name))
            self.stopped.discard(chosen)
            self.granted.add(chosen)
            self.steps += 1
            self.changed.notify_all()
            self.changed.wait_for(lambda: chosen in self.stopped or chosen not in self.actors, SILENCE_SECONDS)


class Attempt(NamedTuple):
    """What one call of promote was asked and answered."""

    run: str
    version: int
    expected: int | None
    outcome: str


Promote = Callable[[sa.Engine, Candidate, int | None], str]


def candidate(model: str, run: str, version: int) -> Candidate:
    return Candidate(
        model=model,
        version=version,
        digest=f"model-{version}",
        bento_digest=f"bento-{version}",
        bento_uri=f"bentos/bento-{version}.tar",
        run_id=run,
        verdict_digest=f"verdict-{version}",
        as_of=datetime(2013, 4, 1, tzinfo=UTC),
    )


def champion_version(ledger: sa.Engine, model: str) -> int | None:
    champion = read_champion(ledger, model)
    return champion.version if champion else None


def attempt(ledger: sa.Engine, model: str, run: str, version: int, promote_by: Promote, log: list[Attempt]) -> None:
    """Do what a run does: claim it, compare with the champion of now, promote."""
    claim_run(ledger, run, run, "training", model)
    expected = champion_version(ledger, model)
    log.append(Attempt(run, version, expected, promote_by(ledger, candidate(model, run, version), expected)))


def interleave(ledger: sa.Engine, seed: int, promote_by: Promote = promote) -> tuple[str, list[Attempt], int]:
    """Let two actors promote twice each; by chance there is a champion, calls are retried, or both are one run."""
    model = f"model_{seed}"
    choices = random.Random(seed)  # noqa: S311 - a schedule
    log: list[Attempt] = []
    if choices.random() < 0.5:
        attempt(ledger, model, f"{model}-first", 1, promote, log)
    same_run, retries = choices.random() < 0.2, choices.random() < 0.3

    def act(actor: int) -> None:
        for turn in range(2):
            version = 10 * turn + (10 if same_run else 100 * actor + 10)
            for _ in range(2 if retries else 1):
                attempt(ledger, model, f"{model}-{version}", version, promote_by, log)

    interleaving = Interleaving(seed)
    interleaving.run(lambda: act(1), lambda: act(2))
    return model, log, interleaving.steps


def violations(ledger: sa.Engine, model: str, log: list[Attempt]) -> list[str]:
    """Return every rule that the ledger breaks after these attempts."""
    history = list_promotions(ledger, model)
    promoted = [line for line in history if line.outcome == "promoted"]
    with reading(ledger) as connection:
        row = connection.execute(sa.select(champions).where(champions.c.model == model)).one()
    found = []
    if (row.version, row.run_id) != (promoted[-1].version, promoted[-1].run_id):
        found.append(f"the champion {row.version} is not the last promoted one {promoted[-1].version}")
    if row.revision != len(promoted):
        found.append(f"revision {row.revision} after {len(promoted)} promotions")
    chain = [line.previous_version for line in promoted]
    if chain != [None, *(line.version for line in promoted)][: len(promoted)]:
        found.append(f"the history is no chain: {[(line.previous_version, line.version) for line in promoted]}")
    found += [
        f"{number} runs were promoted against {expected}"
        for expected in {line.previous_version for line in history}
        if (number := chain.count(expected)) != 1
    ]
    lines = {line.run_id: line for line in history}
    if sorted(lines) != sorted({a.run for a in log}) or len(lines) != len(history):
        found.append("not one line of history per run")
    for run, line in lines.items():
        record = read_run(ledger, run)
        if record is None or record.state != ("succeeded" if line.outcome == "promoted" else "superseded"):
            found.append(f"{run} was {line.outcome}, its record says {record}")
        mine = [a for a in log if a.run == run]
        if {(a.version, a.outcome) for a in mine} != {(line.version, line.outcome)}:
            found.append(f"{run} was told {mine}, the history says {line}")
        # A retry compares with a newer champion; the first call that got through is the one that counts.
        if line.previous_version not in {a.expected for a in mine}:
            found.append(f"{run} compared with {mine}, the history says {line.previous_version}")
    return found


@pytest.mark.parametrize("count", [12, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_no_interleaving_gives_a_wrong_champion(ledger: sa.Engine, count: int) -> None:
    outcomes = []
    steps = 0
    for seed in range(count):
        model, log, taken = interleave(ledger, seed)
        assert violations(ledger, model, log) == [], f"seed {seed}: {log}"
        outcomes += [a.outcome for a in log]
        steps += taken
    # The schedules are worth something: actors did meet, and both outcomes occurred often.
    assert min(outcomes.count("promoted"), outcomes.count("superseded")) > count / 20
    assert steps > 30 * count


def test_the_interleavings_find_a_promotion_that_compares_by_itself(ledger: sa.Engine) -> None:
    """Reading the champion, comparing in Python and then promoting over whatever is there now is what must not be."""

    def compare_then_promote(database: sa.Engine, mine: Candidate, expected: int | None) -> str:
        if champion_version(database, mine.model) != expected:
            return promote(database, mine, -1)
        # It takes its time between comparing and promoting, so that schedules which hit the gap are not rare.
        for _ in range(8):
            champion_version(database, mine.model)
        return promote(database, mine, champion_version(database, mine.model))

    for seed in range(100):
        model, log, _ = interleave(ledger, seed, compare_then_promote)
        if any("compared with" in problem for problem in violations(ledger, model, log)):
            return
    pytest.fail("100 interleavings found nothing wrong")


# -- a drift that two monitors see and two dispatchers carry out

AS_OF = datetime(2013, 5, 15, tzinfo=UTC)
LIMITS = Limits(cooldown=timedelta(hours=48), max_per_week=1, lease=timedelta(minutes=120))


def drift(model: str, week: int) -> Proposal:
    """Propose to retrain; two weeks are seen at one instant."""
    first = AS_OF - timedelta(days=9 + 7 * week)
    evidence = Evidence(
        use_case=model,
        window=Window(first=first, last=first + timedelta(days=7)),
        as_of=AS_OF,
        version=1,
        model="7",
        rows=900,
        labelled_rows=900,
        sanity=[],
    )
    return Proposal(
        decision="retrain", rung="drift", reasons=["r"], policy="ladder", policy_digest="5", evidence=evidence
    )


def close_the_loop(ledger: sa.Engine, model: str, actor: int, choices: random.Random) -> list[str]:
    """Decide, then do what a dispatcher or a run might do, in any order; return what was promoted."""
    promoted = []
    same_claimant = choices.random() < 0.5
    for _ in range(2):
        decide_once(ledger, drift(model, choices.choice([0, 0, 1])), LIMITS, datetime.now(UTC))
        for request in open_requests(ledger, model):
            now = datetime.now(UTC)
            next_dispatch(ledger, request.id, now=now)
            claimant = "both" if same_claimant else f"actor {actor}"
            claimed = claim_run(ledger, request.run_id, claimant, "training", model)
            end = choices.choice(["promote", "promote", "refuse", "fail", "give up", "expire"])
            if end == "give up":
                fail_attempt(ledger, request.run_id, "gone")
            elif end == "expire":
                expire_leases(ledger, now + timedelta(hours=3), model)
            elif claimed and end == "promote":
                expected = champion_version(ledger, model)
                try:
                    outcome = promote(ledger, candidate(model, request.run_id, 10 * request.attempt), expected)
                except LedgerError:
                    continue  # the other actor has given it up
                promoted += [request.run_id] if outcome == "promoted" else []
            elif claimed:
                finish_run(ledger, request.run_id, "refused" if end == "refuse" else "failed", reason=end)
    return promoted


def loop_violations(ledger: sa.Engine, model: str, promoted: list[str]) -> list[str]:
    """Return every rule that the ledger breaks after two actors closed the loop."""
    decisions = list_decisions(ledger, model)
    asked = [d.request for d in decisions if d.decision == "retrain"]
    found = [] if len(asked) == 1 else [f"{len(asked)} requests for one drift"]
    request = read_request(ledger, str(asked[0]))
    if request is None:
        return [*found, "a decision without its request"]
    runs = {run.id: run for run in list_runs(ledger, use_case=model, limit=100)}
    attempts = [attempt_id(request.id, number) for number in (1, 2, 3)]
    if not set(runs) <= set(attempts[: request.attempt]):
        found.append(f"runs {sorted(runs)} of a request with {request.attempt} attempts")
    running = [run.id for run in runs.values() if run.state == "running"]
    if running != ([request.run_id] if request.state == "claimed" else []):
        found.append(f"{running} run while the request is {request.state}")
    champion = read_champion(ledger, model)
    history = [line.run_id for line in list_promotions(ledger, model) if line.outcome == "promoted"]
    if history != ([champion.run_id] if champion else []) or set(promoted) != set(history):
        found.append(f"promoted {history}, told {promoted}, champion {champion}")
    if (request.outcome == "promoted") != bool(history):
        found.append(f"the request says {request.outcome!r} after {history}")
    alerts = [d for d in decisions if d.decision == "alert"]
    if len(alerts) != (request.state == "failed"):
        found.append(f"{len(alerts)} alerts of a request that is {request.state}")
    return found


@pytest.mark.parametrize("count", [10, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_no_interleaving_starts_a_second_retraining(ledger: sa.Engine, count: int) -> None:
    ends: list[str] = []
    for seed in range(count):
        model, promoted = f"loop_{seed}", list[str]()

        def act(actor: int, model: str = model, promoted: list[str] = promoted, seed: int = seed) -> None:
            promoted += close_the_loop(ledger, model, actor, random.Random(2 * seed + actor))  # noqa: S311

        Interleaving(seed).run(lambda: act(0), lambda: act(1))
        assert loop_violations(ledger, model, promoted) == [], f"seed {seed}"
        (request,) = [d for d in list_decisions(ledger, model) if d.decision == "retrain"]
        ends.append(request.outcome or "open")
    assert len({end.split(":")[0] for end in ends}) >= 2


# -- MLflow's alias beside the ledger


def promote_and_mirror(settings: Settings, ledger: sa.Engine, seed: int, mirror: Callable[..., Any]) -> None:
    """Let two actors promote over champion 1 and move the alias, all on one model of their own."""
    model = f"alias_{seed}"
    for version in range(1, 6):
        assert register_version(settings, model, start_run(settings, model, f"{model}-{version}")) == version
    log: list[Attempt] = []
    attempt(ledger, model, f"{model}-1", 1, promote, log)
    mirror(settings, ledger, model)

    def act(actor: int) -> None:
        for turn in range(2):
            version = 2 + 2 * turn + actor
            attempt(ledger, model, f"{model}-{version}", version, promote, log)
            mirror(settings, ledger, model)

    Interleaving(seed).run(lambda: act(0), lambda: act(1))
    assert violations(ledger, model, log) == []


def strayed(settings: Settings, ledger: sa.Engine, count: int, mirror: Callable[..., Any]) -> list[int]:
    """Return the seeds after which the alias is not the ledger's champion."""
    found = []
    for seed in range(count):
        promote_and_mirror(settings, ledger, seed, mirror)
        if champion_alias(settings, f"alias_{seed}") != champion_version(ledger, f"alias_{seed}"):
            found.append(seed)
    return found


@pytest.mark.parametrize("count", [3, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_the_alias_ends_at_the_champion(settings: Settings, ledger: sa.Engine, count: int) -> None:
    assert strayed(settings, ledger, count, mirror_champion) == []


@pytest.mark.slow
def test_an_alias_that_is_written_and_not_compared_strays(settings: Settings, ledger: sa.Engine) -> None:
    """The reason for reading the ledger again after the write."""

    def write_once(own: Settings, database: sa.Engine, model: str) -> None:
        version = champion_version(database, model)
        assert version is not None
        set_champion_alias(own, model, version)

    assert strayed(settings, ledger, 60, write_once) != []
