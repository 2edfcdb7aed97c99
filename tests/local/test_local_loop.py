"""The closed loop as a person runs it: alerted many times and killed, it retrains once; a replay agrees."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.core.ledger.champions import list_promotions
from components.core.ledger.decisions import list_decisions
from components.core.ledger.engine import open_ledger
from components.core.ledger.requests import open_requests, read_attempt
from components.core.ledger.runs import list_runs

ROOT = Path(__file__).parents[2]
CASE = "wind"
FIRST, JUDGED = "2013-07-01", "2013-08-02"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Place:
    """A home of its own, and the command line in it."""

    def __init__(self, home: Path) -> None:
        self.home = home

    @property
    def ledger(self) -> Any:
        return open_ledger(f"sqlite:///{self.home}/ledger.db")

    def start(self, *words: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", "from pipelines.cli import main; main()", *words]
        environment = {
            **os.environ,
            "DRIFTLINE_HOME": str(self.home),
            "DRIFTLINE_FEATURE_REPO": str(ROOT / "feature_repo"),
        }
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, *words: str, code: int = 0) -> str:
        process = self.start(*words)
        out, err = process.communicate()
        assert process.returncode == code, f"{out}\n{err}"
        return out

    def processes(self) -> list[int]:
        """Return the processes that work in this home."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("DRIFTLINE_HOME") == str(self.home) and process.status() != "zombie":
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Return a home with a champion that has predicted a month and two days."""
    found = Place(tmp_path_factory.mktemp("loop") / "home")
    found.run("run", "training", "--use-case", CASE)
    found.run("run", "scoring", "--use-case", CASE, "--from", FIRST, "--to", JUDGED)
    yield found
    assert found.processes() == []


def monitoring(*more: str) -> list[str]:
    alarm = ["--param", "monitor.policy=scheduled", "--param", "monitor.report_rows=0", *more]
    return ["run", "monitoring", "--use-case", CASE, "--as-of", JUDGED, *alarm]


def test_a_hold_of_a_person_comes_first(place: Place) -> None:
    place.run("hold", "set", "--use-case", CASE, "--reason", "audit", "--by", "ada")
    shown = json.loads(place.run(*monitoring("--json")))
    assert shown["decision"]["decision"] == "hold"
    assert "held by ada" in shown["decision"]["suppressed_by"]
    assert shown["retrainings"] == []
    assert "audit" in place.run("decisions")
    assert "was released" in place.run("hold", "release", "--use-case", CASE)


def test_alarms_from_several_monitors_make_one_request(place: Place) -> None:
    alarms = [place.start(*monitoring("--no-dispatch", "--json")) for _ in range(4)]
    decisions = []
    for alarm in alarms:
        out, err = alarm.communicate()
        assert alarm.returncode == 0, err
        decisions.append(json.loads(out)["decision"])
    assert {d["decision"] for d in decisions} == {"retrain"}
    assert len({d["id"] for d in decisions}) == 1
    assert [request.state for request in open_requests(place.ledger)] == ["requested"]


def test_a_dispatch_killed_in_training_is_finished_by_the_next_one_once(place: Place) -> None:
    (request,) = open_requests(place.ledger)
    killed = place.start("dispatch")
    _wait_for_step(place, request.run_id, "train")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    deadline = time.monotonic() + 15
    while place.processes():
        assert time.monotonic() < deadline, "a step outlived its run"
        time.sleep(0.1)
    assert read_attempt(place.ledger, request.run_id).state == "claimed"  # type: ignore[union-attr]

    rivals = [place.start("dispatch"), place.start("dispatch")]
    for rival in rivals:
        out, err = rival.communicate()
        assert rival.returncode in (0, 3), f"{out}\n{err}"
    assert open_requests(place.ledger) == []
    (decision,) = [d for d in list_decisions(place.ledger, CASE) if d.decision == "retrain"]
    assert decision.run != request.run_id
    assert read_attempt(place.ledger, request.run_id).state == "failed"  # type: ignore[union-attr]
    runs = {run.id: run for run in list_runs(place.ledger) if run.pipeline == "training"}
    assert runs[request.run_id].state == "failed"
    # The bootstrap, the attempt that was killed, and one more.
    assert len(runs) == 3
    ended = runs[decision.run]
    assert (ended.state, decision.outcome.split(":")[0]) in (("succeeded", "promoted"), ("refused", "refused"))  # type: ignore[union-attr]
    promotions = list_promotions(place.ledger, CASE)
    assert len(promotions) == 1 + (ended.state == "succeeded")


def test_the_decision_is_explained_with_its_run(place: Place) -> None:
    listed = json.loads(place.run("decisions", "--use-case", CASE, "--json"))
    retrain = next(d for d in listed if d["decision"] == "retrain")
    assert set(retrain) >= {
        "id", "window", "decision", "rung", "reasons", "suppressed_by", "request", "run", "outcome",
    }  # fmt: skip
    assert retrain["window"] == "2013-07-01/2013-08-01"
    told = place.run("why", retrain["id"][:8])
    assert "retrain (schedule)" in told
    assert retrain["run"] in told
    assert retrain["id"][:8] in place.run("why", retrain["run"])


def test_one_more_alarm_starts_nothing(place: Place) -> None:
    before = len(list_runs(place.ledger, limit=1000))
    shown = json.loads(place.run(*monitoring("--json")))
    assert shown["retrainings"] == []
    trained = [run for run in list_runs(place.ledger, limit=1000) if run.pipeline == "training"]
    assert len(trained) == 3
    assert len(list_runs(place.ledger, limit=1000)) == before + 1


def test_a_replay_decides_as_the_commands_do(place: Place, tmp_path: Path) -> None:
    page = tmp_path / "replay.html"
    replayed = json.loads(
        place.run(
            *["replay", "--use-case", CASE, "--from", "2013-07", "--until", "2013-07"],
            *["--policies", "scheduled,never", "--output", str(page), "--json"],
        )
    )
    (tick,) = replayed["scheduled"]["play"]["ticks"]
    stepwise = next(d for d in list_decisions(place.ledger, CASE) if d.decision == "retrain")
    # Ids are digests of the evidence, the policy and the conclusion.
    assert tick["decision"]["id"] == stepwise.id
    assert tick["decision"]["reasons"] == stepwise.reasons
    assert tick["decision"]["outcome"] == stepwise.outcome
    (quiet,) = replayed["never"]["play"]["ticks"]
    assert quiet["decision"]["decision"] == "report"
    assert quiet["promoted"] is None
    # One model served the whole month under both policies.
    assert replayed["never"]["performance"] == replayed["scheduled"]["performance"]
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 4
    assert "http://" not in text.replace("http://www.w3.org/", "")


def _wait_for_step(place: Place, run_id: str, step: str) -> None:
    record = place.home / "runs" / run_id / "run.json"
    deadline = time.monotonic() + 240
    while True:
        if record.is_file():
            steps = json.loads(record.read_text(encoding="utf-8"))["steps"]
            if any(s["name"] == step and s["state"] == "running" for s in steps):
                return
        assert time.monotonic() < deadline, f"{step} did not start"
        time.sleep(0.05)
