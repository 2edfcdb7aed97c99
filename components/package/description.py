"""The serving description of a model: its inputs, limits and the histogram its predictions fall into."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from pydantic import BaseModel

from components.core.bundle import GOLDEN, ModelCard
from components.core.errors import PackagingFailed
from components.core.sections import Package, Problem
from components.core.serving import ServingSpec
from components.core.training_set import TrainingSet

_KEY_TYPES = {"string": "string", "large_string": "string", "int32": "int32", "int64": "int64"}


def describe(problem: Problem, config: Package, card: ModelCard, rows: TrainingSet, bundle: Path) -> ServingSpec:
    """Return the description that the service is generated from.

    Raises PackagingFailed when a key has a type that Feast cannot look up or a name that a request cannot carry.
    """
    wrong = {name: kind for name, kind in rows.entities.items() if kind not in _KEY_TYPES}
    if wrong:
        raise PackagingFailed("entity keys of this type cannot be served", measured=wrong, allowed=sorted(_KEY_TYPES))
    names = {*rows.entities, *(column.name for column in rows.inputs)}
    taken = sorted(name for name in names if name == "as_of" or hasattr(BaseModel, name))
    if taken:
        raise PackagingFailed(
            "these names are taken in a request", measured=taken, next_step="rename the columns in tables/*.sql"
        )
    return ServingSpec(
        use_case=card.use_case,
        version=card.version,
        model=card.model,
        entities={name: _KEY_TYPES[kind] for name, kind in rows.entities.items()},
        inputs=rows.inputs,
        stale=rows.stale,
        missing=rows.missing,
        buckets=_buckets(problem, bundle),
        workers=config.workers,
        timeout_seconds=config.timeout_seconds,
        max_batch_rows=config.max_batch_rows,
        max_request_bytes=config.max_request_bytes,
    )


def _buckets(problem: Problem, bundle: Path) -> list[float]:
    """Return bounds of the prediction histogram: twentieths of a probability, else deciles of golden predictions."""
    if problem.task == "classification":
        return [round(step / 20, 2) for step in range(1, 21)]
    predictions = pq.read_table(bundle / GOLDEN, columns=["prediction"]).column("prediction").to_numpy()
    return [float(bound) for bound in np.unique(np.quantile(predictions, np.arange(1, 10) / 10))]
