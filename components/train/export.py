"""Writing a bundle: graph, encoding, native model and golden rows, after proving that graph and model agree."""

import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.core.bundle import GOLDEN, ONNX, Predictor, load_predictor, write_encoding
from components.core.errors import TrainingFailed
from components.core.storage import write_atomically
from components.train.rows import Prepared
from components.train.split import Positions
from components.train.trainer import Fitted, Matrix

TOLERANCE = 1e-6
"""Largest difference of native model and graph, as a share of the largest prediction, at least 1."""
PARITY_ROWS = 20_000
GOLDEN_ROWS = 1_000
GOLDEN_DAYS = 7


def write_bundle(folder: Path, fitted: Fitted, prepared: Prepared) -> float:
    """Write everything but the card into a folder and return the parity error.

    Raises TrainingFailed when the exported graph does not predict what the native model predicts.
    """
    graph = fitted.graph().SerializeToString(deterministic=True)
    write_atomically(folder / ONNX, lambda temporary: temporary.write_bytes(graph))
    write_encoding(folder, prepared.encoding)
    fitted.save(folder / fitted.native)
    spread = _spread(np.arange(prepared.table.num_rows), PARITY_ROWS)
    error = parity_error(fitted, load_predictor(folder), prepared.encode(spread))
    write_golden(folder, fitted, prepared)
    return error


def parity_error(fitted: Fitted, predictor: Predictor, inputs: Matrix) -> float:
    """Return the largest difference of native and exported predictions, as a share of the largest of them or 1.

    A value near zero is a difference of large ones, so float32 errors go by the scale of all predictions.

    Raises TrainingFailed above 1e-6.
    """
    native, exported = fitted.predict(inputs).astype(np.float64), predictor.predict(inputs).astype(np.float64)
    error = float(np.max(np.abs(native - exported)) / max(1.0, float(np.max(np.abs(native)))))
    # `not <=` also catches NaN.
    if not error <= TOLERANCE:
        raise TrainingFailed(
            "the exported graph does not predict what the trained model predicts",
            measured=f"{error:.3g} over {len(inputs)} rows",
            allowed=TOLERANCE,
            next_step="report this with the training set; the model cannot be served",
        )
    return error


def write_golden(folder: Path, fitted: Fitted, prepared: Prepared) -> None:
    """Write raw rows of the newest days with the native model's predictions, which serving must reproduce."""
    instants = prepared.table.column("event_timestamp")
    newest = max(instants.to_pylist())
    recent = np.flatnonzero([instant >= newest - timedelta(days=GOLDEN_DAYS) for instant in instants.to_pylist()])
    chosen = _spread(recent, GOLDEN_ROWS)
    description = prepared.description
    names = [*description.id, *description.entities, "event_timestamp", *prepared.encoding.names]
    rows = prepared.table.select(list(dict.fromkeys(names))).take(chosen)
    predictions = fitted.predict(prepared.encode(chosen))
    rows = rows.append_column("prediction", pa.array(predictions, pa.float32()))
    write_atomically(folder / GOLDEN, lambda temporary: pq.write_table(rows, temporary))


def replace_folder(source: Path, target: Path) -> None:
    """Move a finished folder into place; whatever lay there before is replaced as a whole."""
    shutil.rmtree(target, ignore_errors=True)
    source.replace(target)


def _spread(positions: Positions, limit: int) -> Positions:
    """Return at most `limit` positions, evenly spaced, the last one included."""
    if len(positions) <= limit:
        return positions
    return positions[np.linspace(0, len(positions) - 1, limit).round().astype(np.int64)]
