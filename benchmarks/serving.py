"""CPU per request of our Bento against the tutorial's, one row at a time, on real flights.

    python benchmarks/serving.py [--rounds 3] [--connections 16] [--store sqlite:///... | redis://...]

Both sides serve one XGBoost model of 300 trees of depth 6, trained on January's flights, as real `bentoml serve`
processes, one worker each. The tutorial: a sync API, a DataFrame, `XGBClassifier.predict_proba` on one thread, the
SDK's `get_online_features(...).to_df()` for a lookup by key; it skips the encoding of categories. Rounds alternate
between the servers, CPU is what the server's processes used (/proc), over a fixed number of keep-alive requests.
Design bars: ready features at least 7 times, with a lookup at least 4 times, p99 not worse.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq

from components.core.bundle import read_card, read_encoding
from components.core.ledger.engine import migrate
from components.core.online_store import online_store_config
from components.core.sections import XGBoost
from components.core.serving import ServingSpec
from components.core.settings import Settings
from components.core.storage import write_text
from components.core.tables import write_snapshot
from components.core.training_set import REGISTRY, ROWS, read_manifest
from components.features.apply import apply_definitions
from components.features.materialize import materialize
from components.features.store import open_store
from components.features.training_set import write_training_set
from components.ingest.snapshot import take_snapshot
from components.package import build_worker
from components.package.bento import build_bento, child_environment, write_context
from components.package.description import describe
from components.package.server import HOST, Server, booted
from components.train.fit import fit
from pipelines.catalog import read_case

ROOT = Path(__file__).parents[1]
AS_OF = "2013-02-01"
TREES = XGBoost(kind="xgboost", rounds=300, early_stopping_rounds=300, max_depth=6)
REQUESTS = {"ours": 3000, "tutorial": 500}
WARM_UP = 200
ROUTES = {"ready": "/predict_ready", "lookup": "/predict"}
BARS = {"ready": 7.0, "lookup": 4.0}
TUTORIAL = """
    from pathlib import Path

    import bentoml
    import pandas as pd
    from pydantic import create_model

    HERE = Path(__file__).parent
    COLUMNS = {columns!r}
    REQUEST = {request!r}
    ENTITIES = {entities!r}
    Row = create_model("Row", **{{name: (float | None, None) for name in COLUMNS}})
    Keys = create_model(
        "Keys", **{{name: (str | None, None) for name in ENTITIES}}, inputs=(dict[str, float | None], ...)
    )


    @bentoml.service(name="tutorial", workers=1)
    class Tutorial:
        def __init__(self) -> None:
            from feast import FeatureStore, RepoConfig
            from xgboost import XGBClassifier

            self.model = XGBClassifier()
            self.model.load_model(HERE / "model.ubj")
            self.model.set_params(n_jobs=1)
            self.store = FeatureStore(config=RepoConfig(
                project="flights", provider="local", registry=str(HERE / "registry.pb"),
                online_store={online!r}, entity_key_serialization_version=3,
            ))

        @bentoml.api
        def predict_ready(self, row: Row) -> float:
            frame = pd.DataFrame([row.model_dump()], dtype=float)
            return float(self.model.predict_proba(frame)[0, 1])

        @bentoml.api
        def predict(self, keys: Keys) -> float:
            entities = {{name: getattr(keys, name) for name in ENTITIES}}
            frame = self.store.get_online_features(features={features!r}, entity_rows=[entities]).to_df()
            for name in REQUEST:
                frame[name] = keys.inputs[name]
            return float(self.model.predict_proba(frame[COLUMNS].astype(float))[0, 1])
