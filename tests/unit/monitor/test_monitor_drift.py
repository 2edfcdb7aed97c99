"""The drift test against a naive oracle, by its properties, and its level and power on simulated data."""

import itertools
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from components.core.errors import DataError
from components.core.evidence import DriftTest
from components.core.profile import ColumnProfile, Counts
from components.monitor.drift import drift_test, js_distance, least_p_value
from components.monitor.serial_correlation import serial_inflation

RESAMPLES = 199


def profile(name: str, table: Counts) -> ColumnProfile:
    """Return a category whose last two bins are other levels and null."""
    return ColumnProfile(
        name=name,
        kind="category",
        levels=[f"L{i:02d}" for i in range(table.shape[1] - 2)],
        days=[str(np.datetime64("2024-01-01") + d) for d in range(len(table))],
        counts=table.tolist(),
        distinct=[0] * len(table),
    )


def run(reference: dict[str, Counts], window: dict[str, Counts], **changes: float) -> DriftTest:
    given_ = {"significance": 0.05, "resamples": RESAMPLES, "seed": 3} | changes
    return drift_test([profile(n, t) for n, t in reference.items()], window, **given_)  # type: ignore[arg-type]


def tables(days: int, columns: int = 3, bins: int = 4) -> st.SearchStrategy[dict[str, Counts]]:
    """Draw counts of the same days for some columns; every day has rows."""
    day = st.lists(st.integers(0, 6), min_size=bins, max_size=bins)
    table = st.lists(day, min_size=days, max_size=days).map(lambda t: np.add(t, [1, 0, 0, 0]))
    return st.lists(table, min_size=columns, max_size=columns).map(lambda t: {f"c{i}": v for i, v in enumerate(t)})


pairs = st.tuples(st.integers(1, 8), st.integers(1, 4)).flatmap(lambda n: st.tuples(tables(n[0]), tables(n[1])))


def oracle(reference: dict[str, Counts], window: dict[str, Counts], resamples: int, seed: int) -> tuple[float, dict]:
    """Return the family-wise p-value and scores, one regrouping, column and bin at a time."""
    names = list(reference)
    days, others = len(window[names[0]]), len(reference[names[0]])
    generator = np.random.default_rng(seed)
    orders = np.argsort(generator.random((resamples, days + others)), axis=1)
    chosen = [set(range(days))] + [{p for p in range(days + others) if order[p] < days} for order in orders]
    scores: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        all_days = [*window[name].tolist(), *reference[name].tolist()]
        pooled = [sum(day[b] for day in all_days) for b in range(len(all_days[0]))]
        dealer = np.random.default_rng([seed, zlib.crc32(name.encode())])
        used = [b for b, total in enumerate(pooled) if total]
        rows = int(window[name].sum())
        dealt = dealer.multivariate_hypergeometric(
            [pooled[b] for b in used], rows, size=resamples, method="count" if rows < 5 * len(used) else "marginals"
        )
        for position, take in enumerate(chosen):
            if days > 1:
                mine = [sum(all_days[d][b] for d in take) for b in range(len(pooled))]
            elif position:
                mine = [int(dealt[position - 1][used.index(b)]) if b in used else 0 for b in range(len(pooled))]
            else:
                mine = window[name][0].tolist()
            rest = [pooled[b] - mine[b] for b in range(len(pooled))]
            distance = 0.0 if not sum(rest) else float(jensenshannon(mine, rest, base=2))
            # Fewer than ten reference days: a window counts as one day.
            widened = np.sqrt(days) if days > 1 and position else 1.0
            scores[name].append(0.0 if np.isnan(distance) or distance < 1e-6 else distance * widened)
    largest = [-np.inf] * len(chosen)
    for values in scores.values():
        mean = sum(values) / len(values)
        spread = np.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
        largest = [max(m, (v - mean) / spread if spread > 1e-9 else 0.0) for m, v in zip(largest, values, strict=True)]
    p_value = sum(m >= largest[0] - 1e-9 for m in largest) / len(largest)
    return p_value, {name: values[0] for name, values in scores.items()}


