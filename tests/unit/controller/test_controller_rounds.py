"""Parts go round by themselves: one that fails is tried later and later, the others do not notice."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.controller.own_metrics import own_samples
from pipelines.controller.rounds import Part, Rounds, pause_after


def wait_until(condition: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.01)


@given(seconds=st.floats(0.01, 3600), failures=st.integers(0, 10_000), longest=st.floats(0.01, 3600))
def test_a_pause_grows_and_stays_bounded(seconds: float, failures: int, longest: float) -> None:
    pause = pause_after(seconds, failures, longest)
    assert seconds <= pause <= max(seconds, longest)
    assert pause_after(seconds, 0, longest) == seconds
    assert pause_after(seconds, failures + 1, longest) >= pause


def test_a_part_that_raises_is_counted_and_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    done: list[float] = []

    def broken() -> None:
        raise ZeroDivisionError("of this part")

    parts = [Part("dispatch", 0.01, broken, longest_seconds=0.02), Part("kfp", 0.01, lambda: done.append(1.0))]
    rounds = Rounds(parts, is_leader=lambda: True)
    rounds.start()
    wait_until(lambda: rounds.standings["dispatch"].failures >= 3 and len(done) >= 10)
    assert rounds.lost() == []
    assert rounds.stop(5) == []
    standing = rounds.standings["dispatch"]
    assert (standing.succeeded_at, standing.failures) == (0.0, standing.rounds)
    assert rounds.standings["kfp"].failures == 0
    assert rounds.standings["kfp"].succeeded_at == pytest.approx(time.time(), abs=20)
    assert "of this part" in caplog.text
    names = {(s.name, s.labels.get("part")) for s in own_samples(rounds, leads=True)}
    assert ("driftline_controller_last_success_timestamp_seconds", "kfp") in names
    assert ("driftline_controller_last_success_timestamp_seconds", "dispatch") not in names
    assert ("driftline_controller_failures_total", "dispatch") in names


def test_a_success_ends_the_row_of_failures() -> None:
    outcomes = iter([True, True, False, True])

    def sometimes() -> None:
        if next(outcomes, False):
            raise ValueError("this time")

    rounds = Rounds([Part("kfp", 0.01, sometimes, longest_seconds=0.01)], is_leader=lambda: True)
    rounds.start()
    wait_until(lambda: rounds.standings["kfp"].rounds >= 6)
    rounds.stop(5)
    assert rounds.standings["kfp"].failures == 3
    assert rounds.standings["kfp"].failures_in_a_row == 0


def test_who_does_not_lead_rests_and_still_looks() -> None:
    leads = threading.Event()
    acted, looked, rested = [], [], []
    parts = [
        Part("schedules", 0.02, lambda: acted.append(1), rest=lambda: rested.append(1)),
        Part("kfp", 0.02, lambda: looked.append(1), leader_only=False),
    ]
    rounds = Rounds(parts, is_leader=leads.is_set)
    rounds.start()
    wait_until(lambda: len(looked) >= 3 and len(rested) >= 3)
    assert acted == []
    leads.set()
    wait_until(lambda: len(acted) >= 3)
    leads.clear()
    time.sleep(0.1)
    before = len(acted)
    time.sleep(0.2)
    assert len(acted) == before
    rounds.stop(5)


def test_stopping_waits_no_longer_than_told_for_a_part_that_hangs() -> None:
    gate = threading.Event()
    rounds = Rounds(
        [Part("dispatch", 1, lambda: gate.wait(30) and None), Part("kfp", 1, lambda: None)], is_leader=lambda: True
    )
    rounds.start()
    wait_until(lambda: rounds.standings["dispatch"].rounds == 1)
    assert rounds.lost() == []
    wait_until(lambda: rounds.lost(0.05) == ["dispatch"])
    started = time.monotonic()
    assert rounds.stop(0.5) == ["dispatch"]
    assert time.monotonic() - started < 2
    gate.set()
