"""Decisions: one request for any number of alerts, and a hold in words when a retraining must wait."""

import multiprocessing
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from components.core.errors import ConfigError
from components.core.evidence import Evidence, Window
from components.core.ledger import connections
from components.core.ledger.attempts import attempt_id
from components.core.ledger.champions import Candidate, promote
from components.core.ledger.decisions import list_decisions, read_decision, watched_windows
from components.core.ledger.engine import open_ledger
from components.core.ledger.holds import hold, read_hold, release
from components.core.ledger.proposals import Proposal, decide_once
from components.core.ledger.requests import next_dispatch, open_requests, read_request
from components.core.ledger.runs import claim_run, finish_run, mean_run_seconds
from components.core.ledger.schema import decisions, requests, runs
from components.core.ledger.suppression import Limits

FORK = multiprocessing.get_context("fork")
MONDAY = datetime(2013, 5, 6, tzinfo=UTC)
WEEK = timedelta(days=7)
LIMITS = Limits(cooldown=timedelta(hours=48), max_per_week=1, lease=timedelta(minutes=120))


def now() -> datetime:
    return datetime.now(UTC)


def proposal(
    week: int = 0, decision: str = "retrain", *, version: int = 1, rows: int = 1000, **changes: Any
) -> Proposal:
    """Propose something for the week that begins `week` weeks after the first one, judged two days after its end."""
    first = MONDAY + week * WEEK
    evidence = Evidence(
        use_case=changes.pop("model", "flights"),
        window=Window(first=first, last=first + WEEK),
        as_of=changes.pop("as_of", first + WEEK + timedelta(hours=48)),
        version=version,
        model="7" * 64,
        rows=rows,
        labelled_rows=rows,
        sanity=[],
    )
    given = {"decision": decision, "rung": "performance", "reasons": ["auc fell to 0.61"], "policy": "ladder"}
    return Proposal.model_validate(given | {"policy_digest": "5" * 64, "evidence": evidence} | changes)


def end(ledger: sa.Engine, state: Any, reason: str = "") -> str:
    """Dispatch, claim and end the open request; return its run."""
    (request,) = open_requests(ledger)
    attempt = next_dispatch(ledger, request.id, now=now())
    assert attempt is not None
    assert claim_run(ledger, attempt.run_id, "workflow", "training", "flights")
    assert finish_run(ledger, attempt.run_id, state, reason=reason)
    return attempt.run_id


def test_a_justified_retraining_makes_one_request_however_often_it_is_decided(ledger: sa.Engine) -> None:
    first = decide_once(ledger, proposal(), LIMITS, now())
    assert (first.decision, first.rung, first.reasons) == ("retrain", "performance", ["auc fell to 0.61"])
    (request,) = open_requests(ledger)
    assert (request.id, request.decision_id, request.state, request.attempt) == (
        first.request,
        first.id,
        "requested",
        1,
    )
    assert (request.as_of, request.lease_seconds) == (first.as_of, 7200)
    assert (first.request_state, first.run, first.outcome) == ("requested", None, None)
    for _ in range(50):
        assert decide_once(ledger, proposal(), LIMITS, now()) == first
    # Labels came late: other evidence of the same window is no second reason.
    assert decide_once(ledger, proposal(rows=1001), LIMITS, now()) == first
    assert list_decisions(ledger) == [first]
    end(ledger, "refused", "not better")
    assert decide_once(ledger, proposal(), LIMITS, now()).id == first.id
    assert open_requests(ledger) == []


@pytest.mark.parametrize("decision", ["alert", "report", "insufficient"])
def test_other_decisions_are_rows_of_their_own_and_request_nothing(ledger: sa.Engine, decision: str) -> None:
    retrain = decide_once(ledger, proposal(), LIMITS, now())
    first = decide_once(ledger, proposal(1, decision), LIMITS, now())
    assert (first.decision, first.suppressed_by, first.request) == (decision, "", None)
    assert decide_once(ledger, proposal(1, decision), LIMITS, now()) == first
    # About a window that was retrained for, too: what is wrong with it now must be seen.
    again = decide_once(ledger, proposal(0, decision, rows=999), LIMITS, now())
    assert again.decision == decision
    assert {d.id for d in list_decisions(ledger)} == {retrain.id, first.id, again.id}
    assert len(open_requests(ledger)) == 1


