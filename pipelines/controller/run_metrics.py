"""Metrics of pipeline runs, counted by the ledger's database."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from components.core.ledger.schema import runs
from components.core.metric_registry import registry
from pipelines.controller.exposition import Histogram, Sample

WELL = ("succeeded", "refused", "superseded")
"""Ends that are as they should be: a refusal is an answer, and no failure."""
BOUNDS_SECONDS = (15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14400.0, 43200.0, 172800.0)
"""Up to the two days after which every run is ended."""
AFTER_DATA_GATE = ("tune", "train", "evaluate", "package", "promote")
"""Steps that begin only once `features` has let the data pass."""


def run_samples(connection: sa.Connection, use_cases: list[str]) -> Iterator[Sample]:
    """Yield the metrics of all runs, zeros included, for some use cases."""
    outcomes = _values("driftline_pipeline_runs_total", "outcome")
    pipelines = _values("driftline_pipeline_runs_total", "pipeline")
    key = (runs.c.use_case, runs.c.pipeline)
    counted = connection.execute(sa.select(*key, runs.c.state, sa.func.count()).group_by(*key, runs.c.state)).all()
    counts = {(case, pipeline, state): n for case, pipeline, state, n in counted}
    well = _last_well(connection)
    failed = _failed_since(connection)
    durations = _durations(connection)
    for case in use_cases:
        for pipeline in pipelines:
            labels = {"use_case": case, "pipeline": pipeline}
            for outcome in outcomes:
                n = counts.get((case, pipeline, outcome), 0)
                yield Sample("driftline_pipeline_runs_total", n, labels | {"outcome": outcome})
            running = counts.get((case, pipeline, "running"), 0)
            yield Sample("driftline_pipeline_runs_running", running, labels)
            yield Sample("driftline_pipeline_consecutive_failures", failed.get((case, pipeline), 0), labels)
            if (last := well.get((case, pipeline))) is not None:
                yield Sample("driftline_pipeline_last_success_timestamp_seconds", last.timestamp(), labels)
            empty = Histogram([(bound, 0) for bound in (*BOUNDS_SECONDS, float("inf"))], 0.0)
            spread = durations.get((case, pipeline), empty)
            yield Sample("driftline_pipeline_run_duration_seconds", spread, labels)
    yield from _refusals(connection, use_cases)
    yield from _gates(connection, use_cases)


def _last_well(connection: sa.Connection) -> dict[tuple[str, str], datetime]:
    query = sa.select(runs.c.use_case, runs.c.pipeline, sa.func.max(runs.c.finished_at)).where(runs.c.state.in_(WELL))
    return {(case, pipeline): last for case, pipeline, last in connection.execute(_grouped(query))}


def _failed_since(connection: sa.Connection) -> dict[tuple[str, str], int]:
    """Count the runs that failed after the last one that ended as it should; cancelled ones say nothing."""
    well = (
        sa.select(runs.c.use_case, runs.c.pipeline, sa.func.max(runs.c.finished_at).label("last"))
        .where(runs.c.state.in_(WELL))
        .group_by(runs.c.use_case, runs.c.pipeline)
        .subquery()
    )
    same = sa.and_(well.c.use_case == runs.c.use_case, well.c.pipeline == runs.c.pipeline)
    query = (
        sa.select(runs.c.use_case, runs.c.pipeline, sa.func.count())
        .outerjoin(well, same)
        .where(runs.c.state == "failed", sa.or_(well.c.last.is_(None), runs.c.finished_at > well.c.last))
    )
    return {(case, pipeline): n for case, pipeline, n in connection.execute(_grouped(query))}


def _durations(connection: sa.Connection) -> dict[tuple[str, str], Histogram]:
    took: sa.ColumnElement[float]
    if connection.dialect.name == "sqlite":
        days = sa.func.julianday(runs.c.finished_at) - sa.func.julianday(runs.c.started_at)
        took = sa.cast(days, sa.Float) * 86400.0
    else:
        took = sa.cast(sa.func.extract("epoch", runs.c.finished_at - runs.c.started_at), sa.Float)
    within = [sa.func.sum(sa.case((took <= bound, 1), else_=0)) for bound in BOUNDS_SECONDS]
    query = sa.select(runs.c.use_case, runs.c.pipeline, sa.func.sum(took), sa.func.count(), *within)
    found = {}
    for case, pipeline, total, n, *counts in connection.execute(_grouped(query.where(runs.c.state == "succeeded"))):
        buckets = list(zip((*BOUNDS_SECONDS, float("inf")), (*counts, n), strict=True))
        found[case, pipeline] = Histogram(buckets, float(total))
    return found


def _refusals(connection: sa.Connection, use_cases: list[str]) -> Iterator[Sample]:
    name = "driftline_refusals_total"
    key = (runs.c.use_case, runs.c.pipeline, runs.c.failed_step)
    query = sa.select(*key, sa.func.count()).where(runs.c.state == "refused").group_by(*key)
    counts = {(case, pipeline, step): n for case, pipeline, step, n in connection.execute(query)}
    for case in use_cases:
        for pipeline in _values(name, "pipeline"):
            for step in _values(name, "step"):
                labels = {"use_case": case, "pipeline": pipeline, "step": step}
                yield Sample(name, counts.get((case, pipeline, step), 0), labels)


def _gates(connection: sa.Connection, use_cases: list[str]) -> Iterator[Sample]:
    """Tell whether the newest training that reached a gate passed it.

    What a failed run says is where it failed: beyond a gate, it has passed it; in the step that obeys a gate it may not
    have come to ask.
    """
    refused = runs.c.state == "refused"
    ended_well = runs.c.state.in_(("succeeded", "superseded"))
    passed_data = sa.or_(ended_well, runs.c.failed_step.in_(AFTER_DATA_GATE))
    passed_model = sa.or_(ended_well, runs.c.failed_step == "promote")
    gates = {
        "data": (passed_data, sa.and_(refused, runs.c.failed_step == "features")),
        "model": (passed_model, sa.and_(refused, runs.c.failed_step == "package")),
    }
    for gate, (passed, denied) in gates.items():
        newest = [sa.func.max(sa.case((when, runs.c.finished_at))) for when in (passed, denied)]
        query = sa.select(runs.c.use_case, *newest).where(runs.c.pipeline == "training").group_by(runs.c.use_case)
        for case, yes, no in connection.execute(query):
            if case in use_cases and (yes is not None or no is not None):
                value = float(no is None or (yes is not None and yes > no))
                yield Sample("driftline_gate_passed", value, {"use_case": case, "gate": gate})


def _grouped(query: sa.Select[Any]) -> sa.Select[Any]:
    return query.group_by(runs.c.use_case, runs.c.pipeline)


def _values(name: str, label: str) -> tuple[str, ...]:
    return next(metric for metric in registry().metrics if metric.name == name).values[label]
