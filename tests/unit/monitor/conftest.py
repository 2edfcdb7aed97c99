"""A small world with weather, two months of it: a champion in a ledger, its log, and the labels that came."""

import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from onnx import TensorProto, helper, numpy_helper

from components.core.bootstrap import draw_days, interval, resample
from components.core.bundle import ONNX, Column, Encoding, ModelCard, model_digest, write_card, write_encoding
from components.core.digests import file_digest
from components.core.inference_columns import encode_columns
from components.core.inference_log import BATCH_SCORING, Origin, read_predictions, split_days, write_part
from components.core.ledger.champions import Candidate, promote
from components.core.ledger.engine import migrate, open_ledger
from components.core.ledger.runs import claim_run
from components.core.metrics import measure
from components.core.profile import HOLDOUT, HoldoutPerformance
from components.core.sections import Evaluate, Monitor, Problem
from components.core.serving import MODEL_FOLDER, ServingSpec, write_spec
from components.core.settings import Settings
from components.core.tables import TIMESTAMP, Snapshot, write_snapshot, write_table
from components.core.training_set import Input
from components.train.profiling import predict_rows, write_reference

START = datetime(2024, 1, 1, tzinfo=UTC)
HOLDOUT_FROM = datetime(2024, 2, 10, tzinfo=UTC)
TRAINED = datetime(2024, 3, 1, tzinfo=UTC)
PER_DAY = 96
CARRIERS = ["AA", "B6", "DL", "UA"]
PROBLEM = Problem(
    task="classification",
    table="trips",
    label="late",
    id=["trip_id"],
    entities=["origin"],
    inputs={"carrier": "category", "hour": "number"},
)
INPUTS = [
    Input(name="carrier", kind="category"),
    Input(name="hour", kind="number"),
    Input(name="delay", kind="number", view="traffic", ttl_seconds=21600),
    Input(name="late_share", kind="number", view="traffic", ttl_seconds=21600),
    Input(name="temp_f", kind="number", view="weather", ttl_seconds=10800),
    Input(name="humidity_pct", kind="number", view="weather", ttl_seconds=10800),
    Input(name="wind_mph", kind="number", view="weather", ttl_seconds=10800),
]
WEIGHTS = {
    "carrier": 0.1,
    "hour": 0.05,
    "delay": 0.08,
    "late_share": 0.5,
    "temp_f": 0,
    "humidity_pct": 0,
    "wind_mph": 0.02,
}
BIAS = -3.0


def make_rows(days: int = 121, seed: int = 5, per_day: int = PER_DAY) -> pa.Table:
    """Return trips from 2024-01-01 on: hourly weather that warms by the season, days that share their delays."""
    generator = np.random.default_rng(seed)
    n = days * per_day
    day = np.repeat(np.arange(days), per_day)
    minute = np.sort(generator.integers(0, 24 * 60, (days, per_day)), axis=1).ravel()
    hour = minute // 60
    # Weather comes by the hour, in steps of a tenth of a degree Celsius and of a knot.
    season = 2 + 10 * np.arange(days) / 60
    celsius = np.round(
        (season + generator.normal(0, 3, days))[:, None]
        + 4 * np.sin(np.arange(24) / 24 * 6.3)
        + generator.normal(0, 0.7, (days, 24)),
        1,
    )
    knots = np.round(np.abs(generator.normal(8, 3, days))[:, None] + generator.gamma(2, 1.5, (days, 24)))
    humid = np.round(np.clip(generator.normal(62, 9, days)[:, None] + generator.normal(0, 8, (days, 24)), 15, 100), 2)
    jam = generator.gamma(4, 2, days)[day]
    delay = jam * generator.gamma(4, 0.5, n)
    late_share = np.round(np.clip(delay / 40 + generator.normal(0.1, 0.05, n), 0, 1) * 20) / 20
    carrier = generator.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
    raw = BIAS + 0.1 * carrier + 0.05 * hour + 0.08 * delay + 0.5 * late_share + 0.02 * knots[day, hour] * 1.150779
    label = (generator.random(n) < 1 / (1 + np.exp(-raw))).astype(float)
    instants = [START + timedelta(days=int(d), minutes=int(m)) for d, m in zip(day, minute, strict=True)]
    return pa.table(
        {
            "trip_id": [f"T{i:06d}" for i in range(n)],
            "origin": pa.array([("EWR", "JFK", "LGA")[i % 3] for i in range(n)]),
            "event_timestamp": pa.array(instants, TIMESTAMP),
            "label_timestamp": pa.array([i + timedelta(hours=6) for i in instants], TIMESTAMP),
            "late": label,
            "carrier": [CARRIERS[c] for c in carrier],
            "hour": hour.astype(float),
            "delay": delay,
            "late_share": late_share,
            "temp_f": celsius[day, hour] * 1.8 + 32,
            "humidity_pct": humid[day, hour],
            "wind_mph": knots[day, hour] * 1.150779,
        }
    )


