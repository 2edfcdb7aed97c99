"""The whole training pipeline on a fresh use case, as a person runs it: promoted, held, refused, interrupted."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.core.ledger.champions import read_champion
from components.core.ledger.engine import open_ledger
from components.core.ledger.runs import list_runs

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Place:
    """A home and a feature repository of their own, and the command line in them."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.repo = folder / "feature_repo"
        self.repo.mkdir()
        shutil.copy(ROOT / "feature_repo" / "feature_store.yaml", self.repo)
        self.environment = {
            **os.environ,
            "DRIFTLINE_HOME": str(self.home),
            "DRIFTLINE_FEATURE_REPO": str(self.repo),
        }

    def at(self, home: Path) -> "Place":
        """Return the same feature repository with another home."""
        other = copy.copy(self)
        other.home = home
        other.environment = {**self.environment, "DRIFTLINE_HOME": str(home)}
        return other

    def start(self, *words: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", "from pipelines.cli import main; main()", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.environment,
            stdout=pipe,
            stderr=pipe,
            text=True,
            # A test session in the background ignores Ctrl-C; the command line must not inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate()
        return process.returncode, out, err

    def train(self, *words: str) -> tuple[int, dict[str, Any]]:
        code, out, err = self.run("run", "training", "--use-case", "rain", "--json", *words)
        assert out, err
        return code, json.loads(out)

    @property
    def champion(self) -> Any:
        return read_champion(open_ledger(f"sqlite:///{self.home}/ledger.db"), "rain")

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
    place = Place(tmp_path_factory.mktemp("place"))
    code, out, err = place.run("new", "rain", "--owner", "weather-team")
    assert code == 0, err
    assert "next step: driftline run training --use-case rain" in out
    yield place
    assert place.processes() == []


@pytest.fixture(scope="module")
def first(place: Place) -> dict[str, Any]:
    code, document = place.train()
    assert code == 0, json.dumps(document, indent=1)
    return document


def test_a_new_use_case_runs_as_it_is(place: Place, first: dict[str, Any]) -> None:
    assert first["state"] == "succeeded"
    assert [s["name"] for s in first["steps"]] == [
        "claim",
        "ingest",
        "validate",
        "features",
        "train",
        "evaluate",
        "package",
        "promote",
    ]
    assert first["verdicts"]["validate"]["decision"] == "pass"
    assert first["verdicts"]["evaluate"]["decision"] == "promote"
    assert first["champion"]["run_id"] == first["run"]
    assert {Path(p).name for p in first["reports"]} == {
        "data-report.html",
        "gate-report.html",
        "model-card.md",
        "probe.md",
    }
    assert Path(first["champion"]["bento_uri"]).is_file()


def test_the_same_model_again_is_held(place: Place, first: dict[str, Any]) -> None:
    """Training is deterministic, so the challenger is the champion: there is nothing to promote."""
    code, document = place.train()
    assert code == 3
    assert document["state"] == "refused"
    assert document["verdicts"]["evaluate"]["decision"] == "hold"
    assert document["verdicts"]["evaluate"]["subject"] == first["verdicts"]["evaluate"]["subject"]
    assert document["champion"] == first["champion"]


def test_a_gate_refuses_and_nothing_is_built(place: Place, first: dict[str, Any]) -> None:
    before = sorted(place.home.glob("bentos/*.tar"))
    code, document = place.train(
        "--param", "evaluate.min_lift=0.9", "--param", "train.seed=8", "--param", "train.trainer.rounds=30"
    )
    assert code == 3
    assert document["steps"][-1] == {**document["steps"][-1], "name": "package", "state": "failed"}
    assert document["failure"]["type"] == "GateRefused"
    assert sorted(place.home.glob("bentos/*.tar")) == before
    assert document["champion"] == first["champion"]
    code, out, _ = place.run("why", document["run"])
    assert code == 0
    assert "evaluate decided reject" in out
    assert "step package ended the run" in out
    assert f"reproduce: driftline runs rerun {document['run']} package" in out


def test_bad_data_is_refused_at_the_next_step_with_its_page(place: Place, first: dict[str, Any]) -> None:
    path = place.repo / "rain" / "expectations.json"
    good = path.read_text()
    suite = json.loads(good)
    suite["observations"][1]["kwargs"]["max_value"] = 60
    path.write_text(json.dumps(suite))
    code, document = place.train()
    path.write_text(good)
    assert code == 3
    assert document["steps"][-1]["name"] == "features"
    assert "humidity_pct" in document["failure"]["message"]
    assert [Path(p).name for p in document["reports"]] == ["data-report.html"]
    assert document["champion"] == first["champion"]


@pytest.mark.parametrize("step", ["ingest", "validate", "features", "train", "evaluate", "package"])
def test_ctrl_c_in_a_step_cancels_and_leaves_nothing_running(place: Place, tmp_path: Path, step: str) -> None:
    """In a home without a champion, so that every step has its work to do."""
    here = place.at(tmp_path / "home")
    process = here.start("run", "training", "--use-case", "rain")
    deadline = time.monotonic() + 300
    while not (running := list(here.home.glob("runs/*/run.json"))) or not any(
        s["name"] == step for s in json.loads(running[0].read_text())["steps"]
    ):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "cancelled" in out
    assert here.processes() == []
    newest = list_runs(open_ledger(f"sqlite:///{here.home}/ledger.db"), limit=1)[0]
    assert (newest.state, newest.failed_step) == ("cancelled", step)
    assert here.champion is None
    assert not list(here.home.rglob(".*.tmp*"))


def test_after_all_that_the_next_run_works_and_clean_keeps_the_champion(place: Place, first: dict[str, Any]) -> None:
    code, document = place.train("--as-of", "2013-09-01")
    assert code in (0, 3), document["failure"]
    assert document["state"] in ("succeeded", "refused")
    champion = place.champion
    code, out, _ = place.run("clean", "--keep", "1", "--yes")
    assert code == 0
    assert first["run"] in out or champion.run_id == first["run"]
    assert (place.home / "runs" / champion.run_id).is_dir()
    assert Path(champion.bento_uri).is_file()
    assert place.run("clean", "--keep", "1")[0] == 0
