"""The decision ladder against an oracle that is a table: the first row that applies."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from components.core.bootstrap import Interval
from components.core.evidence import ColumnDrift, DriftTest, Evidence, Performance, Window
from components.core.sections import Monitor
from components.core.verdict import Reason
from components.decide.ladder import propose, windows_before

# Busy machines generate slowly; that is no finding.
CALM = [HealthCheck.too_slow, HealthCheck.data_too_large]
calm = settings(deadline=None, suppress_health_check=CALM)
UNITS = ("day", "week", "month")


def window(unit: str, number: int) -> Window:
    """Return the `number`-th calendar window, counted from January 2012 or its first Monday."""
    if unit == "month":
        first, last = (datetime(2012 + n // 12, n % 12 + 1, 1, tzinfo=UTC) for n in (number, number + 1))
        return Window(first=first, last=last)
    length = timedelta(days=7 if unit == "week" else 1)
    first = datetime(2012, 1, 2, tzinfo=UTC) + number * length
    return Window(first=first, last=first + length)


def drift_test(drifted: bool) -> DriftTest:
    column = ColumnDrift(column="delay", score=0.2, p_value=0.001, drifted=drifted)
    sizes: dict[str, Any] = {"rows": 900, "reference_rows": 9000, "days": 7, "reference_days": 90, "blocks": "days"}
    return DriftTest(**sizes, p_value=0.001 if drifted else 0.5, drifted=drifted, columns=[column])


def performance(fell: bool | None) -> Performance:
    champion = Interval(estimate=0.7, low=0.68, high=0.72)
    return Performance(metric="auc", window=champion, champion=champion, fell=fell, message=f"auc fell: {fell}")


def finding(passed: bool, severity: Any) -> Reason:
    return Reason(check="nulls", passed=passed, severity=severity, message="nulls of delay")


# Weighted towards what leads far down the ladder: most windows are whole, large and drifted.
HARMLESS = [[], [finding(True, "critical")], [finding(False, "warning"), finding(False, "info")]]
SANITY = st.sampled_from([[], [], [], *HARMLESS, [finding(False, "critical")]])
TEST = st.sampled_from([drift_test(True)] * 4 + [drift_test(False), None])
ROWS = st.sampled_from([5000, 5000, 5000, 301, 300, 299])
LABELS = st.sampled_from([5000, 301, 300, 299, 0])
OFTEN = st.sampled_from(["ladder", "ladder", "drift", "drift", "performance", "scheduled", "never", "evidently"])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Evidence, Monitor, list[Evidence]]:
    unit = draw(st.sampled_from(UNITS))
    of_windows = draw(st.integers(1, 5))
    config = Monitor(
        policy=draw(OFTEN),
        window=unit,
        of_windows=of_windows,
        drifted_windows=draw(st.integers(1, of_windows)),
    )

    def watched(number: int, version: int) -> Evidence:
        return Evidence(
            use_case="flights",
            window=window(unit, number),
            as_of=datetime(2014, 1, 1, tzinfo=UTC),
            version=version,
            model="7",
            rows=draw(ROWS),
            labelled_rows=draw(LABELS),
            sanity=draw(SANITY),
            drift=draw(TEST),
            prediction_drift=draw(TEST),
            performance=draw(
                st.lists(st.none() | st.booleans(), max_size=3).map(lambda x: [performance(f) for f in x])
            ),
            evidently=draw(st.none() | st.booleans()),
        )

    current = 8
    gone = draw(st.sets(st.integers(1, 7), max_size=2))
    earlier = [n for n in (2, 3, 4, 5, 6, 7, 9) if n not in gone]
    history = [watched(n, draw(st.sampled_from([1, 1, 1, 2]))) for n in earlier]
    return watched(current, 1), config, draw(st.permutations(history))


def number_of(found: Window, unit: str) -> int:
    if unit == "month":
        return (found.first.year - 2012) * 12 + found.first.month - 1
    return (found.first - datetime(2012, 1, 2, tzinfo=UTC)).days // (7 if unit == "week" else 1)


def oracle(evidence: Evidence, config: Monitor, history: list[Evidence]) -> tuple[str, str]:
    """Return decision and rung of the first line that applies."""

    def critical(one: Evidence) -> bool:
        return any(r.severity == "critical" and not r.passed for r in one.sanity)

    def moved(one: Evidence) -> bool:
        both = one.drift is not None and one.drift.drifted, one.prediction_drift and one.prediction_drift.drifted
        return bool(all(both)) and not critical(one)

    now = number_of(evidence.window, config.window)
    near = [h for h in history if h.version == evidence.version and now > number_of(h.window, config.window)]
    near = [h for h in near if now - number_of(h.window, config.window) < config.of_windows]
    drifted = moved(evidence) and 1 + sum(map(moved, near)) >= config.drifted_windows
    labels = evidence.labelled_rows >= config.min_rows
    fell = labels and any(p.fell is True for p in evidence.performance)
    tested = evidence.drift is not None and evidence.prediction_drift is not None
    policy = config.policy
    table = [
        (critical(evidence), "alert", "data"),
        (evidence.rows < config.min_rows, "insufficient", "rows"),
        (policy == "never", "report", "report"),
        (policy == "scheduled", "retrain", "schedule"),
        (policy == "evidently" and evidence.evidently is True, "retrain", "evidently"),
        (policy == "evidently", "report", "report"),
        (policy in ("ladder", "performance") and fell, "retrain", "performance"),
        (policy in ("ladder", "drift") and drifted, "retrain", "drift"),
        (policy == "performance" and not labels, "insufficient", "rows"),
        (policy == "drift" and not tested, "insufficient", "rows"),
        (policy == "ladder" and not tested and not labels, "insufficient", "rows"),
    ]
    return next(((decision, rung) for applies, decision, rung in table if applies), ("report", "report"))


@settings(calm, max_examples=400)
@given(case=cases())
def test_the_ladder_is_the_table(case: tuple[Evidence, Monitor, list[Evidence]]) -> None:
    evidence, config, history = case
    found = propose(evidence, config, history)
    assert (found.decision, found.rung) == oracle(evidence, config, history)
    assert found.reasons
    assert all(found.reasons)
    assert found == propose(evidence, config, list(reversed(history)))


@calm
@given(case=cases())
def test_broken_data_and_few_rows_never_retrain(case: tuple[Evidence, Monitor, list[Evidence]]) -> None:
    evidence, config, history = case
    broken = evidence.model_copy(update={"sanity": [Reason(check="x", passed=False, message="°F became °C")]})
    assert propose(broken, config, history).decision == "alert"
    assert "°F became °C" in propose(broken, config, history).reasons
    few = evidence.model_copy(update={"sanity": [], "rows": config.min_rows - 1})
    assert propose(few, config, history).decision == "insufficient"


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(("versions", "decision"), [((1, 1), "retrain"), ((2, 1), "report"), ((1, 2), "report")])
def test_another_versions_windows_do_not_count(unit: Any, versions: tuple[int, int], decision: str) -> None:
    """After a promotion the reference moves with the version, and so does the count."""
    config = Monitor(policy="drift", window=unit, drifted_windows=3, of_windows=3)
    both = {"drift": drift_test(True), "prediction_drift": drift_test(True)}
    sizes = {"use_case": "flights", "model": "7", "rows": 900, "labelled_rows": 900, "sanity": []}

    def watched(number: int, version: int) -> Evidence:
        found = window(unit, number)
        return Evidence.model_validate({**sizes, **both, "window": found, "as_of": found.last, "version": version})

    history = [watched(number, version) for number, version in zip((6, 7), versions, strict=True)]
    assert propose(watched(8, 1), config, history).decision == decision


@calm
@given(unit=st.sampled_from(UNITS), number=st.integers(10, 40), of_windows=st.integers(1, 8))
@example(unit="month", number=14, of_windows=4)
def test_the_windows_before_are_the_calendars(unit: Any, number: int, of_windows: int) -> None:
    config = Monitor(window=unit, of_windows=of_windows, drifted_windows=1)
    expected = [window(unit, number - back) for back in range(1, of_windows)]
    found = windows_before(window(unit, number).first, config)
    assert [Window(first=first, last=last) for first, last in found] == expected


@pytest.mark.parametrize(
    ("policy", "flag", "decision", "rung"),
    [
        ("evidently", True, "retrain", "evidently"),
        ("evidently", False, "report", "report"),
        ("evidently", None, "report", "report"),
        ("scheduled", None, "retrain", "schedule"),
        ("never", True, "report", "report"),
        ("ladder", True, "report", "report"),
    ],
)
def test_policies_that_do_not_look_at_the_ladder(policy: Any, flag: bool | None, decision: str, rung: str) -> None:
    found = window("week", 0)
    measured = {"as_of": found.last, "version": 1, "model": "7", "rows": 900, "labelled_rows": 900, "sanity": []}
    given = measured | {"use_case": "flights", "window": found, "evidently": flag, "performance": [performance(False)]}
    proposal = propose(Evidence.model_validate(given), Monitor(policy=policy), [])
    assert (proposal.decision, proposal.rung) == (decision, rung)


@pytest.mark.parametrize("change", [{"min_rows": 301}, {"policy": "drift"}, {"seed": 8}])
def test_a_policy_is_known_by_its_digest(change: dict[str, Any]) -> None:
    window_ = window("week", 0)
    measured: dict[str, Any] = {"as_of": window_.last, "version": 1, "model": "7", "rows": 900, "labelled_rows": 900}
    evidence = Evidence(use_case="flights", window=window_, **measured, sanity=[])
    one, same = (propose(evidence, Monitor(), []) for _ in range(2))
    other = propose(evidence, Monitor.model_validate(change), [])
    assert one.policy_digest == same.policy_digest != other.policy_digest