@settings(max_examples=30, deadline=None)
@given(pairs)
def test_it_computes_what_a_naive_loop_computes(pair: tuple[dict[str, Counts], dict[str, Counts]]) -> None:
    reference, window = pair
    found = run(reference, window)
    p_value, scores = oracle(reference, window, RESAMPLES, 3)
    assert found.p_value == pytest.approx(p_value, abs=1e-9)
    assert {c.column: c.score for c in found.columns} == pytest.approx(scores, abs=1e-6)


def test_days_agree_with_all_possible_choices() -> None:
    """The exact permutation distribution of 3 out of 15 days, in which every choice occurs once."""
    generator = np.random.default_rng(8)
    reference = {f"c{i}": generator.multinomial(40, [0.3, 0.3, 0.2, 0.1, 0.1], 12) for i in range(3)}
    for shift in (0.0, 0.1, 0.15):
        mix = np.array([0.3 - shift, 0.3, 0.2, 0.1, 0.1 + shift])
        window = {name: generator.multinomial(40, mix, 3) for name in reference}
        choices = [set(c) for c in itertools.combinations(range(15), 3)]
        widened = {name: serial_inflation(table, 3) for name, table in reference.items()}
        largest = np.full(len(choices) + 1, -np.inf)
        for name, table in reference.items():
            pooled = np.concatenate([window[name], table])
            null = [{0, 1, 2}, *choices]
            distance = np.array([jensenshannon(pooled[sorted(c)].sum(0), np.delete(pooled, sorted(c), 0).sum(0), base=2)
                                 for c in null])  # fmt: skip
            distance[1:] *= np.sqrt(widened[name])
            largest = np.maximum(largest, (distance - distance[1:].mean()) / distance[1:].std())
        exact = np.mean(largest[1:] >= largest[0])
        assert run(reference, window, resamples=4999).p_value == pytest.approx(exact, abs=0.03)


def test_rows_agree_with_shuffled_rows() -> None:
    generator = np.random.default_rng(4)
    reference = {"c0": generator.multinomial(400, [0.25] * 4, 1)}
    for p in ([0.25, 0.25, 0.25, 0.25], [0.2, 0.25, 0.25, 0.3], [0.15, 0.25, 0.25, 0.35]):
        window = {"c0": generator.multinomial(120, p, 1)}
        rows = np.repeat(np.tile(np.arange(4), 2), np.concatenate([reference["c0"][0], window["c0"][0]]))
        observed = jensenshannon(reference["c0"][0], window["c0"][0], base=2)
        beyond = 0
        for _ in range(3000):
            generator.shuffle(rows)
            mine = np.bincount(rows[:120], minlength=4)
            beyond += jensenshannon(mine, np.bincount(rows[120:], minlength=4), base=2) >= observed - 1e-9
        assert run(reference, window, resamples=2999).p_value == pytest.approx(beyond / 3000, abs=0.03)


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_p_values_are_shares_and_the_flags_follow_from_them(pair: tuple[dict[str, Counts], dict[str, Counts]]) -> None:
    found = run(*pair)
    assert 0 < found.p_value <= 1
    assert found.p_value >= 1 / (RESAMPLES + 1)
    assert found.drifted == (found.p_value <= 0.05) == any(c.drifted for c in found.columns)
    assert [c.score for c in found.columns] == sorted((c.score for c in found.columns), reverse=True)
    for column in found.columns:
        assert 0 <= column.score <= 1
        assert 0 < column.p_value <= 1
        assert column.p_value <= 0.05 or not column.drifted
    assert found.blocks == ("days" if len(pair[1]["c0"]) > 1 else "rows")
    assert (found.days, found.reference_days) == (len(pair[1]["c0"]), len(pair[0]["c0"]))


@settings(max_examples=40, deadline=None)
@given(pairs)
def test_the_order_of_columns_changes_nothing(pair: tuple[dict[str, Counts], dict[str, Counts]]) -> None:
    reference, window = pair
    reordered = dict(reversed(reference.items()))
    assert run(reference, window) == run(reordered, window)
    assert run(reference, window) == run(reference, dict(reversed(window.items())))


