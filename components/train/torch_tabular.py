"""A multilayer perceptron on tables (PyTorch): embeddings for categories, normalised numbers with missing flags.

Every epoch seeds its own shuffling and dropout, so a training resumed at an epoch equals an uninterrupted one on the
CPU. Batches are slices of tensors: a DataLoader costs 2.7 times the CPU time. On a GPU the matrix products run in bf16.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from components.core.digests import text_digest
from components.core.errors import ConfigError, TrainingFailed
from components.core.sections import TorchTabular
from components.core.storage import write_atomically
from components.train.checkpoints import read_checkpoint, write_checkpoint
from components.train.network import Layout, forward, initial_weights, layout, trainable
from components.train.network_graph import network_graph
from components.train.scores import loss_name, scores
from components.train.trainer import Job, Matrix

log = logging.getLogger(__name__)

_PREDICT_ROWS = 16_384
"""Rows per forward pass outside training, to bound memory."""


@dataclass(frozen=True)
class FittedNetwork:
    """Weights of the best epoch, on the CPU."""

    weights: dict[str, Any]
    layout: Layout
    device: str
    curve: list[float]
    notes: list[str]
    native: str = "model.safetensors"
    importance: list[float] = field(default_factory=list)
    """Always empty: a network tells none."""

    def predict(self, inputs: Matrix) -> Matrix:
        """Return predictions in float32 on the CPU, [n]."""
        return _predict(self.weights, self.layout, inputs, "cpu")

    def save(self, path: Path) -> None:
        """Write the weights as safetensors."""
        from safetensors.torch import save

        content = save(self.weights)
        write_atomically(path, lambda temporary: temporary.write_bytes(content))

    def graph(self) -> Any:
        """Return the network as ONNX."""
        return network_graph({name: tensor.numpy() for name, tensor in self.weights.items()}, self.layout)


@dataclass
class _State:
    """What a checkpoint holds; the optimizer's part lives in the optimizer."""

    weights: dict[str, Any]
    best: dict[str, Any]
    curve: list[float]


def train(job: Job) -> FittedNetwork:
    """Train with AdamW until the validation loss stops falling, and keep the best epoch.

    Raises ConfigError when the extra `torch` is not installed, TrainingFailed when CUDA was asked for and is absent or
    the loss is not finite.
    """
    torch = _import_torch()
    settings = job.config.trainer
    assert isinstance(settings, TorchTabular)  # noqa: S101 - narrows the union for the type checker
    device = _device(torch, job.config.device)
    plan = layout(job.task, job.encoding, settings)
    inputs = torch.from_numpy(job.training.inputs).to(device)
    labels = torch.from_numpy(job.training.labels).to(device)
    state, optimizer = _start(torch, job, plan, settings, device)
    while len(state.curve) < settings.epochs and not _stalled(state.curve, settings):
        with _seeded(torch, job.config.seed, len(state.curve), device):
            _run_epoch(torch, state.weights, plan, settings, optimizer, inputs, labels)
        predictions = _predict(state.weights, plan, job.validation.inputs, device)
        loss = scores(job.task, job.validation.labels, predictions)[loss_name(job.task)]
        if not np.isfinite(loss):
            raise TrainingFailed(
                "the validation loss is not finite",
                measured=f"{loss} in epoch {len(state.curve) + 1}",
                next_step="reduce train.trainer.learning_rate",
            )
        if loss < min(state.curve, default=np.inf):
            state.best = {name: tensor.detach().clone() for name, tensor in state.weights.items()}
        state.curve.append(loss)
        log.info("epoch %d, validation %s %.5f", len(state.curve), loss_name(job.task), loss)
        if job.checkpoint is not None and len(state.curve) % settings.checkpoint_every_epochs == 0:
            _save_checkpoint(torch, job.checkpoint, state, optimizer)
            job.saved(job.checkpoint)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state.best.items()}
    notes = [] if device == "cpu" else ["trained on a GPU: repeating the training may differ in the last digits"]
    return FittedNetwork(weights, plan, device, state.curve, notes)


def _import_torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ConfigError(
            "the trainer torch_tabular needs the extra torch",
            measured=str(error),
            allowed="an environment with PyTorch",
            next_step="pip install 'driftline[torch]', or use the trainer xgboost",
        ) from error
    return torch