"""


@dataclass
class Load:
    """What one server did in all rounds of one kind of request."""

    cpu_us: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)

    def line(self, name: str) -> str:
        cpu = statistics.median(self.cpu_us)
        p50, p99 = np.quantile(self.latencies_ms, [0.5, 0.99])
        work = f"{cpu:8.0f} us CPU/request  {1e6 / cpu:7.0f} requests/s/core"
        return f"  {name:<9} {work}  p50 {p50:6.1f} ms  p99 {p99:6.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--store", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as scratch:
        case = prepare(Path(scratch), options.store)
        with contextlib.ExitStack() as stack:
            servers = {
                "ours": stack.enter_context(booted(case.ours, case.spec.tag, online_store_url=case.online_url)),
                "tutorial": stack.enter_context(booted(case.tutorial, "tutorial:1", online_store_url=case.online_url)),
            }
            bodies = requests(case)
            check_equal(servers, bodies)
            for kind in BARS:
                loads = {name: Load() for name in servers}
                for round_number in range(options.rounds + 1):
                    for name, server in servers.items():
                        count = WARM_UP if round_number == 0 else REQUESTS[name]
                        cpu, latencies = measure(server, kind, bodies[name][kind], count, options.connections)
                        if round_number:
                            loads[name].cpu_us.append(cpu)
                            loads[name].latencies_ms += latencies
                report(kind, loads)


def report(kind: str, loads: dict[str, Load]) -> None:
    ours, tutorial = loads["ours"], loads["tutorial"]
    ratio = statistics.median(tutorial.cpu_us) / statistics.median(ours.cpu_us)
    p99 = np.quantile(tutorial.latencies_ms, 0.99) / np.quantile(ours.latencies_ms, 0.99)
    met = "met" if ratio >= BARS[kind] and p99 >= 1 else "MISSED"
    print(f"{kind}: {ratio:.1f}x less CPU, p99 {p99:.1f}x shorter (bar {BARS[kind]:.0f}x): {met}")
    for name, load in loads.items():
        print(load.line(name), flush=True)


@dataclass(frozen=True)
class Case:
    ours: Path
    tutorial: Path
    spec: ServingSpec
    online_url: str
    bundle: Path
    training_set: Path


def prepare(folder: Path, store_url: str) -> Case:
    """Ingest, build features, materialize, train, and build both Bentos."""
    home = folder / "home"
    online_url = store_url or f"sqlite:///{home}/feast/online.db"
    settings = Settings(
        home=home,
        feature_repo=ROOT / "feature_repo",
        ledger_url=f"sqlite:///{home}/ledger.db",
        mlflow_uri=f"sqlite:///{home}/mlflow/mlflow.db",
        feature_registry_url=f"sqlite:///{home}/feast/registry.db",
        online_store_url=online_url,
        run_key="benchmark",
    )
    home.mkdir()
    case = read_case(settings.feature_repo, "flights")
    use_case, problem = case.use_case, case.use_case.problem
    migrate(settings.ledger_url)
    apply_definitions(settings, "flights")
    snapshot = take_snapshot(settings, "flights", problem=problem, data=use_case.data, sql=case.sql, as_of=AS_OF)
    manifest = write_snapshot(settings.snapshots, snapshot)
    rows, bundle = folder / "training_set", folder / "model"
    store = open_store(settings, "flights", manifest=manifest)
    config = use_case.features
    write_training_set(rows, store, settings.snapshots, snapshot, problem=problem, config=config, as_of=snapshot.as_of)
    materialize(settings, "flights", manifest=manifest, config=config, as_of=snapshot.as_of)
    train = use_case.train.model_copy(update={"trainer": TREES, "holdout_days": 5, "validation_days": 5})
    fit(settings, use_case="flights", problem=problem, config=train, training_set=rows, bundle=bundle)
    spec = describe(problem, use_case.package, read_card(bundle), read_manifest(rows), bundle)
    context = folder / "context"
    context.mkdir()
    write_context(context, spec=spec, bundle=bundle, training_set=rows)
    build_bento(context, spec, folder / "ours.tar")
    tutorial = build_tutorial(folder, spec, bundle, rows, online_url)
    return Case(folder / "ours.tar", tutorial, spec, online_url, bundle, rows)


def build_tutorial(folder: Path, spec: ServingSpec, bundle: Path, rows: Path, online_url: str) -> Path:
    context, archive = folder / "tutorial", folder / "tutorial.tar"
    context.mkdir()
    for source in (bundle / "model.ubj", rows / REGISTRY):
        (context / source.name).write_bytes(source.read_bytes())
    source = textwrap.dedent(TUTORIAL).format(
        columns=[column.name for column in spec.inputs],
        request=[column.name for column in spec.inputs if not column.view],
        entities=list(spec.entities),
        online=online_store_config(online_url),
        features=[f"{column.view}:{column.name}" for column in spec.inputs if column.view],
    )
    write_text(context / "service.py", source)
    order = {
        "service": "service:Tutorial",
        "name": "tutorial",
        "version": "1",
        "context": str(context),
        "packages": ["xgboost-cpu"],
        "labels": {},
        "archive": str(archive),
    }
    worker = [sys.executable, "-P", build_worker.__file__]
    subprocess.run(worker, input=json.dumps(order), text=True, env=child_environment(folder / "build"), check=True)
    return archive


def requests(case: Case) -> dict[str, dict[str, list[bytes]]]:
    """Return bodies of the last rows of the training set for each server and kind of request."""
    spec = case.spec
    table = pq.read_table(case.training_set / ROWS)
    rows = table.slice(table.num_rows - 200).to_pylist()
    encoding = read_encoding(case.bundle)
    columns = {name: [row[name] for row in rows] for name in encoding.names}
    codes = encoding.encode(columns, len(rows)).tolist()
    # The tutorial's clients send categories as codes: its service encodes nothing.
    coded = [{n: None if np.isnan(v) else v for n, v in zip(encoding.names, row, strict=True)} for row in codes]
    keys = [{name: row[name] for name in spec.entities} for row in rows]
    own = [column.name for column in spec.inputs if not column.view]
    as_of = read_manifest(case.training_set).as_of.isoformat()
    bodies = {
        "ours": {
            "ready": [{column.name: row[column.name] for column in spec.inputs} for row in rows],
            "lookup": [
                {**key, **{n: row[n] for n in own}, "as_of": as_of} for key, row in zip(keys, rows, strict=True)
            ],
        },
        "tutorial": {
            "ready": [{"row": row} for row in coded],
            "lookup": [
                {"keys": {**key, "inputs": {n: row[n] for n in own}}} for key, row in zip(keys, coded, strict=True)
            ],
        },
    }
    return {name: {kind: [json.dumps(b).encode() for b in of] for kind, of in b.items()} for name, b in bodies.items()}


def check_equal(servers: dict[str, Server], bodies: dict[str, dict[str, list[bytes]]]) -> None:
    """Both servers must predict the same; Feast's SDK knows no TTL, so lookups with stale values do not count."""
    for kind, route in ROUTES.items():
        compared, worst = 0, 0.0
        for mine, theirs in zip(bodies["ours"][kind], bodies["tutorial"][kind], strict=True):
            status, answer = servers["ours"].post(route, json.loads(mine))
            other_status, other = servers["tutorial"].post(route, json.loads(theirs))
            assert (status, other_status) == (200, 200), (answer, other)
            if not answer.get("stale"):
                compared += 1
                worst = max(worst, abs(answer["prediction"] - other))
        print(f"{kind}: {compared} predictions compared, largest difference {worst:.1e}", flush=True)
        assert compared
        assert worst < 2e-6


