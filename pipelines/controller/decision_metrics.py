"""Metrics of what the monitor measured, what was decided, and what came of it, from the ledger."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from components.core.evidence import DriftTest, Evidence
from components.core.ledger.attempts import OPEN
from components.core.ledger.schema import attempts, decisions, holds, requests
from components.core.metric_registry import registry
from pipelines.controller.exposition import Sample


def decision_samples(connection: sa.Connection, use_cases: list[str]) -> Iterator[Sample]:
    """Yield the metrics of decisions and of the newest judged window, for some use cases."""
    name = "driftline_decisions_total"
    query = sa.select(decisions.c.model, decisions.c.decision, sa.func.count())
    counts = _pairs(connection, query.group_by(decisions.c.model, decisions.c.decision))
    for case in use_cases:
        for decision in _values(name, "decision"):
            yield Sample(name, counts.get((case, decision), 0), {"use_case": case, "decision": decision})
        yield from _newest_window(connection, case)


def request_samples(connection: sa.Connection, use_cases: list[str]) -> Iterator[Sample]:
    """Yield the metrics of requested retrainings, their attempts and of holds, for some use cases."""
    of_state = sa.select(requests.c.model, requests.c.state, sa.func.count())
    states = _pairs(connection, of_state.group_by(requests.c.model, requests.c.state))
    ends = sa.select(requests.c.model, attempts.c.state, sa.func.count()).join_from(attempts, requests)
    tried = _pairs(connection, ends.group_by(requests.c.model, attempts.c.state))
    since = sa.select(requests.c.model, sa.func.min(requests.c.requested_at)).where(requests.c.state.in_(OPEN))
    waiting: dict[str, datetime] = {row[0]: row[1] for row in connection.execute(since.group_by(requests.c.model))}
    held = set(connection.execute(sa.select(holds.c.model)).scalars())
    for case in use_cases:
        labels = {"use_case": case}
        total = sum(n for (model, _), n in states.items() if model == case)
        yield Sample("driftline_retraining_requests_total", total, labels)
        name = "driftline_retraining_requests_ended_total"
        for outcome in _values(name, "outcome"):
            yield Sample(name, states.get((case, outcome), 0), labels | {"outcome": outcome})
        is_open = sum(states.get((case, state), 0) for state in OPEN)
        yield Sample("driftline_retraining_requests_open", is_open, labels)
        if case in waiting:
            yield Sample("driftline_retraining_open_since_timestamp_seconds", waiting[case].timestamp(), labels)
        name = "driftline_retraining_attempts_total"
        for outcome in _values(name, "outcome"):
            yield Sample(name, tried.get((case, outcome), 0), labels | {"outcome": outcome})
        yield Sample("driftline_hold_active", float(case in held), labels)


def _newest_window(connection: sa.Connection, case: str) -> Iterator[Sample]:
    # An alert about failed attempts repeats the evidence of an older decision.
    judged = sa.and_(decisions.c.model == case, decisions.c.rung != "attempts")
    last = connection.execute(sa.select(sa.func.max(decisions.c.decided_at)).where(judged)).scalar()
    newest = sa.select(decisions.c.evidence).where(judged).limit(1)
    order = (decisions.c.window_last.desc(), decisions.c.decided_at.desc(), decisions.c.id)
    text = connection.execute(newest.order_by(*order)).scalar()
    if last is None or text is None:
        return
    labels = {"use_case": case}
    yield Sample("driftline_monitor_last_decision_timestamp_seconds", last.timestamp(), labels)
    yield from evidence_samples(Evidence.model_validate_json(text))


def evidence_samples(evidence: Evidence) -> Iterator[Sample]:
    """Yield what was measured of one window."""
    labels = {"use_case": evidence.use_case}
    yield Sample("driftline_monitor_window_end_timestamp_seconds", evidence.window.last.timestamp(), labels)
    yield Sample("driftline_monitor_rows", evidence.rows, labels)
    yield Sample("driftline_monitor_labelled_rows", evidence.labelled_rows, labels)
    name = "driftline_data_findings"
    found: list[tuple[str, str]] = [
        (finding.check, finding.severity) for finding in evidence.sanity if not finding.passed
    ]
    for check in _values(name, "check"):
        for severity in _values(name, "severity"):
            count = found.count((check, severity))
            yield Sample(name, count, labels | {"check": check, "severity": severity})
    groups: dict[str, DriftTest | None] = {"inputs": evidence.drift, "prediction": evidence.prediction_drift}
    for group, test in groups.items():
        if test is not None and test.columns:
            grouped = labels | {"column_group": group}
            yield Sample("driftline_drift_score", max(column.score for column in test.columns), grouped)
            yield Sample("driftline_drift_detected", float(test.drifted), grouped)
    if evidence.drift is not None and evidence.drift.columns:
        columns = evidence.drift.columns
        share = sum(column.drifted for column in columns) / len(columns)
        yield Sample("driftline_drift_share_ratio", share, labels)
    for measured in evidence.performance:
        sides = {"window": measured.window, "champion": measured.champion}
        for side, interval in sides.items():
            if interval.estimate is not None and measured.metric in _values("driftline_model_performance", "metric"):
                of = labels | {"metric": measured.metric, "side": side}
                yield Sample("driftline_model_performance", interval.estimate, of)


def _pairs(connection: sa.Connection, query: sa.Select[Any]) -> dict[tuple[str, str], int]:
    return {(model, value): n for model, value, n in connection.execute(query)}


def _values(name: str, label: str) -> tuple[str, ...]:
    return next(metric for metric in registry().metrics if metric.name == name).values[label]
