"""A request that a person could send right now: the newest prediction whose outcome is not known yet."""

from typing import Any

import pyarrow.compute as pc

from components.core.errors import DataError
from components.core.object_store import fetch, fetch_snapshot
from components.core.sections import Problem
from components.core.settings import Settings
from components.core.tables import latest_path, read_snapshot, read_table


def example_request(settings: Settings, use_case: str, problem: Problem) -> tuple[str, dict[str, Any]]:
    """Return the id of a row and its request; the instant is that of the newest snapshot.

    Raises DataError when there is no snapshot or every outcome is known.
    """
    path = latest_path(settings.snapshots, use_case)
    if not fetch(settings, path, again=True):
        raise DataError("there is no snapshot yet", next_step=f"driftline run training --use-case {use_case}")
    snapshot = read_snapshot(path)
    fetch_snapshot(settings, snapshot)
    table = read_table(settings.snapshots, snapshot, problem.table)
    open_rows = table.filter(pc.is_null(table.column(problem.label))).sort_by("event_timestamp")
    if not open_rows.num_rows:
        raise DataError("every outcome in the newest snapshot is known", measured=f"{table.num_rows} rows")
    row = open_rows.slice(open_rows.num_rows - 1).to_pylist()[0]
    fields = dict.fromkeys([*problem.entities, *problem.inputs])
    request = {name: row[name] for name in fields} | {"as_of": snapshot.as_of.isoformat()}
    return " ".join(str(row[name]) for name in problem.id), request