def test_fifty_alerts_that_are_on_hold_are_one_row(ledger: sa.Engine) -> None:
    decide_once(ledger, proposal(), LIMITS, now())
    found = [decide_once(ledger, proposal(1), LIMITS, now()) for _ in range(50)]
    assert {d.id for d in found} == {found[0].id}
    assert (found[0].decision, found[0].request) == ("hold", None)
    assert found[0].suppressed_by.startswith("a retraining is in flight: request")
    assert len(list_decisions(ledger)) == 2


def test_a_held_trigger_is_not_lost(ledger: sa.Engine) -> None:
    assert decide_once(ledger, proposal(), LIMITS, now()).decision == "retrain"
    end(ledger, "refused")
    early = decide_once(ledger, proposal(1, as_of=MONDAY + timedelta(days=12)), LIMITS, now())
    assert early.decision == "hold"
    # Refused once, so the cooldown of two days is four.
    assert "cooldown of 48 h x 2, since 1 in a row promoted nothing" in early.suppressed_by
    assert "until 2013-05-19T00:00+00:00" in early.suppressed_by
    assert early.suppressed_by.endswith("budget of 1 per week: 1 in the 7 days before; until 2013-05-22T00:00+00:00")
    later = decide_once(ledger, proposal(1, as_of=MONDAY + 2 * WEEK + timedelta(days=2)), LIMITS, now())
    assert later.decision == "retrain"
    assert later.request != early.request


def test_the_weekly_budget(ledger: sa.Engine) -> None:
    short = Limits(cooldown=timedelta(0), max_per_week=2, lease=timedelta(minutes=1))
    for week in (0, 1):
        as_of = MONDAY + 2 * WEEK + timedelta(days=week)
        assert decide_once(ledger, proposal(week, as_of=as_of), short, now()).decision == "retrain"
        end(ledger, "succeeded")
    held = decide_once(ledger, proposal(2, as_of=MONDAY + 3 * WEEK - timedelta(seconds=1)), short, now())
    assert held.suppressed_by == "budget of 2 per week: 2 in the 7 days before; until 2013-05-27T00:00+00:00"
    assert decide_once(ledger, proposal(2, as_of=MONDAY + 3 * WEEK), short, now()).decision == "retrain"


def test_a_person_holds_and_releases(ledger: sa.Engine) -> None:
    held = hold(ledger, "flights", reason="audit", held_by="ada", now=MONDAY)
    assert hold(ledger, "flights", reason="another", held_by="bob", now=now()) == held == read_hold(ledger, "flights")
    decision = decide_once(ledger, proposal(), LIMITS, now())
    assert decision.suppressed_by == "held by ada since 2013-05-06T00:00+00:00, until released: audit"
    assert decide_once(ledger, proposal(model="taxi"), LIMITS, now()).decision == "retrain"
    assert release(ledger, "flights")
    assert not release(ledger, "flights")
    assert read_hold(ledger, "flights") is None
    assert decide_once(ledger, proposal(), LIMITS, now()).decision == "retrain"
    for reason, name in (("", "ada"), ("audit", " ")):
        with pytest.raises(ConfigError, match="a reason and a name"):
            hold(ledger, "flights", reason=reason, held_by=name, now=now())


def test_a_clock_that_goes_backwards_holds_and_loses_nothing(ledger: sa.Engine) -> None:
    decide_once(ledger, proposal(3, "report"), LIMITS, now())
    back = decide_once(ledger, proposal(1), LIMITS, now())
    assert back.decision == "hold"
    assert "the clock went backwards: this is as of 2013-05-22T00:00+00:00" in back.suppressed_by
    assert "until as_of is 2013-06-05T00:00+00:00 again" in back.suppressed_by
    # What requests nothing needs no clock; two monitors of one window may differ by a moment.
    assert decide_once(ledger, proposal(1, "alert"), LIMITS, now()).decision == "alert"
    earlier = MONDAY + 4 * WEEK + timedelta(hours=47)
    assert decide_once(ledger, proposal(3, as_of=earlier), LIMITS, now()).decision == "retrain"


