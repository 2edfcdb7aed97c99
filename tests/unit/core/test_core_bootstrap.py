"""The day-block bootstrap against its definition, and what its intervals do."""

import time

import numpy as np
import pytest

from components.core.bootstrap import (
    day_wins,
    draw_days,
    interval,
    resample,
    simultaneous_intervals,
    small_sample_factor,
)
from components.core.metrics import CLASSIFICATION, REGRESSION, auc, calibration_bins, ece, measure


def day_sample(
    generator: np.random.Generator, days: int, per_day: int, shock: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, two models' predictions and days; the label and each model's error share the day."""
    day = np.repeat(np.arange(days), per_day)
    signal = generator.normal(size=day.size)
    raw = -1 + 0.8 * signal + shock * generator.normal(size=days)[day]
    labels = (generator.random(day.size) < 1 / (1 + np.exp(-raw))).astype(float)
    first = 0.8 * signal - 1 + shock * generator.normal(size=days)[day]
    second = 0.6 * signal - 1 + shock * generator.normal(size=days)[day] + 0.3 * generator.normal(size=day.size)
    return labels, 1 / (1 + np.exp(-first)), 1 / (1 + np.exp(-second)), day


def repeat_days(day: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the rows of a sample by really repeating them: the definition."""
    return np.repeat(np.arange(len(day)), weights[day].astype(int))


@pytest.mark.parametrize("metric", [m for m in (*CLASSIFICATION, *REGRESSION) if m != "ece"])
def test_samples_equal_a_recomputation_on_repeated_rows(metric: str) -> None:
    generator = np.random.default_rng(4)
    labels, predictions, _, day = day_sample(generator, 9, 40)
    predictions = np.round(predictions, 2)
    weights = draw_days(9, 30, seed=1)
    expected = [
        measure(metric, labels[chosen], predictions[chosen])  # type: ignore[arg-type]
        for chosen in (repeat_days(day, w) for w in weights)
    ]
    assert resample(metric, labels, predictions, day, weights) == pytest.approx(np.array(expected), abs=1e-10)  # type: ignore[arg-type]


def test_calibration_samples_keep_the_bins_of_all_rows() -> None:
    labels, predictions, _, day = day_sample(np.random.default_rng(8), 6, 50)
    weights = draw_days(6, 20, seed=2)
    bins = calibration_bins(predictions)
    expected = []
    for w in weights:
        chosen = repeat_days(day, w)
        gaps = [(labels - predictions)[chosen][bins[chosen] == b].sum() for b in range(bins.max() + 1)]
        expected.append(np.abs(gaps).sum() / len(chosen))
    assert resample("ece", labels, predictions, day, weights) == pytest.approx(np.array(expected), abs=1e-12)


@pytest.mark.parametrize("metric", [*CLASSIFICATION, *REGRESSION])
def test_every_day_once_gives_the_metric_itself(metric: str) -> None:
    labels, predictions, _, day = day_sample(np.random.default_rng(3), 12, 30)
    (value,) = resample(metric, labels, predictions, day, np.ones((1, 12)))  # type: ignore[arg-type]
    assert value == pytest.approx(measure(metric, labels, predictions), abs=1e-10)  # type: ignore[arg-type]


def test_wins_of_day_pairs_add_up_to_the_mann_whitney_statistic() -> None:
    labels, predictions, _, day = day_sample(np.random.default_rng(3), 5, 40)
    wins = day_wins(labels, np.round(predictions, 1), day, 5)
    total = auc(labels, np.round(predictions, 1)) * labels.sum() * (1 - labels).sum()
    assert wins.sum() == pytest.approx(total)


def test_a_sample_without_positives_is_undefined() -> None:
    labels, predictions = np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.9, 0.1, 0.2, 0.3])
    day = np.array([0, 0, 1, 1])
    values = resample("auc", labels, predictions, day, np.array([[2.0, 0.0], [0.0, 2.0]]))
    assert values[0] == 1.0
    assert np.isnan(values[1])
    found = interval(1.0, np.append(np.full(90, 1.0), np.full(10, np.nan)), days=10, confidence=0.95)
    assert (found.estimate, found.low, found.high) == (1.0, None, None)


def test_draws_are_whole_days_and_repeatable() -> None:
    weights = draw_days(21, 400, seed=7)
    assert weights.shape == (400, 21)
    assert np.array_equal(weights.sum(axis=1), np.full(400, 21.0))
    assert np.array_equal(weights, draw_days(21, 400, seed=7))
    assert not np.array_equal(weights, draw_days(21, 400, seed=8))


def test_intervals_of_few_days_are_wider_than_their_percentiles() -> None:
    samples = np.random.default_rng(1).normal(0, 1, 20_000)
    wide, narrow = (interval(0.0, samples, days=days, confidence=0.95) for days in (7, 500))
    assert narrow.high == pytest.approx(1.96, abs=0.05)
    # t with 6 degrees of freedom, times sqrt(7/6).
    assert wide.high == pytest.approx(2.447 * np.sqrt(7 / 6), abs=0.1)
    assert small_sample_factor(10_000, 0.95) == pytest.approx(1.0, abs=1e-3)


