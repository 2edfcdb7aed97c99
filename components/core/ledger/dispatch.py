"""Dispatch: start the runs of open requests, and notice those that died. Every dispatch sweeps all of them.

The dispatcher knows how a run is started and whether it lives; the ledger knows whether it should. A kill between the
two leaves a request that the next sweep finds.
"""

import logging
from datetime import datetime, timedelta
from typing import Literal, Protocol

import sqlalchemy as sa

from components.core.errors import DriftlineError
from components.core.ledger.attempts import MAX_ATTEMPTS, Attempt
from components.core.ledger.requests import (
    expire_leases,
    fail_attempt,
    next_dispatch,
    note_started,
    open_requests,
    read_request,
)

log = logging.getLogger(__name__)


class Dispatcher(Protocol):
    """Starts training runs: on this machine, or through the API of Kubeflow Pipelines."""

    def state(self, run_id: str) -> Literal["absent", "running", "ended"]:
        """Tell whether a run exists; `absent` also of a process that is gone without an end."""

    def start(self, attempt: Attempt) -> None:
        """Start the run `attempt.run_id`. Starting one that exists must not start a second one, or raise nothing."""


def sweep(
    engine: sa.Engine, dispatcher: Dispatcher, *, model: str = "", now: datetime, alone: timedelta = timedelta(0)
) -> list[Attempt]:
    """Bring every open request forward and return the attempts that were started, oldest request first.

    A request without a run gets one. A run that nobody claimed and that is absent is started again under the same id.
    A claimed run that is gone, that ended without telling the ledger, or whose lease is over, is followed by the next
    attempt. `now` is the wall clock. While one sweep starts a run, others leave that run alone, at most for as long as
    `alone`: longer than starting takes, where a run that is started twice is two runs for a while. A request whose run
    cannot be started holds up no other one: its error is raised at the end, and the next sweep starts the same run.
    Raises what the dispatcher raises, LedgerError.
    """
    started: list[Attempt] = []
    errors: list[DriftlineError] = []
    expire_leases(engine, now, model)
    for request in open_requests(engine, model):
        try:
            attempt = _bring_forward(engine, dispatcher, request.id, now, alone)
        except DriftlineError as error:
            log.error("request %s of %s: %s", request.id, request.model, error)
            errors.append(error)
        else:
            started += [attempt] if attempt is not None else []
    if errors:
        raise errors[0]
    return started


def _bring_forward(
    engine: sa.Engine, dispatcher: Dispatcher, request_id: str, now: datetime, alone: timedelta
) -> Attempt | None:
    for _ in range(MAX_ATTEMPTS + 1):
        request = read_request(engine, request_id)
        if request is None or request.ended_at is not None:
            return None
        run = dispatcher.state(request.run_id)
        if request.state == "requested" or (request.state == "dispatched" and run == "absent"):
            attempt = next_dispatch(engine, request_id, now=now, alone=alone)
            if attempt is None:
                continue  # claimed or ended since it was read, or being started by another sweep
            if attempt.run_id != request.run_id:
                note_started(engine, attempt.run_id)
                continue  # the one that was read has been given up
            if alone and run == "absent":
                # Another sweep may have started it since it was read; from here on nobody else does.
                run = dispatcher.state(request.run_id)
            if run == "absent":
                log.info("%s: attempt %d of request %s", request.model, attempt.attempt, request_id)
                dispatcher.start(attempt)
                note_started(engine, attempt.run_id)
                return attempt
            note_started(engine, attempt.run_id)
        if run == "running":
            return None
        gone = "its process is gone" if run == "absent" else "it ended without telling the ledger"
        if not fail_attempt(engine, request.run_id, gone):
            return None  # it has ended in the meantime
    return None