def test_an_instant_that_has_not_come_is_refused(ledger: sa.Engine) -> None:
    for decision in ("retrain", "report"):
        with pytest.raises(ConfigError, match="lies in the future"):
            decide_once(ledger, proposal(decision=decision), LIMITS, MONDAY)
    assert list_decisions(ledger) == []


def test_a_model_that_was_replaced_is_not_retrained(ledger: sa.Engine) -> None:
    for version in (1, 2):
        run = f"run-{version}"
        claim_run(ledger, run, run, "training", "flights")
        card = {"model": "flights", "version": version, "digest": "m", "bento_digest": "b", "bento_uri": "u"}
        candidate = Candidate.model_validate(card | {"run_id": run, "verdict_digest": "v", "as_of": MONDAY})
        assert promote(ledger, candidate, version - 1 or None) == "promoted"
    old = decide_once(ledger, proposal(version=1), LIMITS, now())
    assert old.suppressed_by == "version 1 was watched, but the champion is version 2; its own windows decide"
    assert decide_once(ledger, proposal(version=2), LIMITS, now()).decision == "retrain"


def test_two_policies_share_one_model(ledger: sa.Engine) -> None:
    assert decide_once(ledger, proposal(), LIMITS, now()).decision == "retrain"
    assert decide_once(ledger, proposal(policy="drift"), LIMITS, now()).decision == "hold"


@pytest.mark.parametrize(("state", "outcome"), [("refused", "refused: not better"), ("succeeded", "succeeded")])
def test_a_decision_tells_what_came_of_it(ledger: sa.Engine, state: str, outcome: str) -> None:
    decision = decide_once(ledger, proposal(cost_estimate_seconds=12.5), LIMITS, now())
    run = end(ledger, state, "not better" if state == "refused" else "")
    (found,) = list_decisions(ledger, "flights")
    assert (found.run, found.outcome, found.cost_estimate_seconds) == (run, outcome, 12.5)
    assert found.evidence == proposal().evidence
    assert found.model_copy(update={"run": None, "outcome": None, "request_state": "requested"}) == decision


def test_decisions_are_listed_newest_first_and_found_by_the_beginning_of_their_id(ledger: sa.Engine) -> None:
    made = [decide_once(ledger, proposal(week, "report"), LIMITS, now()) for week in range(4)]
    other = decide_once(ledger, proposal(0, "alert", model="taxi"), LIMITS, now())
    assert list_decisions(ledger) == [other, *reversed(made)]
    assert list_decisions(ledger, "flights", 2) == [made[3], made[2]]
    assert read_decision(ledger, made[1].id) == read_decision(ledger, made[1].id[:16]) == made[1]
    absent = next(text for n in range(10) if not any(d.id.startswith(text := str(n) * 8) for d in [*made, other]))
    assert read_decision(ledger, absent) is None
    for bad in ("", "abc", "zzzz", "%%%%", "a" * 65):
        with pytest.raises(ConfigError, match="no decision id"):
            read_decision(ledger, bad)
    with connections.writing(ledger) as connection:
        twin = dict(connection.execute(sa.select(decisions).where(decisions.c.id == made[0].id)).mappings().one())
        connection.execute(sa.insert(decisions).values(**twin | {"id": made[0].id[:63] + "g"}))
    with pytest.raises(ConfigError, match="several decisions"):
        read_decision(ledger, made[0].id[:63])


