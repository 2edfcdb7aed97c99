"""Suppression against an oracle that counts hours, and the instants that it promises."""

import re
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.core.ledger.holds import Hold
from components.core.ledger.suppression import Limits, PastRequest, Standing, cooldown_factor, suppressions

START = datetime(2013, 4, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
# Busy machines generate slowly; that is no finding.
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
OPEN = ["requested", "dispatched", "claimed"]
ENDED = ["done", "refused", "failed"]


def past(hour: int, state: str) -> PastRequest:
    at = START + hour * HOUR
    return PastRequest.model_validate(
        {"id": f"r{hour}", "as_of": at, "state": state, "window_first": at - 48 * HOUR, "window_last": at - 24 * HOUR}
    )


@st.composite
def standings(draw: st.DrawFn) -> tuple[int, Standing, Limits]:
    """Return the hour of a proposal, what the ledger knows, and the limits."""
    hours = draw(st.lists(st.integers(0, 800), unique=True, max_size=8))
    requests = [past(hour, draw(st.sampled_from(ENDED))) for hour in hours]
    if requests and draw(st.booleans()):
        requests[0] = past(hours[0], draw(st.sampled_from([*OPEN, *ENDED])))
    now = draw(st.integers(0, 1000) | st.sampled_from([h + d for h in hours or [0] for d in (47, 48, 49, 167, 168)]))
    held = Hold(model="flights", reason="audit", held_by="ada", held_at=START)
    standing = Standing(
        hold=draw(st.none() | st.just(held)) if draw(st.booleans()) else None,
        champion_version=draw(st.sampled_from([None, 1, 1, 1, 2])),
        later_as_of=draw(st.none() | st.integers(0, 1000).map(lambda hour: START + hour * HOUR)),
        requests=requests,
    )
    cooldown = draw(st.integers(0, 200)) * HOUR
    return now, standing, Limits(cooldown=cooldown, max_per_week=draw(st.integers(1, 4)), lease=HOUR)


def hour_of(instant: datetime) -> int:
    return round((instant - START) / HOUR)


def oracle(now: int, standing: Standing, limits: Limits) -> set[str]:
    """Return the names of the rules that forbid a retraining."""
    requests = sorted(standing.requests, key=lambda r: r.as_of)
    ended = [r.state for r in requests if r.state in ENDED]
    row = len(ended) - 1 - max((i for i, state in enumerate(ended) if state == "done"), default=-1)
    gap = [1, 2, 4, 8, 8, 8, 8, 8, 8][row] * (limits.cooldown / HOUR)
    found = {
        "held": standing.hold is not None,
        "champion": standing.champion_version == 2,
        "clock": standing.later_as_of is not None and now < hour_of(standing.later_as_of),
        "in flight": any(r.state in OPEN for r in requests),
        "cooldown": any(now - hour_of(r.as_of) < gap for r in requests),
        "budget": sum(now - hour_of(r.as_of) < 7 * 24 for r in requests) >= limits.max_per_week,
    }
    return {name for name, forbids in found.items() if forbids}


@calm
@given(case=standings())
def test_suppression_is_what_counting_hours_says(case: tuple[int, Standing, Limits]) -> None:
    now, standing, limits = case
    found = suppressions(START + now * HOUR, 1, standing, limits)
    words = ["held", "champion", "clock", "in flight", "cooldown", "budget"]
    named = [next(word for word in words if word in reason) for reason in found]
    assert len(set(named)) == len(named)
    assert set(named) == oracle(now, standing, limits)
    assert all("until" in reason or "its own windows decide" in reason for reason in found)


@calm
@given(case=standings())
def test_the_promised_instant_is_the_first_at_which_nothing_forbids(case: tuple[int, Standing, Limits]) -> None:
    now, standing, limits = case
    found = suppressions(START + now * HOUR, 1, standing, limits)
    promised = [datetime.fromisoformat(t) for r in found for t in re.findall(r"until (?:as_of is )?(\d{4}\S+)", r)]
    if len(promised) < len(found) or not found:
        return  # held, replaced or in flight: a person or a run ends that, not an instant
    end = max(promised)
    assert suppressions(end, 1, standing, limits) == []
    assert suppressions(end - timedelta(microseconds=1), 1, standing, limits) != []


@calm
@given(states=st.lists(st.sampled_from(ENDED), max_size=12))
def test_back_off_doubles_up_to_eight_and_one_promotion_resets_it(states: list[str]) -> None:
    requests = [past(hour, state) for hour, state in enumerate(states)]
    factor = cooldown_factor(requests)
    assert factor in (1, 2, 4, 8)
    assert cooldown_factor([*requests, past(100, "failed")]) == min(2 * factor, 8)
    assert cooldown_factor([*requests, past(100, "refused")]) == min(2 * factor, 8)
    assert cooldown_factor([*requests, past(100, "done")]) == 1
    assert cooldown_factor([*requests, past(100, "claimed")]) == factor
