"""Reading a scoring set: prediction rows with features, each a request of its own."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.core.digests import file_digest
from components.core.errors import DataError
from components.core.label_join import joined_ids
from components.core.training_set import ROWS, TrainingSet, read_manifest

REQUEST = "__request_id"
AS_OF = "as_of"


def read_rows(folder: Path, use_case: str) -> tuple[TrainingSet, pa.Table]:
    """Return a scoring set's description and its rows with two more columns: `__request_id` and `as_of`.

    A request is named by its id columns joined by a space; it is as of its `event_timestamp`.
    Raises DataError when the set is another use case's or was changed, and when ids are not unique once joined.
    """
    description = read_manifest(folder)
    if description.use_case != use_case:
        raise DataError("the scoring set belongs to another use case", measured=description.use_case, allowed=use_case)
    found = file_digest(folder / ROWS)
    if found != description.digest:
        raise DataError(
            "the scoring set was changed after it was written",
            measured=found[:12],
            allowed=description.digest[:12],
            next_step="run the step scoring-set again",
        )
    table = pq.read_table(folder / ROWS)
    table = table.append_column(REQUEST, joined_ids(table, description.id))
    distinct = pc.count_distinct(table.column(REQUEST)).as_py()
    if distinct != table.num_rows:
        raise DataError(
            "ids are not unique once they are joined by a space",
            measured=f"{table.num_rows} rows, {distinct} ids",
            allowed="one row per " + ", ".join(description.id),
            next_step="take spaces out of the ids, in the prediction table's SQL",
        )
    return description, table.append_column(AS_OF, table.column("event_timestamp"))
