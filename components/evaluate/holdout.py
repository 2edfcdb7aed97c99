"""The rows that a model is judged on, and its predictions for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.core.bundle import Encoding, load_predictor, read_encoding
from components.core.digests import file_digest
from components.core.errors import DataError
from components.core.metrics import Floats, Ints
from components.core.training_set import ROWS, TrainingSet, read_manifest

MICROSECONDS_PER_DAY = 86_400_000_000


@dataclass(frozen=True)
class Holdout:
    """Labelled rows at or after the holdout's first instant, oldest first; `past` are the labelled rows before."""

    rows: pa.Table
    past: pa.Table
    labels: Floats
    day: Ints
    """Index of the UTC day of the prediction instant, 0 = first day of the holdout."""
    dates: list[str]
    unlabelled_rows: int

    @property
    def days(self) -> int:
        return len(self.dates)


def load_rows(folder: Path) -> tuple[TrainingSet, pa.Table]:
    """Read a training set and check its bytes against the manifest.

    Raises DataError when the file is not the one the manifest describes.
    """
    manifest = read_manifest(folder)
    found = file_digest(folder / ROWS)
    if found != manifest.digest:
        raise DataError(
            f"{folder / ROWS} is not the file its manifest describes",
            measured=found[:12],
            allowed=manifest.digest[:12],
            next_step="run the features step again",
        )
    return manifest, pq.read_table(folder / ROWS)


def split_holdout(rows: pa.Table, *, label: str, task: str, holdout_from: datetime) -> Holdout:
    """Split labelled rows by the prediction instant.

    Raises DataError when a classification label is neither 0 nor 1.
    """
    table = rows.sort_by("event_timestamp")
    values = pc.cast(table.column(label), pa.float64())
    labelled = pc.and_kleene(pc.is_valid(values), pc.is_finite(values))
    labelled = pc.fill_null(labelled, False)
    boundary = pa.scalar(holdout_from, type=table.schema.field("event_timestamp").type)
    newest = pc.greater_equal(table.column("event_timestamp"), boundary)
    held = table.filter(pc.and_(newest, labelled))
    labels = _floats(held.column(label))
    past = table.filter(pc.and_(pc.invert(newest), labelled))
    other = np.setdiff1d(np.concatenate([labels, _floats(past.column(label))]), [0.0, 1.0])
    if task == "classification" and other.size:
        raise DataError(
            f"the label {label} of a classification must be 0 or 1",
            measured=", ".join(f"{v:g}" for v in other[:5]),
            allowed="0, 1",
            next_step="correct the label's SQL",
        )
    instants = pc.cast(held.column("event_timestamp"), pa.int64()).to_numpy()
    dates, day = np.unique(instants // MICROSECONDS_PER_DAY, return_inverse=True)
    return Holdout(
        rows=held,
        past=past,
        labels=labels,
        day=day.astype(np.intp),
        dates=[str(np.datetime64(int(d), "D")) for d in dates],
        unlabelled_rows=int(pc.sum(newest).as_py() or 0) - held.num_rows,
    )


def columns(rows: pa.Table, encoding: Encoding) -> Mapping[str, Any]:
    """Return the raw values that an encoding reads: lists of text, float64 arrays with NaN for null.

    Raises DataError naming the columns that the rows lack.
    """
    missing = [name for name in encoding.names if name not in rows.column_names]
    if missing:
        raise DataError(
            "the rows lack inputs of the model",
            measured=", ".join(missing),
            allowed=", ".join(encoding.names),
            next_step="judge the model on the training set that it was trained from",
        )
    return {
        c.name: rows.column(c.name).to_pylist() if c.kind == "category" else _floats(rows.column(c.name))
        for c in encoding.columns
    }


def predict(bundle: Path, rows: pa.Table) -> Floats:
    """Predict rows with the ONNX graph of a bundle, as serving does: float64 [n]."""
    encoding = read_encoding(bundle)
    inputs = encoding.encode(columns(rows, encoding), rows.num_rows)
    if not rows.num_rows:
        return np.zeros(0)
    return load_predictor(bundle).predict(inputs).astype(np.float64)


def group_values(rows: pa.Table, column: str, bins: int = 4) -> tuple[list[str], Ints]:
    """Return the names of the groups of a column and the group of every row; numbers are cut at quantiles."""
    values = rows.column(column)
    if pa.types.is_floating(values.type):
        numbers = _floats(values)
        known = numbers[np.isfinite(numbers)]
        edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1))) if known.size else np.zeros(1)
        inner = edges[1:-1]
        names = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)] or ["all"]
        group = np.searchsorted(inner, numbers, side="right")
        group[~np.isfinite(numbers)] = len(names)
        return [*names, "missing"], group.astype(np.intp)
    encoded = pc.fill_null(pc.cast(values, pa.string()), "missing").combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False).astype(np.intp)


def _floats(values: pa.ChunkedArray) -> Floats:
    return np.asarray(pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