def test_one_day_has_no_interval() -> None:
    found = interval(0.7, np.full(100, 0.7), days=1, confidence=0.95)
    assert (found.estimate, found.low, found.high) == (0.7, None, None)


def test_an_undefined_estimate_has_no_interval() -> None:
    assert interval(float("nan"), np.zeros(100), days=9, confidence=0.95).model_dump() == {
        "estimate": None,
        "low": None,
        "high": None,
    }


def test_plain_percentiles_would_call_a_calibrated_model_miscalibrated() -> None:
    """The reason for `reflect`: noise only adds to a distance."""
    plain, reflected = 0, 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        predictions = generator.uniform(0.05, 0.5, 21 * 60)
        labels = (generator.random(predictions.size) < predictions).astype(float)
        day = np.repeat(np.arange(21), 60)
        samples = resample("ece", labels, predictions, day, draw_days(21, 200, seed))
        error = ece(labels, predictions)
        plain += (interval(error, samples, days=21, confidence=0.95).low or 0) > 0.01
        reflected += (interval(error, samples, days=21, confidence=0.95, reflect=True).low or 0) > 0.01
    assert plain == 60
    assert reflected <= 3


def test_simultaneous_intervals_hold_for_all_slices_together() -> None:
    generator = np.random.default_rng(11)
    single, joint, trials, k, days = 0, 0, 150, 12, 60
    for seed in range(trials):
        truth = np.zeros(k)
        by_day = generator.normal(truth, 1, (days, k))
        estimates = by_day.mean(axis=0)
        samples = (draw_days(days, 300, seed) @ by_day / days).T
        single += all(
            (i.low or 0) <= 0 <= (i.high or 0)
            for i in (interval(e, s, days=days, confidence=0.95) for e, s in zip(estimates, samples, strict=True))
        )
        together = simultaneous_intervals(estimates.tolist(), samples, days=days, confidence=0.95)
        joint += all((i.low or 0) <= 0 <= (i.high or 0) for i in together)
    assert single / trials < 0.75
    assert joint / trials > 0.90


def test_correlated_slices_are_not_corrected_twice() -> None:
    samples = np.random.default_rng(1).normal(0, 1, (1, 5000))
    alone = simultaneous_intervals([0.0], samples, days=1000, confidence=0.95)[0]
    copies = simultaneous_intervals([0.0] * 20, np.repeat(samples, 20, axis=0), days=1000, confidence=0.95)[7]
    assert copies == alone


def test_identical_models_have_an_interval_of_zero_width() -> None:
    (found,) = simultaneous_intervals([0.0], np.zeros((1, 200)), days=21, confidence=0.95)
    assert (found.low, found.high) == (0.0, 0.0)


def test_five_hundred_resamples_cost_no_more_than_a_few_metrics() -> None:
    """The point of the day-pair matrix: 500 samples without sorting 500 times."""
    labels, predictions, _, day = day_sample(np.random.default_rng(3), 21, 1000)
    weights = draw_days(21, 500, seed=1)

    def cost(call: object) -> float:
        start = time.process_time()
        call()  # type: ignore[operator]
        return time.process_time() - start

    once = min(cost(lambda: auc(labels, predictions)) for _ in range(5))
    all_samples = min(cost(lambda: resample("auc", labels, predictions, day, weights)) for _ in range(5))
    assert all_samples < 25 * once


@pytest.mark.slow
def test_day_blocks_cover_where_rows_do_not() -> None:
    """Nominal 95 % intervals of an AUC difference, days sharing shocks: rows cover far less, days nearly all."""
    generator = np.random.default_rng(1)
    labels, first, second, _ = day_sample(generator, 10_000, 20)
    truth = auc(labels, first) - auc(labels, second)
    trials, days, blocks, rows, widths = 200, 21, 0, 0, []
    for seed in range(trials):
        labels, first, second, day = day_sample(generator, days, 150)
        estimate = auc(labels, first) - auc(labels, second)
        weights = draw_days(days, 400, seed)
        samples = resample("auc", labels, first, day, weights) - resample("auc", labels, second, day, weights)
        found = interval(estimate, samples, days=days, confidence=0.95)
        assert found.low is not None
        assert found.high is not None
        blocks += found.low <= truth <= found.high
        drawn = [generator.integers(0, len(day), len(day)) for _ in range(40)]
        error = float(np.std([auc(labels[k], first[k]) - auc(labels[k], second[k]) for k in drawn]))
        rows += abs(estimate - truth) <= 1.96 * error
        widths.append((found.high - found.low) / (3.92 * error))
    print(f"coverage: days {blocks / trials:.3f}, rows {rows / trials:.3f}, width ratio {np.median(widths):.2f}")  # noqa: T201
    assert blocks / trials >= 0.88
    assert rows / trials <= 0.70
    assert np.median(widths) > 1.8
