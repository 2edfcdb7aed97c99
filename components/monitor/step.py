"""The monitoring step: measure one window of one model, then write evidence and pages. It decides nothing."""

import logging
import tempfile
from datetime import timedelta
from pathlib import Path

from components.core.calendar import last_window
from components.core.clock import parse_instant
from components.core.errors import DataError
from components.core.evidence import Evidence, write_evidence
from components.core.sections import Evaluate, Monitor, Problem
from components.core.settings import Settings
from components.core.storage import write_text
from components.core.tables import read_snapshot
from components.monitor.evidently_report import write_report
from components.monitor.measuring import measure_window
from components.monitor.page import render_page, sentence
from components.monitor.watched import load_champion, read_rows

EVIDENTLY = "evidently"
"""Folder of Evidently's workspace below DRIFTLINE_HOME."""
log = logging.getLogger(__name__)


def watch(
    settings: Settings,
    use_case: str,
    *,
    as_of: str,
    problem: Problem,
    config: Monitor,
    evaluate: Evaluate,
    snapshot: Path,
    evidence: Path,
    page: Path,
    report: Path,
) -> dict[str, float]:
    """Judge the newest finished window of the champion's predictions and write the three files.

    Returns scalar metrics. Few or no predictions are evidence too; broken input is found, never raised. Raises
    PackagingFailed when there is no champion or its Bento is gone or was changed, DataError when the snapshot is of
    another use case.
    """
    instant = parse_instant(as_of)
    taken = read_snapshot(snapshot)
    if taken.use_case != use_case:
        raise DataError("the snapshot belongs to another use case", measured=taken.use_case, allowed=use_case)
    with tempfile.TemporaryDirectory(prefix="champion-") as folder:
        model = load_champion(settings, use_case, Path(folder))
    window = last_window(config.window, instant, timedelta(hours=config.label_delay_hours))
    rows = read_rows(settings, model, problem, taken, window=window, as_of=instant)
    found = measure_window(model, rows, window=window, as_of=instant, problem=problem, config=config, evaluate=evaluate)
    workspace = settings.home / EVIDENTLY
    write_report(report, workspace, found, model, rows.window, limit=config.report_rows, seed=config.seed)
    write_text(page, render_page(found, model, rows.window, config))
    # Last: the next step obeys it.
    write_evidence(evidence, found)
    log.info(sentence(found))
    return scalars(found)


def scalars(found: Evidence) -> dict[str, float]:
    """Return the figures worth a column in a run comparison."""
    figures: dict[str, float | None] = {
        "rows": found.rows,
        "labelled_rows": found.labelled_rows,
        "broken": len(found.broken),
    }
    for prefix, test in (("drift", found.drift), ("prediction_drift", found.prediction_drift)):
        if test is not None:
            figures |= {prefix: test.drifted, f"{prefix}_p_value": test.p_value}
            figures[f"{prefix}_largest_score"] = max((c.score for c in test.columns), default=None)
    if found.drift is not None:
        figures["drifted_columns"] = sum(c.drifted for c in found.drift.columns)
    for measured in found.performance:
        figures[measured.metric] = measured.window.estimate
        figures[f"{measured.metric}_fell"] = measured.fell
    return {name: float(value) for name, value in figures.items() if value is not None}
