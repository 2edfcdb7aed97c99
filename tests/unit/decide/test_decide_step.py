"""The step `decide`: from an evidence file to one decision in the ledger, in words that a person can act on."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from components.core.bootstrap import Interval
from components.core.errors import ConfigError, DataError, LedgerError
from components.core.evidence import ColumnDrift, DriftTest, Evidence, Performance, Window, write_evidence
from components.core.ledger.decisions import Decision, list_decisions, read_decision
from components.core.ledger.engine import migrate, open_ledger
from components.core.ledger.requests import next_dispatch, open_requests
from components.core.ledger.runs import claim_run, finish_run
from components.core.sections import Monitor
from components.core.settings import Settings
from components.core.verdict import Reason
from components.decide.component import decide as decide_step
from components.decide.step import decide, limits

MONDAY = datetime(2013, 5, 6, tzinfo=UTC)
WEEK = timedelta(days=7)
CONFIG = Monitor(label_delay_hours=48)


@pytest.fixture
def home(settings: Settings, ledger_url: str) -> Settings:
    migrate(ledger_url)
    return settings.model_copy(update={"ledger_url": ledger_url})


def drift_test(drifted: bool, *names: str) -> DriftTest:
    columns = [ColumnDrift(column=name, score=0.2, p_value=0.001, drifted=drifted) for name in names]
    sizes: dict[str, Any] = {"rows": 900, "reference_rows": 9000, "days": 7, "reference_days": 90, "blocks": "days"}
    return DriftTest(**sizes, p_value=0.0005 if drifted else 0.4, drifted=drifted, columns=columns)


def watched(week: int = 0, **changes: Any) -> Evidence:
    """Return evidence of a week in which nothing happened."""
    first = MONDAY + week * WEEK
    interval = Interval(estimate=0.7, low=0.68, high=0.72)
    held = Performance(metric="auc", window=interval, champion=interval, fell=False, message="auc 0.700 holds")
    quiet: dict[str, Any] = {
        "use_case": "flights",
        "window": Window(first=first, last=first + WEEK),
        "as_of": first + WEEK + timedelta(hours=48),
        "version": 1,
        "model": "7" * 64,
        "rows": 900,
        "labelled_rows": 900,
        "sanity": [],
        "drift": drift_test(False, "delay"),
        "prediction_drift": drift_test(False, "prediction"),
        "performance": [held],
    }
    return Evidence.model_validate(quiet | changes)


FELL = Performance(
    metric="auc",
    window=Interval(estimate=0.61, low=0.6, high=0.63),
    champion=Interval(estimate=0.7, low=0.68, high=0.72),
    fell=True,
    message="auc 0.610 [0.600, 0.630] is below the champion's [0.680, 0.720]",
)
DRIFTED = {"drift": drift_test(True, "a", "b", "c", "d"), "prediction_drift": drift_test(True, "prediction")}


def run(home: Settings, evidence: Evidence, config: Monitor = CONFIG) -> Decision:
    path = home.home / "evidence.json"
    write_evidence(path, evidence)
    return decide(home, "flights", config, evidence=path)


def test_a_quiet_week_is_reported_with_its_numbers(home: Settings) -> None:
    found = run(home, watched())
    assert (found.decision, found.rung) == ("report", "report")
    assert found.reasons == [
        "auc 0.700 holds",
        "inputs did not drift (p 0.4000, 900 rows)",
        "predictions did not drift (p 0.4000)",
        "0 of 3 windows of version 1 drifted in inputs and predictions, 2 are needed",
    ]


def test_performance_that_fell_requests_a_retraining(home: Settings) -> None:
    found = run(home, watched(performance=[FELL]))
    assert (found.decision, found.rung, found.reasons) == ("retrain", "performance", [FELL.message])
    (request,) = open_requests(open_ledger(home.ledger_url))
    assert (request.id, request.as_of) == (found.request, found.as_of)


def test_the_second_drifted_week_of_three_requests_a_retraining(home: Settings) -> None:
    assert run(home, watched(0, **DRIFTED)).decision == "report"
    assert run(home, watched(1)).decision == "report"
    found = run(home, watched(2, **DRIFTED))
    assert (found.decision, found.rung) == ("retrain", "drift")
    assert "inputs drifted (p 0.0005, 900 rows): a (0.200), b (0.200), c (0.200) and 1 more" in found.reasons
    assert "2 of 3 windows of version 1 drifted in inputs and predictions, 2 are needed" in found.reasons


def test_drift_of_another_version_or_too_long_ago_does_not_count(home: Settings) -> None:
    run(home, watched(0, **DRIFTED))
    run(home, watched(2, version=2, **DRIFTED))
    assert run(home, watched(3, **DRIFTED)).decision == "report"


def test_broken_data_alerts_and_never_retrains(home: Settings) -> None:
    broken = Reason(check="range", passed=False, message="temperature is 10 to 35, was 20 to 100: °F became °C?")
    found = run(home, watched(sanity=[broken], performance=[FELL], **DRIFTED))
    assert (found.decision, found.rung, found.reasons) == ("alert", "data", [broken.message])
    assert open_requests(open_ledger(home.ledger_url)) == []


def test_labels_that_never_come_are_told(home: Settings) -> None:
    found = run(home, watched(labelled_rows=0, performance=[]))
    assert found.decision == "report"
    assert found.reasons[0] == "0 labels are known, a verdict on performance needs 300"
    only = CONFIG.model_copy(update={"policy": "performance"})
    assert run(home, watched(labelled_rows=0, performance=[]), only).decision == "insufficient"


def test_the_cost_is_estimated_from_earlier_trainings(home: Settings) -> None:
    ledger = open_ledger(home.ledger_url)
    claim_run(ledger, "run-0", "run-0", "training", "flights")
    finish_run(ledger, "run-0", "succeeded")
    first = run(home, watched(performance=[FELL]))
    assert first.cost_estimate_seconds is not None
    assert 0 < first.cost_estimate_seconds < 60
    assert run(home, watched(0)).cost_estimate_seconds is None


def test_deciding_again_is_the_same_decision_also_after_the_retraining(home: Settings) -> None:
    first = run(home, watched(performance=[FELL]))
    ledger = open_ledger(home.ledger_url)
    assert first.request is not None
    attempt = next_dispatch(ledger, first.request, now=datetime.now(UTC))
    assert attempt is not None
    claim_run(ledger, attempt.run_id, "w", "training", "flights")
    finish_run(ledger, attempt.run_id, "refused", reason="not better")
    again = run(home, watched(performance=[FELL]))
    assert (again.id, again.outcome) == (first.id, "refused: not better")
    # One refused retraining doubles the cooldown.
    next_week = run(home, watched(1, performance=[FELL]), CONFIG.model_copy(update={"cooldown_hours": 96}))
    assert "cooldown of 96 h x 2" in next_week.suppressed_by


def test_bad_input_is_told(home: Settings) -> None:
    with pytest.raises(DataError, match="belongs to another use case"):
        run(home, watched(use_case="taxi"))
    with pytest.raises(ConfigError, match="lies in the future"):
        run(home, watched(as_of=datetime(2100, 1, 1, tzinfo=UTC)))
    with pytest.raises(LedgerError, match="driftline ledger migrate"):
        run(home.model_copy(update={"ledger_url": f"sqlite:///{home.home}/none.db"}), watched())
    assert list_decisions(open_ledger(home.ledger_url)) == []


def test_the_section_sets_the_limits() -> None:
    found = limits(Monitor(cooldown_hours=72, max_per_week=2, lease_minutes=5))
    assert (found.cooldown, found.max_per_week, found.lease) == (timedelta(days=3), 2, timedelta(minutes=5))


def test_the_component_returns_the_id(home: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "evidence.json"
    write_evidence(path, watched(performance=[FELL]))
    monkeypatch.setenv("DRIFTLINE_HOME", str(home.home))
    monkeypatch.setenv("DRIFTLINE_LEDGER_URL", home.ledger_url)
    # As KFP hands a section over: its integers are floats.
    config = {k: float(v) if type(v) is int else v for k, v in CONFIG.model_dump(mode="json").items()}
    answer = decide_step.python_func(use_case="flights", config=config, evidence=dsl.Artifact(uri=str(path)))
    found = read_decision(open_ledger(home.ledger_url), answer)
    assert found is not None
    assert (found.decision, found.policy) == ("retrain", "ladder")
