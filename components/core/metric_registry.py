"""The registry of metrics: what code may export and what rules, dashboards and documents may name.

One file, `metrics.yaml`, is read by all of them, so that none can speak of a series that nobody exports.
"""

import re
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from components.core.errors import ConfigError

REGISTRY = Path(__file__).with_name("metrics.yaml")
OWN_PREFIX = "driftline_"
UNBOUNDED = frozenset(
    {"run", "run_id", "run_name", "workflow", "request_id", "prediction_id", "trace_id", "user", "user_id", "email"}
    | {"path", "url", "uri", "ip", "address", "host", "hostname", "pod", "instance", "uid", "id", "as_of", "reason"}
    | {"message", "error", "exception", "file", "window"}
)
"""Labels whose values never end: each new one is a series that Prometheus keeps (refused, also with a prefix)."""
_UNBOUNDED = re.compile(rf"(.*_)?({'|'.join(sorted(UNBOUNDED))})")
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

Type = Literal["counter", "gauge", "histogram"]
Unit = Literal["", "seconds", "timestamp_seconds", "ratio", "rows"]
Exporter = Literal[
    "serving",
    "controller",
    "feature_server",
    "kfp",
    "argo_workflows",
    "argo_rollouts",
    "argo_cd",
    "kube_state_metrics",
    "prometheus",
]


class Metric(BaseModel):
    """One metric: a family of series of one name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """As it is scraped, a counter's `_total` included; a histogram without `_bucket`, `_sum`, `_count`."""
    type: Type
    unit: Unit = ""
    labels: tuple[str, ...] = ()
    """Of ours all; of an upstream metric those that may be used."""
    values: dict[str, tuple[str, ...]] = {}
    """All values of a label, where they are known."""
    help: str
    exported_by: Exporter
    absent: str = ""
    """When a series is rightly missing."""

    @property
    def is_own(self) -> bool:
        return self.name.startswith(OWN_PREFIX)

    @property
    def series(self) -> tuple[str, ...]:
        """Names of the series, as queries spell them."""
        if self.type == "histogram":
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)

    @model_validator(mode="after")
    def _consistent(self) -> "Metric":
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name of a metric")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"{self.name} has a label twice: {', '.join(self.labels)}")
        if strange := set(self.values) - set(self.labels):
            raise ValueError(f"{self.name} lists values of labels that it has not: {', '.join(sorted(strange))}")
        if self.is_own:
            _check_own_name(self)
        elif self.exported_by == "controller":
            raise ValueError(f"{self.name} is exported by our controller and must begin with {OWN_PREFIX}")
        return self


class MetricRegistry(BaseModel):
    """All metrics and all labels they may carry."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: dict[str, str]
    """Label → what bounds the number of its values."""
    metrics: tuple[Metric, ...]

    @model_validator(mode="after")
    def _consistent(self) -> "MetricRegistry":
        if unbounded := sorted(label for label in self.labels if _UNBOUNDED.fullmatch(label)):
            raise ValueError(f"unbounded labels: {', '.join(unbounded)}; use a log or a trace for these")
        if unexplained := sorted(label for label, bound in self.labels.items() if not bound.strip()):
            raise ValueError(f"labels without a word about what bounds them: {', '.join(unexplained)}")
        names = [series for metric in self.metrics for series in metric.series]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"metrics registered twice: {', '.join(twice)}")
        for metric in self.metrics:
            if undeclared := sorted(set(metric.labels) - set(self.labels)):
                raise ValueError(f"{metric.name} has labels that `labels` does not declare: {', '.join(undeclared)}")
        if unused := sorted(set(self.labels).difference(*(metric.labels for metric in self.metrics))):
            raise ValueError(f"labels that no metric has: {', '.join(unused)}")
        return self

    def by_series(self) -> dict[str, Metric]:
        """Return each metric by each name that a query may use for it."""
        return {series: metric for metric in self.metrics for series in metric.series}

    def exported_by(self, exporter: Exporter) -> tuple[Metric, ...]:
        """Return the metrics of one program."""
        return tuple(metric for metric in self.metrics if metric.exported_by == exporter)


def read_registry(path: Path = REGISTRY) -> MetricRegistry:
    """Read a registry. Raises ConfigError with the first rule that it breaks."""
    try:
        return MetricRegistry.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        raise ConfigError(f"the registry of metrics {path.name} is wrong: {error}") from error


@cache
def registry() -> MetricRegistry:
    """Return the registry of this release."""
    return read_registry()


@cache
def require(name: str, labels: tuple[str, ...] = ()) -> Metric:
    """Return a registered metric that an exporter is about to set, with exactly these labels in any order.

    Raises ConfigError when it is not registered or has other labels.
    """
    found = next((metric for metric in registry().metrics if metric.name == name), None)
    if found is None:
        raise ConfigError(
            "this metric is not registered", measured=name, next_step="add it to components/core/metrics.yaml"
        )
    if sorted(found.labels) != sorted(labels):
        raise ConfigError(
            f"metric {name} is registered with other labels",
            measured=", ".join(labels) or "none",
            allowed=", ".join(found.labels) or "none",
            next_step="use these, or change components/core/metrics.yaml and what reads the metric",
        )
    return found


def _check_own_name(metric: Metric) -> None:
    """Raise ValueError when a name breaks Prometheus' conventions (prometheus.io/docs/practices/naming)."""
    name, unit = metric.name, metric.unit
    if name != name.lower():
        raise ValueError(f"{name} must be in lower case")
    if (metric.type == "counter") != name.endswith("_total"):
        raise ValueError(f"{name} is a {metric.type}: counters and only they end in _total")
    base = name.removesuffix("_total")
    if base.endswith(("_count", "_sum", "_bucket")):
        raise ValueError(f"{name} ends like a part of a histogram")
    is_timestamp = base.endswith("_timestamp_seconds")
    if is_timestamp != (unit == "timestamp_seconds"):
        raise ValueError(f"{name}: instants and only they end in _timestamp_seconds")
    if not is_timestamp and base.endswith("_seconds") != (unit == "seconds"):
        raise ValueError(f"{name}: durations and only they end in _seconds")
    if not metric.help.strip():
        raise ValueError(f"{name} has no help")
