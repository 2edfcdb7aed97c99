"""The champion's model, as it was packaged, answering whole columns."""

import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.core.bundle import Encoding, Predictor, load_predictor, read_encoding
from components.core.champion import extract_champion
from components.core.errors import DataError
from components.core.inference_columns import encode_columns, null_mask
from components.core.inference_log import BATCH_SCORING
from components.core.serving import ServingSpec
from components.core.settings import Settings
from components.core.training_set import Input, TrainingSet
from components.score.rows import REQUEST


@dataclass(frozen=True)
class Model:
    """A served model version in memory."""

    spec: ServingSpec
    encoding: Encoding
    graph: Predictor


def load_champion(settings: Settings, use_case: str) -> Model:
    """Read the champion out of its Bento, whose digest the ledger holds.

    Raises what `extract_champion` does.
    """
    with tempfile.TemporaryDirectory(prefix="driftline-score-") as scratch:
        _, spec = extract_champion(settings, use_case, Path(scratch))
        return Model(spec, read_encoding(Path(scratch)), load_predictor(Path(scratch)))


def require_inputs(spec: ServingSpec, description: TrainingSet) -> None:
    """Raise DataError unless a set's inputs are exactly the model's, in its order."""
    if spec.inputs == description.inputs and set(spec.entities) == set(description.entities):
        return
    wanted, found = ({i.name: i for i in inputs} for inputs in (spec.inputs, description.inputs))
    changed = [_describe(i) for name, i in found.items() if wanted.get(name) != i]
    expected = [_describe(i) for name, i in wanted.items() if found.get(name) != i]
    raise DataError(
        f"the scoring set does not fit version {spec.version} of {spec.use_case}",
        measured=", ".join(changed) or f"inputs {', '.join(found)} of {', '.join(description.entities)}",
        allowed=", ".join(expected) or f"inputs {', '.join(wanted)} of {', '.join(spec.entities)}",
        next_step="train a model on the present feature definitions, or apply those of the champion",
    )


def answer(model: Model, rows: pa.Table, served_at: datetime) -> pa.Table:
    """Predict rows and return them as rows of the inference log, in order; rows that the policies refuse are left out.

    Raises DataError for infinite inputs and predictions.
    """
    spec = model.spec
    rows = rows.filter(pa.array(~refused(spec, rows)))
    with np.errstate(over="ignore"):
        inputs = encode_inputs(model.encoding, rows)
    model.encoding.require_finite(inputs)
    predictions = model.graph.predict(inputs) if rows.num_rows else np.empty(0, dtype=np.float32)
    wrong = int((~np.isfinite(predictions)).sum())
    if wrong:
        raise DataError(
            f"version {spec.version} of {spec.use_case} predicts no number", measured=f"{wrong} rows", allowed=0
        )
    return encode_columns(
        spec,
        rows,
        predictions,
        request_ids=rows.column(REQUEST).combine_chunks(),
        served_at=served_at,
        route=BATCH_SCORING,
    )


def refused(spec: ServingSpec, rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Return the rows that serving would not answer: bool [n].

    A joined value that was too old is null like one that never was, so `stale: reject` refuses every null of a view
    with a time to live.
    """
    decisive = [
        column.name
        for column in spec.inputs
        if column.view and (spec.missing == "reject" or (spec.stale == "reject" and column.ttl_seconds))
    ]
    columns = {name: _nan_is_null(rows.column(name).combine_chunks()) for name in decisive}
    return np.asarray(null_mask(columns, rows.num_rows).any(axis=1))


def encode_inputs(encoding: Encoding, rows: pa.Table) -> npt.NDArray[np.float32]:
    """Return what `Encoding.encode` does, float32 [n, k]; each distinct category is looked up once, not once a row."""
    matrix = np.empty((rows.num_rows, len(encoding.columns)), dtype=np.float32)
    for position, column in enumerate(encoding.columns):
        values: Any = rows.column(column.name).combine_chunks()
        single = Encoding(columns=[column])
        if column.kind == "category":
            values = values.dictionary_encode(null_encoding="encode")
            levels = values.dictionary.to_pylist()
            codes = single.encode({column.name: levels}, len(levels))[:, 0]
            matrix[:, position] = codes[values.indices.to_numpy(zero_copy_only=False)]
        else:
            numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
            matrix[:, position] = single.encode({column.name: numbers}, rows.num_rows)[:, 0]
    return matrix


def _nan_is_null(values: pa.Array) -> pa.Array:
    if not pa.types.is_floating(values.type):
        return values
    return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)


def _describe(column: Input) -> str:
    origin = f" of {column.view}, {column.ttl_seconds} s" if column.view else ""
    return f"{column.name} ({column.kind}{origin})"
