"""The cheap baseline: what a model must beat to be worth serving.

A linear model on the request inputs alone, fitted on the rows before the holdout: logistic regression for
classification, ridge for regression. Without request inputs it is the mean label. It knows no feature view, so the
difference to it is what the features and the trainer bring.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from components.core.metrics import Floats
from components.core.sections import InputKind

MAX_CATEGORIES = 50
MAX_ROWS = 50_000
"""Newest rows that it is fitted on; more change the third digit and cost seconds."""


def fit_predict_baseline(
    past: pa.Table, rows: pa.Table, *, label: str, task: str, inputs: Mapping[str, InputKind]
) -> tuple[str, Floats]:
    """Fit on `past`, predict `rows`: the baseline's name and float64 [n]."""
    past = past.slice(max(0, past.num_rows - MAX_ROWS))
    labels = past.column(label).to_numpy().astype(np.float64)
    mean = float(labels.mean()) if labels.size else float("nan")
    if not inputs or np.unique(labels).size < 2:  # noqa: PLR2004
        name = "base rate" if task == "classification" else "mean"
        return name, np.full(rows.num_rows, mean)
    if not rows.num_rows:
        return "no rows", np.zeros(0)
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    numbers = [name for name, kind in inputs.items() if kind == "number"]
    categories = [name for name, kind in inputs.items() if kind == "category"]
    design = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler()), numbers),
            (
                "categories",
                OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=MAX_CATEGORIES),
                categories,
            ),
        ]
    )
    ordered = [*numbers, *categories]
    seen = design.fit_transform(past.select(ordered).to_pandas())
    unseen = design.transform(rows.select(ordered).to_pandas())
    # Threads that wait for a busy core spin.
    with threadpool_limits(1):
        if task == "classification":
            model = LogisticRegression(max_iter=200, tol=1e-3).fit(seen, labels)
            return "logistic regression on the request inputs", model.predict_proba(unseen)[:, 1].astype(np.float64)
        model = Ridge().fit(seen, labels)
        return "ridge regression on the request inputs", model.predict(unseen).astype(np.float64)