def between(rows: pa.Table, first: datetime, last: datetime, instant: str = "event_timestamp") -> pa.Table:
    column = rows.column(instant)
    return rows.filter(
        pc.and_(pc.greater_equal(column, pa.scalar(first, TIMESTAMP)), pc.less(column, pa.scalar(last, TIMESTAMP)))
    )


def replace(rows: pa.Table, name: str, values: Any) -> pa.Table:
    """Return rows with other values in one column."""
    place = rows.column_names.index(name)
    return rows.set_column(place, name, pa.array(values, rows.schema.field(name).type, from_pandas=True))


def write_graph(path: Path) -> None:
    weights = np.array(list(WEIGHTS.values()), dtype=np.float32).reshape(-1, 1)
    constants = [
        numpy_helper.from_array(weights, "w"),
        numpy_helper.from_array(np.array([BIAS], dtype=np.float32), "b"),
        numpy_helper.from_array(np.array(0, dtype=np.float32), "zero"),
    ]
    nodes = [
        helper.make_node("IsNaN", ["inputs"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "inputs"], ["known"]),
        helper.make_node("MatMul", ["known", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["raw"]),
        helper.make_node("Sigmoid", ["raw"], ["prediction"]),
    ]
    inputs = [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [None, len(weights)])]
    outputs = [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, [None, 1])]
    graph = helper.make_graph(nodes, "linear", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


@dataclass(frozen=True)
class World:
    """What a monitor finds: settings with a champion, and the rows to log."""

    settings: Settings
    rows: pa.Table
    bundle: Path
    spec: ServingSpec
    snapshot: Path
    archive: Path
    config: Monitor
    evaluate: Evaluate
    problem: Problem

    def log(self, rows: pa.Table, *, request_ids: bool = True) -> None:
        """Append predictions of the champion to the inference log, as batch scoring does."""
        predictions = predict_rows(self.bundle, rows)
        ids = (
            rows.column("trip_id").combine_chunks()
            if request_ids
            else pa.array([f"r{i}" for i in range(rows.num_rows)])
        )
        table = encode_columns(self.spec, rows, predictions, request_ids=ids, served_at=TRAINED, route=BATCH_SCORING)
        for number, (day, part) in enumerate(split_days(table)):
            origin = Origin(writer="test", sequence=number, written=part.num_rows, dropped=0)
            write_part(self.settings.predictions, self.spec.use_case, day, part, origin)

    def read(self, first: str, last: str) -> pa.Table:
        """Return the log of some days."""
        span = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (first, last))
        return read_predictions(self.settings.predictions, self.spec.use_case, *span)

    def relabel(self, rows: pa.Table) -> Path:
        """Write a snapshot whose prediction table holds other rows."""
        return write_labels(self.settings, rows)

    def replace(self, rows: pa.Table, name: str, values: Any) -> pa.Table:
        return replace(rows, name, values)

    def between(self, first: str, last: str) -> pa.Table:
        return between(self.rows, *(datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (first, last)))