def measure(server: Server, kind: str, bodies: list[bytes], count: int, connections: int) -> tuple[float, list[float]]:
    """Return CPU microseconds per request of the server's processes, and all latencies in milliseconds."""
    before = cpu_seconds(server)
    latencies = asyncio.run(load(server.port, ROUTES[kind], bodies, count, connections))
    return (cpu_seconds(server) - before) * 1e6 / count, latencies


def cpu_seconds(server: Server) -> float:
    times = [process.cpu_times() for process in psutil.Process(server.guard).children(recursive=True)]
    return float(sum(t.user + t.system for t in times))


async def load(port: int, route: str, bodies: list[bytes], count: int, connections: int) -> list[float]:
    """Send `count` requests over keep-alive connections, each with one request at a time."""
    latencies: list[float] = []
    numbers = iter(range(count))

    async def work() -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        for number in numbers:
            body = bodies[number % len(bodies)]
            head = f"POST {route} HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\n"
            start = time.perf_counter()
            writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            fields = dict(line.split(b": ", 1) for line in answer.lower().split(b"\r\n")[1:-2])
            await reader.readexactly(int(fields[b"content-length"]))
            latencies.append((time.perf_counter() - start) * 1e3)
        writer.close()

    await asyncio.gather(*(work() for _ in range(connections)))
    return latencies


if __name__ == "__main__":
    main()
