"""What each policy's predictions were worth, measured alike: every prediction whose label came, window by window."""

import numpy as np

from components.core.inference_log import read_predictions
from components.core.metrics import Metric, measure
from components.core.settings import Settings
from components.core.tables import latest_path, read_snapshot, read_table
from components.core.usecase import UseCase
from components.monitor.watched import labelled, with_labels
from pipelines.replay.compare import Line
from pipelines.replay.play import Play


def measure_play(settings: Settings, use_case: UseCase, play: Play) -> Line:
    """Measure the predictions of a played policy, whichever model version made them."""
    problem = use_case.problem
    snapshot = read_snapshot(latest_path(settings.snapshots, use_case.name))
    labels = read_table(settings.snapshots, snapshot, problem.table)
    metric: Metric = use_case.evaluate.metric
    performance: list[float | None] = []
    calibration: list[float | None] = []
    for tick in play.ticks:
        window = tick.decision.window
        rows = read_predictions(settings.predictions, use_case.name, window.first, window.last)
        known = labelled(with_labels(rows, labels, problem, snapshot.as_of))
        truth = known.column("label").to_numpy().astype(np.float64)
        predictions = known.column("prediction").to_numpy().astype(np.float64)
        performance.append(_defined(metric, truth, predictions))
        calibration.append(_defined("ece", truth, predictions) if problem.task == "classification" else None)
    return Line(play=play, metric=metric, performance=performance, calibration=calibration)


def _defined(metric: Metric, labels: np.ndarray, predictions: np.ndarray) -> float | None:
    value = measure(metric, labels, predictions) if len(labels) else float("nan")
    return value if np.isfinite(value) else None
