"""A step that refuses ends the run in the ledger, and the request behind it."""

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from components.core.errors import DataError, GateRefused
from components.core.ledger.refusals import recorded_refusal
from components.core.ledger.runs import claim_run, read_run
from components.core.settings import Settings


@pytest.fixture
def here(ledger: sa.Engine, ledger_url: str, settings: Settings) -> Settings:
    claim_run(ledger, "run-1", "workflow-1", "training", "flights")
    return settings.model_copy(update={"ledger_url": ledger_url, "run_key": "run-1"})


def test_a_refusal_is_the_end_of_the_run(ledger: sa.Engine, here: Settings) -> None:
    with pytest.raises(GateRefused), recorded_refusal(here, "package"):
        raise GateRefused("evaluate decided reject: worse", next_step="read the report")
    run = read_run(ledger, "run-1")
    assert run is not None
    assert (run.state, run.failed_step) == ("refused", "package")
    assert run.reason == "GateRefused: evaluate decided reject: worse; next step: read the report"
    assert run.finished_at is not None
    assert run.finished_at <= datetime.now(UTC)


def test_a_failure_is_not(ledger: sa.Engine, here: Settings) -> None:
    with pytest.raises(DataError), recorded_refusal(here, "package"):
        raise DataError("broken")
    run = read_run(ledger, "run-1")
    assert run is not None
    assert run.state == "running"


def test_a_refusal_without_a_ledger_stays_a_refusal(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(GateRefused), recorded_refusal(settings, "package"):
        raise GateRefused("no")
    assert "not in the ledger" in caplog.text
