"""The predictions of a period, as the inference log holds them, for whoever ordered them."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.core.digests import file_digest
from components.core.errors import DataError
from components.core.storage import write_atomically
from components.score.rows import REQUEST

log = logging.getLogger(__name__)


def write_predictions(
    path: Path, files: Mapping[str, Path], rows: Mapping[str, pa.Table], *, ids: Sequence[str]
) -> dict[str, Any]:
    """Write ids, event_timestamp, prediction and model_version of all days to one Parquet file; return its figures.

    Predictions come from the files of the log, so a kept day shows what was answered then. A row that joined the
    period since has no prediction and is left out. Raises DataError for a file that cannot be read.
    """
    parts = [_day(files[day], part, ids) for day, part in rows.items()]
    table = pa.concat_tables(parts)
    write_atomically(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))
    return {
        "rows": table.num_rows,
        "rows_unanswered": sum(part.num_rows for part in rows.values()) - table.num_rows,
        "mean_prediction": pc.mean(table.column("prediction")).as_py() or 0.0,
        "model_versions": sorted(pc.unique(table.column("model_version")).to_pylist()),
        "digest": file_digest(path),
    }


def _day(file: Path, rows: pa.Table, ids: Sequence[str]) -> pa.Table:
    try:
        logged = pq.ParquetFile(file).read(["request_id", "model_version", "prediction"])
    except (OSError, pa.ArrowException) as error:
        raise DataError("a file of the inference log cannot be read", measured=f"{file}: {error}") from error
    position = pc.index_in(rows.column(REQUEST), value_set=logged.column("request_id").combine_chunks())
    known = rows.append_column("__position", position).filter(pc.is_valid(position))
    if (absent := rows.num_rows - known.num_rows) or logged.num_rows > known.num_rows:
        log.warning(
            "%s: %d rows without a prediction, %d predictions of other rows",
            file.parent.name,
            absent,
            logged.num_rows - known.num_rows,
        )
    taken = logged.take(known.column("__position").combine_chunks())
    columns = {name: known.column(name) for name in [*ids, "event_timestamp"]}
    return pa.table(columns | {name: taken.column(name) for name in ("prediction", "model_version")})
