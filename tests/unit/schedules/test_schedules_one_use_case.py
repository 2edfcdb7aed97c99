"""One use case's schedules among those of others: nobody else's is planned, changed or pruned."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import ConfigError
from pipelines.schedules.compare import only
from pipelines.schedules.model import Existing, Schedule
from pipelines.wiring import pipeline_name

USE_CASES = ("flights", "flights_eu", "flights_monitoring", "wind")
PIPELINES = ("training", "scoring", "monitoring")


def declared(use_case: str, name: str) -> Schedule:
    return Schedule.model_validate(
        {"name": name, "use_case": use_case, "pipeline": "scoring", "cron": "0 0 3 * * *", "version": "v"}
    )


def existing(use_case: str, pipeline: str, name: str) -> Existing:
    version = f"{pipeline_name(use_case, pipeline)}-0123456789ab"
    created = datetime(2026, 1, 1, tzinfo=UTC)
    return Existing(id=name, name=name, enabled=True, created_at=created, digest="", has={"version": version})


@given(
    st.lists(st.tuples(st.sampled_from(USE_CASES), st.sampled_from(PIPELINES)), max_size=12), st.sampled_from(USE_CASES)
)
def test_a_recurring_run_is_of_the_use_case_whose_version_it_runs(runs: list[tuple[str, str]], wanted: str) -> None:
    found = [existing(use_case, pipeline, f"run-{number}") for number, (use_case, pipeline) in enumerate(runs)]
    schedules = [declared(use_case, f"of-{use_case.replace('_', '-')}") for use_case in USE_CASES]
    chosen, own = only(wanted, schedules, found)
    assert [schedule.use_case for schedule in chosen] == [wanted]
    assert [run.name for run in own] == [f"run-{n}" for n, (use_case, _) in enumerate(runs) if use_case == wanted]


def test_nothing_declared_is_no_order_to_delete_all() -> None:
    with pytest.raises(ConfigError, match="no schedule of use case 'wind'"):
        only("wind", [declared("flights", "daily")], [existing("wind", "scoring", "daily-wind")])


def test_the_name_of_another_use_cases_schedule_is_refused() -> None:
    with pytest.raises(ConfigError, match="'daily' belongs to another use case"):
        only("wind", [declared("wind", "daily")], [existing("flights", "scoring", "daily")])


def test_a_run_whose_version_is_gone_is_nobodys_to_prune() -> None:
    gone = existing("wind", "scoring", "old").model_copy(update={"has": {"version": "1b9d6bcd (deleted)"}})
    _, own = only("wind", [declared("wind", "daily")], [gone])
    assert own == []
