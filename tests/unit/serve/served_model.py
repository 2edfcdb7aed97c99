"""A small but whole model for serving tests: graph, encoding, golden rows, training rows and a Feast registry.

The graph is a logistic regression over inputs with missing values read as zero, written out with the ONNX helper;
its native twin is five lines of numpy.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.core.bundle import (
    ENCODING,
    GOLDEN,
    ONNX,
    Column,
    Encoding,
    ModelCard,
    model_digest,
    write_card,
    write_encoding,
)
from components.core.digests import file_digest
from components.core.sections import Package, Problem
from components.core.training_set import REGISTRY, ROWS, Input, TrainingSet, write_manifest
from components.core.verdict import Reason, Verdict, write_verdict
from components.train.profiling import write_reference

NOW = datetime(2013, 3, 31, 12, tzinfo=UTC)
CARRIERS = ["AA", "B6", "UA"]
PROBLEM = Problem.model_validate(
    {
        "task": "classification",
        "table": "rides",
        "label": "is_late",
        "id": ["ride"],
        "entities": ["carrier", "origin", "badge"],
        "inputs": {"carrier": "category", "distance": "number"},
    }
)
INPUTS = [
    Input(name="carrier", kind="category"),
    Input(name="distance", kind="number"),
    Input(name="origin_late", kind="number", view="origin_stats", ttl_seconds=6 * 3600),
    Input(name="origin_kind", kind="category", view="origin_stats", ttl_seconds=6 * 3600),
    Input(name="pair_delay", kind="number", view="pair_stats", ttl_seconds=24 * 3600),
    Input(name="badge_year", kind="number", view="badges", ttl_seconds=0),
]
ENCODING_COLUMNS = [
    Column(name="carrier", kind="category", categories=CARRIERS),
    Column(name="distance", kind="number"),
    Column(name="origin_late", kind="number"),
    Column(name="origin_kind", kind="category", categories=["big", "small"]),
    Column(name="pair_delay", kind="number"),
    Column(name="badge_year", kind="number"),
]
WEIGHTS = np.array([0.3, -0.002, 2.0, 0.5, 0.05, -0.0005], dtype=np.float32)


@dataclass(frozen=True)
class Served:
    """Folders of one use case's artifacts."""

    root: Path
    bundle: Path
    training_set: Path
    verdict: Path
    config: Package
    card: ModelCard


def native(matrix: Any) -> Any:
    """Return the predictions of the model without ONNX."""
    filled = np.where(np.isnan(matrix), np.float32(0), matrix).astype(np.float64)
    return 1 / (1 + np.exp(-(filled @ WEIGHTS.astype(np.float64))))


def make_served(root: Path, *, with_views: bool = True, seed: int = 7, **policies: Any) -> Served:
    """Write everything that `package` takes; `policies` go into the training set's description."""
    bundle, folder = root / "bundle", root / "training_set"
    bundle.mkdir(parents=True)
    folder.mkdir()
    inputs = [i for i in INPUTS if with_views or not i.view]
    encoding = Encoding(columns=ENCODING_COLUMNS[: len(inputs)])
    rows = make_rows(400, seed)
    write_graph(bundle / ONNX, WEIGHTS[: len(inputs)])
    write_encoding(bundle, encoding)
    golden = {i.name: rows[i.name][:100] for i in inputs}
    matrix = encoding.encode(golden, 100)
    padded = np.zeros((100, len(WEIGHTS)), dtype=np.float32)
    padded[:, : len(inputs)] = matrix
    predictions = native(padded).astype(np.float32)
    pq.write_table(pa.table({**golden, "prediction": predictions}), bundle / GOLDEN)
    table = pa.table({**rows, "event_timestamp": pa.array(rows["event_timestamp"], pa.timestamp("us", tz="UTC"))})
    pq.write_table(table, folder / ROWS)
    newest = np.arange(table.num_rows - 100, table.num_rows)
    write_reference(bundle, table, inputs, use_case="rides", unseen=newest, importance=[])
    described = TrainingSet(
        use_case="rides",
        as_of=NOW,
        snapshot="s" * 64,
        service="rides_v1",
        registry="r" * 64,
        digest=file_digest(folder / ROWS),
        rows=table.num_rows,
        id=["ride"],
        entities={"carrier": "string", "origin": "string", "badge": "int64"},
        label="is_late",
        inputs=inputs,
        **policies,
    )
    write_manifest(folder, described)
    if with_views:
        open_store(root)
        (folder / REGISTRY).write_bytes((root / "registry.pb").read_bytes())
    card = ModelCard(
        use_case="rides",
        task="classification",
        version=3,
        mlflow_run="run",
        model=model_digest(bundle),
        training_set=described.digest,
        snapshot="s" * 64,
        registry="r" * 64,
        service="rides_v1",
        code="",
        as_of=NOW,
        trainer={"kind": "xgboost"},
        device="cpu",
        seed=seed,
        first=NOW - timedelta(days=30),
        last=NOW,
        holdout_from=NOW,
        rows=400,
        validation={},
        seconds=1.0,
    )
    write_card(bundle, card)
    verdict = root / "verdict.json"
    challenger = {"name": "challenger", "metrics": {"auc": {"estimate": 0.7, "low": 0.6, "high": 0.8}}}
    measured = {"measurements": {"rows": 100, "days": 1, "challenger": challenger}}
    approval = Verdict(gate="evaluate", subject=card.model, decision="promote", reasons=[], evidence=measured)
    write_verdict(verdict, approval)
    config = Package(golden_rows=64, max_batch_rows=100, max_request_bytes=20_000, probe_requests=50)
    return Served(root=root, bundle=bundle, training_set=folder, verdict=verdict, config=config, card=card)


