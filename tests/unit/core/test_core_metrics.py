"""Metrics against scikit-learn."""

import numpy as np
import pytest

from components.core.metrics import calibration_bins, ece, measure, sign


@pytest.fixture
def sample() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(5)
    # One decimal makes many ties.
    predictions = np.round(generator.random(4000), 1) * 0.9 + 0.05
    return (generator.random(4000) < predictions).astype(float), predictions


def test_classification_metrics_equal_scikit_learn(sample: tuple[np.ndarray, np.ndarray]) -> None:
    from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

    labels, predictions = sample
    assert measure("auc", labels, predictions) == pytest.approx(roc_auc_score(labels, predictions), abs=1e-12)
    assert measure("logloss", labels, predictions) == pytest.approx(log_loss(labels, predictions), abs=1e-12)
    assert measure("brier", labels, predictions) == pytest.approx(brier_score_loss(labels, predictions), abs=1e-12)


def test_regression_metrics_equal_scikit_learn() -> None:
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    generator = np.random.default_rng(6)
    labels = generator.normal(30, 12, 500)
    predictions = labels + generator.normal(1, 5, 500)
    assert measure("rmse", labels, predictions) == pytest.approx(root_mean_squared_error(labels, predictions))
    assert measure("mae", labels, predictions) == pytest.approx(mean_absolute_error(labels, predictions))
    assert measure("r2", labels, predictions) == pytest.approx(r2_score(labels, predictions))


def test_undefined_metrics_are_nan() -> None:
    ones, predictions = np.ones(5), np.linspace(0.1, 0.9, 5)
    assert np.isnan(measure("auc", ones, predictions))
    assert np.isnan(measure("r2", ones, predictions))
    assert all(np.isnan(measure(m, np.zeros(0), np.zeros(0))) for m in ("auc", "ece", "rmse", "logloss"))


def test_calibration_error_by_hand() -> None:
    # Two bins of two rows: |1/2 - 0.2| and |1 - 0.8|.
    predictions = np.array([0.2, 0.2, 0.8, 0.8])
    assert ece(np.array([1.0, 0.0, 1.0, 1.0]), predictions) == pytest.approx((2 * 0.3 + 2 * 0.2) / 4)


def test_bins_hold_equal_mass_and_never_split_ties() -> None:
    predictions = np.random.default_rng(1).random(1000)
    assert np.ptp(np.bincount(calibration_bins(predictions))) <= 1
    tied = np.repeat([0.1, 0.2, 0.7], [600, 300, 100])
    bins = calibration_bins(tied)
    assert [len(np.unique(bins[tied == value])) for value in (0.1, 0.2, 0.7)] == [1, 1, 1]
    assert np.array_equal(np.unique(bins), np.arange(3))
    assert np.array_equal(calibration_bins(np.full(50, 0.3)), np.zeros(50))


def test_a_calibrated_model_has_the_documented_bias_only() -> None:
    generator = np.random.default_rng(2)
    predictions = generator.uniform(0.1, 0.4, 20_000)
    labels = (generator.random(20_000) < predictions).astype(float)
    assert ece(labels, predictions) < 3 * np.sqrt(0.25 * 0.75 / 2000)


def test_certain_and_wrong_stays_finite() -> None:
    assert measure("logloss", np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(-np.log(1e-7))


def test_improvement_points_up() -> None:
    assert [sign("auc"), sign("r2"), sign("logloss"), sign("rmse"), sign("ece")] == [1, 1, -1, -1, -1]
