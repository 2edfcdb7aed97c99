"""Materialization to Redis: rows per CPU-second of ours, against a plain redis-py pipeline that writes the same hashes.

    python benchmarks/materialization.py [--rows 100000] [--rounds 3]

One view of ten numbers, one row per key (seed printed), a private redis-server without persistence. The plain pipeline
reads the same Parquet file and writes one HSET of ten packed doubles and a timestamp per key, 10,000 per batch, without
Feast's key and value encodings. Every side runs in a process of its own; rounds alternate; CPU is the writer's, not the
server's. Design bar, for a later step: at least 50 % of the plain pipeline; for now it is measured only.
"""

import argparse
import json
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from components.core.sections import Features
from components.core.settings import Settings
from components.core.tables import TIMESTAMP, Snapshot, read_snapshot, read_table, write_snapshot, write_table

ROOT = Path(__file__).parents[1]
SEED = 20130401
AS_OF = datetime(2024, 3, 10, tzinfo=UTC)
WIDTH = 10
BATCH = 10_000
FEATURES = [f"x{n}" for n in range(WIDTH)]
DEFINITIONS = f"""
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

user = Entity(name="user_id", value_type=ValueType.STRING)
users = FeatureView(name="users", entities=[user], ttl=timedelta(0),
    source=FileSource(name="users", path="users", timestamp_field="event_timestamp"),
    schema=[Field(name=name, dtype=Float64) for name in {FEATURES}])
bench_v1 = FeatureService(name="bench_v1", features=[users])
"""
USE_CASE = {
    "name": "bench",
    "title": "Benchmark",
    "owner": "benchmarks",
    "problem": {"task": "regression", "table": "none", "label": "y", "id": ["id"], "entities": ["user_id"]},
    "data": {"start": "2024-01-01", "sources": {"raw": {"path": "raw.csv", "columns": {"a": "VARCHAR"}}}},
    "features": {"service": "bench_v1"},
    "train": {"trainer": {"kind": "xgboost"}},
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        measure(options.side, options.home, options.port)
        return
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as folder, redis_server(Path(folder)) as port:
        print(f"{options.rows} rows x {WIDTH} numbers, seed {SEED}, rounds {options.rounds}")
        found: dict[str, list[dict[str, Any]]] = {}
        for number in range(options.rounds):
            home = Path(folder) / str(number)
            prepare(home, options.rows)
            for side in SIDES:
                found.setdefault(side, []).append(run_side(side, home, port))
    report(found, options.rows)


def report(found: dict[str, list[dict[str, Any]]], rows: int) -> None:
    cpu = {side: statistics.median(r["cpu_s"] for r in runs) for side, runs in found.items()}
    for side, runs in found.items():
        assert {r["keys"] for r in runs} == {rows}, f"{side} did not write every key"
        peak = max(r["peak_mb"] for r in runs)
        rounds = [round(r["cpu_s"], 2) for r in runs]
        print(
            f"{side:7} {rows / cpu[side]:9.0f} rows per CPU-second, CPU {cpu[side]:.2f} s {rounds}, peak {peak:.0f} MB"
        )
    print(f"ours / plain pipeline {cpu['plain'] / cpu['ours']:.1%} of the rows per CPU-second (measured only)")


@contextmanager
def redis_server(folder: Path) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL) as server:
        try:
            import redis

            client = redis.Redis(port=port)
            for _attempt in range(200):
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    time.sleep(0.05)
            yield port
        finally:
            server.terminate()


def bench_settings(home: Path, port: int) -> Settings:
    return Settings(
        home=home,
        feature_repo=home / "feature_repo",
        ledger_url="",
        mlflow_uri="",
        feature_registry_url=f"sqlite:///{home}/feast/registry.db",
        online_store_url=f"redis://127.0.0.1:{port}/0",
    )


def prepare(home: Path, count: int) -> None:
    """Write a use case and a snapshot with one row per key."""
    folder = home / "feature_repo" / "bench"
    folder.mkdir(parents=True)
    shared = (ROOT / "feature_repo" / "feature_store.yaml").read_text(encoding="utf-8")
    (folder.parent / "feature_store.yaml").write_text(shared, encoding="utf-8")
    (folder / "features.py").write_text(DEFINITIONS, encoding="utf-8")
    (folder / "use_case.yaml").write_text(yaml.safe_dump(USE_CASE), encoding="utf-8")
    generator = np.random.default_rng(SEED)
    micros = int(AS_OF.timestamp()) * 10**6 - np.sort(generator.integers(0, 20 * 86400, count))[::-1] * 10**6
    columns = {name: generator.normal(size=count) for name in FEATURES}
    keys = {"user_id": [f"user-{n:07d}" for n in range(count)], "event_timestamp": pa.array(micros).cast(TIMESTAMP)}
    snapshots = home / "snapshots"
    manifest = write_table(snapshots, "bench", "users", pa.table({**keys, **columns}), keys=["user_id"])
    write_snapshot(snapshots, Snapshot(use_case="bench", as_of=AS_OF, code="", sources={}, tables={"users": manifest}))


def run_side(side: str, home: Path, port: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--side", side, "--home", str(home), "--port", str(port)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(side: str, home: Path, port: int) -> None:
    """Run one side on an empty Redis and print CPU, peak memory and the number of keys it left there."""
    import redis

    client = redis.Redis(port=port)
    client.flushall()
    job = SIDES[side](home, port)
    before = time.process_time()
    job()
    cpu_s = time.process_time() - before
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
    print(json.dumps({"cpu_s": cpu_s, "peak_mb": peak, "keys": client.dbsize()}))


def ours(home: Path, port: int) -> Callable[[], object]:
    from components.features.apply import apply_definitions
    from components.features.materialize import materialize

    settings = bench_settings(home, port)
    apply_definitions(settings, "bench")
    manifest = settings.snapshots / "bench" / "latest.json"
    config = Features(service="bench_v1")
    return lambda: materialize(settings, "bench", manifest=manifest, config=config, as_of=AS_OF)


def plain(home: Path, port: int) -> Callable[[], object]:
    import redis

    client = redis.Redis(port=port)
    settings = bench_settings(home, port)

    def write() -> None:
        snapshot = read_snapshot(settings.snapshots / "bench" / "latest.json")
        table = read_table(settings.snapshots, snapshot, "users")
        pack = struct.Struct("<d").pack
        for start in range(0, table.num_rows, BATCH):
            part = table.slice(start, BATCH)
            instants = part["event_timestamp"].cast(pa.int64()).to_pylist()
            values = [[pack(v) for v in part[name].to_pylist()] for name in FEATURES]
            with client.pipeline(transaction=False) as pipe:
                for row, key in enumerate(part["user_id"].to_pylist()):
                    mapping: dict[str | bytes, bytes | float | int | str] = {
                        name: column[row] for name, column in zip(FEATURES, values, strict=True)
                    }
                    mapping["ts"] = instants[row]
                    pipe.hset(key, mapping=mapping)
                pipe.execute()

    return write


SIDES: dict[str, Callable[[Path, int], Callable[[], object]]] = {"ours": ours, "plain": plain}

if __name__ == "__main__":
    main()
