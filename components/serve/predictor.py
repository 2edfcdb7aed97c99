"""From a row of named values to a prediction, without a detour through columns."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.bundle import Encoding, load_predictor, read_encoding
from components.core.errors import DataError

NAN = float("nan")


class RowEncoder:
    """Encode rows; equal to `Encoding.encode`, which is written for columns."""

    def __init__(self, encoding: Encoding) -> None:
        self._plan: list[tuple[str, dict[str, float] | None]] = [
            (
                column.name,
                {category: float(code) for code, category in enumerate(column.categories)}
                if column.kind == "category"
                else None,
            )
            for column in encoding.columns
        ]

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float32]:
        """Return float32 [n, k]; an absent or null value and an unknown category become NaN."""
        return np.array([self._row(row) for row in rows], dtype=np.float32)

    def _row(self, row: Mapping[str, Any]) -> list[float]:
        encoded = []
        for name, codes in self._plan:
            value = row.get(name)
            if value is None:
                encoded.append(NAN)
            elif codes is None:
                encoded.append(value)
            else:
                encoded.append(codes.get(str(value), NAN))
        return encoded


class Scorer:
    """The graph and the encoding of a model folder, ready to answer."""

    def __init__(self, folder: Path) -> None:
        """Load the model and let it answer once. Raises DataError when it does not."""
        encoding = read_encoding(folder)
        self._encoder = RowEncoder(encoding)
        self._graph = load_predictor(folder)
        answer = self.score([{}])
        if len(answer) != 1 or not np.isfinite(answer).all():
            raise DataError("the model does not answer a row of missing values", measured=answer.tolist())

    def score(self, rows: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float32]:
        """Return one prediction per row, float32 [n]."""
        return self._graph.predict(self._encoder.encode(rows))
