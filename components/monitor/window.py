"""Binning of a window: its rows as counts per UTC day, in the bins of the reference profile."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from components.core.errors import DataError
from components.core.profile import ColumnProfile, Counts, count_days, utc_days


def window_counts(
    columns: Sequence[ColumnProfile], rows: pa.Table, *, prefix: str = "input_", instant: str = "as_of"
) -> tuple[list[str], dict[str, Counts]]:
    """Return the UTC days with rows, oldest first, and counts per profiled column, int64 [days, bins].

    The column of profile `x` is `<prefix>x`; one that the rows lack is left out. `instant` names the timestamps.
    Raises DataError when a number's column holds something else.
    """
    days, day = utc_days(rows.column(instant))
    present = [column for column in columns if prefix + column.name in rows.column_names]
    return days, {column.name: _count(column, rows.column(prefix + column.name), day, len(days)) for column in present}


def _count(column: ColumnProfile, values: pa.ChunkedArray, day: np.ndarray, days: int) -> Counts:
    try:
        return count_days(column, values, day, days)
    except pa.ArrowException as error:
        raise DataError(
            f"{column.name} is a number in the reference profile and not in the window",
            measured=f"{values.type}: {error}",
            allowed="numbers or null",
            next_step="find out who writes this column; a model version may have changed its kind",
        ) from error
