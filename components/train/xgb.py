"""Gradient-boosted trees (XGBoost, hist): resumable bit for bit, sampling included.

Training runs in chunks of `checkpoint_every_rounds`. Each chunk starts from the serialized booster with a seed of its
own, whether or not the process was killed in between, so a resumed training equals an uninterrupted one. Continuing
one booster would not: its row and column samplers restart after a load.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.core.digests import text_digest
from components.core.errors import TrainingFailed
from components.core.sections import Train, XGBoost
from components.core.storage import write_atomically
from components.train.checkpoints import read_checkpoint, write_checkpoint
from components.train.scores import loss_name
from components.train.trainer import Job, Matrix
from components.train.tree_graph import tree_graph

log = logging.getLogger(__name__)

_STATE = "driftline.state"
"""Booster attribute with device and losses so far, so that state and trees are one file."""


@dataclass(frozen=True)
class FittedTrees:
    """A booster cut at its best round."""

    booster: Any
    task: str
    feature_types: list[str]
    device: str
    curve: list[float]
    notes: list[str]
    native: str = "model.ubj"

    @property
    def importance(self) -> list[float]:
        """Share of each input in the total gain of all splits; an input without a split has none."""
        gains = self.booster.get_score(importance_type="total_gain")
        total = sum(gains.values()) or 1.0
        return [float(gains.get(f"f{position}", 0.0) / total) for position in range(len(self.feature_types))]

    def predict(self, inputs: Matrix) -> Matrix:
        """Return predictions of the booster, float32 [n]."""
        import xgboost

        matrix = xgboost.DMatrix(inputs, feature_types=self.feature_types, enable_categorical=True)
        return np.asarray(self.booster.predict(matrix), dtype=np.float32)

    def save(self, path: Path) -> None:
        """Write the booster as UBJSON."""
        write_atomically(path, lambda temporary: temporary.write_bytes(self.booster.save_raw("ubj")))

    def graph(self) -> Any:
        """Return the booster as ONNX."""
        return tree_graph(self.booster, width=len(self.feature_types), logistic=self.task == "classification")


def train(job: Job) -> FittedTrees:
    """Boost until the validation loss stops falling, and keep the best round.

    Raises TrainingFailed when CUDA was asked for and XGBoost trains elsewhere.
    """
    import xgboost

    settings = job.config.trainer
    assert isinstance(settings, XGBoost)  # noqa: S101 - narrows the union for the type checker
    types = ["c" if column.kind == "category" else "q" for column in job.encoding.columns]
    options = {"feature_types": types, "enable_categorical": True}
    training = xgboost.QuantileDMatrix(job.training.inputs, job.training.labels, **options)
    validation = xgboost.QuantileDMatrix(job.validation.inputs, job.validation.labels, ref=training, **options)
    raw, device, curve = _resume(job.checkpoint)
    while len(curve) < settings.rounds and not _stalled(curve, settings):
        parameters = _parameters(job.task, job.config, settings, first_round=len(curve))
        booster = xgboost.Booster(parameters, [training, validation], model_file=raw)
        for _ in range(min(settings.checkpoint_every_rounds, settings.rounds - len(curve))):
            booster.update(training, len(curve))
            device = device or _device(booster, requested=job.config.device)
            curve.append(float(booster.eval_set([(validation, "validation")]).rpartition(":")[2]))
            if _stalled(curve, settings):
                break
        booster.set_attr(**{_STATE: json.dumps({"device": device, "curve": curve})})
        raw = booster.save_raw("ubj")
        if job.checkpoint is not None:
            write_checkpoint(job.checkpoint, raw)
            job.saved(job.checkpoint)
        log.info("%d rounds, best validation %s %.5f", len(curve), loss_name(job.task), min(curve))
    best = xgboost.Booster(model_file=raw)[: int(np.argmin(curve)) + 1]
    best.set_attr(**{_STATE: None})
    return FittedTrees(best, job.task, types, device=device, curve=curve, notes=[])


def _parameters(task: str, config: Train, settings: XGBoost, *, first_round: int) -> dict[str, Any]:
    chosen = settings.model_dump(exclude={"kind", "rounds", "early_stopping_rounds", "checkpoint_every_rounds"})
    return {
        **chosen,
        "objective": "binary:logistic" if task == "classification" else "reg:squarederror",
        "eval_metric": loss_name(task),
        "tree_method": "hist",
        "device": config.device,
        "seed": int(text_digest(f"{config.seed}:{first_round}")[:7], 16),
    }


def _stalled(curve: list[float], settings: XGBoost) -> bool:
    return bool(curve) and len(curve) - 1 - int(np.argmin(curve)) >= settings.early_stopping_rounds


def _device(booster: Any, *, requested: str) -> str:
    """Return the device in the booster's own configuration; XGBoost only warns when it falls back to the CPU."""
    actual = str(json.loads(booster.save_config())["learner"]["generic_param"]["device"])
    if actual.partition(":")[0] != requested:
        raise TrainingFailed(
            "XGBoost does not train on the requested device",
            measured=actual,
            allowed=requested,
            next_step="set train.device to cpu, or run on a node with a GPU and an XGBoost built with CUDA",
        )
    return actual


def _resume(checkpoint: Path | None) -> tuple[bytearray | None, str, list[float]]:
    """Return the serialized booster, the device that trained it and its losses; nothing at the first start."""
    import xgboost

    content = read_checkpoint(checkpoint)
    if content is None:
        return None, "", []
    raw = bytearray(content)
    state = json.loads(xgboost.Booster(model_file=raw).attr(_STATE))
    log.info("resuming at round %d", len(state["curve"]))
    return raw, state["device"], state["curve"]
