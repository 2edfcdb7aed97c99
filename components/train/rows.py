"""Reading a training set and turning it into matrices."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.core.bundle import Column, Encoding
from components.core.digests import file_digest
from components.core.errors import DataError
from components.core.sections import Problem, Train
from components.core.training_set import ROWS, Input, TrainingSet, read_manifest
from components.train.split import Positions, Split, split_by_time
from components.train.trainer import Matrix, Rows


@dataclass(frozen=True)
class Prepared:
    """Labelled rows, their split and the encoding fitted on the training part."""

    description: TrainingSet
    table: pa.Table
    labels: Matrix
    split: Split
    encoding: Encoding
    training: Rows
    validation: Rows

    def encode(self, positions: Positions) -> Matrix:
        return encode(self.encoding, self.table.take(positions))


def prepare(folder: Path, use_case: str, problem: Problem, config: Train) -> Prepared:
    """Read a training set, split it by time and encode its training and validation rows.

    Raises DataError when the files contradict their description, a part of the split is empty, an input has no value
    in the training part, or labels cannot be learned from.
    """
    description = read_manifest(folder)
    table = _labelled_rows(folder, description, use_case, problem)
    labels = table.column(problem.label).to_numpy().astype(np.float32)
    split = split_by_time(_instants(table, "event_timestamp"), _instants(table, "label_timestamp"), config)
    unusable = int((~np.isfinite(labels)).sum())
    if unusable:
        raise DataError("labels are infinite or not a number", measured=f"{unusable} rows", allowed="finite or null")
    if problem.task == "classification":
        _check_classes(labels, split)
    training, validation = table.take(split.training), table.take(split.validation)
    encoding = fit_encoding(training, description.inputs)
    inputs = encode(encoding, training)
    empty = [name for position, name in enumerate(encoding.names) if np.isnan(inputs[:, position]).all()]
    if empty:
        raise DataError(
            "inputs have no value in any training row",
            measured=", ".join(empty),
            allowed="at least one value",
            next_step="remove the input from the feature service, or check its table",
        )
    return Prepared(
        description=description,
        table=table,
        labels=labels,
        split=split,
        encoding=encoding,
        training=Rows(inputs, labels[split.training]),
        validation=Rows(encode(encoding, validation), labels[split.validation]),
    )


def fit_encoding(training: pa.Table, inputs: list[Input]) -> Encoding:
    """Learn the categories of each input, sorted, from training rows only."""
    return Encoding(
        columns=[
            Column(name=i.name, kind=i.kind, categories=_categories(training, i.name) if i.kind == "category" else [])
            for i in inputs
        ]
    )


def encode(encoding: Encoding, table: pa.Table) -> Matrix:
    """Encode raw columns as serving does; float32 [rows, k].

    Raises DataError for an infinite number, which no trainer accepts.
    """
    values: dict[str, Any] = {
        c.name: table.column(c.name).to_pylist() if c.kind == "category" else _numbers(table.column(c.name))
        for c in encoding.columns
    }
    with np.errstate(over="ignore"):
        matrix = encoding.encode(values, table.num_rows)
    encoding.require_finite(matrix)
    return matrix


def _labelled_rows(folder: Path, description: TrainingSet, use_case: str, problem: Problem) -> pa.Table:
    """Read the rows whose label is known, after checking that they are the described ones."""
    if description.use_case != use_case or description.label != problem.label:
        raise DataError(
            "the training set belongs to another problem",
            measured=f"{description.use_case}.{description.label}",
            allowed=f"{use_case}.{problem.label}",
            next_step="run the features step of this use case",
        )
    digest = file_digest(folder / ROWS)
    if digest != description.digest:
        raise DataError(
            "the training set was changed after it was written",
            measured=digest[:12],
            allowed=description.digest[:12],
            next_step="run the features step again",
        )
    table = pq.read_table(folder / ROWS)
    table = table.filter(pc.is_valid(table.column(problem.label)))
    unknown_since = table.column("label_timestamp").null_count
    if unknown_since:
        raise DataError(
            "labels without the instant at which they became known",
            measured=f"{unknown_since} rows",
            allowed=0,
            next_step="let the prediction table's SQL set label_timestamp wherever the label is set",
        )
    return table


def _check_classes(labels: Matrix, split: Split) -> None:
    """Raise DataError unless labels are 0 and 1 and both occur in the training and the validation part."""
    for name, positions in (("training", split.training), ("validation", split.validation)):
        classes = np.unique(labels[positions])
        if not np.array_equal(classes, [0.0, 1.0]):
            raise DataError(
                f"the {name} part does not hold the two classes 0 and 1",
                measured=", ".join(f"{c:g}" for c in classes[:5]),
                allowed="both 0 and 1",
                next_step="check the label's SQL, or widen the part in section train",
            )


def _categories(table: pa.Table, name: str) -> list[str]:
    return sorted(str(v) for v in pc.unique(table.column(name)).to_pylist() if v is not None)


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _instants(table: pa.Table, name: str) -> npt.NDArray[np.datetime64]:
    return np.asarray(table.column(name).cast(pa.timestamp("us")).to_numpy(), dtype="datetime64[us]")
