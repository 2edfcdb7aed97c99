"""The reference profile of a model: what its training set looked like per day, and what it predicts on unseen days."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.core.bundle import load_predictor, model_digest, read_encoding
from components.core.profile import (
    MAX_LEVELS,
    PREDICTION,
    QUANTILE_BINS,
    REFERENCE,
    REFERENCE_ROWS,
    ColumnProfile,
    Profile,
    count_days,
    utc_days,
    write_profile,
)
from components.core.storage import write_atomically
from components.core.training_set import Input
from components.train.rows import encode
from components.train.split import Positions
from components.train.trainer import Matrix

INSTANT = "event_timestamp"
SHOWN_QUANTILES = (0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99)
_PREDICT_ROWS = 65_536
"""Rows per call of the graph, to bound memory."""

Floats = npt.NDArray[np.float64]


def write_reference(
    folder: Path, table: pa.Table, inputs: Sequence[Input], *, use_case: str, unseen: Positions, importance: list[float]
) -> Profile:
    """Write `profile.json` and `reference.parquet` into a bundle with graph and encoding; return the profile.

    `table` holds `event_timestamp` and the raw inputs of all reference rows; `unseen` are the positions of rows that
    the model was not fitted on, which predictions are profiled on: on its own training rows a model is too sure.
    `importance` is one share per input, or empty.
    """
    days, day = utc_days(table.column(INSTANT))
    shares = importance or [0.0] * len(inputs)
    columns = [
        profile_column(column.name, column.kind, table.column(column.name), days, day, view=column.view, share=share)
        for column, share in zip(inputs, shares, strict=True)
    ]
    predicted = predict_rows(folder, table.take(unseen))
    unseen_days, unseen_day = utc_days(table.column(INSTANT).take(unseen))
    prediction = profile_column(PREDICTION, "number", pa.array(predicted, pa.float64()), unseen_days, unseen_day)
    profile = Profile(
        use_case=use_case,
        model=model_digest(folder),
        rows=table.num_rows,
        columns=columns,
        prediction=prediction,
    )
    write_profile(folder, profile)
    _write_sample(folder, table.select([INSTANT, *(column.name for column in inputs)]))
    return profile


def profile_column(
    name: str,
    kind: str,
    values: pa.ChunkedArray | pa.Array,
    days: list[str],
    day: npt.NDArray[np.intp],
    *,
    view: str = "",
    share: float = 0.0,
) -> ColumnProfile:
    """Count one column by day and bin; `day` is the position in `days` of every value, intp [n]."""
    numbers = _finite(values) if kind == "number" else np.zeros(0)
    empty = ColumnProfile.model_validate(
        {
            "name": name,
            "kind": kind,
            "view": view,
            "edges": quantile_edges(numbers),
            "levels": frequent_levels(values) if kind == "category" else [],
            "days": days,
            "counts": [],
            "distinct": _distinct(values, day, len(days)),
            "quantiles": np.quantile(numbers, SHOWN_QUANTILES).tolist() if numbers.size else [],
            "importance": share,
        }
    )
    return empty.model_copy(update={"counts": count_days(empty, values, day, len(days)).tolist()})


def quantile_edges(numbers: Floats) -> list[float]:
    """Return ascending edges of bins with about equally many of the numbers, and around all of them.

    An inner edge lies midway between two values that occur, so rounding moves no value into another bin; equal
    quantiles share an edge. The outer edges lie one float32 step outside the range: a model sees no smaller change.
    No numbers: no edges.
    """
    if not numbers.size:
        return []
    values, counts = np.unique(numbers, return_counts=True)
    ranks = np.arange(1, QUANTILE_BINS) * numbers.size // QUANTILE_BINS
    above = np.unique(np.searchsorted(np.cumsum(counts), ranks, side="right"))
    above = above[above > 0]
    below = values[above - 1]
    middle = below + (values[above] - below) / 2
    # Neighbouring floats have no middle.
    middle = np.where(middle > below, middle, values[above])
    low = np.nextafter(np.float32(values[0]), np.float32(-np.inf))
    high = np.nextafter(np.float32(values[-1]), np.float32(np.inf))
    return [float(low), *middle.tolist(), float(high)]


def frequent_levels(values: pa.ChunkedArray | pa.Array) -> list[str]:
    """Return the most frequent levels, at most 100, sorted by name; of equally frequent ones the first by name."""
    counts: dict[str, int] = {}
    for entry in pc.value_counts(values).to_pylist():
        if entry["values"] is not None:
            counts[str(entry["values"])] = counts.get(str(entry["values"]), 0) + entry["counts"]
    return sorted(sorted(counts, key=lambda level: (-counts[level], level))[:MAX_LEVELS])


def predict_rows(folder: Path, table: pa.Table) -> Matrix:
    """Return what the bundle's graph predicts for raw rows, float32 [n]."""
    encoding, predictor = read_encoding(folder), load_predictor(folder)
    parts = [
        predictor.predict(encode(encoding, table.slice(start, _PREDICT_ROWS)))
        for start in range(0, table.num_rows, _PREDICT_ROWS)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def _write_sample(folder: Path, table: pa.Table) -> None:
    """Write at most 10,000 rows, spread evenly in time, each with its prediction."""
    order = np.argsort(_micros(table.column(INSTANT)), kind="stable")
    if order.size > REFERENCE_ROWS:
        order = order[np.linspace(0, order.size - 1, REFERENCE_ROWS).round().astype(np.int64)]
    sample = table.take(order)
    sample = sample.append_column(PREDICTION, pa.array(predict_rows(folder, sample), pa.float64()))
    write_atomically(folder / REFERENCE, lambda temporary: pq.write_table(sample, temporary, compression="zstd"))


def _micros(instants: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    return np.asarray(instants.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy(), dtype=np.int64)


def _finite(values: pa.ChunkedArray | pa.Array) -> Floats:
    numbers = np.asarray(pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    return numbers[np.isfinite(numbers)]


def _distinct(values: pa.ChunkedArray | pa.Array, day: npt.NDArray[np.intp], days: int) -> list[int]:
    """Count the distinct values of each day; null and NaN are none."""
    encoded = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if pa.types.is_floating(encoded.type):
        encoded = pc.if_else(pc.is_nan(encoded), None, encoded)
    encoded = encoded if pa.types.is_dictionary(encoded.type) else encoded.dictionary_encode()
    known = pc.is_valid(encoded.indices).to_numpy(zero_copy_only=False)
    codes = pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False)
    size = len(encoded.dictionary)
    pairs = np.unique(day[known] * size + codes[known]) // max(size, 1)
    found: list[int] = np.bincount(pairs, minlength=days).tolist()
    return found
