"""Every step on a machine of its own: an empty home that dies with it, as in a pod; only the stores are shared."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.core.bundle import CARD
from components.core.ledger.champions import read_champion
from components.core.ledger.engine import open_ledger
from components.core.ledger.runs import read_run
from components.core.settings import Settings, embedded_settings

ROOT = Path(__file__).parents[2]
CASE = "wind"
pytestmark = [pytest.mark.slow, pytest.mark.s3, pytest.mark.timeout(900)]

# What KFP's runner starts for each task instead of Python.
POD = """#!/bin/sh
DRIFTLINE_HOME=$(mktemp -d "$MACHINES/XXXXXX")
export DRIFTLINE_HOME
"$PYTHON" "$@"
code=$?
rm -rf "$DRIFTLINE_HOME"
exit $code
"""
RUN = """
import sys
from kfp import components, local
from components.core.ledger.engine import migrate
from components.core.settings import load_settings
from pipelines.catalog import read_case
from pipelines.compile import compile_pipeline
from pipelines.definitions import applied_definitions
from pipelines.local_worker import failing_at_once

pod, root, pipeline, name = sys.argv[1:]
settings = load_settings()
migrate(settings.ledger_url)
ir = compile_pipeline(read_case(settings.feature_repo, name), pipeline, applied_definitions(settings, name))
local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=root, raise_on_error=True)
sys.executable = pod
components.load_component_from_text(failing_at_once(ir))()
"""


def card_of(folder: Path) -> dict[str, Any]:
    """Return the card of the one bundle below a folder."""
    (card,) = {path.read_text() for path in folder.rglob(CARD)}
    found: dict[str, Any] = json.loads(card)
    return found


def run_in_pods(settings: Settings, folder: Path, pipeline: str) -> Path:
    """Run a pipeline of the use case, each step in an empty home, and return the folder with what KFP keeps."""
    machines, pod, root = folder / "machines", folder / "pod", folder / pipeline
    machines.mkdir(exist_ok=True)
    pod.write_text(POD)
    pod.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", RUN, pod, root, pipeline, CASE],
        cwd=ROOT,
        env={
            **os.environ,
            **settings.environment(),
            "MACHINES": str(machines),
            "PYTHON": sys.executable,
            "DRIFTLINE_RUN_KEY": f"run-{pipeline}",
            "DRIFTLINE_WORKFLOW": f"workflow-{pipeline}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert not list(machines.iterdir()), "a home outlived its step"
    return root


def test_steps_that_share_only_stores_make_the_same_model(tmp_path: Path, object_store: str) -> None:
    alone = embedded_settings(tmp_path / "alone", ROOT / "feature_repo")
    command = [sys.executable, "-c", "from pipelines.cli import main; main()", "run", "training", "--use-case", CASE]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **alone.environment()}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

    stores = embedded_settings(tmp_path / "stores", ROOT / "feature_repo")
    for store in ("mlflow", "feast"):
        (stores.home / store).mkdir(parents=True)
    shared = stores.model_copy(update={"home": tmp_path / "desk", "object_store_url": object_store})
    root = run_in_pods(shared, tmp_path, "training")

    expected, card = card_of(alone.runs), card_of(root)
    for part in ("snapshot", "training_set", "model"):
        assert card[part] == expected[part], part
    ledger = open_ledger(shared.ledger_url)
    run, champion = read_run(ledger, "run-training"), read_champion(ledger, CASE)
    assert run is not None
    assert run.state == "succeeded"
    assert champion is not None
    assert champion.bento_uri.startswith(f"{object_store}/bentos/")
