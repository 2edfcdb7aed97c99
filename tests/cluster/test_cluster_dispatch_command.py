"""`driftline dispatch` on a real KFP: what a monitor left as `requested` is started from a terminal, once."""

import json
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from components.core.ledger.champions import read_champion
from components.core.ledger.engine import open_ledger
from components.core.ledger.requests import read_attempt, read_request
from components.core.ledger.runs import read_run
from components.core.settings import Settings

USE_CASE = "wind"
AS_OF = datetime(2013, 6, 20, tzinfo=UTC)
WAIT_SECONDS = 900
CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = pytest.mark.timeout(1800)


def test_a_stranded_request_is_started_and_a_lost_attempt_followed_by_the_next(
    cluster: Settings, driftline: CommandLine, images: Path, ask_for_retraining: Callable[..., str]
) -> None:
    ledger = open_ledger(cluster.ledger_url)
    request_id = ask_for_retraining(ledger, USE_CASE, AS_OF)
    stranded = read_request(ledger, request_id)
    assert stranded is not None
    assert (stranded.state, stranded.attempt) == ("requested", 1)

    dispatch = ("dispatch", "--use-case", USE_CASE, "--images", str(images))
    assert driftline(*dispatch).stdout == f"{USE_CASE}: attempt 1, run {stranded.run_id}\n"
    assert driftline(*dispatch).stdout == "nothing to start\n"
    # Somebody ends it by hand: no answer to the request, so another attempt follows.
    wait_for_claim(ledger, stranded.run_id)
    driftline("runs", "stop", stranded.run_id)
    ended = wait_for(driftline, stranded.run_id)
    assert ended in ("cancelled", "failed")
    refused = driftline("runs", "retry", stranded.run_id, check=False)
    assert refused.returncode == 2
    assert "driftline dispatch the next attempt" in refused.stderr

    second = driftline(*dispatch).stdout
    following = read_request(ledger, request_id)
    assert following is not None
    assert second == f"{USE_CASE}: attempt 2, run {following.run_id}\n"
    result = wait_for(driftline, following.run_id)
    done = read_request(ledger, request_id)
    assert done is not None
    assert done.attempt == 2
    if result == "succeeded":
        champion = read_champion(ledger, USE_CASE)
        assert champion is not None
        assert (done.state, done.outcome, champion.run_id) == ("done", "promoted", following.run_id)
    else:
        assert (result, done.state) == ("refused", "refused")
    lost = read_attempt(ledger, stranded.run_id)
    assert lost is not None
    assert lost.state == ended
    assert driftline(*dispatch).stdout == "nothing to start\n"


def wait_for_claim(ledger: sa.Engine, run_id: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while read_run(ledger, run_id) is None:
        assert time.monotonic() < deadline, f"nobody claimed {run_id}"
        time.sleep(1)


def wait_for(driftline: CommandLine, run_id: str) -> str:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        shown = json.loads(driftline("runs", "show", run_id, "--json").stdout)
        if shown["finished_at"]:
            return str(shown["result"])
        time.sleep(3)
    pytest.fail(f"{run_id} did not end")
