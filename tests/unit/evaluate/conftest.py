"""A real training set with days that share their weather, and real ONNX bundles to judge on it."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper, numpy_helper

from components.core.bundle import ONNX, Column, Encoding, ModelCard, model_digest, write_card, write_encoding
from components.core.digests import file_digest
from components.core.sections import Problem
from components.core.training_set import ROWS, Input, TrainingSet, write_manifest

START = datetime(2013, 1, 1, tzinfo=UTC)
HOLDOUT_FROM = datetime(2013, 2, 20, tzinfo=UTC)
ORIGINS = ["EWR", "JFK", "LGA"]
INPUTS = [
    Input(name="origin", kind="category"),
    Input(name="hour", kind="number"),
    Input(name="delay", kind="number", view="origin_departures"),
    Input(name="noise", kind="number", view="weather"),
]
TASKS = {
    "classification": Problem(
        task="classification",
        table="departures",
        label="late",
        id=["flight_id"],
        entities=["origin"],
        inputs={"origin": "category", "hour": "number"},
    ),
    "regression": Problem(
        task="regression",
        table="departures",
        label="minutes",
        id=["flight_id"],
        entities=["origin"],
        inputs={"origin": "category", "hour": "number"},
    ),
}


def make_rows(seed: int = 3, days: int = 71, per_day: int = 80) -> pa.Table:
    """Return rows whose label depends on hour, delay and an effect that all rows of a day share."""
    generator = np.random.default_rng(seed)
    n = days * per_day
    day = np.repeat(np.arange(days), per_day)
    hour = generator.integers(5, 23, n).astype(float)
    delay = generator.gamma(2.0, 5.0, n)
    origin = generator.integers(0, 3, n)
    raw = -2.4 + 0.06 * (hour - 14) + 0.09 * delay + 0.25 * (origin == 0) + generator.normal(0, 0.5, days)[day]
    minutes = 10 * raw + generator.normal(0, 8, n)
    instants = [START + timedelta(days=int(d), hours=int(h)) for d, h in zip(day, hour, strict=True)]
    known = [i + timedelta(hours=6) for i in instants]
    stamp = pa.timestamp("us", tz="UTC")
    gaps = generator.random(n) < 0.05
    return pa.table(
        {
            "flight_id": [f"F{i:06d}" for i in range(n)],
            "event_timestamp": pa.array(instants, stamp),
            "label_timestamp": pa.array(known, stamp),
            "late": (generator.random(n) < 1 / (1 + np.exp(-raw))).astype(float),
            "minutes": minutes,
            "origin": [ORIGINS[o] for o in origin],
            "hour": hour,
            "delay": pa.array(np.where(gaps, 0.0, delay), pa.float64(), mask=gaps),
            "noise": generator.normal(0, 1, n),
        }
    )


def write_training_set(folder: Path, rows: pa.Table, task: str = "classification") -> TrainingSet:
    """Write rows as the features step does."""
    folder.mkdir(parents=True)
    pq.write_table(rows, folder / ROWS)
    manifest = TrainingSet(
        use_case="flights",
        as_of=START + timedelta(days=71),
        snapshot="5" * 64,
        service="flights_v1",
        registry="6" * 64,
        digest=file_digest(folder / ROWS),
        rows=rows.num_rows,
        id=["flight_id"],
        entities={"origin": "string"},
        label=TASKS[task].label,
        inputs=INPUTS,
    )
    write_manifest(folder, manifest)
    return manifest


def linear_graph(weights: list[float], bias: float, task: str) -> onnx.ModelProto:
    """Return a graph that reads NaN as zero and predicts a linear (regression) or logistic model."""
    constants = [
        numpy_helper.from_array(np.asarray(weights, dtype=np.float32).reshape(-1, 1), "w"),
        numpy_helper.from_array(np.asarray([bias], dtype=np.float32), "b"),
        numpy_helper.from_array(np.asarray(0, dtype=np.float32), "zero"),
    ]
    nodes = [
        helper.make_node("IsNaN", ["inputs"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "inputs"], ["known"]),
        helper.make_node("MatMul", ["known", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["raw"]),
        helper.make_node("Sigmoid" if task == "classification" else "Identity", ["raw"], ["prediction"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [None, len(weights)])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, [None, 1])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def write_bundle(
    folder: Path,
    weights: dict[str, float],
    bias: float,
    *,
    task: str = "classification",
    version: int = 2,
    training_set: str = "",
    holdout_from: datetime = HOLDOUT_FROM,
    mlflow_run: str = "run",
    categories: Sequence[str] = ("origin",),
) -> ModelCard:
    """Write a bundle of a linear model; `weights` names its inputs."""
    folder.mkdir(parents=True)
    onnx.save(linear_graph(list(weights.values()), bias, task), folder / ONNX)
    write_encoding(
        folder,
        Encoding(
            columns=[
                Column(name=name, kind="category", categories=ORIGINS)
                if name in categories
                else Column(name=name, kind="number")
                for name in weights
            ]
        ),
    )
    card = ModelCard(
        use_case="flights",
        task=task,
        version=version,
        mlflow_run=mlflow_run,
        model=model_digest(folder),
        training_set=training_set,
        snapshot="5" * 64,
        registry="6" * 64,
        service="flights_v1",
        code="",
        as_of=START + timedelta(days=71),
        trainer={"kind": "linear", "max_depth": 5},
        device="cpu",
        seed=7,
        first=START,
        last=HOLDOUT_FROM - timedelta(hours=1),
        holdout_from=holdout_from,
        rows=4000,
        validation={},
        seconds=1.0,
    )
    write_card(folder, card)
    return card


GOOD = {"origin": 0.0, "hour": 0.06, "delay": 0.09, "noise": 0.0}
GOOD_BIAS = -3.2


@pytest.fixture(scope="session")
def rows() -> pa.Table:
    return make_rows()


@pytest.fixture(scope="session")
def case() -> SimpleNamespace:
    """Return the makers and constants of this file; tests have no packages to import them from."""
    return SimpleNamespace(
        START=START,
        HOLDOUT_FROM=HOLDOUT_FROM,
        TASKS=TASKS,
        GOOD=GOOD,
        GOOD_BIAS=GOOD_BIAS,
        make_rows=make_rows,
        write_training_set=write_training_set,
        write_bundle=write_bundle,
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """Write a bundle below the test's folder; without arguments a good model."""

    def write(name: str = "bundle", weights: Mapping[str, float] = GOOD, bias: float = GOOD_BIAS, **card: Any) -> Path:
        write_bundle(tmp_path / name, dict(weights), bias, **card)
        return tmp_path / name

    return write


@pytest.fixture
def training_set(tmp_path: Path) -> Callable[..., Path]:
    """Write rows as a training set below the test's folder."""

    def write(rows: pa.Table, task: str = "classification") -> Path:
        write_training_set(tmp_path / "training_set", rows, task)
        return tmp_path / "training_set"

    return write
