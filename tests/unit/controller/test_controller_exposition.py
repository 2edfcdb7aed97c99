"""What is scraped is registered, bounded, and never counts backwards."""

import threading
import time
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from components.core.errors import ConfigError
from components.core.metric_registry import Metric, registry
from pipelines.controller.exposition import LABEL_VALUE, Exposition, Histogram, Sample, check

OWN = registry().exported_by("controller")
OTHERS = [metric for metric in registry().metrics if metric.exported_by != "controller"]


def value_of(metric: Metric) -> float | Histogram:
    return Histogram([(1.0, 1), (float("inf"), 2)], 7.5) if metric.type == "histogram" else 3.0


def all_labels(metric: Metric) -> list[dict[str, str]]:
    choices = [metric.values.get(label, ("one", "two")) for label in metric.labels]
    return [dict(zip(metric.labels, values, strict=True)) for values in product(*choices)]


def parsed(exposition: Exposition) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    body, content = exposition.render("")
    assert content.startswith("text/plain")
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


@pytest.mark.parametrize("metric", OWN, ids=lambda metric: metric.name)
def test_each_metric_is_scraped_as_it_is_registered(metric: Metric) -> None:
    exposition = Exposition()
    exposition.put("s", [Sample(metric.name, value_of(metric), labels) for labels in all_labels(metric)])
    found = parsed(exposition)
    assert set(found) == set(metric.series)
    for series, samples in found.items():
        extra = {"le"} if series.endswith("_bucket") and metric.type == "histogram" else set()
        assert all({name for name, _ in labels} == {*metric.labels, *extra} for labels in samples)
    plain = found.get(f"{metric.name}_sum", found.get(metric.name, {}))
    assert set(plain.values()) == {7.5 if metric.type == "histogram" else 3.0}


@pytest.mark.parametrize("metric", OTHERS, ids=lambda metric: metric.name)
def test_what_others_export_is_not_ours(metric: Metric) -> None:
    with pytest.raises(ConfigError, match="exported by"):
        check(Sample(metric.name, value_of(metric), all_labels(metric)[0]))


@given(metric=st.sampled_from(OWN), extra=st.sampled_from(["run_id", "user", "path", "url", "pod", "another"]))
def test_a_label_that_is_not_registered_is_refused(metric: Metric, extra: str) -> None:
    with pytest.raises(ConfigError, match="other labels"):
        check(Sample(metric.name, value_of(metric), {**all_labels(metric)[0], extra: "x"}))
    for label in metric.labels:
        fewer = {name: value for name, value in all_labels(metric)[0].items() if name != label}
        with pytest.raises(ConfigError, match="other labels"):
            check(Sample(metric.name, value_of(metric), fewer))


@given(value=st.text(max_size=80), metric=st.sampled_from([metric for metric in OWN if metric.labels]), data=st.data())
def test_a_label_takes_listed_values_or_short_names(value: str, metric: Metric, data: st.DataObject) -> None:
    label = data.draw(st.sampled_from(metric.labels))
    sample = Sample(metric.name, value_of(metric), {**all_labels(metric)[0], label: value})
    listed = metric.values.get(label)
    allowed = value in listed if listed is not None else LABEL_VALUE.fullmatch(value) is not None
    if allowed:
        assert check(sample) == metric
    else:
        with pytest.raises(ConfigError, match="cannot be exported so"):
            check(sample)


@pytest.mark.parametrize("value", ["", "a b", "s3://bucket/x", "/etc/passwd", "me@example.com", "x" * 64, "a\nb", "ü"])
def test_sentences_addresses_and_paths_are_no_label_values(value: str) -> None:
    with pytest.raises(ConfigError):
        check(Sample("driftline_hold_active", 1, {"use_case": value}))


def test_what_is_wrong_replaces_nothing() -> None:
    exposition = Exposition()
    good = Sample("driftline_hold_active", 1, {"use_case": "birds"})
    exposition.put("s", [good])
    for wrong in ([good, good], [good, Sample("driftline_made_up", 1)], [Sample("driftline_hold_active", 1)]):
        with pytest.raises(ConfigError):
            exposition.put("s", wrong)
        assert exposition.samples() == [good]


@given(values=st.lists(st.integers(0, 50), min_size=1, max_size=20))
def test_a_counter_never_goes_back_and_a_gauge_does(values: list[int]) -> None:
    """A failed run that is repeated leaves the ledger's count; a scraper would take that for a restart."""
    exposition, highest = Exposition(), 0
    labels = {"use_case": "birds", "pipeline": "training"}
    for value in values:
        highest = max(highest, value)
        counter = Sample("driftline_pipeline_runs_total", value, labels | {"outcome": "failed"})
        exposition.put("s", [counter, Sample("driftline_pipeline_runs_running", value, labels)])
        found = parsed(exposition)
        assert list(found["driftline_pipeline_runs_total"].values()) == [highest]
        assert list(found["driftline_pipeline_runs_running"].values()) == [value]


def test_a_source_replaces_only_what_it_said_itself_while_others_read() -> None:
    exposition = Exposition()
    exposition.put("a", [Sample("driftline_kfp_up", 1)])
    stop, seen, errors = threading.Event(), set[int](), list[Any]()

    def scrape() -> None:
        while not stop.is_set():
            try:
                found = parsed(exposition)
                assert found["driftline_kfp_up"] == {(): 1.0}
                seen.add(len(found.get("driftline_hold_active", {})))
            except Exception as error:
                errors.append(error)

    reader = threading.Thread(target=scrape)
    reader.start()
    deadline, n = time.monotonic() + 20, 0
    while not {3, 7} <= seen and not errors and time.monotonic() < deadline:
        # All or nothing: never a part of what one `put` said.
        count = 7 if (n := n + 1) % 2 else 3
        exposition.put("b", [Sample("driftline_hold_active", 1, {"use_case": f"c{i}"}) for i in range(count)])
        time.sleep(0.001)
    stop.set()
    reader.join()
    assert not errors
    assert {3, 7} <= seen <= {0, 3, 7}


def test_openmetrics_is_spoken_to_who_accepts_it() -> None:
    exposition = Exposition()
    exposition.put("s", [Sample("driftline_kfp_up", 1)])
    body, content = exposition.render("application/openmetrics-text; version=1.0.0")
    assert content.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
