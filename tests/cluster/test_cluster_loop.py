"""The loop on a real KFP: one IR here and there with equal results; drift, one retraining, one promotion."""

import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.core.bundle import ModelCard, read_card
from components.core.champion import require_champion
from components.core.kfp_api import KfpApi
from components.core.kfp_runs import require_version, state_of
from components.core.kfp_steps import read_log, read_steps
from components.core.ledger.champions import read_champion
from components.core.ledger.decisions import list_decisions
from components.core.ledger.engine import migrate, open_ledger
from components.core.ledger.requests import read_request
from components.core.object_store import local_path
from components.core.serving import extract_model
from components.core.settings import Settings, embedded_settings
from components.core.verdict import Verdict, read_verdict
from pipelines.catalog import read_case
from pipelines.cluster.artifacts import read_verdict_at
from pipelines.cluster.runs import require_run, select_step
from pipelines.cluster.wait import wait_for_end
from pipelines.compile import compile_for_cluster, version_name
from pipelines.definitions import applied_definitions
from pipelines.events import parse_inputs
from pipelines.image_lock import read_image_lock
from pipelines.local import run_locally
from pipelines.reports import artifact

USE_CASE = "flights"
INSTANT = "2013-07-03T00:00:00+00:00"
WAIT_SECONDS = "1200"
CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def trained(cluster: Settings, driftline: CommandLine, images: Path) -> dict[str, Any]:
    """Return what `driftline submit training --wait --json` printed for the first model."""
    applied_definitions(cluster, USE_CASE)
    document: dict[str, Any] = json.loads(
        driftline("submit", "training", "--use-case", USE_CASE, "--images", str(images), "--wait", "--json").stdout
    )
    return document


def test_one_ir_gives_equal_results_here_and_there(
    cluster: Settings, trained: dict[str, Any], images: Path, tmp_path: Path
) -> None:
    case = read_case(cluster.feature_repo, USE_CASE)
    registry = applied_definitions(cluster, USE_CASE)
    ir = compile_for_cluster(case, "training", registry, read_image_lock(images))
    version = require_version(KfpApi(cluster), "flights-training", version_name(ir))
    assert (
        require_run(KfpApi(cluster), trained["id"]).pipeline_version_reference.pipeline_version_id == version.version_id
    )
    here = embedded_settings(tmp_path / "home", cluster.feature_repo)
    migrate(here.ledger_url)
    assert applied_definitions(here, USE_CASE) == registry
    record = run_locally(
        here, run_key="local", pipeline="training", use_case=USE_CASE, ir=ir, arguments={}, notify=lambda _step: None
    )
    assert record.state == "succeeded", record.failed_step
    mine, theirs = champion_card(here), champion_card(cluster)
    assert (mine.snapshot, mine.training_set, mine.model) == (theirs.snapshot, theirs.training_set, theirs.model)
    judged = artifact(record, "evaluate", "verdict")
    assert judged is not None
    assert numbers(read_verdict(judged)) == numbers(verdict_on_cluster(cluster, trained["id"]))


def test_drift_starts_one_retraining_that_is_promoted(
    cluster: Settings, trained: dict[str, Any], driftline: CommandLine, images: Path
) -> None:
    ledger = open_ledger(cluster.ledger_url)
    before = read_champion(ledger, USE_CASE)
    assert before is not None
    common = ["--use-case", USE_CASE, "--as-of", INSTANT, "--images", str(images), "--wait", "--timeout", WAIT_SECONDS]
    driftline("submit", "scoring", *common, "--from", "2013-04-01", "--to", "2013-07-01")
    driftline("submit", "monitoring", *common)
    (decision,) = list_decisions(ledger, USE_CASE)
    assert decision.decision == "retrain"
    assert decision.request
    request = read_request(ledger, decision.request)
    assert request is not None
    # Watching again decides the same, and starts nothing.
    driftline("submit", "monitoring", *common)
    assert [d.id for d in list_decisions(ledger, USE_CASE)] == [decision.id]
    api = KfpApi(cluster)
    ended = wait_for_end(
        api, request.run_id, timeout_seconds=float(WAIT_SECONDS), notify=lambda _step: None, warn=lambda _text: None
    )
    assert state_of(ended) == "succeeded"
    after = read_champion(ledger, USE_CASE)
    assert after is not None
    assert (after.version, after.run_id) == (before.version + 1, request.run_id)
    done = read_request(ledger, decision.request)
    assert done is not None
    assert (done.state, done.outcome, done.attempt) == ("done", "promoted", 1)


def champion_card(settings: Settings) -> ModelCard:
    champion = require_champion(settings, USE_CASE)
    with tempfile.TemporaryDirectory() as folder:
        extract_model(local_path(settings, champion.bento_uri), Path(folder))
        return read_card(Path(folder))


def verdict_on_cluster(settings: Settings, run_id: str) -> Verdict:
    """Return the gate's verdict, found by the log of the step that obeyed it."""
    api = KfpApi(settings)
    steps = read_steps(api, require_run(api, run_id))
    log = read_log(api, run_id, select_step(steps, "package")).splitlines()
    verdict = read_verdict_at(parse_inputs(log)["inputs"]["artifacts"]["verdict"]["artifacts"][0]["uri"])
    assert isinstance(verdict, Verdict), verdict
    return verdict


def numbers(verdict: Verdict) -> Any:
    """Return decision, subject and everything measured; versions are counted by each registry."""
    reasons = [(r.check, r.passed, r.measured, r.allowed) for r in verdict.reasons]
    return verdict.decision, verdict.subject, reasons
