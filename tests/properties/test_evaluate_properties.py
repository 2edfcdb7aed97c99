"""Rules of the evaluation that hold for any data."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.bootstrap import Interval, draw_days, resample
from components.core.metrics import auc, calibration_bins, measure
from components.core.sections import Evaluate
from components.evaluate.curves import roc_curve
from components.evaluate.gates import decide
from components.evaluate.holdout import group_values
from components.evaluate.measurements import Champion, Measurements, Model
from components.evaluate.wording import number

ORDER = {"reject": 0, "hold": 1, "promote": 2}
any_speed = settings(deadline=None)
real = st.floats(-0.5, 0.5, allow_nan=False)


@st.composite
def scored_rows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Draw labels, tied predictions and days, at least one row."""
    n = draw(st.integers(1, 60))
    days = draw(st.integers(1, 6))
    labels = draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n))
    predictions = draw(st.lists(st.sampled_from(np.linspace(0.05, 0.95, 7).tolist()), min_size=n, max_size=n))
    day = draw(st.lists(st.integers(0, days - 1), min_size=n, max_size=n))
    return np.array(labels), np.array(predictions), np.array(day), days


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    low, estimate, high = sorted(draw(st.lists(real, min_size=3, max_size=3)))
    return Interval(estimate=estimate, low=low, high=high)


def judged(lift: Interval, gain: Interval, rows: int = 5000, champion: bool = True) -> str:
    measured = Measurements(
        metric="auc",
        rows=rows,
        days=21,
        challenger=Model(name="new", metrics={"auc": Interval(estimate=0.7)}),
        baseline=Model(name="base rate", metrics={}),
        champion=Champion(version=1, model="c", added_inputs=[], removed_inputs=[]) if champion else None,
        lift=lift,
        gain=gain,
    )
    return decide(measured, Evaluate(margin=0.01), subject="d").decision


@given(scored_rows(), st.integers(0, 99))
@any_speed
def test_auc_samples_equal_repeated_rows(sample: tuple[Any, Any, Any, int], seed: int) -> None:
    labels, predictions, day, days = sample
    weights = draw_days(days, 5, seed)
    values = resample("auc", labels, predictions, day, weights)
    for value, w in zip(values, weights, strict=True):
        chosen = np.repeat(np.arange(len(day)), w[day].astype(int))
        assert np.isclose(value, measure("auc", labels[chosen], predictions[chosen]), equal_nan=True)


@given(scored_rows())
@any_speed
def test_auc_sees_only_the_order(sample: tuple[Any, Any, Any, int]) -> None:
    labels, predictions, _, _ = sample
    value = auc(labels, predictions)
    assert np.isclose(value, auc(labels, predictions**3), equal_nan=True)
    assert np.isclose(1 - value, auc(labels, -predictions), equal_nan=True)


@given(scored_rows())
@any_speed
def test_equal_predictions_share_a_bin_and_bins_keep_the_order(sample: tuple[Any, Any, Any, int]) -> None:
    _, predictions, _, _ = sample
    bins = calibration_bins(predictions)
    order = np.argsort(predictions)
    assert np.all(np.diff(bins[order]) >= 0)
    assert all(len(set(bins[predictions == p])) == 1 for p in predictions)
    assert sorted(set(bins)) == list(range(max(bins) + 1))


@given(intervals(), intervals(), st.floats(0, 0.3), st.booleans())
@any_speed
def test_a_better_model_never_gets_a_worse_decision(
    lift: Interval, gain: Interval, more: float, champion: bool
) -> None:
    def raised(found: Interval) -> Interval:
        assert found.estimate is not None
        assert found.low is not None
        assert found.high is not None
        return Interval(estimate=found.estimate + more, low=found.low + more, high=found.high + more)

    before = judged(lift, gain, champion=champion)
    assert ORDER[judged(raised(lift), gain, champion=champion)] >= ORDER[before]
    assert ORDER[judged(lift, raised(gain), champion=champion)] >= ORDER[before]


@given(intervals(), intervals())
@any_speed
def test_nothing_is_promoted_that_may_be_worse_than_allowed(lift: Interval, gain: Interval) -> None:
    if judged(lift, gain) == "promote":
        assert lift.low is not None
        assert lift.low > 0
        assert gain.low is not None
        assert gain.low > -0.01
        assert gain.estimate is not None
        assert gain.estimate >= 0


@given(intervals(), intervals(), st.integers(0, 999))
@any_speed
def test_few_rows_never_decide(lift: Interval, gain: Interval, rows: int) -> None:
    assert judged(lift, gain, rows=rows) == "hold"


@given(st.lists(st.none() | st.floats(-1e3, 1e3) | st.just(float("nan")), min_size=1, max_size=40))
@any_speed
def test_every_row_is_in_exactly_one_group(values: list[float | None]) -> None:
    table = pa.table({"x": pa.array(values, pa.float64())})
    names, group = group_values(table, "x")
    assert len(group) == len(values)
    for value, position in zip(values, group, strict=True):
        assert (names[position] == "missing") == (value is None or np.isnan(value))


@given(st.lists(st.none() | st.text(max_size=5), min_size=1, max_size=40))
@any_speed
def test_categories_keep_their_names(values: list[str | None]) -> None:
    names, group = group_values(pa.table({"x": pa.array(values, pa.string())}), "x")
    assert [names[g] for g in group] == ["missing" if v is None else v for v in values]


@given(scored_rows())
@any_speed
def test_roc_points_rise_from_nothing_to_everything(sample: tuple[Any, Any, Any, int]) -> None:
    labels, predictions, _, _ = sample
    fpr, tpr, thresholds = roc_curve(labels, predictions, points=5)
    if len(set(labels)) < 2:
        assert fpr == tpr == thresholds == []
        return
    assert len(fpr) <= 5
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert np.all(np.diff(fpr) >= 0)
    assert np.all(np.diff(tpr) >= 0)
    assert np.all(np.diff(thresholds) < 0)
    assert np.isfinite(thresholds).all()


@given(st.floats(-1e6, 1e6))
@any_speed
def test_figures_never_lose_their_sign(value: float) -> None:
    text = number(value, signed=True)
    if any(digit in text for digit in "123456789"):
        assert text[0] == ("−" if value < 0 else "+")
    assert json.dumps(text)
