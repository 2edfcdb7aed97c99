"""Rules of validation that must hold for any data, each against an independent oracle."""

import math
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.tables import Snapshot
from components.validate.checks import run_expectations
from components.validate.findings import Finding
from components.validate.integrity import months_between, repeated
from components.validate.judge import decide
from components.validate.page import render
from components.validate.suite import Expectation, whole_numbers

numbers = st.one_of(st.none(), st.just(math.nan), st.integers(-20, 20).map(float), st.floats(-20, 20))
severities = st.sampled_from(["critical", "warning", "info"])
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-1000, 1000), st.text(max_size=5), st.floats(-9, 9)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)
EMPTY = Snapshot(use_case="demo", as_of=datetime(2013, 4, 1, tzinfo=UTC), code="", sources={}, tables={})


@settings(max_examples=25, deadline=None)
@given(values=st.lists(numbers, min_size=1, max_size=40), low=st.integers(-15, 0), mostly=st.floats(0.05, 1))
def test_ranges_and_nulls_agree_with_a_loop(values: list[float | None], low: int, mostly: float) -> None:
    rows = pa.table({"id": list(range(len(values))), "x": pa.array(values, pa.float64())})
    high = low + 10
    among = {"column": "x", "min_value": low, "max_value": high, "mostly": mostly}
    expectations = [
        Expectation(type="expect_column_values_to_be_between", kwargs=among),
        Expectation(type="expect_column_values_to_not_be_null", kwargs={"column": "x", "mostly": mostly}),
    ]
    between, filled = run_expectations("t", rows, expectations, keys=["id"], examples=20)
    present = [v for v in values if v is not None and not math.isnan(v)]
    outside = [n for n, v in enumerate(values) if v is not None and not math.isnan(v) and not low <= v <= high]
    missing = [n for n, v in enumerate(values) if v is None or math.isnan(v)]
    # A missing value is neither inside nor outside a range.
    assert between.passed == (not present or (len(present) - len(outside)) / len(present) >= mostly)
    assert filled.passed == ((len(values) - len(missing)) / len(values) >= mostly)
    assert math.isclose(between.failing_percent or 0, 100 * len(outside) / len(values))
    assert math.isclose(filled.failing_percent or 0, 100 * len(missing) / len(values))
    for finding, bad in ((between, outside), (filled, missing)):
        quoted = [int(row["id"]) for row in finding.examples]
        assert quoted == ([] if finding.passed else bad[:20])


@given(keys=st.lists(st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 3))), max_size=30))
def test_repeated_marks_all_but_one_row_of_each_key(keys: list[tuple[str, int | None]]) -> None:
    rows = pa.table({"a": pa.array([k[0] for k in keys], pa.string()), "b": pa.array([k[1] for k in keys], pa.int64())})
    marked = [key for key, bad in zip(keys, repeated(rows, ["a", "b"]).to_pylist(), strict=True) if bad]
    assert Counter(marked) == Counter({key: n - 1 for key, n in Counter(keys).items() if n > 1})


@given(start=st.dates(datetime(1999, 1, 1).date(), datetime(2030, 1, 1).date()), count=st.integers(0, 60))  # noqa: DTZ001
def test_months_between_lists_every_month_once(start: Any, count: int) -> None:
    year, month = start.year, start.month
    expected = [f"{year + (month - 1 + n) // 12:04d}-{(month - 1 + n) % 12 + 1:02d}" for n in range(count + 1)]
    assert months_between(expected[0], expected[-1]) == expected


@given(value=json_values)
def test_whole_numbers_undoes_what_a_pipeline_parameter_does(value: Any) -> None:
    def as_floats(v: Any) -> Any:
        if isinstance(v, dict):
            return {k: as_floats(i) for k, i in v.items()}
        if isinstance(v, list):
            return [as_floats(i) for i in v]
        return float(v) if isinstance(v, int) and not isinstance(v, bool) else v

    restored = whole_numbers(as_floats(value))
    assert restored == value
    assert repr(restored) == repr(whole_numbers(value))


@given(checks=st.lists(st.tuples(severities, st.booleans()), max_size=12))
def test_only_a_failed_critical_check_rejects(checks: list[tuple[str, bool]]) -> None:
    findings = [
        Finding(table="t", column="c", check=str(n), severity=severity, passed=passed, message="m", expected="e")
        for n, (severity, passed) in enumerate(checks)
    ]
    verdict = decide(EMPTY, findings)
    assert verdict.approved == (("critical", False) not in checks)
    assert len(verdict.reasons) == len(findings)
    assert len(verdict.evidence["failures"]) == sum(not passed for _, passed in checks)


@given(text=st.text(max_size=600), passed=st.booleans())
def test_no_text_of_the_data_becomes_markup(text: str, passed: bool) -> None:
    findings = [
        Finding(
            table=text,
            column=text,
            check=text,
            severity="critical",
            passed=passed,
            message=text,
            expected=text,
            observed=text,
            notes=text,
            examples=[{text: text}],
        )
    ]
    plain = [
        f.model_copy(update=dict.fromkeys(("table", "column", "check", "expected", "observed", "notes"), "x"))
        for f in findings
    ]
    plain = [f.model_copy(update={"examples": [{"x": "x"}]}) for f in plain]
    with_text, without = (render(EMPTY, decide(EMPTY, f), f) for f in (findings, plain))
    # The page has exactly as many tags as one without any of this text (an empty text drops its line).
    if text:
        assert with_text.count("<") == without.count("<")
