"""Turning whole columns of scored rows into rows of the inference log: the fast twin of `inference_log.encode`."""

from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.core.inference_log import INPUT, KEY, KEYED, log_schema
from components.core.serving import ServingSpec
from components.core.tables import TIMESTAMP


def encode_columns(
    spec: ServingSpec,
    rows: pa.Table,
    predictions: npt.NDArray[np.float32],
    *,
    request_ids: pa.Array,
    served_at: datetime,
    route: str,
) -> pa.Table:
    """Return rows of `log_schema`, one request per row; equal to `encode` with these values as row dictionaries.

    `rows` holds the entities, all inputs and `event_timestamp`, the instant each is predicted as of; predictions are
    float32 [n]. NaN counts as null. The names in `missing` are features of a view that are null.
    """
    schema = log_schema(spec)
    count = rows.num_rows
    inputs = {c.name: _cast(rows.column(c.name), schema.field(INPUT + c.name).type) for c in spec.inputs}
    features = [c.name for c in spec.inputs if c.view]
    columns = {
        "request_id": request_ids,
        "row": pa.repeat(pa.scalar(0, pa.int32()), count),
        "served_at": pa.repeat(pa.scalar(served_at, TIMESTAMP), count),
        "as_of": _cast(rows.column("event_timestamp"), TIMESTAMP),
        "route": pa.repeat(route, count),
        "model_version": pa.repeat(pa.scalar(spec.version, pa.int64()), count),
        "model": pa.repeat(spec.model, count),
        **{
            KEY + name: _cast(rows.column(name), kind) if route in KEYED else pa.nulls(count, kind)
            for name, kind in ((name, schema.field(KEY + name).type) for name in spec.entities)
        },
        **{INPUT + name: values for name, values in inputs.items()},
        "stale": _no_names(count),
        "missing": _null_names({name: inputs[name] for name in features}, count),
        "prediction": pa.array(predictions.astype(np.float64)),
    }
    return pa.table(columns, schema=schema)


def null_mask(columns: dict[str, pa.Array], count: int) -> npt.NDArray[np.bool_]:
    """Return where columns are null: bool [count, columns]."""
    mask = np.zeros((count, len(columns)), dtype=np.bool_)
    for position, values in enumerate(columns.values()):
        mask[:, position] = values.is_null().to_numpy(zero_copy_only=False)
    return mask


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    values = column.combine_chunks()
    if values.type != kind:
        values = values.cast(kind)
    return pc.if_else(pc.is_nan(values), pa.scalar(None, kind), values) if pa.types.is_floating(kind) else values


def _no_names(count: int) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.zeros(count + 1, dtype=np.int32)), pa.array([], pa.string()))


def _null_names(columns: dict[str, pa.Array], count: int) -> pa.Array:
    """Return the names of the columns that are null, a list per row."""
    mask = null_mask(columns, count)
    offsets = np.concatenate([[0], np.cumsum(mask.sum(axis=1))]).astype(np.int32)
    names = pa.array(list(columns), pa.string()).take(pa.array(np.nonzero(mask)[1]))
    return pa.ListArray.from_arrays(pa.array(offsets), names)
