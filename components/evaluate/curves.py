"""Curves and tables of a binary classifier in the form that KFP shows."""

from typing import Any

import numpy as np

from components.core.metrics import Floats

MAX_POINTS = 100
"""More make KFP's page slow and the step's output large, and show nothing more."""
Curve = tuple[list[float], list[float], list[float]]


def roc_curve(labels: Floats, predictions: Floats, points: int = MAX_POINTS) -> Curve:
    """Return false positive rates, true positive rates and finite thresholds, at most `points`; empty with one class.

    The first point flags nothing: its threshold is just above the largest prediction.
    """
    positives, negatives = float((labels == 1).sum()), float((labels == 0).sum())
    if not positives or not negatives:
        return [], [], []
    order = np.argsort(-predictions, kind="stable")
    ranked = predictions[order]
    # A threshold can only lie between different predictions.
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    tpr = np.cumsum(labels[order] == 1)[last] / positives
    fpr = np.cumsum(labels[order] == 0)[last] / negatives
    # Evenly spaced along the curve, so that steep parts keep their points.
    kept = np.unique(np.searchsorted(tpr + fpr, np.linspace(0, 2, points - 1)).clip(max=len(last) - 1))
    return (
        [0.0, *fpr[kept].tolist()],
        [0.0, *tpr[kept].tolist()],
        [float(np.nextafter(ranked[0], np.inf)), *ranked[last][kept].tolist()],
    )


def confusion_matrix(labels: Floats, predictions: Floats, threshold: float) -> list[list[int]]:
    """Count rows by true class (rows: 0, 1) and predicted class (columns: 0, 1)."""
    code = 2 * (labels == 1) + (predictions >= threshold)
    return np.bincount(code, minlength=4).reshape(2, 2).tolist()


def classification_metadata(curve: Curve, matrix: list[list[int]], label: str) -> dict[str, Any]:
    """Return the metadata of a KFP ClassificationMetrics artifact; empty parts are left out."""
    metadata: dict[str, Any] = {}
    if curve[0]:
        metadata["confidenceMetrics"] = [
            {"confidenceThreshold": threshold, "recall": tpr, "falsePositiveRate": fpr}
            for fpr, tpr, threshold in zip(*curve, strict=True)
        ]
    if matrix:
        metadata["confusionMatrix"] = {
            "annotationSpecs": [{"displayName": f"not {label}"}, {"displayName": label}],
            "rows": [{"row": row} for row in matrix],
        }
    return metadata