@settings(max_examples=40, deadline=None)
@given(pairs, st.permutations(range(4)))
def test_the_order_of_bins_changes_no_score(
    pair: tuple[dict[str, Counts], dict[str, Counts]], order: Sequence[int]
) -> None:
    reference, window = ({name: table[:, list(order)] for name, table in side.items()} for side in pair)
    found, before = run(reference, window), run(*pair)
    scores = {c.column: c.score for c in before.columns}
    assert {c.column: c.score for c in found.columns} == pytest.approx(scores, abs=1e-9)
    if before.blocks == "days":
        assert found.p_value == before.p_value


@settings(max_examples=40, deadline=None)
@given(tables(5), st.integers(1, 5))
def test_equal_inputs_never_drift(reference: dict[str, Counts], days: int) -> None:
    """The same histogram on both sides, all days alike or in one day."""
    same = {name: np.tile(table.sum(axis=0), (days, 1)) for name, table in reference.items()}
    found = run({name: np.tile(table.sum(axis=0), (12, 1)) for name, table in reference.items()}, same)
    assert found.p_value == 1
    assert not found.drifted


def test_a_column_that_says_nothing_is_no_evidence() -> None:
    constant = np.full((12, 3), [7, 0, 0])
    nulls = np.full((12, 3), [0, 0, 9])
    empty = np.zeros((12, 3), dtype=np.int64)
    for days in (1, 3):
        window = {"constant": constant[:days], "nulls": nulls[:days], "empty": constant[:days]}
        found = run({"constant": constant, "nulls": nulls, "absent": constant, "empty": empty}, window)
        assert {(c.column, c.score, c.p_value, c.drifted) for c in found.columns} == {
            ("constant", 0.0, 1.0, False),
            ("nulls", 0.0, 1.0, False),
        }
        assert (found.p_value, found.drifted) == (1.0, False)
    nothing = run({"a": constant}, {})
    assert (nothing.rows, nothing.p_value, nothing.columns) == (0, 1.0, [])
    assert run({"a": constant}, {"a": empty[:0]}).p_value == 1.0


def test_a_column_that_becomes_null_has_drifted() -> None:
    generator = np.random.default_rng(2)
    reference = {f"c{i}": generator.multinomial(50, [0.4, 0.4, 0.15, 0.05], 40) for i in range(5)}
    for days in (1, 7):
        window = {name: generator.multinomial(50, [0.4, 0.4, 0.15, 0.05], days) for name in reference}
        window["c3"] = np.tile([0, 0, 0, 50], (days, 1))
        found = run(reference, window, resamples=999, significance=0.01)
        assert [c.column for c in found.columns if c.drifted] == ["c3"]
        assert found.drifted


def test_a_window_with_too_few_other_choices_never_drifts() -> None:
    """Whatever happened: one of few choices of days cannot be a rare one."""
    reference = {"c0": np.full((4, 4), [10, 10, 0, 0])}
    window = {"c0": np.full((2, 4), [0, 0, 10, 10])}
    found = run(reference, window, resamples=1999, significance=0.01)
    assert not found.drifted
    assert least_p_value(found, 1999) == pytest.approx(1 / 15)
    assert found.p_value > 1 / 20
    long = run({"c0": np.tile(reference["c0"], (10, 1))}, window, resamples=1999, significance=0.01)
    assert least_p_value(long, 1999) == pytest.approx(1 / 861)
    assert least_p_value(run(reference, {"c0": window["c0"][:1]}, resamples=999), 999) == 1 / 1000


def test_the_same_seed_gives_the_same_test_and_another_seed_another() -> None:
    generator = np.random.default_rng(2)
    reference = {f"c{i}": generator.multinomial(50, [0.4, 0.4, 0.15, 0.05], 40) for i in range(5)}
    for days in (1, 7):
        window = {name: generator.multinomial(50, [0.4, 0.4, 0.15, 0.05], days) for name in reference}
        assert run(reference, window) == run(reference, window)
        assert run(reference, window, seed=4).p_value != run(reference, window).p_value


