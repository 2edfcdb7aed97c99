"""Challenger, champion and baseline on the same rows and the same resampled days."""

from pathlib import Path
from typing import Any

import numpy as np

from components.core.bootstrap import Interval, interval, resample
from components.core.bundle import ModelCard, read_encoding
from components.core.metrics import CLASSIFICATION, REGRESSION, Floats, Metric, measure, sign
from components.core.sections import Evaluate
from components.core.training_set import TrainingSet
from components.evaluate.fairness import measure_fairness
from components.evaluate.holdout import Holdout, predict
from components.evaluate.measurements import Champion, Model
from components.evaluate.slices import measure_slices


def find_defects(predictions: Floats, task: str, who: str) -> list[str]:
    """Return why predictions are unusable, in words; empty when they can be judged."""
    defects = []
    infinite = int((~np.isfinite(predictions)).sum())
    if infinite:
        defects.append(f"{who} predicts values that are not finite, for {infinite:,} of {predictions.size:,} rows")
    outside = int(((predictions < 0) | (predictions > 1)).sum())
    if task == "classification" and outside:
        defects.append(f"{who} predicts values outside [0, 1], for {outside:,} of {predictions.size:,} rows")
    return defects


def run_champion(
    bundle: Path, card: ModelCard, version: int, challenger: Path, manifest: TrainingSet, holdout: Holdout
) -> tuple[Champion, Floats | None]:
    """Predict the holdout with the champion, float64 [n]; None when the rows lack one of its inputs.

    A model that reads a missing column as null would look worse than it is in production.
    """
    new = {c.name: c.kind for c in read_encoding(challenger).columns}
    old = {c.name: c.kind for c in read_encoding(bundle).columns}
    offered = {i.name: i.kind for i in manifest.inputs}
    absent = [name for name, kind in old.items() if offered.get(name) != kind]
    predictions = None
    if absent:
        obstacle = f"the training set lacks {', '.join(absent)}, which the champion needs"
    else:
        predictions = predict(bundle, holdout.rows)
        obstacle = "; ".join(find_defects(predictions, card.task, "the champion"))
    champion = Champion(
        version=version,
        model=card.model,
        added_inputs=[name for name in new if name not in old],
        removed_inputs=[name for name in old if name not in new],
        obstacle=obstacle,
    )
    return champion, None if obstacle else predictions


def compare_models(
    task: str,
    config: Evaluate,
    holdout: Holdout,
    predictions: dict[str, Floats],
    names: dict[str, str],
    weights: Floats,
) -> dict[str, Any]:
    """Return fields of `Measurements`: every model with intervals, paired differences, slices and groups.

    `predictions` holds float64 [n] by role: challenger, and where they exist baseline and champion.
    """
    metrics: tuple[Metric, ...] = CLASSIFICATION if task == "classification" else REGRESSION
    labels, day = holdout.labels, holdout.day
    points: dict[tuple[str, Metric], float] = {}
    samples: dict[tuple[str, Metric], Floats] = {}
    models: dict[str, Model] = {}
    for role, predicted in predictions.items():
        found: dict[Metric, Interval] = {}
        for metric in metrics:
            points[role, metric] = measure(metric, labels, predicted)
            samples[role, metric] = resample(metric, labels, predicted, day, weights)
            found[metric] = interval(
                points[role, metric],
                samples[role, metric],
                days=holdout.days,
                confidence=config.confidence,
                reflect=metric == "ece",
            )
        models[role] = Model(name=names[role], metrics=found)

    def improvement(role: str) -> Interval:
        if role not in predictions:
            return Interval(estimate=None)
        ours, theirs = ("challenger", config.metric), (role, config.metric)
        direction = sign(config.metric)
        return interval(
            direction * (points[ours] - points[theirs]),
            direction * (samples[ours] - samples[theirs]),
            days=holdout.days,
            confidence=config.confidence,
        )

    reference = "champion" if "champion" in predictions else "baseline"
    slices = None
    if config.slices and reference in predictions:
        slices = measure_slices(
            holdout.rows,
            config.slices,
            metric=config.metric,
            labels=labels,
            challenger=predictions["challenger"],
            reference=predictions[reference],
            reference_name=names[reference],
            day=day,
            weights=weights,
            min_rows=config.min_slice_rows,
            confidence=config.confidence,
        )
    fairness = [
        measure_fairness(
            holdout.rows,
            column,
            task=task,
            labels=labels,
            predictions=predictions["challenger"],
            day=day,
            weights=weights,
            min_rows=config.min_slice_rows,
            confidence=config.confidence,
        )
        for column in config.fairness.groups
    ]
    return {
        "challenger": models["challenger"],
        "baseline": models.get("baseline"),
        "champion_model": models.get("champion"),
        "lift": improvement("baseline"),
        "gain": improvement("champion"),
        "slices": slices,
        "fairness": fairness,
    }
