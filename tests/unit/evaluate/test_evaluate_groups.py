"""Slices and groups against recomputation and fairlearn."""

import numpy as np
import pyarrow as pa
import pytest

from components.core.bootstrap import draw_days
from components.core.metrics import auc
from components.evaluate.fairness import measure_fairness, operating_threshold
from components.evaluate.slices import measure_slices


@pytest.fixture(scope="module")
def judged() -> dict[str, np.ndarray]:
    """Return rows of three carriers; the challenger fails on carrier C only."""
    generator = np.random.default_rng(2)
    n = 21 * 240
    day = np.repeat(np.arange(21), 240)
    carrier = generator.choice(["A", "B", "C"], n, p=[0.5, 0.3, 0.2])
    signal = generator.normal(size=n)
    labels = (generator.random(n) < 1 / (1 + np.exp(-1.5 * signal + 1))).astype(float)
    old = 1 / (1 + np.exp(-signal + 1 + 0.5 * generator.normal(size=n)))
    wrong = np.where(carrier == "C", generator.normal(size=n), signal)
    new = 1 / (1 + np.exp(-wrong + 1 + 0.2 * generator.normal(size=n)))
    return {"labels": labels, "new": new, "old": old, "day": day, "carrier": carrier}


def test_the_failing_slice_comes_first_with_an_interval_below_the_margin(judged: dict[str, np.ndarray]) -> None:
    rows = pa.table({"carrier": judged["carrier"], "rare": ["x"] * 30 + ["y"] * (len(judged["day"]) - 30)})
    found = measure_slices(
        rows,
        ["carrier", "rare"],
        metric="auc",
        labels=judged["labels"],
        challenger=judged["new"],
        reference=judged["old"],
        reference_name="champion",
        day=judged["day"],
        weights=draw_days(21, 300, 7),
        min_rows=500,
        confidence=0.95,
    )
    assert found.slices[0].value == "C"
    assert {s.value for s in found.slices} == {"A", "B", "C", "y"}
    assert found.left_out == 1
    worst = found.slices[0]
    inside = judged["carrier"] == "C"
    new, old = (auc(judged["labels"][inside], judged[name][inside]) for name in ("new", "old"))
    assert (worst.challenger, worst.reference, worst.rows) == (new, old, int(inside.sum()))
    assert worst.difference.estimate == pytest.approx(new - old)
    assert worst.difference.high is not None
    assert worst.difference.high < -0.1
    assert all(s.difference.low is not None and s.difference.low > 0 for s in found.slices if s.value in "AB")


def test_a_slice_of_one_class_is_left_out(judged: dict[str, np.ndarray]) -> None:
    rows = pa.table({"label": [f"{v:g}" for v in judged["labels"]]})
    found = measure_slices(
        rows,
        ["label"],
        metric="auc",
        labels=judged["labels"],
        challenger=judged["new"],
        reference=judged["old"],
        reference_name="champion",
        day=judged["day"],
        weights=draw_days(21, 100, 7),
        min_rows=500,
        confidence=0.95,
    )
    assert (found.slices, found.left_out) == ([], 2)


def test_losses_count_as_improvement_when_they_fall(judged: dict[str, np.ndarray]) -> None:
    found = measure_slices(
        pa.table({"carrier": judged["carrier"]}),
        ["carrier"],
        metric="logloss",
        labels=judged["labels"],
        challenger=judged["new"],
        reference=judged["old"],
        reference_name="champion",
        day=judged["day"],
        weights=draw_days(21, 100, 7),
        min_rows=500,
        confidence=0.95,
    )
    signs = {s.value: np.sign(s.difference.estimate or 0) for s in found.slices}
    assert signs == {"A": 1, "B": 1, "C": -1}
    assert all((s.challenger < s.reference) == (signs[s.value] > 0) for s in found.slices)


def test_equalized_odds_equal_fairlearn(judged: dict[str, np.ndarray]) -> None:
    from fairlearn.metrics import equalized_odds_difference

    found = measure_fairness(
        pa.table({"carrier": judged["carrier"]}),
        "carrier",
        task="classification",
        labels=judged["labels"],
        predictions=judged["new"],
        day=judged["day"],
        weights=draw_days(21, 300, 7),
        min_rows=500,
        confidence=0.95,
    )
    flagged = judged["new"] >= operating_threshold(judged["labels"], judged["new"])
    expected = equalized_odds_difference(judged["labels"], flagged, sensitive_features=judged["carrier"])
    assert found.difference.estimate == pytest.approx(expected)
    assert found.difference.low is not None
    assert found.difference.high is not None
    assert 0 < found.difference.low < expected < found.difference.high
    assert {g.value for g in found.groups} == {"A", "B", "C"}
    rates = [g.rates for g in found.groups]
    gaps = [np.ptp([r[name] for r in rates]) for name in ("true_positive_rate", "false_positive_rate")]
    assert max(gaps) == pytest.approx(expected)


def test_error_differences_of_a_regression(judged: dict[str, np.ndarray]) -> None:
    labels = 100 * judged["labels"]
    predictions = labels + np.where(judged["carrier"] == "C", 9.0, 3.0)
    found = measure_fairness(
        pa.table({"carrier": judged["carrier"]}),
        "carrier",
        task="regression",
        labels=labels,
        predictions=predictions,
        day=judged["day"],
        weights=draw_days(21, 100, 7),
        min_rows=500,
        confidence=0.95,
    )
    assert found.difference.estimate == pytest.approx(6.0)
    assert {g.value: g.rates["mean_absolute_error"] for g in found.groups} == pytest.approx({"A": 3, "B": 3, "C": 9})


@pytest.mark.parametrize("min_rows", [1_400, 100_000])
def test_small_groups_are_left_out(judged: dict[str, np.ndarray], min_rows: int) -> None:
    found = measure_fairness(
        pa.table({"carrier": judged["carrier"]}),
        "carrier",
        task="classification",
        labels=judged["labels"],
        predictions=judged["new"],
        day=judged["day"],
        weights=draw_days(21, 100, 7),
        min_rows=min_rows,
        confidence=0.95,
    )
    assert len(found.groups) + found.left_out == 3
    assert (found.difference.estimate is None) == (min_rows == 100_000)


def test_the_operating_threshold_flags_as_many_rows_as_are_positive(judged: dict[str, np.ndarray]) -> None:
    threshold = operating_threshold(judged["labels"], judged["new"])
    assert (judged["new"] >= threshold).mean() == pytest.approx(judged["labels"].mean(), abs=1e-3)
