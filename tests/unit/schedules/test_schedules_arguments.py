"""Parameters of a schedule become whole arguments of its pipeline version, or an error before anything is sent."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.errors import ConfigError
from pipelines.catalog import Case, read_case
from pipelines.compile import compile_pipeline
from pipelines.schedules.model import Schedule
from pipelines.schedules.resolve import arguments

REPO = Path(__file__).parents[3] / "feature_repo"


@pytest.fixture(scope="module")
def case() -> Case:
    return read_case(REPO, "flights")


@pytest.fixture(scope="module")
def specs(case: Case) -> dict[str, dict[str, Any]]:
    return {
        pipeline: next(iter(yaml.safe_load_all(compile_pipeline(case, pipeline, registry=""))))
        for pipeline in ("training", "scoring", "monitoring")
    }


def schedule(pipeline: str, parameters: dict[str, Any]) -> Schedule:
    return Schedule(
        name="s",
        use_case="flights",
        pipeline=pipeline,
        cron="@daily",
        parameters=parameters,
    )


def test_a_key_is_changed_in_its_section_and_the_rest_is_the_versions(specs: dict[str, dict[str, Any]]) -> None:
    spec = specs["monitoring"]
    default = spec["root"]["inputDefinitions"]["parameters"]["monitor"]["defaultValue"]
    found = arguments(schedule("monitoring", {"monitor.min_rows": 500, "as_of": "2013-12-01"}), spec)
    assert found["as_of"] == "2013-12-01"
    assert found["monitor"] == default | {"min_rows": 500}
    assert default["min_rows"] != 500


def test_an_older_version_keeps_its_own_section(case: Case, specs: dict[str, dict[str, Any]]) -> None:
    """The checkout's `margin` is not smuggled into a version that was compiled with another one."""
    inputs = dict(specs["training"]["root"]["inputDefinitions"]["parameters"])
    inputs["evaluate"] = inputs["evaluate"] | {"defaultValue": {"metric": "auc", "margin": 0.5}}
    old = {"root": {"inputDefinitions": {"parameters": inputs}}}
    found = arguments(schedule("training", {"evaluate.min_rows": 77}), old)
    assert found["evaluate"]["margin"] == 0.5
    assert found["evaluate"]["min_rows"] == 77
    assert case.use_case.evaluate.margin != 0.5


def test_no_parameters_are_no_arguments(specs: dict[str, dict[str, Any]]) -> None:
    assert arguments(schedule("training", {}), specs["training"]) == {}


@pytest.mark.parametrize(
    ("pipeline", "parameters", "says"),
    [
        ("monitoring", {"monitor.min_row": 5}, "did you mean 'min_rows'"),
        ("monitoring", {"monitor.min_rows": -5}, "min_rows"),
        ("monitoring", {"monitor.min_rows": "many"}, "min_rows"),
        ("monitoring", {"train.seed": 5}, "not a parameter"),
        ("monitoring", {"first": "2013-01-01"}, "no parameter of monitoring"),
        ("monitoring", {"monitor": {"min_rows": 5}}, "no parameter of monitoring"),
        ("training", {"as_off": ""}, "as_of"),
        ("training", {"as_of": 2013}, "must be text"),
        ("training", {"as_of": "soon"}, "ISO 8601"),
        ("training", {"sql": "x"}, "no parameter"),
        ("scoring", {"first": "2013-04-02", "last": "2013-04-01"}, "period"),
        ("scoring", {"first": "2013-04-01T12:00"}, "whole UTC day"),
    ],
)
def test_what_the_pipeline_does_not_take_is_refused(
    specs: dict[str, dict[str, Any]], pipeline: str, parameters: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        arguments(schedule(pipeline, parameters), specs[pipeline])
    assert says in str(caught.value)
