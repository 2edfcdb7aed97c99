"""How much a random split would flatter a model.

The same small learner is fitted twice on the same number of rows: once split at random, once split by time. Neighbours
in time share their day, so a random split tests on days it has seen; a large gap means that a random split would lie,
that inputs leak, or that the world changed. It is a property of the data, not of the challenger.
"""

import numpy as np
import numpy.typing as npt

from components.core.bundle import Encoding
from components.core.metrics import Floats, Metric, measure, sign
from components.evaluate.measurements import Leakage

MAX_ROWS = 16_000
MAX_CATEGORIES = 255
"""Largest number of codes that the learner takes as categories."""


def measure_leakage(
    past: npt.NDArray[np.float32],
    past_labels: Floats,
    held: npt.NDArray[np.float32],
    held_labels: Floats,
    encoding: Encoding,
    *,
    task: str,
    metric: Metric,
    seed: int,
) -> Leakage | None:
    """Compare a random with a time split on encoded rows [n, k]; None when a split has one class or no rows."""
    generator = np.random.default_rng(seed)
    share = min(1.0, MAX_ROWS / max(1, len(past) + len(held)))
    train = generator.choice(len(past), int(len(past) * share), replace=False)
    test = generator.choice(len(held), int(len(held) * share), replace=False)
    inputs = np.concatenate([past[train], held[test]])
    labels = np.concatenate([past_labels[train], held_labels[test]])
    order = generator.permutation(len(labels))
    categorical = [c.kind == "category" and len(c.categories) <= MAX_CATEGORIES for c in encoding.columns]
    scores = []
    for position in (np.arange(len(labels)), order):
        fit, judge = position[: len(train)], position[len(train) :]
        if not len(judge) or np.unique(labels[fit]).size < 2:  # noqa: PLR2004
            return None
        predictions = _fit_predict(inputs[fit], labels[fit], inputs[judge], categorical, task, seed)
        scores.append(measure(metric, labels[judge], predictions))
    if not np.isfinite(scores).all():
        return None
    time_split, random_split = scores
    gap = sign(metric) * (random_split - time_split)
    return Leakage(random_split=random_split, time_split=time_split, gap=gap, rows=len(labels))


def _fit_predict(
    inputs: npt.NDArray[np.float32],
    labels: Floats,
    unseen: npt.NDArray[np.float32],
    categorical: list[bool],
    task: str,
    seed: int,
) -> Floats:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    settings = {
        "max_iter": 60,
        "max_leaf_nodes": 31,
        "early_stopping": False,
        "categorical_features": categorical,
        "random_state": seed,
    }
    learner = HistGradientBoostingClassifier if task == "classification" else HistGradientBoostingRegressor
    # OpenMP threads that wait for a busy core spin: 29 s instead of 0.2 s of CPU were measured on two shared cores.
    with threadpool_limits(1):
        model = learner(**settings).fit(inputs, labels)
        predictions = model.predict_proba(unseen)[:, 1] if task == "classification" else model.predict(unseen)
    return np.asarray(predictions, dtype=np.float64)
