"""Evidently's report of a window, showing the verdict of our own test.

Evidently is what people look at. Its own choice of tests is not acted upon: at 30 to 100 rows it calls every window
drifted, and whole seasons steady. So our test is registered with it as a drift method that looks each column's score
and flag up, and `drift_share` is set so that its dataset flag, too, is our verdict.
"""

import logging
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.core.evidence import ColumnDrift, DriftTest, Evidence
from components.core.inference_log import INPUT
from components.core.profile import PREDICTION, ColumnProfile
from components.core.storage import write_text
from components.monitor.watched import WatchedModel

log = logging.getLogger(__name__)

METHOD = "driftline"
PRESET_ROWS = 10_000
"""Rows per side for Evidently's own preset when no report is wanted."""


def default_flag(model: WatchedModel, rows: pa.Table, *, limit: int, seed: int) -> bool:
    """Return the dataset flag of Evidently's default preset: whether half of the columns drifted by its own tests."""
    from evidently import Report
    from evidently.presets import DataDriftPreset

    current, reference = _datasets(model, rows, limit=limit or PRESET_ROWS, seed=seed)
    return dataset_flag(Report([DataDriftPreset()], include_tests=True).run(current, reference).dict())


def write_report(
    path: Path, workspace: Path, found: Evidence, model: WatchedModel, rows: pa.Table, *, limit: int, seed: int
) -> None:
    """Write Evidently's HTML of a window and add the run to its workspace, once per evidence.

    Without a report (`limit` 0) or a test, one line of HTML says so and Evidently is not imported. This page is for
    people: where Evidently cannot draw it, the page says why and the window is judged all the same.
    """
    tests = [test for test in (found.drift, found.prediction_drift) if test is not None]
    if not limit or not tests:
        why = "monitor.report_rows is 0" if not limit else "there were too few predictions to test"
        write_text(path, f"<!doctype html><title>Evidently</title><p>No Evidently report: {why}.</p>\n")
        return
    try:
        snapshot = make_report(model, rows, tests, limit=limit, seed=seed)
        html = snapshot.get_html_str(as_iframe=False)
    except Exception as error:
        # Evidently stops at frames that it cannot plot, and its page must not cost the window its evidence.
        log.exception("Evidently cannot report this window")
        reason = f"{type(error).__name__}: {error}".replace("<", "&lt;")
        write_text(
            path, f"<!doctype html><title>Evidently</title><p>Evidently cannot report this window: {reason}</p>\n"
        )
        return
    write_text(path, html)
    _add_run(workspace, found, snapshot)


def make_report(model: WatchedModel, rows: pa.Table, tests: Sequence[DriftTest], *, limit: int, seed: int) -> Any:
    """Return Evidently's snapshot of at most `limit` rows per side; per column and for all it shows what we found."""
    from evidently import Report
    from evidently.metrics import DriftedColumnsCount, ValueDrift

    current, reference = _datasets(model, rows, limit=limit, seed=seed)
    found = {column.column: column for test in tests for column in test.columns}
    names = [name for name in current.as_dataframe().columns if name in found]
    register(found)
    # Half a column: one that drifted is enough, as in a family-wise test.
    share = 0.5 / len(names)
    metrics = [
        DriftedColumnsCount(columns=names, method=METHOD, drift_share=share),
        *(ValueDrift(column=name, method=METHOD) for name in names),
    ]
    return Report(metrics, include_tests=True).run(current, reference)


def register(found: Mapping[str, ColumnDrift]) -> None:
    """Make our test known to Evidently: it answers with what was found, whatever sample it is shown."""
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    def look_up(reference: Any, _current: Any, _kind: Any, _threshold: float) -> tuple[float, bool]:
        column = found[str(reference.name)]
        return column.score, column.drifted

    test = StatTest(
        name=METHOD,
        display_name="Jensen-Shannon distance, family-wise by permutation (Driftline)",
        allowed_feature_types=[ColumnType.Numerical, ColumnType.Categorical],
        default_threshold=0.0,
    )
    register_stattest(test, default_impl=look_up)


def dataset_flag(report: Mapping[str, Any]) -> bool:
    """Return whether Evidently calls a dataset drifted, from the dictionary of its snapshot."""
    first = report["metrics"][0]
    name = str(first["metric_name"])
    if not name.startswith("DriftedColumnsCount"):
        raise ValueError(f"Evidently's first metric is {name}")
    share = float(name.partition("drift_share=")[2].partition(",")[0].rstrip(")"))
    return float(first["value"]["share"]) >= share


def _datasets(model: WatchedModel, rows: pa.Table, *, limit: int, seed: int) -> tuple[Any, Any]:
    """Return current and reference rows for Evidently; columns that one side has no value of are left out."""
    from evidently import DataDefinition, Dataset

    generator = np.random.default_rng(seed)
    columns = [*model.profile.columns, model.profile.prediction]
    named = {c.name: c.name if c.name == PREDICTION else INPUT + c.name for c in columns}
    current = _frame(columns, rows, named, _sample(rows.num_rows, limit, generator))
    reference = _frame(
        columns, model.reference, {c.name: c.name for c in columns}, _sample(model.reference.num_rows, limit, generator)
    )
    shared = [n for n in current.columns if n in reference and current[n].notna().any() and reference[n].notna().any()]
    kinds = {c.name: c.kind for c in columns}
    definition = DataDefinition(
        numerical_columns=[n for n in shared if kinds[n] == "number"],
        categorical_columns=[n for n in shared if kinds[n] == "category"],
    )
    return tuple(Dataset.from_pandas(frame[shared], data_definition=definition) for frame in (current, reference))


def _sample(rows: int, limit: int, generator: np.random.Generator) -> Any:
    return np.sort(generator.choice(rows, min(rows, limit), replace=False))


def _frame(columns: Sequence[ColumnProfile], rows: pa.Table, named: Mapping[str, str], chosen: Any) -> Any:
    import pandas as pd

    values = {}
    for column in columns:
        name = named[column.name]
        if name not in rows.column_names:
            continue
        taken = rows.column(name).take(pa.array(chosen))
        if column.kind == "category":
            values[column.name] = pd.Series(taken.cast(pa.string()).to_pylist(), dtype=object)
        elif pa.types.is_floating(taken.type) or pa.types.is_integer(taken.type):
            values[column.name] = pd.Series(taken.cast(pa.float64()).to_numpy()).replace([np.inf, -np.inf], np.nan)
    return pd.DataFrame(values)


def _add_run(workspace: Path, found: Evidence, snapshot: Any) -> None:
    from evidently.ui.workspace import Workspace

    snapshot.set_name(f"{found.window.first:%Y-%m-%d} version {found.version}")
    workspace.mkdir(parents=True, exist_ok=True)
    kept = Workspace.create(str(workspace))
    projects = kept.search_project(found.use_case)
    project = projects[0] if projects else kept.create_project(found.use_case)
    model = snapshot.to_snapshot_model()
    # The window, not the instant that it was looked at; and an id of the evidence, so that looking again adds nothing.
    model.timestamp = found.window.last
    kept.state.write_snapshot(project.id, uuid.uuid5(uuid.NAMESPACE_OID, found.digest), model)