def make_rows(count: int, seed: int) -> dict[str, list[Any]]:
    """Return columns of training rows, with missing values where they occur in life."""
    random = np.random.default_rng(seed)
    choose = random.choice

    def some(values: Any, share: float) -> list[Any]:
        return [None if random.random() < share else value for value in values]

    badges = some(random.integers(-5, 2**40, count).tolist(), 0.1)
    years = some(random.integers(1960, 2013, count).astype(float).tolist(), 0.2)
    return {
        "ride": list(range(count)),
        "carrier": choose([*CARRIERS, "ZZ"], count).tolist(),
        "origin": choose(["EWR", "JFK", "LGA"], count).tolist(),
        "badge": badges,
        "distance": random.uniform(100, 3000, count).tolist(),
        "is_late": random.integers(0, 2, count).astype(float).tolist(),
        "origin_late": some(random.uniform(0, 1, count).tolist(), 0.05),
        "origin_kind": some(choose(["big", "small", "odd"], count).tolist(), 0.05),
        "pair_delay": some(random.normal(0, 20, count).tolist(), 0.2),
        "badge_year": [None if badge is None else year for badge, year in zip(badges, years, strict=True)],
        "event_timestamp": [NOW - timedelta(minutes=7 * (count - n), microseconds=n) for n in range(count)],
    }


def write_graph(path: Path, weights: Any) -> None:
    """Write sigmoid(w . x) with missing values read as zero."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("IsNaN", ["inputs"], ["is_missing"]),
        helper.make_node("Where", ["is_missing", "zero", "inputs"], ["filled"]),
        helper.make_node("MatMul", ["filled", "weights"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["prediction"]),
    ]
    constants = [
        numpy_helper.from_array(np.zeros(1, dtype=np.float32), "zero"),
        numpy_helper.from_array(weights.reshape(-1, 1), "weights"),
    ]
    graph = helper.make_graph(
        nodes,
        "logistic",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [None, len(weights)])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, [None, 1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def open_store(root: Path, url: str = "") -> Any:
    """Return a Feast store with a file registry and an online store, with the views of the model applied."""
    from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, Int64, String

    from components.core.online_store import ENTITY_KEY_VERSION, online_store_config

    store = FeatureStore(
        config=RepoConfig(
            project="rides",
            provider="local",
            registry=str(root / "registry.pb"),
            online_store=online_store_config(url or f"sqlite:///{root}/online.db"),
            entity_key_serialization_version=ENTITY_KEY_VERSION,
        )
    )
    carrier = Entity(name="carrier", value_type=ValueType.STRING)
    origin = Entity(name="origin", value_type=ValueType.STRING)
    badge = Entity(name="badge", value_type=ValueType.INT64)

    def view(name: str, entities: list[Any], ttl: timedelta, fields: dict[str, Any]) -> Any:
        types = {"carrier": String, "origin": String, "badge": Int64}
        source = FileSource(name=name, path=f"{name}.parquet", timestamp_field="event_timestamp")
        keys = [Field(name=entity.name, dtype=types[entity.name]) for entity in entities]
        features = [Field(name=field, dtype=dtype) for field, dtype in fields.items()]
        return FeatureView(name=name, entities=entities, ttl=ttl, schema=[*keys, *features], source=source)

    views = [
        view("origin_stats", [origin], timedelta(hours=6), {"origin_late": Float64, "origin_kind": String}),
        view("pair_stats", [carrier, origin], timedelta(hours=24), {"pair_delay": Float64}),
        view("badges", [badge], timedelta(0), {"badge_year": Float64}),
    ]
    service = FeatureService(name="rides_v1", features=views)
    store.apply([carrier, origin, badge, *views, service])
    return store


def refuse(served: Served) -> None:
    """Let the gate say no."""
    reason = Reason(check="auc", passed=False, message="worse than the champion")
    write_verdict(
        served.verdict, Verdict(gate="evaluate", subject=served.card.model, decision="reject", reasons=[reason])
    )


def tamper(served: Served) -> None:
    """Change the encoding after the card was written."""
    path = served.bundle / ENCODING
    content = json.loads(path.read_text())
    content["columns"][0]["categories"].reverse()
    path.write_text(json.dumps(content))
