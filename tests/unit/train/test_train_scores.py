"""The scores against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.train.scores import loss_name, scores


@given(seed=st.integers(0, 2**31), rows=st.integers(2, 300), levels=st.integers(1, 50))
def test_classification_scores_equal_scikit_learn(seed: int, rows: int, levels: int) -> None:
    from sklearn.metrics import log_loss, roc_auc_score

    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows).astype(np.float32)
    labels[:2] = [0, 1]
    # Few levels make ties, which the rank formula must halve.
    predictions = (rng.integers(0, levels, rows) / max(levels - 1, 1)).astype(np.float32)
    found = scores("classification", labels, predictions)
    assert found["auc"] == pytest.approx(roc_auc_score(labels, predictions), abs=1e-12)
    expected = log_loss(labels, np.clip(predictions.astype(float), 1e-7, 1 - 1e-7))
    assert found["logloss"] == pytest.approx(expected, rel=1e-9)


@given(seed=st.integers(0, 2**31), rows=st.integers(1, 300))
def test_regression_scores_equal_scikit_learn(seed: int, rows: int) -> None:
    from sklearn.metrics import mean_absolute_error, root_mean_squared_error

    rng = np.random.default_rng(seed)
    labels, predictions = rng.normal(100, 30, rows), rng.normal(100, 30, rows)
    found = scores("regression", labels, predictions)
    assert found["rmse"] == pytest.approx(root_mean_squared_error(labels, predictions), rel=1e-12)
    assert found["mae"] == pytest.approx(mean_absolute_error(labels, predictions), rel=1e-12)


def test_the_loss_is_one_of_the_scores() -> None:
    labels = np.array([0.0, 1.0])
    for task in ("classification", "regression"):
        assert loss_name(task) in scores(task, labels, np.array([0.2, 0.7]))
