"""Which training version a retraining gets: the one that the scheduled monitor names, so the one that Git pins."""

from datetime import UTC, datetime
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.usecase import list_use_cases
from pipelines.catalog import read_case
from pipelines.compile import compile_for_cluster
from pipelines.controller.dispatch import of_pipeline, trained_by
from pipelines.controller.exposition import Sample
from pipelines.controller.kfp_metrics import longest_gap_seconds, period_samples, pipeline_of, split_name
from pipelines.schedules.cron import fire_times, parse_cron
from pipelines.schedules.model import Existing
from pipelines.wiring import pipeline_name

REPO = Path(__file__).parents[3] / "feature_repo"
IMAGES = {name: f"registry.example.com/{name}@sha256:{'0' * 64}" for name in ("cpu", "gpu", "serve")}


def compiled(use_case: str, pipeline: str) -> dict[str, Any]:
    ir = compile_for_cluster(read_case(REPO, use_case), pipeline, "", IMAGES)
    spec: dict[str, Any] = next(iter(yaml.safe_load_all(ir)))
    return spec


def recurring(name: str, version: str, *, enabled: bool = True, cron: str = "@daily") -> Existing:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    has = {"version": version, "cron": cron}
    return Existing(id=name, name=name, enabled=enabled, created_at=at, digest="d", has=has)


@pytest.mark.parametrize("use_case", list_use_cases(REPO)[:1])
def test_a_compiled_monitor_tells_the_training_it_was_compiled_beside(use_case: str) -> None:
    from pipelines.compile import version_name

    training = version_name(compile_for_cluster(read_case(REPO, use_case), "training", "", IMAGES))
    assert trained_by(compiled(use_case, "monitoring")) == training
    assert trained_by(compiled(use_case, "scoring")) == ""
    assert trained_by({}) == ""


def test_recurring_runs_of_a_pipeline_are_told_by_the_version_they_name() -> None:
    some = [
        recurring("a", "my-birds-monitoring-123", enabled=False),
        recurring("b", "my-birds-monitoring-456"),
        recurring("c", "birds-monitoring-789"),
        recurring("d", "my-birds-training-789", enabled=False),
        recurring("e", "7f3 (deleted)"),
    ]
    assert [one.name for one in of_pipeline(some, "my_birds", "monitoring")] == ["b"]
    assert [one.name for one in of_pipeline(some[:1], "my_birds", "monitoring")] == ["a"]
    assert [one.name for one in of_pipeline(some, "birds", "monitoring")] == ["c"]
    assert [one.name for one in of_pipeline(some, "my_birds", "training")] == ["d"]
    assert of_pipeline(some, "birds", "training") == []
    assert pipeline_of(some[4]) is None


@given(case=st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True), pipeline=st.sampled_from(["training", "scoring"]))
def test_a_pipelines_name_gives_its_use_case_back(case: str, pipeline: str) -> None:
    assert split_name(pipeline_name(case, pipeline)) == (case, pipeline)
    assert split_name(f"{pipeline_name(case, pipeline)}-and-more") is None
    assert split_name(pipeline) is None


FIELDS = (
    ("0", "30", "*/20", "5,6"),
    ("0", "0,30", "15"),
    ("0", "6", "*/7", "8-17"),
    ("*", "1", "13", "28-30"),
    ("*", "1,7", "FEB"),
    ("?", "MON", "MON-FRI", "SUN,WED"),
)


@settings(deadline=None, max_examples=40)
@given(fields=st.sampled_from(list(product(*FIELDS))))
def test_the_longest_gap_is_never_exceeded_and_is_met(fields: tuple[str, ...]) -> None:
    """Against the ticks themselves, of a year and a half around a leap day."""
    cron = " ".join(fields)
    gap = longest_gap_seconds(cron)
    ticks = []
    for tick in fire_times(parse_cron(cron), datetime(2027, 1, 1, tzinfo=UTC)):
        ticks.append(tick)
        if len(ticks) == 3000 or tick.year == 2029:
            break
    gaps = [(after - before).total_seconds() for before, after in pairwise(ticks)]
    assert max(gaps) <= gap


@pytest.mark.parametrize(
    ("cron", "seconds"),
    [
        ("* * * * * *", 1),
        ("0 */5 * * * *", 300),
        ("@daily", 86_400),
        ("0 30 6 * * MON", 7 * 86_400),
        ("0 0 8-17 * * MON-FRI", 2 * 86_400 + 15 * 3600),
        ("0 0 4 1 * *", 31 * 86_400),
        ("0 0 0 29 2 ?", (4 * 365 + 1) * 86_400),
    ],
)
def test_the_longest_gap_by_hand(cron: str, seconds: int) -> None:
    assert longest_gap_seconds(cron) == seconds


def test_a_pipelines_period_is_that_of_its_most_frequent_enabled_schedule() -> None:
    later = recurring("b", "birds-scoring-2", cron="@hourly").model_copy(
        update={"created_at": datetime(2026, 2, 1, tzinfo=UTC)}
    )
    some = [
        recurring("a", "birds-scoring-1"),
        later,
        recurring("c", "birds-scoring-3", enabled=False, cron="* * * * * *"),
        recurring("d", "birds-training-3", enabled=False),
        recurring("e", "birds-monitoring-3", cron="five fields no more"),
    ]
    labels = {"use_case": "birds", "pipeline": "scoring"}
    assert list(period_samples(some)) == [
        Sample("driftline_schedule_period_seconds", 3600.0, labels),
        Sample("driftline_schedule_since_timestamp_seconds", datetime(2026, 1, 1, tzinfo=UTC).timestamp(), labels),
    ]
