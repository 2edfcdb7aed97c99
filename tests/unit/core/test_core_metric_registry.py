"""The registry refuses what would hurt Prometheus, and what nobody could read."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from components.core.errors import ConfigError
from components.core.metric_registry import (
    OWN_PREFIX,
    UNBOUNDED,
    Metric,
    MetricRegistry,
    read_registry,
    registry,
    require,
)

GAUGE = {
    "name": "driftline_hold",
    "type": "gauge",
    "labels": ["use_case"],
    "help": "A hold.",
    "exported_by": "controller",
}


def made(declared: dict[str, str] | None = None, /, **changes: Any) -> MetricRegistry:
    return MetricRegistry.model_validate(
        {"labels": declared or {"use_case": "folders"}, "metrics": [{**GAUGE, **changes}]}
    )


def test_the_registry_of_this_release_is_valid() -> None:
    metrics = registry().metrics
    assert len(metrics) > 60
    assert {metric.exported_by for metric in metrics if metric.is_own} == {"serving", "controller"}


@pytest.mark.parametrize("label", sorted(UNBOUNDED))
def test_an_unbounded_label_is_refused(label: str) -> None:
    with pytest.raises(ValidationError, match=f"unbounded labels: {label}"):
        made({label: "nothing"}, labels=[label])


@given(st.sampled_from(sorted(UNBOUNDED)), st.from_regex(r"[a-z]{1,8}", fullmatch=True))
def test_a_prefix_does_not_bound_a_label(label: str, prefix: str) -> None:
    with pytest.raises(ValidationError, match="unbounded labels"):
        made({f"{prefix}_{label}": "nothing"}, labels=[f"{prefix}_{label}"])


def test_no_label_of_this_release_is_unbounded() -> None:
    assert not set(registry().labels) & UNBOUNDED
    for metric in registry().metrics:
        assert not set(metric.labels) & UNBOUNDED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"labels": ["use_case", "pipeline"]}, "does not declare: pipeline"),
        ({"labels": ["use_case", "use_case"]}, "a label twice"),
        ({"labels": []}, "labels that no metric has: use_case"),
        ({"values": {"pipeline": ["training"]}}, "values of labels that it has not"),
        ({"name": "driftline hold"}, "no name of a metric"),
        ({"name": "driftline_Hold"}, "lower case"),
        ({"name": "hold"}, "must begin with driftline_"),
        ({"name": "driftline_holds_total"}, "counters and only they"),
        ({"type": "counter"}, "counters and only they"),
        ({"name": "driftline_hold_seconds"}, "durations and only they"),
        ({"unit": "seconds"}, "durations and only they"),
        ({"name": "driftline_hold_timestamp_seconds", "unit": "seconds"}, "instants and only they"),
        ({"unit": "timestamp_seconds"}, "instants and only they"),
        ({"name": "driftline_hold_sum"}, "part of a histogram"),
        ({"help": " "}, "has no help"),
        ({"type": "summary"}, "Input should be"),
        ({"exported_by": "somebody"}, "Input should be"),
        ({"lables": ["use_case"]}, "Extra inputs"),
    ],
)
def test_a_metric_that_breaks_a_convention_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        made(**changes)


def test_a_label_needs_a_word_about_its_bound() -> None:
    with pytest.raises(ValidationError, match="what bounds them: use_case"):
        made({"use_case": " "})


def test_series_that_meet_are_refused() -> None:
    histogram = {**GAUGE, "name": "driftline_x", "type": "histogram"}
    counted = {**GAUGE, "name": "x_count", "exported_by": "kfp"}
    taken = {**GAUGE, "name": "driftline_x"}
    with pytest.raises(ValidationError, match="registered twice: driftline_x_bucket"):
        MetricRegistry.model_validate({"labels": {"use_case": "folders"}, "metrics": [histogram, histogram]})
    assert MetricRegistry.model_validate({"labels": {"use_case": "folders"}, "metrics": [histogram, counted, taken]})


def test_requiring_takes_labels_in_any_order_and_nothing_else() -> None:
    metric = require("driftline_pipeline_runs_total", ("outcome", "use_case", "pipeline"))
    assert metric.exported_by == "controller"
    with pytest.raises(ConfigError, match="not registered"):
        require("driftline_pipeline_runs", ("use_case",))
    with pytest.raises(ConfigError, match="other labels") as caught:
        require("driftline_pipeline_runs_total", ("use_case", "pipeline", "outcome", "run_id"))
    assert caught.value.exit_code == 2
    with pytest.raises(ConfigError, match="other labels"):
        require("driftline_kfp_up", ("use_case",))


@given(st.sampled_from([metric for metric in registry().metrics if metric.labels]), st.data())
def test_requiring_fewer_labels_is_refused(metric: Metric, data: st.DataObject) -> None:
    fewer = data.draw(st.lists(st.sampled_from(metric.labels), max_size=len(metric.labels) - 1, unique=True))
    with pytest.raises(ConfigError, match="other labels"):
        require(metric.name, tuple(fewer))


def test_a_file_that_is_wrong_is_told_with_its_name(tmp_path: Path) -> None:
    for name, text in (
        ("broken.yaml", "labels: ["),
        ("unbounded.yaml", yaml.safe_dump({"labels": {"run_id": "x"}, "metrics": []})),
    ):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(ConfigError, match=name):
            read_registry(path)


def test_series_are_what_queries_name() -> None:
    series = registry().by_series()
    assert series["driftline_prediction_bucket"].name == "driftline_prediction"
    assert "driftline_prediction" not in series
    assert series["driftline_kfp_up"].type == "gauge"
    assert {m.name for m in registry().exported_by("controller")} == {
        m.name for m in registry().metrics if m.exported_by == "controller" and m.name.startswith(OWN_PREFIX)
    }