def _device(torch: Any, requested: str) -> str:
    if requested == "cuda" and not torch.cuda.is_available():
        raise TrainingFailed(
            "PyTorch finds no GPU",
            measured=f"torch {torch.__version__}, {torch.cuda.device_count()} devices",
            allowed="cuda",
            next_step="set train.device to cpu, or run on a node with a GPU",
        )
    return requested


def _stalled(curve: list[float], settings: TorchTabular) -> bool:
    return bool(curve) and len(curve) - 1 - int(np.argmin(curve)) >= settings.patience_epochs


def _run_epoch(
    torch: Any, weights: dict[str, Any], plan: Layout, settings: TorchTabular, optimizer: Any, inputs: Any, labels: Any
) -> None:
    """Pass once over all training rows in a shuffled order."""
    functional = torch.nn.functional
    half = inputs.is_cuda and torch.cuda.is_bf16_supported()
    targets = labels if plan.task == "classification" else (labels - weights["target.mean"]) / weights["target.scale"]
    order = torch.randperm(len(inputs)).to(inputs.device)
    for start in range(0, len(inputs), settings.batch_rows):
        rows = order[start : start + settings.batch_rows]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=half):
            output = forward(torch, weights, plan, inputs[rows], dropout=settings.dropout)
        if plan.task == "classification":
            loss = functional.binary_cross_entropy_with_logits(output.float(), targets[rows])
        else:
            loss = functional.mse_loss(output.float(), targets[rows])
        loss.backward()
        optimizer.step()


def _predict(weights: dict[str, Any], plan: Layout, inputs: Matrix, device: str) -> Matrix:
    import torch

    parts = []
    with torch.no_grad():
        for start in range(0, len(inputs), _PREDICT_ROWS):
            part = torch.from_numpy(inputs[start : start + _PREDICT_ROWS]).to(device)
            output = forward(torch, weights, plan, part)
            if plan.task == "classification":
                output = torch.sigmoid(output)
            else:
                output = output * weights["target.scale"] + weights["target.mean"]
            parts.append(output.cpu().numpy())
    return np.concatenate(parts)


@contextmanager
def _seeded(torch: Any, seed: int, epoch: int, device: str) -> Iterator[None]:
    """Give an epoch random numbers of its own and leave the process's generators as they were."""
    with torch.random.fork_rng(devices=[] if device == "cpu" else [torch.cuda.current_device()]):
        torch.manual_seed(int(text_digest(f"{seed}:{epoch}")[:8], 16))
        yield


def _start(torch: Any, job: Job, plan: Layout, settings: TorchTabular, device: str) -> tuple[_State, Any]:
    """Return state and optimizer: of the checkpoint if there is a readable one, else fresh ones."""
    from safetensors.torch import load

    with _seeded(torch, job.config.seed, -1, device):
        fresh = initial_weights(torch, plan, job.training)
    content = read_checkpoint(job.checkpoint)
    saved = {} if content is None else {name: tensor.to(device) for name, tensor in load(content).items()}
    curve = saved.pop("curve").tolist() if saved else []
    if curve:
        log.info("resuming at epoch %d", len(curve))
    state = _State(
        weights={name: saved.get(f"weights.{name}", tensor.to(device)) for name, tensor in fresh.items()},
        best={name: saved[f"best.{name}"] for name in fresh} if saved else {},
        curve=curve,
    )
    parameters = [state.weights[name].requires_grad_() for name in trainable(state.weights)]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    for name, tensor in saved.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            position, _, key = rest.partition(".")
            # AdamW keeps its step counter on the CPU, whatever the device of the weights.
            optimizer.state[parameters[int(position)]][key] = tensor.cpu() if key == "step" else tensor
    return state, optimizer


def _save_checkpoint(torch: Any, path: Path, state: _State, optimizer: Any) -> None:
    """Write weights, best weights, optimizer state and losses as one safetensors file: no pickle is ever loaded."""
    from safetensors.torch import save

    tensors = {f"weights.{name}": tensor.detach() for name, tensor in state.weights.items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    for position, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{position}.{key}": tensor for key, tensor in entries.items()}
    tensors["curve"] = torch.tensor(state.curve, dtype=torch.float64)
    write_checkpoint(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))
