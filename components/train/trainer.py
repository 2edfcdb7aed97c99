"""What every trainer takes and gives back."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from components.core.bundle import Encoding
from components.core.sections import Train

Matrix = npt.NDArray[np.float32]


class Rows(NamedTuple):
    """Encoded rows: `inputs` float32 [n, k] with NaN = missing, `labels` float32 [n]."""

    inputs: Matrix
    labels: Matrix


@dataclass(frozen=True)
class Job:
    """One training: data, section and the file in which it survives a kill."""

    task: str
    encoding: Encoding
    training: Rows
    validation: Rows
    config: Train
    checkpoint: Path | None = None
    """None: this training is not resumable."""
    saved: Callable[[Path], None] = lambda _checkpoint: None
    """Told after each checkpoint that was written."""


class Fitted(Protocol):
    """A trained model at its best step on the validation rows."""

    @property
    def native(self) -> str:
        """File name of the native model in the bundle."""

    @property
    def device(self) -> str:
        """The device that trained it, as the library itself reports it."""

    @property
    def curve(self) -> list[float]:
        """Validation loss after each boosting round or epoch: log loss or root mean squared error."""

    @property
    def notes(self) -> list[str]:
        """Facts a reviewer must know."""

    @property
    def importance(self) -> list[float]:
        """Share of each input in the model's total gain, in model order; empty where the library does not tell."""

    def predict(self, inputs: Matrix) -> Matrix:
        """Return probabilities or values, float32 [n], computed by the native model on the CPU."""

    def save(self, path: Path) -> None:
        """Write the native model."""

    def graph(self) -> Any:
        """Return the same model as an ONNX graph, `inputs` [n, k] to `prediction` [n, 1]."""


class Trainer(Protocol):
    """Raises TrainingFailed when no model can be produced on the requested device."""

    def __call__(self, job: Job) -> Fitted: ...


def fit_once(job: Job) -> Fitted:
    """Train with the library that the section names."""
    return _trainer(job.config.trainer.kind)(job)


def _trainer(kind: str) -> Trainer:
    from components.train import torch_tabular, xgb

    return xgb.train if kind == "xgboost" else torch_tabular.train
