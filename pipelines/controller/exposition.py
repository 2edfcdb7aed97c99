"""What is scraped: samples by name, checked against the registry of metrics before anybody sees them."""

import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from components.core.errors import ConfigError
from components.core.metric_registry import Metric, require

LABEL_VALUE = re.compile(r"[A-Za-z0-9_.-]{1,63}")
"""Of labels whose values the registry does not list: a name or a number, never a sentence, an address or a path."""


class Histogram(NamedTuple):
    """Observations counted by upper bound, the last one infinite, each count with those before it."""

    buckets: Sequence[tuple[float, int]]
    total: float


class Sample(NamedTuple):
    """One value of a registered metric."""

    name: str
    value: float | Histogram
    labels: Mapping[str, str] = {}


Key = tuple[str, frozenset[tuple[str, str]]]


class Exposition:
    """The samples of every source, the newest of each; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: dict[str, list[Sample]] = {}
        self._highest: dict[Key, float] = {}

    def put(self, source: str, samples: Iterable[Sample]) -> None:
        """Replace what a source said before.

        A counter keeps its highest value: a failed run that is repeated is no failure any more in the ledger, but
        Prometheus would take a smaller number for a restart, and count all of it again. Raises ConfigError for a metric
        that is not registered, not ours to export, has other labels or a label value that the registry does not allow,
        and for a sample that is there twice; then nothing is replaced.
        """
        new: dict[Key, Sample] = {}
        counters: set[Key] = set()
        for sample in samples:
            key = (sample.name, frozenset(sample.labels.items()))
            if check(sample).type == "counter":
                counters.add(key)
            if key in new:
                raise _wrong(sample, "it is there twice", allowed="one value for equal labels")
            new[key] = sample
        with self._lock:
            for key in counters:
                value = new[key].value
                self._highest[key] = max(self._highest.get(key, 0.0), cast("float", value))
                new[key] = new[key]._replace(value=self._highest[key])
            self._samples[source] = list(new.values())

    def samples(self) -> list[Sample]:
        """Return what all sources said last."""
        with self._lock:
            return [sample for samples in self._samples.values() for sample in samples]

    def collect(self) -> Iterator[Any]:
        """Yield one family for each metric, as prometheus_client asks of a collector."""
        by_name: dict[str, list[Sample]] = {}
        for sample in self.samples():
            by_name.setdefault(sample.name, []).append(sample)
        for name in sorted(by_name):
            yield _family(require(name, tuple(by_name[name][0].labels)), by_name[name])

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return all samples in the format that a scraper accepts, and its content type."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        collector = CollectorRegistry(auto_describe=False)
        collector.register(self)
        encode, content = choose_encoder(accept)
        return encode(collector), content


def check(sample: Sample) -> Metric:
    """Return the metric of a sample. Raises ConfigError for what the registry does not allow."""
    metric = require(sample.name, tuple(sample.labels))
    if metric.exported_by != "controller":
        raise _wrong(sample, f"exported by {metric.exported_by}", allowed="a metric of the controller")
    if isinstance(sample.value, Histogram) != (metric.type == "histogram"):
        raise _wrong(sample, type(sample.value).__name__, allowed=metric.type)
    for label, value in sample.labels.items():
        known = metric.values.get(label)
        if known is not None and value not in known:
            raise _wrong(sample, f"{label}={value!r}", allowed=", ".join(known))
        if known is None and not LABEL_VALUE.fullmatch(value):
            raise _wrong(sample, f"{label}={value!r}", allowed="1 to 63 letters, digits, '.', '_' and '-'")
    return metric


def _wrong(sample: Sample, measured: str, *, allowed: str) -> ConfigError:
    return ConfigError(
        f"metric {sample.name} cannot be exported so",
        measured=measured,
        allowed=allowed,
        next_step="correct the exporter, or components/core/metrics.yaml",
    )


def _family(metric: Metric, samples: list[Sample]) -> Any:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    labels = list(metric.labels)
    kinds: dict[str, Any] = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
    }
    family = kinds[metric.type](metric.name, metric.help, labels=labels)
    for sample in samples:
        values = [sample.labels[label] for label in labels]
        if isinstance(sample.value, Histogram):
            buckets = [("+Inf" if bound == float("inf") else str(bound), n) for bound, n in sample.value.buckets]
            family.add_metric(values, buckets, sample.value.total)
        else:
            family.add_metric(values, sample.value)
    return family
