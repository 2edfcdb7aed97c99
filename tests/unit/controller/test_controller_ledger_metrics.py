"""What the ledger says in metrics, against plain counting of the same rows, on SQLite and PostgreSQL."""

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.core.bootstrap import Interval
from components.core.errors import ClusterUnreachable, LedgerError
from components.core.evidence import ColumnDrift, DriftTest, Evidence, Performance, Window
from components.core.ledger.holds import hold, release
from components.core.ledger.proposals import Proposal, decide_once
from components.core.ledger.requests import fail_attempt, next_dispatch
from components.core.ledger.runs import claim_run, finish_run
from components.core.ledger.schema import champions, promotions, releases, runs, serving
from components.core.ledger.suppression import Limits
from components.core.metric_registry import registry
from components.core.settings import embedded_settings
from components.core.verdict import Reason
from pipelines.controller.exposition import Exposition, Histogram, Sample
from pipelines.controller.kfp_metrics import look_at_kfp, period_samples
from pipelines.controller.ledger_metrics import look_at_ledger, read_ledger
from pipelines.controller.own_metrics import own_samples
from pipelines.controller.releases import Reverts
from pipelines.controller.rounds import Part, Rounds
from pipelines.controller.run_metrics import AFTER_DATA_GATE, BOUNDS_SECONDS, WELL
from pipelines.controller.schedules import schedule_samples
from pipelines.schedules.model import Existing
from pipelines.schedules.plan import Change

T0 = datetime(2026, 1, 1, tzinfo=UTC)
STATES = ("running", "succeeded", "failed", "refused", "superseded", "cancelled")
STEPS = ("", "claim", "validate", "features", "train", "evaluate", "package", "promote")
CASES = ("birds", "wells")
LIMITS = Limits(cooldown=timedelta(0), max_per_week=50, lease=timedelta(minutes=5))


def value(samples: list[Sample], name: str, **labels: str) -> Any:
    found = [sample.value for sample in samples if sample.name == name and dict(sample.labels) == labels]
    return found[0] if found else None


run_rows = st.lists(
    st.fixed_dictionaries(
        {
            "pipeline": st.sampled_from(("training", "scoring", "monitoring")),
            "use_case": st.sampled_from(CASES),
            "state": st.sampled_from(STATES),
            "failed_step": st.sampled_from(STEPS),
            "seconds": st.integers(1, 200_000),
        }
    ),
    max_size=25,
)


