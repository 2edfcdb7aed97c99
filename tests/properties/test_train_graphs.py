"""Exported graphs against the native models, for any shape of data."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.core.bundle import Column, Encoding, Predictor
from components.core.sections import Train
from components.train.trainer import Job, Rows, fit_once

SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def jobs(draw: st.DrawFn, kind: str) -> Job:
    """Draw data with numbers and categories, missing values, ties, constant labels per input and either task."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    kinds = draw(st.lists(st.sampled_from(["number", "category"]), min_size=1, max_size=5))
    sizes = [draw(st.sampled_from([1, 2, 5, 33, 70])) for _ in kinds]
    rows = draw(st.sampled_from([30, 400]))
    columns, parts = [], []
    for position, (each, size) in enumerate(zip(kinds, sizes, strict=True)):
        if each == "category":
            columns.append(Column(name=f"x{position}", kind="category", categories=[f"v{i:02d}" for i in range(size)]))
            part = rng.integers(0, size, rows).astype(np.float32)
        else:
            columns.append(Column(name=f"x{position}", kind="number"))
            part = (rng.normal(0, 10.0 ** rng.integers(-3, 6), rows)).astype(np.float32)
        part[rng.random(rows) < draw(st.sampled_from([0.0, 0.2]))] = np.nan
        parts.append(part)
    inputs = np.column_stack(parts).astype(np.float32)
    task = draw(st.sampled_from(["classification", "regression"]))
    signal = np.nan_to_num(inputs).sum(axis=1) + rng.normal(size=rows)
    labels = signal > np.median(signal) if task == "classification" else 1000 + signal
    labels = np.asarray(labels, dtype=np.float32)
    if task == "classification":
        labels[:2] = labels[-2:] = [0, 1]
    trainer: dict[str, Any] = {
        "xgboost": {"kind": kind, "rounds": draw(st.integers(1, 12)), "max_depth": draw(st.integers(1, 7))},
        "torch_tabular": {"kind": kind, "epochs": 1, "hidden": draw(st.sampled_from([[4], [16, 8]]))},
    }[kind]
    half = rows // 2
    return Job(
        task=task,
        encoding=Encoding(columns=columns),
        training=Rows(inputs[:half], labels[:half]),
        validation=Rows(inputs[half:], labels[half:]),
        config=Train.model_validate({"trainer": trainer}),
    )


def predictor(graph: Any) -> Predictor:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, len(i.shape)) for i in session.get_inputs()] == [("inputs", "tensor(float)", 2)]
    assert [(o.name, o.type, o.shape[1]) for o in session.get_outputs()] == [("prediction", "tensor(float)", 1)]
    return Predictor(session)


def with_strangers(inputs: np.ndarray) -> np.ndarray:
    """Append rows that no training saw: all missing, extreme numbers, zeros of both signs."""
    width = inputs.shape[1]
    codes = np.nan_to_num(inputs[:1])
    return np.vstack([inputs, np.full((1, width), np.nan), codes, -0.0 * codes]).astype(np.float32)


@SLOW
@given(jobs("xgboost"))
def test_trees_equal_their_graph_bit_for_bit_before_the_sigmoid(job: Job) -> None:
    fitted = fit_once(job)
    inputs = with_strangers(job.validation.inputs)
    native, exported = fitted.predict(inputs), predictor(fitted.graph()).predict(inputs)
    if job.task == "regression":
        assert np.array_equal(native, exported)
    else:
        assert np.max(np.abs(native - exported)) <= 3e-7


@SLOW
@given(jobs("xgboost"))
def test_one_row_at_a_time_equals_all_rows_together(job: Job) -> None:
    exported = predictor(fit_once(job).graph())
    inputs = job.validation.inputs[:20]
    single = np.concatenate([exported.predict(inputs[i : i + 1]) for i in range(len(inputs))])
    assert np.max(np.abs(single - exported.predict(inputs)) / np.maximum(1, np.abs(single))) <= 1e-6


@pytest.mark.torch
@SLOW
@given(jobs("torch_tabular"))
def test_networks_equal_their_graph(job: Job) -> None:
    fitted = fit_once(job)
    inputs = with_strangers(job.validation.inputs)
    native, exported = fitted.predict(inputs).astype(float), predictor(fitted.graph()).predict(inputs).astype(float)
    # A value near zero is a difference of large ones, so float32 errors go by the scale of all predictions.
    assert np.max(np.abs(native - exported)) / max(1, np.max(np.abs(native))) <= 1e-6
