from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from components.validate.checks import run_expectations
from components.validate.findings import Finding
from components.validate.suite import Expectation
from components.validate.wording import describe


def check(rows: pa.Table, *entries: dict[str, Any], examples: int = 5) -> list[Finding]:
    expectations = [Expectation.model_validate(entry) for entry in entries]
    return run_expectations("trips", rows, expectations, keys=["trip"], examples=examples)


def between(low: float, high: float, **more: Any) -> dict[str, Any]:
    return {
        "type": "expect_column_values_to_be_between",
        "kwargs": {"column": "km", "min_value": low, "max_value": high, **more},
    }


def test_a_failure_quotes_its_rows_with_keys_and_instants(trips: pa.Table) -> None:
    (finding,) = check(trips, {**between(0, 79), "severity": "warning", "meta": {"notes": "city limits"}}, examples=3)
    assert (finding.passed, finding.severity, finding.column, finding.table) == (False, "warning", "km", "trips")
    assert finding.failing_percent == pytest.approx(100 * 10 / 90)
    assert finding.examples == [
        {
            "trip": f"t{n}",
            "km": str(n),
            "event_timestamp": f"2013-03-{n - 58:02d} 00:00:00Z",
            "label_timestamp": f"2013-03-{n - 58:02d} 05:00:00Z",
        }
        for n in (80, 81, 82)
    ]
    assert list(finding.examples[0]) == ["trip", "km", "event_timestamp", "label_timestamp"]
    assert finding.expected == "between 0 and 79"
    assert finding.observed == "10 of 90 rows failing (11.11 %)"
    assert finding.notes == "city limits"


def test_findings_keep_the_order_and_number_of_expectations(trips: pa.Table) -> None:
    raising = {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "city", "min_value": 0}}
    findings = check(trips, between(0, 89), raising, between(0, 9), between(0, 9), between(0, 100))
    assert [f.passed for f in findings] == [True, False, False, False, True]
    assert findings[0].examples == []


def test_an_expectation_that_raises_is_a_critical_failure_whatever_its_severity(trips: pa.Table) -> None:
    (finding,) = check(
        trips,
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "city", "min_value": 0},
            "severity": "info",
        },
    )
    assert (finding.passed, finding.severity) == (False, "critical")
    assert "could not be checked" in finding.message
    assert "of the same type" in finding.observed


def test_a_missing_column_is_a_critical_failure_that_names_the_nearest(trips: pa.Table) -> None:
    renamed = trips.rename_columns([{"km": "kms"}.get(c, c) for c in trips.column_names])
    missing, other = check(
        renamed,
        {**between(0, 1), "severity": "warning"},
        {"type": "expect_column_to_exist", "kwargs": {"column": "km"}, "severity": "warning"},
    )
    assert (missing.severity, missing.observed) == ("critical", "the table has no column km, the nearest is kms")
    assert (other.passed, other.severity) == (False, "warning")


def test_no_rows_is_never_a_success(trips: pa.Table) -> None:
    (finding,) = check(trips.slice(0, 0), between(0, 1))
    assert (finding.passed, finding.observed) == (False, "there are no rows to check")


def test_mostly_allows_a_share_of_the_rows(trips: pa.Table) -> None:
    enough, too_few = check(trips, between(0, 79, mostly=0.88), between(0, 79, mostly=0.9))
    assert (enough.passed, too_few.passed) == (True, False)
    assert enough.failing_percent == too_few.failing_percent
    assert too_few.expected == "between 0 and 79, in at least 90 % of rows"


@pytest.mark.parametrize(
    "condition",
    [
        {"row_condition": 'col("city") == "Oslo"', "condition_parser": "great_expectations"},
        {"row_condition": {"type": "comparison", "column": {"name": "city"}, "operator": "==", "parameter": "Oslo"}},
    ],
)
@pytest.mark.filterwarnings("ignore:Passing a string to the row_condition")
def test_a_row_condition_reads_the_column_it_names(trips: pa.Table, condition: dict[str, Any]) -> None:
    (finding,) = check(trips, between(1, 87, **condition))
    # Oslo has the odd kilometres 1, 3, ..., 89.
    assert [row["km"] for row in finding.examples] == ["89"]


def test_whole_sets_match_float_columns(trips: pa.Table) -> None:
    (finding,) = check(
        trips, {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "late", "value_set": [0, 1]}}
    )
    assert finding.passed


def test_nan_and_null_are_both_missing(trips: pa.Table) -> None:
    km = pa.array([None, float("nan")] + [1.0] * 88)
    rows = trips.set_column(trips.column_names.index("km"), "km", km)
    (finding,) = check(rows, {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "km"}})
    assert [row["km"] for row in finding.examples] == ["null", "null"]


def test_statistics_report_what_was_observed(trips: pa.Table) -> None:
    mean, quantile, distinct = check(
        trips,
        {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "km", "max_value": 40}},
        {
            "type": "expect_column_quantile_values_to_be_between",
            "kwargs": {"column": "km", "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[0, 10]]}},
        },
        {
            "type": "expect_column_unique_value_count_to_be_between",
            "kwargs": {"column": "city", "min_value": 2, "max_value": 2},
        },
    )
    assert (mean.passed, mean.observed, mean.expected) == (False, "44.5", "mean at most 40")
    assert not quantile.passed
    assert "44" in quantile.observed
    assert (distinct.passed, distinct.observed) == (True, "2")


def test_all_rows_may_fail(trips: pa.Table) -> None:
    rows = pa.concat_tables([trips] * 300)
    (finding,) = check(rows, between(1000, 2000))
    assert finding.failing_percent == 100
    assert len(finding.examples) == 5


@pytest.mark.parametrize(
    ("kind", "kwargs", "words"),
    [
        ("expect_column_values_to_not_be_null", {"column": "km"}, "not null"),
        ("expect_table_row_count_to_be_between", {"min_value": 5}, "row count at least 5"),
        ("expect_column_values_to_be_in_set", {"column": "c", "value_set": ["a", 1]}, "in set a, 1"),
        (
            "expect_column_pair_values_a_to_be_greater_than_b",
            {"column_A": "temp", "column_B": "dew", "mostly": 0.995},
            "temp greater than dew, in at least 99.5 % of rows",
        ),
        ("expect_column_values_to_match_regex", {"column": "c", "regex": "^x"}, "to match regex (regex ^x)"),
    ],
)
def test_expectations_are_said_in_words(kind: str, kwargs: dict[str, Any], words: str) -> None:
    assert describe(Expectation(type=kind, kwargs=kwargs)) == words


def test_instants_can_be_compared(trips: pa.Table) -> None:
    latest = trips["event_timestamp"][-1].as_py()
    (finding,) = check(
        trips,
        {
            "type": "expect_column_max_to_be_between",
            "kwargs": {"column": "event_timestamp", "min_value": (latest + timedelta(days=1)).isoformat()},
        },
    )
    assert not finding.passed