def store(ledger: sa.Engine, drawn: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write runs, one a minute; the newest is the last."""
    rows = []
    for n, row in enumerate(drawn):
        ended = T0 + timedelta(minutes=n)
        is_bad = row["state"] in ("failed", "refused")
        rows.append(
            {
                **{name: row[name] for name in ("pipeline", "use_case", "state")},
                "id": f"run-{n}",
                "claimant": "c",
                "reason": "",
                "failed_step": row["failed_step"] if is_bad else "",
                "started_at": ended - timedelta(seconds=row["seconds"]),
                "finished_at": None if row["state"] == "running" else ended,
            }
        )
    with ledger.begin() as connection:
        connection.execute(sa.delete(runs))
        if rows:
            connection.execute(sa.insert(runs), rows)
    return rows


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(drawn=run_rows)
def test_runs_are_counted_as_a_person_would(ledger: sa.Engine, drawn: list[dict[str, Any]]) -> None:
    rows = store(ledger, drawn)
    samples = read_ledger(ledger)
    Exposition().put("s", samples)
    counts = Counter((row["use_case"], row["pipeline"], row["state"]) for row in rows)
    for case in sorted({row["use_case"] for row in rows}):
        for pipeline in ("training", "scoring", "monitoring"):
            labels = {"use_case": case, "pipeline": pipeline}
            mine = [row for row in rows if (row["use_case"], row["pipeline"]) == (case, pipeline)]
            for state in STATES[1:]:
                total = value(samples, "driftline_pipeline_runs_total", **labels, outcome=state)
                assert total == counts[case, pipeline, state]
            assert value(samples, "driftline_pipeline_runs_running", **labels) == counts[case, pipeline, "running"]
            _check_row_of_failures(samples, labels, mine)
            _check_durations(samples, labels, mine)
            for step in ("features", "package", "promote"):
                refused = sum(row["state"] == "refused" and row["failed_step"] == step for row in mine)
                assert value(samples, "driftline_refusals_total", **labels, step=step) == refused
            if pipeline == "training":
                _check_gates(samples, case, mine)


def _check_row_of_failures(samples: list[Sample], labels: dict[str, str], mine: list[dict[str, Any]]) -> None:
    failures = 0
    last = None
    for row in mine:
        if row["state"] in WELL:
            failures, last = 0, row["finished_at"].timestamp()
        failures += row["state"] == "failed"
    assert value(samples, "driftline_pipeline_consecutive_failures", **labels) == failures
    assert value(samples, "driftline_pipeline_last_success_timestamp_seconds", **labels) == last


def _check_durations(samples: list[Sample], labels: dict[str, str], mine: list[dict[str, Any]]) -> None:
    took = [(row["finished_at"] - row["started_at"]).total_seconds() for row in mine if row["state"] == "succeeded"]
    spread = value(samples, "driftline_pipeline_run_duration_seconds", **labels)
    assert isinstance(spread, Histogram)
    assert spread.total == pytest.approx(sum(took), abs=0.01)
    assert [bound for bound, _ in spread.buckets] == [*BOUNDS_SECONDS, float("inf")]
    for bound, count in spread.buckets:
        # SQLite reckons in days: a duration on the very bound may fall on either side of it.
        assert sum(t <= bound - 0.01 for t in took) <= count <= sum(t <= bound + 0.01 for t in took)


def _check_gates(samples: list[Sample], case: str, mine: list[dict[str, Any]]) -> None:
    data = model = None
    for row in mine:
        step, ended_well = row["failed_step"], row["state"] in ("succeeded", "superseded")
        if ended_well or step in AFTER_DATA_GATE:
            data = 1.0
        elif (row["state"], step) == ("refused", "features"):
            data = 0.0
        if ended_well or step == "promote":
            model = 1.0
        elif (row["state"], step) == ("refused", "package"):
            model = 0.0
    assert value(samples, "driftline_gate_passed", use_case=case, gate="data") == data
    assert value(samples, "driftline_gate_passed", use_case=case, gate="model") == model


def test_refused_runs_are_no_failures(ledger: sa.Engine) -> None:
    for n in range(4):
        claim_run(ledger, f"r{n}", "c", "training", "birds")
        finish_run(ledger, f"r{n}", "refused", failed_step="package", reason="the gate said no")
    samples = read_ledger(ledger)
    labels = {"use_case": "birds", "pipeline": "training"}
    assert value(samples, "driftline_pipeline_consecutive_failures", **labels) == 0
    assert value(samples, "driftline_pipeline_runs_total", **labels, outcome="failed") == 0
    assert value(samples, "driftline_pipeline_runs_total", **labels, outcome="refused") == 4
    assert value(samples, "driftline_pipeline_last_success_timestamp_seconds", **labels) is not None


def drift(score: float, *, drifted: bool) -> DriftTest:
    columns = [
        ColumnDrift(column=f"c{n}", score=score / (n + 1), p_value=0.1, drifted=drifted and n == 0) for n in range(4)
    ]
    return DriftTest(
        rows=900,
        reference_rows=900,
        days=7,
        reference_days=7,
        blocks="rows",
        p_value=0.1,
        drifted=drifted,
        columns=columns,
    )


def evidence(case: str, day: int, **update: Any) -> Evidence:
    at = T0 + timedelta(days=day)
    window = Window(first=at - timedelta(days=9), last=at - timedelta(days=2))
    known = Evidence(
        use_case=case, window=window, as_of=at, version=1, model="7", rows=900 + day, labelled_rows=500, sanity=[]
    )
    return known.model_copy(update=update)


def decide(ledger: sa.Engine, found: Evidence, decision: Any, now: datetime) -> str | None:
    proposal = Proposal(
        decision=decision, rung="performance", reasons=["r"], policy="ladder", policy_digest="5", evidence=found
    )
    return decide_once(ledger, proposal, LIMITS, now).request


def test_decisions_requests_and_the_newest_window(ledger: sa.Engine) -> None:
    now = datetime.now(UTC)
    broken = Reason(check="nulls", passed=False, severity="critical", message="m")
    performance = Performance(
        metric="auc", window=Interval(estimate=0.61), champion=Interval(estimate=0.7), fell=True, message="m"
    )
    for _ in range(50):  # one drift, alerted fifty times, is one decision
        decide(ledger, evidence("birds", 1), "report", now)
    update = {"sanity": [broken], "drift": drift(0.4, drifted=True), "performance": [performance]}
    newest = evidence("birds", 9, **update)
    request = decide(ledger, newest, "retrain", now)
    assert request is not None
    decide(ledger, evidence("birds", 3), "report", now + timedelta(seconds=1))  # later, but of an older window
    samples = read_ledger(ledger)
    Exposition().put("s", samples)
    assert value(samples, "driftline_decisions_total", use_case="birds", decision="report") == 2
    assert value(samples, "driftline_decisions_total", use_case="birds", decision="retrain") == 1
    assert value(samples, "driftline_decisions_total", use_case="birds", decision="hold") == 0
    last = value(samples, "driftline_monitor_last_decision_timestamp_seconds", use_case="birds")
    assert last == pytest.approx((now + timedelta(seconds=1)).timestamp(), abs=0.01)
    end = value(samples, "driftline_monitor_window_end_timestamp_seconds", use_case="birds")
    assert end == newest.window.last.timestamp()
    assert value(samples, "driftline_monitor_rows", use_case="birds") == 909
    assert value(samples, "driftline_drift_score", use_case="birds", column_group="inputs") == 0.4
    assert value(samples, "driftline_drift_detected", use_case="birds", column_group="inputs") == 1
    assert value(samples, "driftline_drift_score", use_case="birds", column_group="prediction") is None
    assert value(samples, "driftline_drift_share_ratio", use_case="birds") == 0.25
    assert value(samples, "driftline_data_findings", use_case="birds", check="nulls", severity="critical") == 1
    assert value(samples, "driftline_data_findings", use_case="birds", check="schema", severity="critical") == 0
    assert value(samples, "driftline_model_performance", use_case="birds", metric="auc", side="window") == 0.61
    assert value(samples, "driftline_model_performance", use_case="birds", metric="auc", side="champion") == 0.7
    assert value(samples, "driftline_retraining_requests_open", use_case="birds") == 1
    since = value(samples, "driftline_retraining_open_since_timestamp_seconds", use_case="birds")
    assert since == pytest.approx(now.timestamp(), abs=0.01)


def test_a_request_that_failed_thrice_keeps_the_newest_window(ledger: sa.Engine) -> None:
    now = datetime.now(UTC)
    request = decide(ledger, evidence("birds", 1), "retrain", now)
    assert request is not None
    decide(ledger, evidence("birds", 5), "report", now)
    for _ in range(3):
        attempt = next_dispatch(ledger, request, now=datetime.now(UTC))
        assert attempt is not None
        assert fail_attempt(ledger, attempt.run_id, "broken")
    samples = read_ledger(ledger)
    assert value(samples, "driftline_retraining_requests_total", use_case="birds") == 1
    assert value(samples, "driftline_retraining_requests_ended_total", use_case="birds", outcome="failed") == 1
    assert value(samples, "driftline_retraining_requests_open", use_case="birds") == 0
    assert value(samples, "driftline_retraining_open_since_timestamp_seconds", use_case="birds") is None
    assert value(samples, "driftline_retraining_attempts_total", use_case="birds", outcome="failed") == 3
    assert value(samples, "driftline_decisions_total", use_case="birds", decision="alert") == 1
    assert value(samples, "driftline_monitor_rows", use_case="birds") == 905
    assert value(samples, "driftline_monitor_last_decision_timestamp_seconds", use_case="birds") == pytest.approx(
        now.timestamp(), abs=0.01
    )


def test_holds_champions_promotions_and_releases(ledger: sa.Engine) -> None:
    hold(ledger, "wells", reason="r", held_by="me", now=datetime.now(UTC))
    claim_run(ledger, "r1", "c", "training", "birds")
    with ledger.begin() as connection:
        digest = "d" * 64
        same = {"run_id": "r1", "verdict_digest": digest}
        bento = {"model_digest": digest, "bento_digest": digest, "bento_uri": "b", "mirrored": True, "revision": 1}
        connection.execute(sa.insert(champions).values(model="birds", version=3, promoted_at=T0, **bento, **same))
        for outcome, version, commit in (("promoted", 3, ""), ("reverted", 2, "a" * 40)):
            line = {"model": "birds", "version": version, "outcome": outcome, "at": T0, "commit": commit}
            connection.execute(sa.insert(promotions).values(**line, **same))
        pinned = {"use_case": "birds", "environment": "staging", "commit": "c" * 40, "head": "e" * 40}
        connection.execute(sa.insert(serving).values(**pinned, version=3, observed_at=T0))
        connection.execute(sa.insert(serving).values(**pinned | {"environment": "prod"}, version=None, observed_at=T0))
        document = {"document": "{}", "verdict": "{}", "card": "{}", "recorded_at": T0}
        connection.execute(sa.insert(releases).values(model="birds", version=3, **document))
    name = "driftline_release_uncommitted"
    assert value(read_ledger(ledger), name, use_case="birds", environment="staging") is None, "no Git is configured"
    # Named, withdrawn, never seen.
    for environment, waits in (("staging", 0), ("prod", 0), ("local", 1)):
        assert value(read_ledger(ledger, environment), name, use_case="birds", environment=environment) == waits
    samples = read_ledger(ledger)
    Exposition().put("s", samples)
    assert value(samples, "driftline_hold_active", use_case="wells") == 1
    assert value(samples, "driftline_hold_active", use_case="birds") == 0
    assert value(samples, "driftline_champion_version", use_case="birds") == 3
    assert value(samples, "driftline_drift_reference_timestamp_seconds", use_case="birds") == T0.timestamp()
    for outcome, count in (("promoted", 1), ("reverted", 1), ("superseded", 0)):
        assert value(samples, "driftline_promotions_total", use_case="birds", outcome=outcome) == count
    labels = {"use_case": "birds", "environment": "staging"}
    assert value(samples, "driftline_release_info", **labels, version="3", commit="c" * 40) == 1
    assert value(samples, "driftline_release_timestamp_seconds", **labels) == T0.timestamp()
    assert value(samples, "driftline_release_timestamp_seconds", use_case="birds", environment="prod") is None
    assert release(ledger, "wells")


def test_all_that_is_registered_is_exported(ledger: sa.Engine, ledger_url: str, tmp_path: Path) -> None:
    """Of a ledger that has seen everything, and of the other sources; KFP's own are tested beside it."""
    test_holds_champions_promotions_and_releases(ledger)
    update = {"drift": drift(0.4, drifted=True), "prediction_drift": drift(0.1, drifted=False)}
    auc = Performance(metric="auc", window=Interval(estimate=1), champion=Interval(estimate=1), fell=None, message="")
    decide(ledger, evidence("birds", 1, version=3, performance=[auc], **update), "retrain", datetime.now(UTC))
    claim_run(ledger, "r2", "c", "training", "birds")
    finish_run(ledger, "r2", "succeeded")
    settings = embedded_settings(tmp_path, tmp_path).model_copy(
        update={"ledger_url": ledger_url, "git_url": "/nowhere.git", "git_environment": "staging"}
    )
    exposition = Exposition()
    rounds = Rounds([Part("ledger", 60, lambda: look_at_ledger(settings, exposition))], is_leader=lambda: True)
    rounds.start()
    deadline = time.monotonic() + 60
    while not rounds.standings["ledger"].succeeded_at:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    rounds.stop(5)
    exposition.put("controller", own_samples(rounds, leads=True))
    exposition.put("rollouts", Reverts(settings, exposition).samples())
    has = {"version": "birds-monitoring-1", "cron": "@daily"}
    known = Existing(id="i", name="n", enabled=True, created_at=T0, digest="d", has=has)
    exposition.put("periods", period_samples([known]))
    exposition.put("schedules", schedule_samples([Change(name="n", action="undeclared", current=known)], []))
    exported = {sample.name for sample in exposition.samples()}
    of_kfp = {"driftline_kfp_up", "driftline_kfp_runs"}
    assert {metric.name for metric in registry().exported_by("controller")} - exported == of_kfp


def test_a_ledger_out_of_reach_says_only_that(tmp_path: Path) -> None:
    exposition = Exposition()
    exposition.put("ledger", [Sample("driftline_hold_active", 1, {"use_case": "birds"})])
    with pytest.raises(LedgerError, match="does not exist yet"):
        look_at_ledger(embedded_settings(tmp_path, tmp_path), exposition)
    assert exposition.samples() == [Sample("driftline_ledger_up", 0)]


def test_a_kfp_out_of_reach_says_only_that(tmp_path: Path) -> None:
    """What it says otherwise is in tests/cluster."""
    exposition = Exposition()
    old = {"use_case": "birds", "pipeline": "training", "status": "running"}
    exposition.put("kfp", [Sample("driftline_kfp_runs", 1, old)])
    settings = embedded_settings(tmp_path, tmp_path).model_copy(update={"kfp_host": "http://127.0.0.1:9"})
    with pytest.raises(ClusterUnreachable):
        look_at_kfp(settings, exposition)
    assert exposition.samples() == [Sample("driftline_kfp_up", 0)]
