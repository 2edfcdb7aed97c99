"""Suppression: why a justified retraining must not start now. Pure rules over what the ledger knows of one model.

Instants are `as_of`, the clock of the data, so that a replay decides as the past would have. docs/adr/0008 says why.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from components.core.ledger.holds import Hold

WEEK = timedelta(days=7)
MAX_BACKOFF = 8
OPEN_STATES = ("requested", "dispatched", "claimed")
UNHELPFUL_STATES = ("refused", "failed")

RequestState = Literal["requested", "dispatched", "claimed", "done", "refused", "failed"]


class Limits(BaseModel):
    """How often a model may be retrained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cooldown: timedelta = Field(ge=timedelta(0))
    """Least time between two requests; it doubles with each retraining in a row that promoted nothing."""
    max_per_week: int = Field(ge=1)
    lease: timedelta = Field(gt=timedelta(0))
    """How long an attempt may take before another one replaces it; wall clock."""


class PastRequest(BaseModel):
    """What counts of an earlier request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    as_of: datetime
    state: RequestState
    window_first: datetime
    window_last: datetime


class Standing(BaseModel):
    """What the ledger knows of a model when a retraining is proposed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hold: Hold | None = None
    champion_version: int | None = None
    later_as_of: datetime | None = None
    """Newest instant at which a later window than this one was judged."""
    requests: list[PastRequest] = []
    """Of this model, under any policy."""


def suppressions(as_of: datetime, version: int, standing: Standing, limits: Limits) -> list[str]:
    """Return each reason why a retraining as of an instant must wait, in words with the instant it ends."""
    reasons = [
        _held(standing.hold),
        _succeeded(version, standing.champion_version),
        _backwards(as_of, standing.later_as_of),
        _in_flight(standing.requests),
        _cooldown(as_of, standing.requests, limits.cooldown),
        _budget(as_of, standing.requests, limits.max_per_week),
    ]
    return [reason for reason in reasons if reason]


def unhelpful_in_a_row(requests: Sequence[PastRequest]) -> int:
    """Count the newest ended requests that promoted nothing, back to the last one that did."""
    ended = sorted((r for r in requests if r.state not in OPEN_STATES), key=lambda r: (r.as_of, r.id), reverse=True)
    count = 0
    for request in ended:
        if request.state not in UNHELPFUL_STATES:
            break
        count += 1
    return count


def cooldown_factor(requests: Sequence[PastRequest]) -> int:
    """Return by how much the cooldown is stretched: 1, 2, 4, then 8."""
    return min(1 << unhelpful_in_a_row(requests), MAX_BACKOFF)


def _held(hold: Hold | None) -> str:
    if hold is None:
        return ""
    return f"held by {hold.held_by} since {_text(hold.held_at)}, until released: {hold.reason}"


def _succeeded(version: int, champion: int | None) -> str:
    if champion is None or champion == version:
        return ""
    return f"version {version} was watched, but the champion is version {champion}; its own windows decide"


def _backwards(as_of: datetime, later: datetime | None) -> str:
    if later is None or as_of >= later:
        return ""
    return (
        f"the clock went backwards: this is as of {_text(as_of)}, but a later window was judged as of {_text(later)};"
        f" until as_of is {_text(later)} again"
    )


def _in_flight(requests: Sequence[PastRequest]) -> str:
    waiting = [r for r in requests if r.state in OPEN_STATES]
    if not waiting:
        return ""
    span = f"{_text(waiting[0].window_first)} to {_text(waiting[0].window_last)}"
    return f"a retraining is in flight: request {waiting[0].id} for the window {span}; until it ends"


def _cooldown(as_of: datetime, requests: Sequence[PastRequest], cooldown: timedelta) -> str:
    if not requests:
        return ""
    newest = max(r.as_of for r in requests)
    factor = cooldown_factor(requests)
    end = newest + factor * cooldown
    if as_of >= end:
        return ""
    hours = f"{cooldown.total_seconds() / 3600:g} h"
    stretched = f" x {factor}, since {unhelpful_in_a_row(requests)} in a row promoted nothing" if factor > 1 else ""
    return f"cooldown of {hours}{stretched} after the retraining as of {_text(newest)}; until {_text(end)}"


def _budget(as_of: datetime, requests: Sequence[PastRequest], max_per_week: int) -> str:
    # One that lies ahead counts too: a clock that stepped back must not free the budget.
    spent = sorted(r.as_of for r in requests if r.as_of > as_of - WEEK)
    if len(spent) < max_per_week:
        return ""
    end = spent[-max_per_week] + WEEK
    return f"budget of {max_per_week} per week: {len(spent)} in the 7 days before; until {_text(end)}"


def _text(instant: datetime) -> str:
    return instant.isoformat(timespec="minutes") if instant.second == instant.microsecond == 0 else instant.isoformat()
