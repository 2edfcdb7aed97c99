"""Build the scoring set: every prediction row of a period, joined point-in-time like the training set."""

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from components.core.errors import DataError
from components.core.object_store import fetch_snapshot
from components.core.sections import Features, Problem
from components.core.settings import Settings
from components.core.tables import TIMESTAMP, Snapshot, read_snapshot, read_table
from components.core.training_set import TrainingSet
from components.features.checks import check_rows, require_columns, require_registry
from components.features.definitions import registry_digest
from components.features.period import whole_days
from components.features.store import open_store
from components.features.training_set import read_definitions, write_joined


def build_scoring_set(
    settings: Settings,
    use_case: str,
    *,
    first: str,
    last: str,
    problem: Problem,
    config: Features,
    registry: str,
    snapshot: Path,
    folder: Path,
) -> TrainingSet:
    """Write the rows of the days [first, last) into `folder`, in the format of a training set.

    A label that is not known, or that the table does not have, is null. `registry` is the digest of the definitions
    that the pipeline was compiled for; empty: not checked. Features without any value are no error: that is what
    production looked like. Raises ConfigError for a period that is not of whole past days, DataError for one without
    rows and for wrong rows, FeatureError when the registry differs.
    """
    taken = read_snapshot(snapshot)
    if taken.use_case != use_case:
        raise DataError("the snapshot belongs to another use case", measured=taken.use_case, allowed=use_case)
    fetch_snapshot(settings, taken)
    start, end = whole_days(first, last, as_of=taken.as_of)
    store = open_store(settings, use_case, manifest=snapshot)
    require_registry(registry_digest(store, config.service), registry, config.service)
    definitions = read_definitions(store, problem, config)
    rows = period_rows(settings.snapshots, taken, problem, start, end)
    return write_joined(folder, store, taken, definitions, rows, problem=problem, config=config, as_of=taken.as_of)


def period_rows(snapshots: Path, snapshot: Snapshot, problem: Problem, first: datetime, last: datetime) -> pa.Table:
    """Return the checked prediction rows with first <= event_timestamp < last, ordered by instant and id."""
    present = snapshot.tables[problem.table].columns if problem.table in snapshot.tables else {}
    wanted = dict.fromkeys([*problem.id, *problem.entities, "event_timestamp", *problem.inputs])
    if present:
        require_columns(list(present), list(wanted), where=problem.table)
    outcome = {"label_timestamp": TIMESTAMP, problem.label: pa.float64()}
    known = [name for name in outcome if name in present]
    table = read_table(snapshots, snapshot, problem.table, list(dict.fromkeys([*wanted, *known])))
    instants = table.column("event_timestamp")
    chosen = table.filter(
        pc.and_(
            pc.greater_equal(instants, pa.scalar(first, instants.type)),
            pc.less(instants, pa.scalar(last, instants.type)),
        )
    )
    if not chosen.num_rows:
        partitions = snapshot.tables[problem.table].partitions
        raise DataError(
            f"{problem.table} has no row to score from {first.date()} to {last.date()}",
            measured=0,
            allowed=f"rows from {partitions[0].first.isoformat()} to {partitions[-1].last.isoformat()}"
            if partitions
            else "none: the table is empty",
            next_step="choose a period within that span, or ingest newer data",
        )
    for name, kind in outcome.items():
        if name not in known:
            chosen = chosen.append_column(name, pa.nulls(chosen.num_rows, kind))
    check_rows(chosen, problem, snapshot.as_of)
    return chosen.sort_by([("event_timestamp", "ascending"), *((column, "ascending") for column in problem.id)])
