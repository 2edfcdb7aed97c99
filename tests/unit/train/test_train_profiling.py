"""The reference profile: edges, levels, counts per day, and predictions on rows that the model was not fitted on."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from components.core.bundle import load_predictor, read_card, read_encoding
from components.core.profile import (
    MAX_LEVELS,
    QUANTILE_BINS,
    REFERENCE,
    ColumnProfile,
    count_days,
    read_profile,
    utc_days,
)
from components.core.sections import Problem, Train
from components.core.settings import Settings
from components.train.fit import fit
from components.train.profiling import frequent_levels, profile_column, quantile_edges
from components.train.rows import encode, prepare

NUMBERS = st.lists(st.one_of(st.none(), st.floats(-(2.0**100), 2.0**100, width=32)), min_size=1, max_size=80)


def column(values: Any, kind: str = "number", arrow: pa.DataType | None = None) -> ColumnProfile:
    array = pa.array(values, arrow)
    return profile_column("x", kind, array, ["2024-01-01"], np.zeros(len(array), dtype=np.intp))


def test_the_profile_of_a_trained_model_describes_all_labelled_rows(
    build: Callable[..., Path],
    problem: Problem,
    section: Callable[..., Train],
    settings: Settings,
    tmp_path: Path,
) -> None:
    training_set, bundle = build(rows=12_000), tmp_path / "model"
    card = fit(settings, use_case="delays", problem=problem, config=section(), training_set=training_set, bundle=bundle)
    profile = read_profile(bundle)
    prepared = prepare(training_set, "delays", problem, section())
    table, description = prepared.table, prepared.description
    assert (profile.use_case, profile.model, profile.rows) == ("delays", card.model, table.num_rows)
    assert [(c.name, c.kind, c.view) for c in profile.columns] == [(i.name, i.kind, i.view) for i in description.inputs]
    instants = table.column("event_timestamp").to_pylist()
    days = [instant.strftime("%Y-%m-%d") for instant in instants]
    for found in profile.columns:
        assert found.days == sorted(set(days))
        assert found.table().sum(axis=1).tolist() == [days.count(day) for day in found.days]
        values = table.column(found.name).to_pylist()
        nulls = [sum(d == day and v is None for d, v in zip(days, values, strict=True)) for day in found.days]
        assert found.table()[:, -1].tolist() == nulls
        distinct = {day: set() for day in found.days}
        for day, value in zip(days, values, strict=True):
            distinct[day] |= set() if value is None else {value}
        assert found.distinct == [len(distinct[day]) for day in found.days]
    shares = {c.name: c.importance for c in profile.columns}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["dest"] > shares["hour"]

    # Of predictions, only days that were not trained on, and what the graph answers.
    unseen = np.concatenate([prepared.split.validation, prepared.split.holdout])
    graph = load_predictor(bundle).predict(encode(read_encoding(bundle), table.take(unseen)))
    assert profile.prediction.days == sorted({days[i] for i in unseen})
    assert min(profile.prediction.days) >= prepared.split.validation_from.strftime("%Y-%m-%d")
    assert profile.prediction.table().sum() == len(unseen)
    assert profile.prediction.quantiles[4] == pytest.approx(float(np.median(graph)))

    sample = pq.read_table(bundle / REFERENCE)
    assert sample.column_names == ["event_timestamp", *(i.name for i in description.inputs), "prediction"]
    assert sample.num_rows == 10_000
    taken = sample.column("event_timestamp").to_pylist()
    assert taken == sorted(taken)
    assert (taken[0], taken[-1]) == (min(instants), max(instants))
    thirds = np.histogram([t.timestamp() for t in taken], bins=3)[0]
    assert np.ptp(thirds) < 0.1 * sample.num_rows
    again = load_predictor(bundle).predict(encode(read_encoding(bundle), sample))
    assert np.array_equal(sample.column("prediction").to_numpy(), again.astype(np.float64))
    assert read_card(bundle).model == profile.model


def test_a_profile_does_not_depend_on_the_run(
    build: Callable[..., Path],
    problem: Problem,
    section: Callable[..., Train],
    settings: Settings,
    tmp_path: Path,
) -> None:
    training_set = build(rows=2_000)
    for name in ("a", "b"):
        own = settings.model_copy(update={"run_key": f"{settings.run_key}-{name}"})
        fit(
            own,
            use_case="delays",
            problem=problem,
            config=section(trainer={"rounds": 5}),
            training_set=training_set,
            bundle=tmp_path / name,
        )
    for file in ("profile.json", "reference.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_continuous_numbers_fall_into_equal_bins() -> None:
    found = column(np.random.default_rng(3).standard_cauchy(6_400).tolist())
    assert found.bins == QUANTILE_BINS + 3
    assert found.table()[0].tolist() == [0, *[200] * QUANTILE_BINS, 0, 0]


def test_a_constant_keeps_below_equal_and_above_apart() -> None:
    for value in (0.0, 0.1, -3.5e7, 1e-20):
        found = column([value] * 20)
        moved = pa.array(
            [value, float(np.float32(value)), value - 1e-6 - abs(value) / 1e3, value + abs(value) / 1e3 + 1, None]
        )
        assert found.assign(moved).tolist() == [1, 1, 0, 2, 3]


@pytest.mark.parametrize(
    ("kind", "arrow"), [("number", pa.float64()), ("category", pa.string()), ("number", pa.null())]
)
def test_a_column_without_values_is_all_null(kind: str, arrow: pa.DataType) -> None:
    found = column([None] * 7, kind, arrow)
    assert found.table().tolist() == [[0, 7]]
    assert (found.distinct, found.quantiles, found.edges, found.levels) == ([0], [], [], [])
    new = pa.array([1.0] if kind == "number" else ["A"])
    assert found.assign(new).tolist() == [0]


@limits(deadline=None)
@given(NUMBERS)
def test_edges_ascend_enclose_all_values_and_separate_what_differs(values: list[float | None]) -> None:
    numbers = np.array([v for v in values if v is not None], dtype=np.float64)
    edges = quantile_edges(numbers)
    assert np.all(np.diff(edges) > 0)
    assert len(edges) <= QUANTILE_BINS + 1
    found = column(values, arrow=pa.float64())
    counts = found.table()[0]
    assert counts.sum() == len(values)
    assert counts[-1] == values.count(None)
    if numbers.size:
        assert counts[0] == counts[-2] == 0
        # No bin but those of one value holds many more than its share.
        heaviest = np.unique(numbers, return_counts=True)[1].max()
        assert counts[:-1].max() <= numbers.size / QUANTILE_BINS + heaviest + 1


@limits(deadline=None)
@given(st.lists(st.sampled_from([None, *"abcdefgh"]), min_size=1, max_size=60))
def test_levels_are_counted_and_new_ones_told_apart(values: list[str | None]) -> None:
    found = column(values, "category", pa.string())
    assert found.levels == sorted({v for v in values if v is not None})
    expected = [values.count(level) for level in found.levels] + [0, values.count(None)]
    assert found.table()[0].tolist() == expected
    assert found.assign(pa.array(["new", None])).tolist() == [found.bins - 2, found.bins - 1]


def test_the_most_frequent_levels_are_kept() -> None:
    values = [f"L{i:03d}" for i in range(MAX_LEVELS + 20) for _ in range(1 + i)]
    assert frequent_levels(pa.array(values)) == [f"L{i:03d}" for i in range(20, MAX_LEVELS + 20)]


def test_levels_are_named_as_the_encoding_names_them() -> None:
    for values in ([True, False, None], [1.0, 2.5, None], [3, 4, None]):
        found = column(values, "category")
        assert found.levels == sorted(str(v) for v in values if v is not None)
        assert found.table()[0].tolist() == [1, 1, 0, 1]


def test_days_are_utc() -> None:
    start = datetime(2024, 3, 9, 23, 59, 59, 999_999, tzinfo=UTC)
    instants = pa.array(
        [start + timedelta(days=2), start, start + timedelta(microseconds=1)], pa.timestamp("us", "UTC")
    )
    days, day = utc_days(instants)
    assert days == ["2024-03-09", "2024-03-10", "2024-03-11"]
    assert day.tolist() == [2, 0, 1]
    assert count_days(column([1.0, 2.0]), pa.array([0.0, 1.0, None]), day, 3).tolist() == [
        [0, 1, 0, 0, 0],
        [0, 0, 0, 0, 1],
        [1, 0, 0, 0, 0],
    ]
    assert utc_days(instants.slice(0, 0))[0] == []
