"""What the service adds to the metrics that Bento exposes at `/metrics`."""

from collections.abc import Iterable
from typing import Any

import numpy.typing as npt

from components.core.serving import ServingSpec


class ServingMetrics:
    """Prediction histogram, stale and missing feature counters, the inference log, and the served version."""

    def __init__(self, spec: ServingSpec) -> None:
        # Imported late: a Bento worker chooses the multiprocess mode after it has imported the service.
        from prometheus_client import Counter, Gauge, Histogram

        self._predictions: Any = Histogram("driftline_prediction", "Predictions answered", buckets=spec.buckets)
        features = [column.name for column in spec.inputs if column.view]
        stale = Counter("driftline_feature_stale", "Online features older than their TTL", ["feature"])
        missing = Counter("driftline_feature_missing", "Online features without a value", ["feature"])
        self._stale = {name: stale.labels(name) for name in features}
        self._missing = {name: missing.labels(name) for name in features}
        self._logged = Counter("driftline_inference_log_rows", "Predictions by what became of their log", ["outcome"])
        info = Gauge(
            "driftline_model_info",
            "The model that answers; always 1",
            ["use_case", "version", "model"],
            multiprocess_mode="livemax",
        )
        info.labels(spec.use_case, str(spec.version), spec.model).set(1)

    def count_features(self, stale: Iterable[str], missing: Iterable[str]) -> None:
        for name in stale:
            self._stale[name].inc()
        for name in missing:
            self._missing[name].inc()

    def count_logged(self, outcome: str, rows: int) -> None:
        """Count rows of the inference log as written, dropped (the buffer was full) or lost (a writer was killed)."""
        self._logged.labels(outcome).inc(rows)

    def observe(self, predictions: npt.NDArray[Any]) -> None:
        for prediction in predictions.tolist():
            self._predictions.observe(prediction)
