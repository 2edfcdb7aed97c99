"""Holdout, baseline, leakage and contributions on real rows and real models."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.bundle import Column, Encoding, read_encoding
from components.core.errors import DataError
from components.core.metrics import measure
from components.core.training_set import ROWS
from components.evaluate.baseline import fit_predict_baseline
from components.evaluate.contributions import measure_importances, tree_contributions
from components.evaluate.holdout import columns, group_values, load_rows, predict, split_holdout
from components.evaluate.leakage import measure_leakage


def test_rows_that_were_changed_after_the_manifest_are_refused(
    rows: pa.Table, training_set: Callable[..., Path]
) -> None:
    folder = training_set(rows)
    load_rows(folder)
    pq.write_table(rows.slice(1), folder / ROWS)
    with pytest.raises(DataError, match="not the file its manifest describes"):
        load_rows(folder)


def test_the_holdout_starts_at_its_instant_and_days_are_utc(rows: pa.Table, case: SimpleNamespace) -> None:
    holdout = split_holdout(rows, label="late", task="classification", holdout_from=case.HOLDOUT_FROM)
    instants = holdout.rows.column("event_timestamp").to_pylist()
    assert min(instants) >= case.HOLDOUT_FROM > max(holdout.past.column("event_timestamp").to_pylist())
    assert holdout.rows.num_rows + holdout.past.num_rows == rows.num_rows
    assert (holdout.dates[0], holdout.dates[-1], holdout.days) == ("2013-02-20", "2013-03-12", 21)
    assert [holdout.dates[d] for d in holdout.day] == [f"{i:%Y-%m-%d}" for i in instants]


def test_the_boundary_itself_is_held_out() -> None:
    instants = [datetime(2013, 1, 1, 23, 59, 59, 999999, UTC), datetime(2013, 1, 2, tzinfo=UTC)]
    table = pa.table({"event_timestamp": pa.array(instants, pa.timestamp("us", "UTC")), "y": [0.0, 1.0]})
    holdout = split_holdout(table, label="y", task="classification", holdout_from=instants[1])
    assert (holdout.labels.tolist(), holdout.past.num_rows) == ([1.0], 1)


def test_rows_without_label_are_left_out_and_counted(rows: pa.Table, case: SimpleNamespace) -> None:
    labels = rows.column("late").to_numpy().copy()
    unknown = np.zeros(len(labels), dtype=bool)
    unknown[-40:] = True
    labels[-50] = np.nan
    masked = rows.set_column(rows.column_names.index("late"), "late", pa.array(labels, mask=unknown))
    holdout = split_holdout(masked, label="late", task="classification", holdout_from=case.HOLDOUT_FROM)
    assert holdout.unlabelled_rows == 41
    assert np.isfinite(holdout.labels).all()


def test_labels_of_a_classification_are_zero_or_one(rows: pa.Table, case: SimpleNamespace) -> None:
    with pytest.raises(DataError, match="must be 0 or 1"):
        split_holdout(rows, label="minutes", task="classification", holdout_from=case.HOLDOUT_FROM)


def test_missing_inputs_are_named(rows: pa.Table, bundle: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="measured: delay"):
        predict(bundle(), rows.drop_columns(["delay"]))


def test_predictions_are_those_of_the_graph(rows: pa.Table, bundle: Callable[..., Path], case: SimpleNamespace) -> None:
    some = rows.slice(0, 200)
    delay = some.column("delay").to_numpy()
    raw = 0.06 * some.column("hour").to_numpy() + 0.09 * np.nan_to_num(delay) + case.GOOD_BIAS
    assert np.isnan(delay).any()
    assert predict(bundle(), some) == pytest.approx(1 / (1 + np.exp(-raw)), abs=1e-6)


def test_numbers_are_cut_into_quarters() -> None:
    names, group = group_values(pa.table({"x": pa.array([*np.arange(8.0), None])}), "x")
    assert names == ["0 to 1.75", "1.75 to 3.5", "3.5 to 5.25", "5.25 to 7", "missing"]
    assert np.bincount(group).tolist() == [2, 2, 2, 2, 1]


@pytest.mark.parametrize(
    ("task", "label", "metric"), [("classification", "late", "auc"), ("regression", "minutes", "rmse")]
)
def test_the_baseline_learns_from_request_inputs_alone(
    rows: pa.Table, case: SimpleNamespace, task: str, label: str, metric: Any
) -> None:
    holdout = split_holdout(rows, label=label, task=task, holdout_from=case.HOLDOUT_FROM)
    inputs = case.TASKS[task].inputs
    name, fitted = fit_predict_baseline(holdout.past, holdout.rows, label=label, task=task, inputs=inputs)
    plain, constant = fit_predict_baseline(holdout.past, holdout.rows, label=label, task=task, inputs={})
    assert name.endswith("on the request inputs")
    assert plain == ("base rate" if task == "classification" else "mean")
    assert np.ptp(constant) == 0
    better, worse = (measure(metric, holdout.labels, p) for p in (fitted, constant))
    assert better > worse + 0.03 if metric == "auc" else better < worse - 0.01
    shuffled = holdout.rows.set_column(holdout.rows.column_names.index("delay"), "delay", holdout.rows.column("noise"))
    again = fit_predict_baseline(holdout.past, shuffled, label=label, task=task, inputs=inputs)[1]
    assert np.array_equal(again, fitted)


def test_the_baseline_survives_gaps_new_categories_and_one_class(rows: pa.Table, case: SimpleNamespace) -> None:
    holdout = split_holdout(rows, label="late", task="classification", holdout_from=case.HOLDOUT_FROM)
    strange = holdout.rows.slice(0, 3)
    strange = strange.set_column(strange.column_names.index("origin"), "origin", pa.array(["XXX", None, "EWR"]))
    strange = strange.set_column(strange.column_names.index("hour"), "hour", pa.array([None, 1e9, 6.0], pa.float64()))
    inputs = case.TASKS["classification"].inputs
    _, predictions = fit_predict_baseline(holdout.past, strange, label="late", task="classification", inputs=inputs)
    assert np.isfinite(predictions).all()
    calm = holdout.past.filter(pa.compute.equal(holdout.past.column("late"), 0.0))
    name, constant = fit_predict_baseline(calm, strange, label="late", task="classification", inputs=inputs)
    assert (name, constant.tolist()) == ("base rate", [0.0, 0.0, 0.0])


def leak_rows(leaky: bool, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Encoding]:
    """Return rows whose day tells the label: a random split knows it, a time split cannot."""
    generator = np.random.default_rng(seed)
    day = np.repeat(np.arange(60), 60)
    shock = generator.normal(0, 2, 60)[day] if leaky else np.zeros(day.size)
    signal = generator.normal(size=day.size)
    labels = (generator.random(day.size) < 1 / (1 + np.exp(-(0.5 * signal + shock)))).astype(float)
    fingerprint = generator.permutation(60).astype(float)[day]
    inputs = np.stack([signal, fingerprint], axis=1).astype(np.float32)
    cut = day < 45
    encoding = Encoding(columns=[Column(name="signal", kind="number"), Column(name="day", kind="number")])
    return inputs[cut], labels[cut], inputs[~cut], labels[~cut], encoding


def test_a_random_split_flatters_when_days_leak() -> None:
    leaky = measure_leakage(*leak_rows(True), task="classification", metric="auc", seed=7)
    clean = measure_leakage(*leak_rows(False), task="classification", metric="auc", seed=7)
    assert leaky is not None
    assert clean is not None
    assert leaky.gap > 0.15
    assert abs(clean.gap) < 0.06
    assert leaky.gap == pytest.approx(leaky.random_split - leaky.time_split)
    assert leaky.rows == 3600


def test_leakage_of_one_class_is_not_measured() -> None:
    past, labels, held, held_labels, encoding = leak_rows(False)
    arguments: dict[str, Any] = {"task": "classification", "metric": "auc", "seed": 7}
    assert measure_leakage(past, np.zeros_like(labels), held, np.zeros_like(held_labels), encoding, **arguments) is None
    assert measure_leakage(past[:0], labels[:0], held, held_labels, encoding, **arguments) is None


def test_the_input_that_matters_comes_first(rows: pa.Table, bundle: Callable[..., Path]) -> None:
    folder = bundle(weights={"noise": 0.0, "delay": 0.09, "hour": 0.06})
    encoding = read_encoding(folder)
    inputs = encoding.encode(columns(rows, encoding), rows.num_rows)
    labels = rows.column("late").to_numpy()
    found = measure_importances(folder, encoding, inputs, labels, metric="auc", seed=7)
    assert [i.name for i in found] == ["delay", "hour", "noise"]
    assert found[0].drop > 0.05
    assert (found[2].drop, found[2].spread) == (0.0, 0.0)
    assert found == measure_importances(folder, encoding, inputs, labels, metric="auc", seed=7)


def test_tree_contributions_are_those_of_the_native_model(rows: pa.Table, bundle: Callable[..., Path]) -> None:
    import xgboost

    folder = bundle(weights={"origin": 0.0, "delay": 0.09, "hour": 0.06})
    encoding = read_encoding(folder)
    inputs = encoding.encode(columns(rows, encoding), rows.num_rows)
    types = ["c", "q", "q"]
    data = xgboost.DMatrix(inputs, rows.column("late").to_numpy(), feature_types=types, enable_categorical=True)
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 3, "nthread": 1}, data, 20)
    booster.save_model(folder / "model.ubj")
    single = inputs[:1]
    found = tree_contributions(folder, single)
    assert found is not None
    margin = booster.predict(xgboost.DMatrix(single, feature_types=types, enable_categorical=True), pred_contribs=True)
    assert found == pytest.approx(np.abs(margin[0, :-1]), abs=1e-6)
    assert tree_contributions(bundle("without"), single) is None
    ranked = measure_importances(folder, encoding, inputs, rows.column("late").to_numpy(), metric="auc", seed=7)
    assert {i.name: i.contribution is not None for i in ranked} == {"origin": True, "delay": True, "hour": True}
