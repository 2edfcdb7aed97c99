"""The network of `torch_tabular`: named weights and one forward pass, which `network_graph` mirrors in ONNX.

numbers  (x - mean) * inverse scale, missing = 0, and one missing flag each
category one embedding row per known category, the last row is "missing"
hidden   linear, ReLU, dropout; the output is a logit or a standardised value
"""

import math
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from components.core.bundle import Encoding
from components.core.sections import TorchTabular
from components.train.trainer import Rows


class Layout(BaseModel):
    """Shape of a network; the weights fill it."""

    model_config = ConfigDict(frozen=True)

    task: str
    numbers: list[int]
    """Positions of numbers among the inputs."""
    categories: dict[int, int]
    """Position of a category among the inputs to the number of its known values."""
    embedding_width: int
    hidden: list[int]

    @property
    def width(self) -> int:
        return len(self.numbers) + len(self.categories)


def layout(task: str, encoding: Encoding, settings: TorchTabular) -> Layout:
    """Derive the shape of the network from the encoded inputs."""
    columns = list(enumerate(encoding.columns))
    return Layout(
        task=task,
        numbers=[position for position, column in columns if column.kind == "number"],
        categories={p: len(column.categories) for p, column in columns if column.kind == "category"},
        embedding_width=settings.embedding_width,
        hidden=settings.hidden,
    )


def initial_weights(torch: Any, plan: Layout, training: Rows) -> dict[str, Any]:
    """Return weights on the CPU from the current random state; statistics come from training rows.

    Layers start as torch.nn.Linear does: uniform within 1 / sqrt(fan in).
    """
    weights: dict[str, Any] = {}
    if plan.numbers:
        numbers = training.inputs[:, plan.numbers].astype(np.float64)
        spread = np.nanstd(numbers, axis=0)
        weights["numbers.mean"] = _tensor(torch, np.nanmean(numbers, axis=0))
        weights["numbers.inverse_scale"] = _tensor(torch, 1 / np.where(spread > 0, spread, 1.0))
    if plan.task == "regression":
        labels = training.labels.astype(np.float64)
        weights["target.mean"] = _tensor(torch, labels.mean())
        weights["target.scale"] = _tensor(torch, labels.std() or 1.0)
    for position, known in plan.categories.items():
        table = torch.randn(known + 1, plan.embedding_width) / math.sqrt(plan.embedding_width)
        weights[f"embedding.{position}"] = table
    fan_in = 2 * len(plan.numbers) + plan.embedding_width * len(plan.categories)
    for index, size in enumerate([*plan.hidden, 1]):
        bound = 1 / math.sqrt(fan_in)
        weights[f"layer.{index}.weight"] = torch.empty(size, fan_in).uniform_(-bound, bound)
        weights[f"layer.{index}.bias"] = torch.empty(size).uniform_(-bound, bound)
        fan_in = size
    return weights


def trainable(weights: dict[str, Any]) -> list[str]:
    """Return the names of learned weights; statistics are not among them."""
    return [name for name in weights if name.startswith(("embedding.", "layer."))]


def forward(torch: Any, weights: dict[str, Any], plan: Layout, inputs: Any, dropout: float = 0.0) -> Any:
    """Return logits or standardised values [n] of inputs [n, k] float32 with NaN = missing."""
    functional = torch.nn.functional
    parts = []
    if plan.numbers:
        numbers = inputs[:, plan.numbers]
        missing = torch.isnan(numbers)
        scaled = (numbers - weights["numbers.mean"]) * weights["numbers.inverse_scale"]
        parts += [torch.where(missing, torch.zeros_like(scaled), scaled), missing.to(scaled.dtype)]
    for position, known in plan.categories.items():
        codes = torch.nan_to_num(inputs[:, position], nan=float(known)).to(torch.int64)
        parts.append(functional.embedding(codes, weights[f"embedding.{position}"]))
    hidden = torch.cat(parts, dim=1)
    for index in range(len(plan.hidden)):
        hidden = torch.relu(functional.linear(hidden, weights[f"layer.{index}.weight"], weights[f"layer.{index}.bias"]))
        hidden = functional.dropout(hidden, p=dropout, training=dropout > 0)
    last = len(plan.hidden)
    return functional.linear(hidden, weights[f"layer.{last}.weight"], weights[f"layer.{last}.bias"]).squeeze(1)


def _tensor(torch: Any, values: Any) -> Any:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))
