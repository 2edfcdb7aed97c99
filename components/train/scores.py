"""Validation scores in plain NumPy, so that a training step does not pay for importing scikit-learn."""

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.floating]

_EPSILON = 1e-7


def scores(task: str, labels: Vector, predictions: Vector) -> dict[str, float]:
    """Return log loss and AUC of probabilities, or root mean squared and mean absolute error of values."""
    truth, guess = labels.astype(np.float64), predictions.astype(np.float64)
    if task == "classification":
        return {"logloss": _log_loss(truth, guess), "auc": _auc(truth, guess)}
    error = guess - truth
    return {"rmse": float(np.sqrt(np.mean(error**2))), "mae": float(np.mean(np.abs(error)))}


def loss_name(task: str) -> str:
    """Return the score that early stopping and the search minimise."""
    return "logloss" if task == "classification" else "rmse"


def _log_loss(truth: Vector, guess: Vector) -> float:
    guess = np.clip(guess, _EPSILON, 1 - _EPSILON)
    return float(-np.mean(truth * np.log(guess) + (1 - truth) * np.log1p(-guess)))


def _auc(truth: Vector, guess: Vector) -> float:
    """Return the Mann-Whitney statistic; ties count one half (Hanley and McNeil, 1982)."""
    _, position, counts = np.unique(guess, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[position]
    positives = int(truth.sum())
    negatives = len(truth) - positives
    return float((ranks[truth == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))
