"""Replacing a schedule on a real KFP, broken at every call: never two enabled, and a repeat reaches what is wanted."""

import multiprocessing
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import ClusterError

FORK = multiprocessing.get_context("fork")
# lock, create, disable, enable, delete, unlock: what replacing one schedule posts and deletes.
CALLS = 6


def replaced(workspace: Any) -> None:
    """Declare the replacement of a schedule that runs."""
    workspace.declare()
    workspace.apply()
    assert workspace.enabled() == 1
    workspace.declare(version=workspace.versions[1])


def is_reached(workspace: Any) -> None:
    (found,) = workspace.existing()
    assert found.enabled
    assert found.has["version"] == workspace.versions[1]
    assert workspace.scheduled_workflows() == 1
    assert workspace.actions() == ["unchanged"]


def test_replacing_makes_these_calls(workspace: Any, proxy: Any) -> None:
    replaced(workspace)
    proxy.arm("none", 0)
    workspace.apply(proxy.url)
    kinds = [call.split(":")[-1] if ":" in call else call.split("/")[0] for call in proxy.seen]
    assert kinds == [
        "POST experiments",
        "POST recurringruns",
        "disable",
        "enable",
        "DELETE recurringruns",
        "DELETE experiments",
    ]
    assert len(kinds) == CALLS
    is_reached(workspace)


@pytest.mark.parametrize("at", range(1, CALLS + 1))
@pytest.mark.parametrize(
    ("fault", "lasting"),
    [("refuse", False), ("cut before", False), ("cut after", False), ("refuse", True)],
    ids=["refused", "cut before", "cut after", "refused from then on"],
)
def test_an_api_that_fails_at_any_call(workspace: Any, proxy: Any, fault: Any, lasting: bool, at: int) -> None:
    replaced(workspace)
    seen = []
    proxy.after = lambda: seen.append(workspace.enabled())
    proxy.arm(fault, at, lasting=lasting)
    with suppress(ClusterError):
        workspace.apply(proxy.url)
    assert max(seen, default=0) <= 1
    assert workspace.enabled() <= 1
    workspace.apply()
    is_reached(workspace)


@pytest.mark.parametrize("at", range(1, CALLS + 1))
@pytest.mark.parametrize("fault", ["stop before", "stop after"])
def test_a_process_killed_at_any_call(workspace: Any, proxy: Any, fault: Any, at: int) -> None:
    replaced(workspace)
    child = FORK.Process(target=workspace.apply, args=(proxy.url,))
    proxy.stop = lambda: os.kill(child.pid or 0, signal.SIGKILL)
    proxy.arm(fault, at)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    off = (fault, at) in (("stop after", 3), ("stop before", 4))
    assert workspace.enabled() == workspace.scheduled_workflows() == (0 if off else 1)
    workspace.apply()
    is_reached(workspace)


def test_a_creation_that_is_answered_too_late(workspace: Any, proxy: Any) -> None:
    """The time-out leaves a recurring run that nobody knows: it is disabled, and the repeat deletes it."""
    replaced(workspace)
    proxy.arm("late", 2)
    with pytest.raises(ClusterError, match="create recurring run"):
        workspace.apply(proxy.url, seconds=60)
    assert len(workspace.existing()) == 2
    assert workspace.enabled() == 1
    workspace.apply()
    is_reached(workspace)


@pytest.mark.parametrize("wishes", [1, 2, 4])
def test_several_at_once_come_to_one_end(workspace: Any, proxy: Any, tmp_path: Path, wishes: int) -> None:
    """Four checkouts, with one or several wishes: one after the other, never two enabled."""
    replaced(workspace)
    seen: list[int] = []
    proxy.after = lambda: seen.append(workspace.enabled())
    proxy.arm("none", 0)
    processes = []
    for n in range(4):
        checkout = workspace.elsewhere(tmp_path / str(n))
        checkout.declare(version=workspace.versions[1], max_concurrency=1 + n % wishes)
        processes.append(FORK.Process(target=checkout.apply, args=(proxy.url,), kwargs={"seconds": 60}))
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    assert max(seen) == 1
    (found,) = workspace.existing()
    assert found.enabled
    assert workspace.scheduled_workflows() == 1
    workspace.apply()
    is_reached(workspace)
