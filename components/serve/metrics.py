"""What the service adds to the metrics that Bento exposes at `/metrics`; components/core/metrics.yaml registers it."""

from collections.abc import Iterable
from typing import Any

import numpy.typing as npt

from components.core.serving import ServingSpec

# A local lookup takes 100 microseconds, one over the network a few milliseconds.
READ_BUCKETS_SECONDS = (0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
OUTCOMES = ("written", "dropped", "lost")
SHADOW_OUTCOMES = ("answered", "refused", "failed", "dropped")


class ServingMetrics:
    """Predictions, stale and missing features, the online store, the inference log, and which model answers.

    Every series is there from the start: a counter that appears at 1 is an increase that nobody sees.
    """

    def __init__(self, spec: ServingSpec, *, signature_verified: bool) -> None:
        # Imported late: a Bento worker chooses the multiprocess mode after it has imported the service.
        from prometheus_client import Counter, Gauge, Histogram

        self._predictions: Any = Histogram("driftline_prediction", "Predictions answered", buckets=spec.buckets)
        features = [column.name for column in spec.inputs if column.view]
        stale = Counter("driftline_feature_stale", "Online features older than their TTL", ["feature"])
        missing = Counter("driftline_feature_missing", "Online features without a value", ["feature"])
        self._stale = {name: stale.labels(name) for name in features}
        self._missing = {name: missing.labels(name) for name in features}
        self._reads: Any = None
        if features:
            self._reads = Histogram(
                "driftline_online_read_duration_seconds", "Online store, per request", buckets=READ_BUCKETS_SECONDS
            )
        logged = Counter("driftline_inference_log_rows", "Predictions by what became of their log", ["outcome"])
        self._logged = {outcome: logged.labels(outcome) for outcome in OUTCOMES}
        copies = Counter("driftline_shadow_requests", "Copies for the shadow by what became of them", ["outcome"])
        self._copies = {outcome: copies.labels(outcome) for outcome in SHADOW_OUTCOMES}
        info = Gauge(
            "driftline_model_info",
            "The model that answers; always 1",
            ["use_case", "version", "model"],
            multiprocess_mode="livemax",
        )
        info.labels(spec.use_case, str(spec.version), spec.model).set(1)
        verified = Gauge(
            "driftline_model_signature_verified",
            "Whether the Bento's signature was verified at the start",
            multiprocess_mode="livemin",
        )
        verified.set(signature_verified)

    def count_features(self, stale: Iterable[str], missing: Iterable[str]) -> None:
        for name in stale:
            self._stale[name].inc()
        for name in missing:
            self._missing[name].inc()

    def count_logged(self, outcome: str, rows: int) -> None:
        """Count rows of the inference log as written, dropped (the buffer was full) or lost (a writer was killed)."""
        self._logged[outcome].inc(rows)

    def observe_read(self, seconds: float) -> None:
        if self._reads:
            self._reads.observe(seconds)

    def count_copy(self, outcome: str) -> None:
        """Count a copy for the shadow (`components.serve.shadow.Count`)."""
        self._copies[outcome].inc()

    def observe(self, predictions: npt.NDArray[Any]) -> None:
        for prediction in predictions.tolist():
            self._predictions.observe(prediction)