def test_columns_with_other_days_are_refused() -> None:
    table = np.ones((6, 4), dtype=np.int64)
    with pytest.raises(DataError, match="the same days"):
        run({"a": table, "b": table[:5]}, {"a": table[:2], "b": table[:2]})


def test_the_distance_is_scipys() -> None:
    generator = np.random.default_rng(1)
    for _ in range(50):
        p, q = np.add(generator.integers(0, 9, (2, 6)), [1, 0, 0, 0, 0, 0])
        assert js_distance(p[None].astype(float), q[None].astype(float))[0] == pytest.approx(
            jensenshannon(p, q, base=2), abs=1e-6
        )


def autoregression(phi: float, days: int, generator: np.random.Generator) -> np.ndarray:
    series = np.zeros(days)
    for day, shock in enumerate(generator.standard_normal(days)):
        series[day] = (phi * series[day - 1] if day else 0) + shock * np.sqrt(1 - phi**2 if day else 1)
    return series


def test_inflation_is_what_it_is_for_known_correlations() -> None:
    """Against the variance of means of simulated autoregressive days, itself measured."""
    generator = np.random.default_rng(6)
    for phi in (0.0, 0.5, 0.8):
        means, found = [], []
        for _ in range(150):
            share = np.clip(0.5 + 0.08 * autoregression(phi, 190, generator), 0.05, 0.95)
            ones = generator.binomial(2000, share)
            table = np.stack([2000 - ones, ones, 0 * ones, 0 * ones], axis=1)
            found.append(serial_inflation(table[:180], 10))
            means.append((ones[180:].mean() - ones[:180].mean(), ones.std()))
        difference, spread = np.transpose(means)
        measured = difference.var() / ((spread**2).mean() * (1 / 10 + 1 / 180))
        assert measured == pytest.approx(np.mean(found), rel=0.35)
        assert min(found) >= 1


def test_inflation_without_evidence_is_careful_and_without_differences_is_one() -> None:
    table = np.random.default_rng(1).multinomial(100, [0.5, 0.3, 0.1, 0.1], 9)
    assert serial_inflation(table, 7) == 7
    assert serial_inflation(np.full((30, 4), 5), 7) == 1


def simulated(generator: np.random.Generator, rows: int, days: int, shift: float = 0.0) -> dict[str, Counts]:
    """Return 10 columns of rows within one day each: three numbers move by `shift` standard deviations."""
    edges = [-np.inf, *np.linspace(-1.8, 1.8, 31), np.inf]
    found = {}
    for i in range(10):
        values = generator.standard_normal((days, rows)) + (shift if i < 3 else 0)
        found[f"x{i}"] = np.stack([np.append(np.histogram(day, edges)[0], [0, 0]) for day in values])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("rows", [30, 300, 3000])
def test_the_level_holds_for_rows_and_power_grows(rows: int) -> None:
    generator = np.random.default_rng(rows)
    alarms, hits = 0, 0
    for _ in range(400):
        reference = simulated(generator, 4000, 1)
        alarms += run(reference, simulated(generator, rows, 1), significance=0.05).drifted
        hits += run(reference, simulated(generator, rows, 1, 0.3), significance=0.05).drifted
    # 5 % of 400, four standard errors.
    assert 400 * 0.05 - 18 <= alarms <= 400 * 0.05 + 18
    assert hits >= {30: alarms - 10, 300: 320, 3000: 400}[rows]


@pytest.mark.slow
@pytest.mark.parametrize("phi", [0.0, 0.6])
def test_the_level_holds_for_correlated_days(phi: float) -> None:
    generator = np.random.default_rng(int(phi * 10) + 1)
    alarms = 0
    for _ in range(300):
        whole = {}
        for i in range(10):
            share = 1 / (1 + np.exp(-0.4 * autoregression(phi, 104, generator)))
            ones = generator.binomial(300, share)
            whole[f"x{i}"] = np.stack([300 - ones, ones, 0 * ones, 0 * ones], axis=1)
        reference, window = ({n: t[:90] for n, t in whole.items()}, {n: t[90:] for n, t in whole.items()})
        alarms += run(reference, window, significance=0.05).drifted
    assert alarms <= 300 * 0.05 + 15
