"""The model bundle: what `train` hands to `evaluate` and `package`, without any pickle.

model.onnx       input `inputs` float32 [n, k], NaN = missing; output `prediction` float32 [n, 1]
encoding.json    how a row of named values becomes `inputs`
golden.parquet   raw input columns and `prediction` of the native model, at most 1,000 rows
model.json       where the model comes from
model.ubj | model.safetensors   the native model
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from components.core.digests import file_digest, json_digest
from components.core.errors import DataError
from components.core.sections import InputKind
from components.core.storage import write_text

ONNX = "model.onnx"
ENCODING = "encoding.json"
GOLDEN = "golden.parquet"
CARD = "model.json"


class Column(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: InputKind
    categories: list[str] = []
    """Known categories; the code is the position, an unknown category is missing (NaN)."""


class Encoding(BaseModel):
    """Ordered input columns; fitted on training rows only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: list[Column]

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    def require_finite(self, matrix: npt.NDArray[np.float32]) -> None:
        """Raise DataError for an infinite number in encoded rows: no trainer accepts it, no model was made for it."""
        infinite = [name for position, name in enumerate(self.names) if np.isinf(matrix[:, position]).any()]
        if infinite:
            raise DataError(
                "inputs hold infinite numbers, or numbers that float32 cannot hold",
                measured=", ".join(infinite),
                allowed="finite numbers below 3.4e38, or null",
                next_step="use NULLIF or a CASE in the table's SQL",
            )

    def encode(self, values: Mapping[str, Sequence[Any]], rows: int) -> npt.NDArray[np.float32]:
        """Turn columns of raw values into a float32 matrix [rows, k]; None and unknown become NaN."""
        matrix = np.full((rows, len(self.columns)), np.nan, dtype=np.float32)
        for position, column in enumerate(self.columns):
            raw = values.get(column.name)
            if raw is None:
                continue
            if column.kind == "category":
                codes = {category: float(code) for code, category in enumerate(column.categories)}
                matrix[:, position] = [codes.get(str(v), np.nan) if v is not None else np.nan for v in raw]
            else:
                matrix[:, position] = np.asarray(raw, dtype=np.float64)
        return matrix


class ModelCard(BaseModel):
    """Provenance of a bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    use_case: str
    task: str
    version: int
    """Version in the model registry."""
    mlflow_run: str
    model: str
    """Digest of the ONNX graph and the encoding: the identity of the model."""
    training_set: str
    snapshot: str
    registry: str
    service: str
    code: str
    """Git commit, or the empty text outside a checkout."""
    as_of: datetime
    trainer: dict[str, Any]
    device: str
    seed: int
    first: datetime
    last: datetime
    """Prediction instants of the first and last training row."""
    holdout_from: datetime
    """Rows with a prediction instant at or after this one were never trained on."""
    rows: int
    validation: dict[str, float]
    seconds: float
    notes: list[str] = []
    """Facts a reviewer must know, such as a resume that was not bit-exact."""

    @property
    def release(self) -> str:
        """Identity of the model under its version: what a Bento is built for, once."""
        return release_of(self.use_case, self.version, self.model)


def release_of(use_case: str, version: int, model: str) -> str:
    """Return the identity of a model under its version; `model` is its digest."""
    return json_digest([use_case, version, model])


def model_digest(folder: Path) -> str:
    """Return the identity of a bundle's model: graph and encoding, not provenance."""
    return json_digest({name: file_digest(folder / name) for name in (ONNX, ENCODING)})


def write_card(folder: Path, card: ModelCard) -> None:
    write_text(folder / CARD, card.model_dump_json(indent=2))


def read_card(folder: Path) -> ModelCard:
    """Read the provenance of a bundle and check that it belongs to the files beside it.

    Raises DataError when the model was changed after it was written.
    """
    card = ModelCard.model_validate_json((folder / CARD).read_text(encoding="utf-8"))
    found = model_digest(folder)
    if found != card.model:
        raise DataError(
            f"the model in {folder} is not the one its card describes",
            measured=found[:12],
            allowed=card.model[:12],
            next_step="train again or restore the bundle",
        )
    return card


def write_encoding(folder: Path, encoding: Encoding) -> None:
    write_text(folder / ENCODING, encoding.model_dump_json(indent=2))


def read_encoding(folder: Path) -> Encoding:
    return Encoding.model_validate_json((folder / ENCODING).read_text(encoding="utf-8"))


def load_predictor(folder: Path) -> "Predictor":
    """Open the ONNX graph of a bundle with one thread, as serving does."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / ONNX), options, providers=["CPUExecutionProvider"])
    return Predictor(session)


class Predictor:
    """Run a graph on encoded rows."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def predict(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return one prediction per row, float32 [n]: a probability or a value."""
        (output,) = self._session.run(["prediction"], {"inputs": inputs})
        return np.asarray(output, dtype=np.float32).reshape(-1)
