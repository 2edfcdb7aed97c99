"""Measure one window: sanity, drift of inputs and predictions, performance. Nothing is written."""

from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa

from components.core.evidence import DriftTest, Evidence, Window
from components.core.inference_log import INPUT
from components.core.profile import ColumnProfile
from components.core.sections import Evaluate, Monitor, Problem
from components.monitor.drift import drift_test
from components.monitor.evidently_report import default_flag
from components.monitor.performance import judge_performance
from components.monitor.sanity import check_sanity
from components.monitor.watched import WatchedModel, WatchedRows, labelled
from components.monitor.window import window_counts


def measure_window(
    model: WatchedModel,
    rows: WatchedRows,
    *,
    window: Window,
    as_of: datetime,
    problem: Problem,
    config: Monitor,
    evaluate: Evaluate,
) -> Evidence:
    """Measure the predictions of one model in one window; where there are too few, say so and claim nothing."""
    count = rows.window.num_rows
    notes = list(rows.notes)
    drift = prediction_drift = None
    if count >= config.min_rows:
        present = [c for c in model.profile.columns if INPUT + c.name in rows.window.column_names]
        drift = _test_drift(present, rows.window, config, prefix=INPUT)
        prediction_drift = _test_drift([model.profile.prediction], rows.window, config, prefix="")
    else:
        notes.append(f"{count:,} predictions are too few to test for drift: {config.min_rows:,} are needed")
    return Evidence(
        use_case=model.spec.use_case,
        window=window,
        as_of=as_of,
        version=model.version,
        model=model.card.model,
        rows=count,
        labelled_rows=labelled(rows.window).num_rows,
        sanity=check_sanity(model, rows.window, rows.past) if count else [],
        drift=drift,
        prediction_drift=prediction_drift,
        performance=judge_performance(
            rows.window, model.holdout, evaluate, task=problem.task, min_rows=config.min_rows
        ),
        evidently=_ask_evidently(model, rows.window, config),
        notes=notes,
    )


def _ask_evidently(model: WatchedModel, rows: pa.Table, config: Monitor) -> bool | None:
    if config.policy != "evidently" or rows.num_rows < config.min_rows:
        return None
    return default_flag(model, rows, limit=config.report_rows, seed=config.seed)


def _test_drift(columns: Sequence[ColumnProfile], rows: pa.Table, config: Monitor, *, prefix: str) -> DriftTest:
    _, counts = window_counts(columns, rows, prefix=prefix)
    return drift_test(columns, counts, significance=config.significance, resamples=config.resamples, seed=config.seed)