def make_bundle(folder: Path, rows: pa.Table) -> ServingSpec:
    """Write what a Bento holds for a model that was fitted on rows before the holdout."""
    folder.mkdir(parents=True)
    known = between(rows, START, TRAINED)
    write_graph(folder / ONNX)
    columns = [Column(name=i.name, kind=i.kind, categories=CARRIERS if i.kind == "category" else []) for i in INPUTS]
    write_encoding(folder, Encoding(columns=columns))
    digest = model_digest(folder)
    held = between(rows, HOLDOUT_FROM, TRAINED)
    unseen = np.arange(known.num_rows - held.num_rows, known.num_rows)
    write_reference(folder, known, INPUTS, use_case="trips", unseen=unseen, importance=[])
    card = ModelCard(
        use_case="trips", task="classification", version=1, mlflow_run="run", model=digest, training_set="1" * 64,
        snapshot="2" * 64, registry="3" * 64, service="trips_v1", code="", as_of=TRAINED, trainer={"kind": "xgboost"},
        device="cpu", seed=1, first=START, last=TRAINED, holdout_from=HOLDOUT_FROM, rows=known.num_rows, validation={},
        seconds=1.0,
    )  # fmt: skip
    write_card(folder, card)
    labels, predicted = held.column("late").to_numpy(), predict_rows(folder, held).astype(np.float64)
    micros = held.column("event_timestamp").cast(pa.int64()).to_numpy()
    days, day = np.unique(micros // 86_400_000_000, return_inverse=True)
    weights = draw_days(len(days), 500, 7)
    found = {
        metric: interval(
            measure(metric, labels, predicted),
            resample(metric, labels, predicted, day, weights),
            days=len(days),
            confidence=0.95,
            reflect=metric == "ece",
        )
        for metric in ("auc", "ece")
    }
    performance = HoldoutPerformance(rows=held.num_rows, days=len(days), metrics=found)
    (folder / HOLDOUT).write_text(performance.model_dump_json())
    spec = ServingSpec(
        use_case="trips", version=1, model=digest, entities={"origin": "string"}, inputs=INPUTS, stale="null",
        missing="null", buckets=[0.5], workers=1, timeout_seconds=1, max_batch_rows=1000, max_request_bytes=10_000,
    )  # fmt: skip
    write_spec(folder, spec)
    return spec


def crown(settings: Settings, bundle: Path, spec: ServingSpec) -> Path:
    """Archive a bundle as a Bento and make it the champion; return the archive."""
    settings.bentos.mkdir(parents=True)
    archive = settings.bentos / "bento.tar"
    with tarfile.open(archive, "w") as tar:
        for path in sorted(bundle.iterdir()):
            tar.add(path, f"./src/{MODEL_FOLDER}/{path.name}")
    migrate(settings.ledger_url)
    ledger = open_ledger(settings.ledger_url)
    assert claim_run(ledger, "run-1", "run-1", "training", "trips")
    candidate = Candidate(
        model="trips", version=1, digest=spec.model, bento_digest=file_digest(archive), bento_uri=str(archive),
        run_id="run-1", verdict_digest="4" * 64, as_of=TRAINED,
    )  # fmt: skip
    assert promote(ledger, candidate, None) == "promoted"
    return archive


def write_labels(settings: Settings, rows: pa.Table) -> Path:
    """Write a snapshot whose prediction table holds these rows; return its manifest's path."""
    manifest = write_table(settings.snapshots, "trips", "trips", rows, keys=["trip_id"])
    taken = Snapshot(use_case="trips", as_of=TRAINED, code="sql", sources={}, tables={"trips": manifest})
    return write_snapshot(settings.snapshots, taken)


@pytest.fixture(scope="session")
def rows() -> pa.Table:
    return make_rows()


@pytest.fixture(scope="session")
def bundle(rows: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ServingSpec]:
    folder = tmp_path_factory.mktemp("watched") / "bundle"
    return folder, make_bundle(folder, rows)


@pytest.fixture
def world(settings: Settings, rows: pa.Table, bundle: tuple[Path, ServingSpec]) -> World:
    """Return a home with a champion that was trained on January and February 2024; the log is empty."""
    folder, spec = bundle
    return World(
        settings=settings,
        rows=rows,
        bundle=folder,
        spec=spec,
        archive=crown(settings, folder, spec),
        snapshot=write_labels(settings, rows),
        config=Monitor(window="month", label_delay_hours=24, resamples=199, report_rows=0),
        evaluate=Evaluate(bootstrap_samples=200),
        problem=PROBLEM,
    )


@pytest.fixture
def watch_world(world: World, tmp_path: Path) -> Callable[..., tuple[dict[str, float], dict[str, Any]]]:
    """Return a function that watches the world as of an instant: its metrics and the evidence as plain JSON."""
    from components.monitor.step import watch

    def run(as_of: str, **changes: Any) -> tuple[dict[str, float], dict[str, Any]]:
        files = {name: tmp_path / name for name in ("evidence", "page", "report")}
        given = {
            "settings": world.settings,
            "snapshot": world.snapshot,
            "problem": world.problem,
            "config": world.config,
            "evaluate": world.evaluate,
        }
        given |= changes
        scalars = watch(given.pop("settings"), "trips", as_of=as_of, **given, **files)
        return scalars, json.loads(files["evidence"].read_text())

    return run
