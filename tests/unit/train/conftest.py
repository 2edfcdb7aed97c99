"""Real training sets on disk: 120 days of predictions with a learnable label that matures a day later."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.digests import file_digest
from components.core.sections import Problem, Train
from components.core.settings import Settings
from components.core.training_set import ROWS, Input, TrainingSet, write_manifest

START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 120
INPUTS = [
    Input(name="carrier", kind="category"),
    Input(name="dest", kind="category", view="routes", ttl_seconds=86_400),
    Input(name="delay", kind="number", view="routes", ttl_seconds=86_400),
    Input(name="wind", kind="number", view="weather", ttl_seconds=7_200),
    Input(name="hour", kind="number"),
]
Build = Callable[..., Path]
Change = Callable[[dict[str, Any]], None]


def columns(rows: int, seed: int, task: str) -> dict[str, Any]:
    """Return columns as NumPy arrays and lists; the newest five days have no label yet."""
    rng = np.random.default_rng(seed)
    minutes = np.sort(rng.integers(0, DAYS * 24 * 60, rows))
    instants = [START + timedelta(minutes=int(m)) for m in minutes]
    carriers, dests = rng.integers(0, 6, rows), rng.integers(0, 40, rows)
    delay, wind, hour = rng.normal(10, 8, rows), rng.gamma(3, 4, rows), (minutes // 60) % 24
    effect = 0.08 * (delay - 10) + 0.06 * (wind - 12) + np.sin(dests * 3.1) + 0.5 * np.cos(carriers * 2.3)
    if task == "classification":
        label = (effect + rng.logistic(size=rows) > 0.7).astype(float)
    else:
        label = 120 + 25 * effect + rng.normal(size=rows)
    known = minutes < (DAYS - 5) * 24 * 60
    return {
        "flight_id": [f"F{i:06d}" for i in range(rows)],
        "carrier": [f"C{c}" for c in carriers],
        "dest": [f"D{d:02d}" if keep else None for d, keep in zip(dests, rng.random(rows) > 0.05, strict=True)],
        "event_timestamp": instants,
        "label_timestamp": [i + timedelta(hours=26) if k else None for i, k in zip(instants, known, strict=True)],
        "target": [float(v) if k else None for v, k in zip(label, known, strict=True)],
        "delay": [float(v) if keep else None for v, keep in zip(delay, rng.random(rows) > 0.06, strict=True)],
        "wind": wind.tolist(),
        "hour": hour.astype(float).tolist(),
    }


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Write a training set and return its folder; `change` may edit the columns before they are written."""

    def write(
        name: str = "training_set",
        *,
        rows: int = 5_000,
        seed: int = 1,
        task: str = "classification",
        change: Change | None = None,
    ) -> Path:
        values = columns(rows, seed, task)
        if change is not None:
            change(values)
        timestamp = pa.timestamp("us", tz="UTC")
        kinds = {"event_timestamp": timestamp, "label_timestamp": timestamp}
        kinds |= {name: pa.string() for name in ("flight_id", "carrier", "dest")}
        table = pa.table({n: pa.array(v, kinds.get(n, pa.float64()), from_pandas=False) for n, v in values.items()})
        folder = tmp_path / name
        folder.mkdir()
        pq.write_table(table, folder / ROWS)
        write_manifest(
            folder,
            TrainingSet(
                use_case="delays",
                as_of=START + timedelta(days=DAYS),
                snapshot="5" * 64,
                service="delays_v1",
                registry="7" * 64,
                digest=file_digest(folder / ROWS),
                rows=table.num_rows,
                id=["flight_id"],
                entities={"carrier": "string", "dest": "string"},
                label="target",
                inputs=INPUTS,
            ),
        )
        return folder

    return write


@pytest.fixture
def problem() -> Problem:
    return Problem(
        task="classification",
        table="departures",
        label="target",
        id=["flight_id"],
        entities=["carrier", "dest"],
        inputs={"carrier": "category", "hour": "number"},
    )


@pytest.fixture
def section() -> Callable[..., Train]:
    """Return a small section `train`; keyword `trainer` updates the trainer's parameters."""

    def make(kind: str = "xgboost", trainer: dict[str, Any] | None = None, **changes: Any) -> Train:
        small = {
            "xgboost": {"kind": kind, "rounds": 40, "max_depth": 4, "learning_rate": 0.2},
            "torch_tabular": {"kind": kind, "epochs": 4, "batch_rows": 256, "hidden": [32, 16]},
        }[kind]
        unit = {"xgboost": "rounds", "torch_tabular": "epochs"}[kind]
        often = {f"checkpoint_every_{unit}": changes.pop("checkpoint_every", 10)}
        whole = {"trainer": small | often | (trainer or {}), "holdout_days": 20, "validation_days": 14}
        return Train.model_validate(whole | changes)

    return make


def settings_at(home: Path, run_key: str = "run-1") -> Settings:
    return Settings(
        home=home,
        feature_repo=home / "feature_repo",
        ledger_url=f"sqlite:///{home}/ledger.db",
        mlflow_uri=f"sqlite:///{home}/mlflow/mlflow.db",
        feature_registry_url=f"sqlite:///{home}/feast/registry.db",
        online_store_url=f"sqlite:///{home}/feast/online.db",
        run_key=run_key,
    )


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One state folder for all trainings of a test session: creating MLflow's schema takes seconds."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def settings(home: Path, request: pytest.FixtureRequest) -> Settings:
    """Settings with a run key of the test's own."""
    return settings_at(home, run_key=request.node.name.replace("[", "-").replace("]", ""))
