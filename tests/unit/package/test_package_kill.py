"""Packaging killed at any instant and started again: one recorded archive, whole and in its place."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from components.core.bundle import read_card
from components.core.digests import file_digest
from components.core.ledger.bentos import read_bento
from components.core.ledger.engine import open_ledger
from components.core.settings import Settings

# What the step does before the probe, in a process that can be killed.
CODE = """
import sys, json
from pathlib import Path
from components.core.bundle import read_card
from components.core.profile import HoldoutPerformance
from components.core.sections import Package, Problem
from components.core.settings import Settings
from components.core.training_set import read_manifest
from components.package.description import describe
from components.package.packaging import keep_bento
order = json.loads(sys.argv[1])
bundle, rows = Path(order["bundle"]), Path(order["training_set"])
card = read_card(bundle)
spec = describe(Problem.model_validate(order["problem"]), Package(), card, read_manifest(rows), bundle)
settings = Settings.model_validate(order["settings"])
performance = HoldoutPerformance(rows=100, days=1, metrics={})
print("started", flush=True)
print(keep_bento(settings, spec, card, bundle=bundle, training_set=rows, performance=performance))
"""


def start(settings: Settings, model: ModuleType, served: Any) -> subprocess.Popen[str]:
    order = {
        "bundle": str(served.bundle),
        "training_set": str(served.training_set),
        "problem": model.PROBLEM.model_dump(mode="json"),
        "settings": settings.model_dump(mode="json"),
    }
    # A killed process leaves its temporary files: let them go with the test's folder.
    scratch = served.root / "scratch"
    scratch.mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(scratch)}
    command = [sys.executable, "-c", CODE, json.dumps(order)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


@pytest.mark.slow
def test_a_kill_at_any_instant_leaves_what_a_retry_completes(ledger: Settings, model: ModuleType, plain: Any) -> None:
    release = read_card(plain.bundle).release
    outcomes = set()
    for delay_seconds in (0.05, 0.5, 1.0, 1.5, 2.0, 2.5, 3.5):
        process = start(ledger, model, plain)
        time.sleep(delay_seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        recorded = read_bento(open_ledger(ledger.ledger_url), release)
        outcomes.add(recorded is not None)
        if recorded is not None:
            # Recorded means whole: the file came first.
            assert file_digest(Path(recorded.uri)) == recorded.digest
    process = start(ledger, model, plain)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    final = read_bento(open_ledger(ledger.ledger_url), release)
    assert final is not None
    assert out.strip() == final.uri
    assert file_digest(Path(final.uri)) == final.digest
    assert False in outcomes, "no kill came before the record"


@pytest.mark.slow
def test_two_at_once_keep_one(ledger: Settings, model: ModuleType, plain: Any) -> None:
    processes = [start(ledger, model, plain) for _ in range(2)]
    answers = {process.communicate(timeout=180)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(answers) == 1
    # The loser removes its own archive.
    assert [str(path) for path in ledger.bentos.iterdir()] == list(answers)
