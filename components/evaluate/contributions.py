"""Which inputs the challenger uses, measured on a sample of the holdout."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.core.bundle import Encoding, load_predictor
from components.core.metrics import Floats, Metric, measure, sign
from components.evaluate.measurements import Importance

MAX_ROWS = 2_000
MAX_CONTRIBUTION_ROWS = 500
"""Exact tree contributions cost about 2 ms of CPU per row."""
REPEATS = 3
NATIVE = "model.ubj"


def measure_importances(
    bundle: Path,
    encoding: Encoding,
    inputs: npt.NDArray[np.float32],
    labels: Floats,
    *,
    metric: Metric,
    seed: int,
) -> list[Importance]:
    """Measure permutation importance (Breiman 2001) of every input, largest drop first.

    `inputs` is float32 [n, k], encoded. Correlated inputs share their importance: each alone looks small.
    """
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(labels))[:MAX_ROWS]
    sample, known = inputs[chosen], labels[chosen]
    predictor = load_predictor(bundle)
    whole = measure(metric, known, predictor.predict(sample).astype(np.float64)) if len(known) else float("nan")
    if not np.isfinite(whole):
        return []
    contributions = tree_contributions(bundle, sample[:MAX_CONTRIBUTION_ROWS])
    found = []
    for position, name in enumerate(encoding.names):
        drops = []
        for _ in range(REPEATS):
            shuffled = sample.copy()
            shuffled[:, position] = generator.permutation(shuffled[:, position])
            drops.append(
                sign(metric) * (whole - measure(metric, known, predictor.predict(shuffled).astype(np.float64)))
            )
        contribution = None if contributions is None else float(contributions[position])
        found.append(
            Importance(name=name, drop=float(np.mean(drops)), spread=float(np.std(drops)), contribution=contribution)
        )
    return sorted(found, key=lambda i: -i.drop)


def tree_contributions(bundle: Path, inputs: npt.NDArray[np.float32]) -> Floats | None:
    """Return the mean |TreeSHAP contribution| per input, float64 [k]; None when the bundle holds no XGBoost model."""
    if not (bundle / NATIVE).is_file():
        return None
    import xgboost

    booster = xgboost.Booster(params={"nthread": 1}, model_file=bundle / NATIVE)
    matrix = xgboost.DMatrix(
        inputs,
        feature_names=booster.feature_names,
        feature_types=booster.feature_types,
        enable_categorical=True,
        nthread=1,
    )
    # The last column is the bias.
    contributions: Floats = np.abs(booster.predict(matrix, pred_contribs=True)[:, :-1]).mean(axis=0).astype(np.float64)
    return contributions
