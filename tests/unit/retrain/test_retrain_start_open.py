"""Starting what is requested from many real processes: one start as long as nobody dies, and nothing is lost by a kill.

Runs are files here, as careless as KFP is with run ids: whoever posts makes one more.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
import sqlalchemy as sa

from components.core.errors import ClusterUnreachable
from components.core.ledger.attempts import Attempt, attempt_id
from components.core.ledger.engine import open_ledger
from components.core.ledger.requests import next_dispatch, note_started, read_request, starting_until
from components.core.settings import Settings
from components.retrain.dispatcher import ALONE, start_open
from components.retrain.retrain import retrain

FORK = multiprocessing.get_context("fork")
Fate = Literal["", "killed before the post", "killed after the post", "times out"]


class Folder:
    """A server whose runs are files; a post takes a while, as on a real one."""

    def __init__(self, folder: Path, fate: Fate = "") -> None:
        self.folder, self.fate = folder, fate
        folder.mkdir(exist_ok=True)

    def posts(self, run_id: str) -> int:
        return len(list(self.folder.glob(f"{run_id}.*")))

    def state(self, run_id: str) -> Literal["absent", "running", "ended"]:
        return "running" if self.posts(run_id) else "absent"

    def start(self, attempt: Attempt) -> None:
        if self.fate == "killed before the post":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.3)
        (self.folder / f"{attempt.run_id}.{os.getpid()}.{time.monotonic_ns()}").touch()
        if self.fate == "killed after the post":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fate == "times out":
            raise ClusterUnreachable("no answer")


@pytest.fixture
def processes() -> Iterator[list[Any]]:
    made: list[Any] = []
    yield made
    for process in made:
        process.kill()
        process.join(60)


def call(url: str, folder: Path, fate: Fate, alone: timedelta, gate: Any = None) -> None:
    if gate is not None:
        gate.wait(60)
    start_open(open_ledger(url), Folder(folder, fate), alone=alone)


def test_ten_monitors_at_once_post_once(
    ledger: sa.Engine, ask_for_retraining: Callable[..., str], ledger_url: str, tmp_path: Path, processes: list[Any]
) -> None:
    request = ask_for_retraining(ledger, "flights")
    gate = FORK.Barrier(10)
    processes += [FORK.Process(target=call, args=(ledger_url, tmp_path / "runs", "", ALONE, gate)) for _ in range(10)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 10
    assert Folder(tmp_path / "runs").posts(attempt_id(request, 1)) == 1
    assert starting_until(ledger) is None


@pytest.mark.parametrize("fate", ["killed before the post", "killed after the post"])
def test_a_kill_while_starting_loses_nothing(
    ledger: sa.Engine,
    ask_for_retraining: Callable[..., str],
    ledger_url: str,
    tmp_path: Path,
    processes: list[Any],
    fate: Fate,
) -> None:
    """The one that comes after waits for the lease of the dead one, then starts what is not there."""
    request = ask_for_retraining(ledger, "flights")
    alone = timedelta(seconds=2)
    killed = FORK.Process(target=call, args=(ledger_url, tmp_path / "runs", fate, alone))
    processes.append(killed)
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    until = starting_until(ledger)
    assert until is not None
    started = start_open(ledger, Folder(tmp_path / "runs"), alone=alone)
    assert datetime.now(UTC) >= until
    assert len(started) == (1 if fate == "killed before the post" else 0)
    assert Folder(tmp_path / "runs").posts(attempt_id(request, 1)) == 1


def test_a_post_without_an_answer_is_not_repeated(
    ledger: sa.Engine, ask_for_retraining: Callable[..., str], tmp_path: Path
) -> None:
    request = ask_for_retraining(ledger, "flights")
    alone = timedelta(seconds=1)
    with pytest.raises(ClusterUnreachable):
        start_open(ledger, Folder(tmp_path / "runs", "times out"), alone=alone)
    assert start_open(ledger, Folder(tmp_path / "runs"), alone=alone) == []
    assert Folder(tmp_path / "runs").posts(attempt_id(request, 1)) == 1


def test_nobody_else_gets_an_attempt_that_is_being_started(
    ledger: sa.Engine, ask_for_retraining: Callable[..., str]
) -> None:
    request = ask_for_retraining(ledger, "flights")
    now = datetime.now(UTC)
    first = next_dispatch(ledger, request, now=now, alone=timedelta(minutes=2))
    assert first is not None
    assert next_dispatch(ledger, request, now=now, alone=timedelta(minutes=2)) is None
    assert next_dispatch(ledger, request, now=now) is None
    assert starting_until(ledger, "wind") is None
    until = starting_until(ledger, "flights")
    assert until is not None
    assert timedelta(minutes=1) < until - now < timedelta(minutes=3)
    note_started(ledger, first.run_id)
    assert starting_until(ledger) is None
    again = next_dispatch(ledger, request, now=now)
    assert again is not None
    assert again.run_id == first.run_id


@pytest.mark.parametrize("changes", [{"kfp_host": "http://127.0.0.1:1"}, {"workflow": "w", "kfp_host": ""}, {}])
def test_outside_a_cluster_the_step_leaves_the_request_to_the_command(
    ledger: sa.Engine,
    ask_for_retraining: Callable[..., str],
    ledger_url: str,
    settings: Settings,
    changes: dict[str, str],
) -> None:
    request = ask_for_retraining(ledger, "flights")
    here = settings.model_copy(update={"ledger_url": ledger_url, **changes})
    assert retrain(here, "flights", decision="d", training="flights-training-0123456789ab") == []
    found = read_request(ledger, request)
    assert found is not None
    assert found.state == "requested"


def test_a_dead_api_fails_the_step_and_leaves_the_request_to_its_retry(
    ledger: sa.Engine, ask_for_retraining: Callable[..., str], ledger_url: str, settings: Settings
) -> None:
    request = ask_for_retraining(ledger, "flights")
    here = settings.model_copy(update={"ledger_url": ledger_url, "workflow": "w", "kfp_host": "http://127.0.0.1:1"})
    with pytest.raises(ClusterUnreachable):
        retrain(here, "flights", decision="d", training="flights-training-0123456789ab")
    found = read_request(ledger, request)
    assert found is not None
    assert found.state == "requested"