def test_watched_windows_are_the_newest_evidence_of_one_version(ledger: sa.Engine) -> None:
    made = [proposal(0, "report"), proposal(1, "report"), proposal(0, "report", rows=900, as_of=MONDAY + 5 * WEEK)]
    for one in [*made, proposal(2, "report", version=2), proposal(3, "report", model="taxi")]:
        decide_once(ledger, one, LIMITS, now())
    assert watched_windows(ledger, "flights", 1) == [made[2].evidence, made[1].evidence]
    assert watched_windows(ledger, "flights", 3) == []


def test_the_cost_of_a_run_is_the_mean_of_the_newest_succeeded_ones(ledger: sa.Engine) -> None:
    assert mean_run_seconds(ledger, "training", "flights") is None
    row = {"pipeline": "training", "use_case": "flights", "claimant": "c", "reason": "", "failed_step": ""}
    with connections.writing(ledger) as connection:
        for n in range(8):
            begun, state = MONDAY + n * WEEK, "failed" if n == 7 else "succeeded"
            times = {"started_at": begun, "finished_at": begun + timedelta(seconds=10 * n)}
            connection.execute(sa.insert(runs).values(id=f"run-{n}", **row, state=state, **times))
    assert mean_run_seconds(ledger, "training", "flights") == pytest.approx(40)
    assert mean_run_seconds(ledger, "training", "flights", newest=2) == pytest.approx(55)
    assert mean_run_seconds(ledger, "scoring", "flights") is None


def test_the_database_itself_refuses_a_second_open_request(ledger: sa.Engine) -> None:
    decide_once(ledger, proposal(), LIMITS, now())
    with connections.reading(ledger) as connection:
        row = dict(connection.execute(sa.select(requests)).mappings().one())
    other = {"id": attempt_id(row["id"], 9), "window_first": MONDAY - WEEK}
    same_window = {"id": other["id"], "state": "done", "ended_at": now()}
    for changes in (other, same_window):
        with pytest.raises(IntegrityError), connections.writing(ledger) as connection:
            connection.execute(sa.insert(requests).values(**row | changes))
    with connections.writing(ledger) as connection:
        connection.execute(sa.insert(requests).values(**row | other | same_window))
    with pytest.raises(IntegrityError), connections.writing(ledger) as connection:
        connection.execute(sa.update(decisions).values(request_id=None))


def decide_often(url: str, gate: Any, answers: Any, own: list[Proposal]) -> None:
    ledger = open_ledger(url)
    gate.wait(60)
    answers.put([decide_once(ledger, one, LIMITS, now()).model_dump(mode="json") for one in own])


@pytest.mark.parametrize("windows", [1, 5])
def test_fifty_deciders_in_two_processes_make_one_request(ledger: sa.Engine, ledger_url: str, windows: int) -> None:
    """Of one window: one decision. Of five: one is retrained for, the others are told which one is in flight."""
    gate, answers = FORK.Barrier(2), FORK.Queue()
    # Both see each window at the same instant of the data, so no window looks earlier than another one.
    as_of = MONDAY + 10 * WEEK
    own = [[proposal((n + shift) % windows, as_of=as_of) for n in range(25)] for shift in (0, windows // 2)]
    processes = [FORK.Process(target=decide_often, args=(ledger_url, gate, answers, work)) for work in own]
    for process in processes:
        process.start()
    told = [decision for _ in processes for decision in answers.get(timeout=120)]
    for process in processes:
        process.join(60)
    (request,) = open_requests(ledger)
    assert len(told) == 50
    assert {d["request"] for d in told if d["decision"] == "retrain"} == {request.id}
    assert Counter(d["decision"] for d in list_decisions_plain(ledger)) == Counter({"retrain": 1, "hold": windows - 1})
    assert {d["id"] for d in told} == {d["id"] for d in list_decisions_plain(ledger)}
    assert all(request.id in d["suppressed_by"] for d in told if d["decision"] == "hold")
    found = read_request(ledger, request.id)
    assert found is not None
    assert (found.state, found.attempt) == ("requested", 1)


def list_decisions_plain(ledger: sa.Engine) -> list[dict[str, Any]]:
    return [decision.model_dump(mode="json") for decision in list_decisions(ledger)]
