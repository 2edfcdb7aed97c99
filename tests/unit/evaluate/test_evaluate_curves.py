"""Curves against scikit-learn and against KFP's own artifact."""

import numpy as np
import pytest
from kfp.dsl import ClassificationMetrics

from components.evaluate.curves import classification_metadata, confusion_matrix, roc_curve


@pytest.fixture
def sample() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    labels = (generator.random(5000) < 0.3).astype(float)
    return labels, np.clip(0.3 * labels + generator.normal(0.4, 0.2, 5000), 0, 1)


def test_every_point_lies_on_the_curve_of_scikit_learn(sample: tuple[np.ndarray, np.ndarray]) -> None:
    from sklearn.metrics import roc_curve as oracle

    labels, predictions = sample
    fpr, tpr, thresholds = roc_curve(labels, predictions)
    assert 50 < len(fpr) <= 100
    expected_fpr, expected_tpr, _ = oracle(labels, predictions, drop_intermediate=False)
    points = set(zip(expected_fpr.round(12), expected_tpr.round(12), strict=True))
    assert all((round(x, 12), round(y, 12)) in points for x, y in zip(fpr, tpr, strict=True))
    for x, y, threshold in list(zip(fpr, tpr, thresholds, strict=True))[::20]:
        flagged = predictions >= threshold
        assert (flagged[labels == 0].mean(), flagged[labels == 1].mean()) == pytest.approx((x, y))
    assert np.trapezoid(tpr, fpr) == pytest.approx(np.trapezoid(expected_tpr, expected_fpr), abs=2e-3)


def test_metadata_is_what_kfp_itself_would_write(sample: tuple[np.ndarray, np.ndarray]) -> None:
    labels, predictions = sample
    curve = roc_curve(labels, predictions)
    matrix = confusion_matrix(labels, predictions, 0.5)
    artifact = ClassificationMetrics()
    artifact.log_roc_curve(*curve)
    artifact.log_confusion_matrix(["not late", "late"], matrix)
    assert classification_metadata(curve, matrix, "late") == artifact.metadata


def test_the_confusion_matrix_equals_scikit_learn(sample: tuple[np.ndarray, np.ndarray]) -> None:
    from sklearn.metrics import confusion_matrix as oracle

    labels, predictions = sample
    assert confusion_matrix(labels, predictions, 0.5) == oracle(labels, predictions >= 0.5).tolist()


def test_one_class_has_no_curve() -> None:
    curve = roc_curve(np.ones(4), np.linspace(0, 1, 4))
    assert curve == ([], [], [])
    assert classification_metadata(curve, [], "late") == {}
