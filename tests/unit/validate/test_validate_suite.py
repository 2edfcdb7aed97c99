from pathlib import Path
from typing import Any

import pytest

from components.core.errors import ConfigError
from components.core.usecase import list_use_cases, load_suite
from components.validate.suite import Expectation, parse_suite

REPO = Path(__file__).parents[3] / "feature_repo"
BETWEEN = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "km", "min_value": 0}}


def parse(*entries: Any) -> list[Expectation]:
    return parse_suite({"trips": list(entries)}, ["trips", "weather"])["trips"]


def test_a_suite_that_travelled_as_a_pipeline_parameter_means_the_same() -> None:
    from google.protobuf import json_format, struct_pb2

    suite = {
        "trips": [
            {**BETWEEN, "severity": "warning", "meta": {"notes": "metres"}},
            {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "n", "value_set": [1, 2.5, True]}},
        ]
    }
    # KFP carries constants as google.protobuf.Struct: every number comes back as a float.
    travelled = json_format.MessageToDict(json_format.ParseDict(suite, struct_pb2.Struct()))
    assert parse_suite(travelled, ["trips"]) == parse_suite(suite, ["trips"])
    between, among = parse_suite(travelled, ["trips"])["trips"]
    assert (between.kwargs["min_value"], type(between.kwargs["min_value"])) == (0, int)
    assert among.kwargs["value_set"] == [1, 2.5, True]


@pytest.mark.parametrize(
    ("entry", "said", "nearest"),
    [
        ({**BETWEEN, "type": "expect_column_value_to_be_between"}, "expectation type", "expect_column_values_to_be_"),
        ({**BETWEEN, "kwargs": {"column": "km", "min_valu": 0}}, "kwarg 'min_valu'", "min_value"),
        ({**BETWEEN, "severty": "warning"}, "key 'severty'", "severity"),
    ],
)
def test_an_unknown_name_is_an_error_that_names_the_nearest(entry: dict[str, Any], said: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"{said}.*did you mean '{nearest}") as caught:
        parse(entry)
    assert "trips[0]" in str(caught.value)


def test_an_unknown_table_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown table 'trps', did you mean 'trips'"):
        parse_suite({"trps": [BETWEEN]}, ["trips", "weather"])


@pytest.mark.parametrize(
    "entry",
    [
        {**BETWEEN, "kwargs": {"column": "km", "min_value": 0, "mostly": 2}},
        {**BETWEEN, "kwargs": {"min_value": 0}},
        {**BETWEEN, "severity": "fatal"},
        {"kwargs": {"column": "km"}},
        "expect_column_values_to_not_be_null",
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "km", "value_set": None}},
    ],
)
def test_a_wrong_value_is_an_error_that_names_its_place(entry: Any) -> None:
    with pytest.raises(ConfigError, match=r"trips\[1\]"):
        parse(BETWEEN, entry)


@pytest.mark.parametrize("name", ["unexpected_rows_expectation", "expect_query_results_to_match_comparison"])
def test_an_expectation_that_needs_a_database_is_refused_before_any_run(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown expectation type"):
        parse({"type": name, "kwargs": {}})


def test_a_suite_entry_that_is_no_list_is_an_error() -> None:
    with pytest.raises(ConfigError, match="must be a list"):
        parse_suite({"trips": {"type": "x"}}, ["trips"])


def test_an_expectation_reads_only_its_columns() -> None:
    present = ["km", "city", "late", "trip"]
    between, conditional, pair, count, columns = parse(
        BETWEEN,
        {**BETWEEN, "kwargs": {**BETWEEN["kwargs"], "row_condition": 'col("city") == "Oslo"'}},  # type: ignore[dict-item]
        {"type": "expect_column_pair_values_to_be_equal", "kwargs": {"column_A": "km", "column_B": "gone"}},
        {"type": "expect_table_row_count_to_equal", "kwargs": {"value": 3}},
        {"type": "expect_table_column_count_to_equal", "kwargs": {"value": 4}},
    )
    assert between.columns(present) == {"km"}
    assert conditional.columns(present) == {"km", "city"}
    assert (pair.columns(present), pair.missing(present), pair.column) == ({"km"}, ["gone"], "km, gone")
    assert count.columns(present) == set()
    assert columns.columns(present) == set(present)


@pytest.mark.parametrize("name", list_use_cases(REPO))
def test_the_suite_of_every_use_case_is_valid_and_small_enough_to_travel(name: str) -> None:
    from components.core.digests import canonical_json
    from components.core.usecase import load_use_case

    suite, use_case = load_suite(REPO / name), load_use_case(REPO / name)
    written = [*use_case.data.tables, use_case.problem.table]
    parsed = parse_suite(suite, written)
    assert set(parsed) == set(written), "every table has expectations"
    assert len(canonical_json(suite).encode()) <= 8_000
    label = {e.type for e in parsed[use_case.problem.table] if e.column == use_case.problem.label}
    assert "expect_column_mean_to_be_between" in label
