"""Probing a built Bento as a real server: equal to its model, fast enough, small enough."""

import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from components.core.bundle import GOLDEN
from components.core.errors import PackagingFailed
from components.core.sections import Package
from components.core.serving import ServingSpec
from components.core.training_set import REGISTRY, ROWS
from components.package.online_rows import OnlineRows
from components.package.server import Server, booted

OK = 200
READY_ROWS = 16
ONLINE_ROWS = 16
WARM_UP_REQUESTS = 20


class Measurements(BaseModel):
    """What a probe found; differences are shares of the largest expected value, at least 1."""

    model_config = ConfigDict(frozen=True)

    golden_rows: int
    golden_difference: float
    """Largest difference between the Bento and the native model."""
    online_rows: int
    """Training rows that were looked up by their keys."""
    online_difference: float
    """Largest difference between a lookup by key and the row's own features."""
    requests: int
    p50_ms: float
    p99_ms: float
    rss_mb: float
    boot_seconds: float


def probe_bento(archive: Path, spec: ServingSpec, config: Package, *, bundle: Path, training_set: Path) -> Measurements:
    """Boot a Bento, compare its answers and measure it; limits are judged by the caller.

    Golden rows go through `predict_batch` and `predict_ready`. Training rows are written to a throwaway online
    store and looked up by key through `predict` at their own instant. Latency is that of one lookup by key, on one
    connection. Raises PackagingFailed when the Bento does not boot, answer, or equal its model.
    """
    with tempfile.TemporaryDirectory(prefix="driftline-online-") as folder:
        online = OnlineRows(training_set / REGISTRY, spec, Path(folder) / "online.db") if spec.views else None
        url = online.url if online else f"sqlite:///{folder}/online.db"
        with booted(archive, spec.tag, online_store_url=url) as server:
            golden = _golden(server, spec, config, bundle)
            looked_up, online_difference, request = _lookups(server, spec, config, training_set, online)
            latencies = _latencies(lambda: _answer(server, "/predict", request), config.probe_requests)
            return Measurements(
                golden_rows=golden[0],
                golden_difference=golden[1],
                online_rows=looked_up,
                online_difference=online_difference,
                requests=config.probe_requests,
                p50_ms=float(np.quantile(latencies, 0.5)),
                p99_ms=float(np.quantile(latencies, 0.99)),
                rss_mb=server.rss_mb(),
                boot_seconds=server.boot_seconds,
            )


def _golden(server: Server, spec: ServingSpec, config: Package, bundle: Path) -> tuple[int, float]:
    """Return rows compared and the largest difference to the native model; raise when it is too large."""
    table = pq.read_table(bundle / GOLDEN).slice(0, config.golden_rows)
    rows = _rows(table, spec)
    expected = table.column("prediction").to_numpy()
    answer = _answer(server, "/predict_batch", {"rows": rows})
    if answer["model"] != spec.model:
        raise PackagingFailed("another server answers at the Bento's port", measured=answer["model"][:12])
    answers = list(answer["predictions"])
    singles = [_answer(server, "/predict_ready", row)["prediction"] for row in rows[:READY_ROWS]]
    difference = max(_difference(answers, expected), _difference(singles, expected[:READY_ROWS]))
    if not difference <= config.tolerance:
        raise PackagingFailed(
            "the Bento does not predict what its model predicts", measured=difference, allowed=config.tolerance
        )
    return len(rows), difference


def _lookups(
    server: Server, spec: ServingSpec, config: Package, training_set: Path, online: OnlineRows | None
) -> tuple[int, float, dict[str, Any]]:
    """Return rows looked up by key, the largest difference to their own features, and the last request."""
    table = pq.read_table(training_set / ROWS)
    if spec.missing == "reject":
        for column in spec.inputs:
            if column.view:
                table = table.filter(pc.is_valid(table.column(column.name)))
    table = table.slice(max(0, table.num_rows - ONLINE_ROWS))
    if not table.num_rows:
        raise PackagingFailed("no training row has every feature, so serving would reject all", allowed="missing: null")
    fields = [*spec.entities, *(column.name for column in spec.inputs if not column.view)]
    worst = 0.0
    request: dict[str, Any] = {}
    for raw, row in zip(table.to_pylist(), _rows(table, spec), strict=True):
        at: datetime = raw["event_timestamp"].replace(microsecond=0)
        if online:
            online.write(raw | row, at)
        request = {name: row.get(name, raw.get(name)) for name in fields} | {"as_of": at.isoformat()}
        answer = _answer(server, "/predict", request)
        _check_features(answer, spec, row)
        expected = _answer(server, "/predict_ready", row)["prediction"]
        worst = max(worst, _difference([answer["prediction"]], np.array([expected])))
    if not worst <= config.tolerance:
        raise PackagingFailed(
            "a lookup by key does not predict what the same features predict",
            measured=worst,
            allowed=config.tolerance,
            next_step="compare the types of features.py with those of the tables",
        )
    return table.num_rows, worst, request


def _check_features(answer: dict[str, Any], spec: ServingSpec, row: dict[str, Any]) -> None:
    """Raise unless exactly the null features are missing and every other view has an age."""
    null = {column.name for column in spec.inputs if column.view and row[column.name] is None}
    ages = answer["feature_ages_seconds"]
    no_age = [
        name for name, inputs in spec.views.items() if ages[name] is None and not null >= {c.name for c in inputs}
    ]
    if set(answer["missing"]) != null or answer["stale"] or no_age:
        raise PackagingFailed(
            "a lookup by key does not find the features of its row",
            measured=f"missing {answer['missing']}, stale {answer['stale']}, no age {no_age}",
            allowed=f"missing {sorted(null)}",
        )


def _rows(table: Any, spec: ServingSpec) -> list[dict[str, Any]]:
    """Return the model inputs of each row as JSON carries them: NaN is null."""
    rows = table.select([column.name for column in spec.inputs]).to_pylist()
    return [{name: None if value != value else value for name, value in row.items()} for row in rows]  # noqa: PLR0124


def _answer(server: Server, route: str, content: Any) -> Any:
    status, answer = server.post(route, content)
    if status != OK:
        raise PackagingFailed(f"the Bento refuses a good request to {route}", measured=f"{status}: {answer}"[:500])
    return answer


def _difference(measured: list[float], expected: Any) -> float:
    """Return the largest difference as a share of the largest expected value, at least 1; NaN when one is missing."""
    found = np.array(measured, dtype=np.float64)
    wanted = np.asarray(expected, dtype=np.float64)
    if found.shape != wanted.shape:
        return float("nan")
    scale = np.max(np.abs(wanted), initial=1.0)
    return float(np.max(np.abs(found - wanted), initial=0.0) / scale)


def _latencies(call: Callable[[], object], requests: int) -> list[float]:
    """Return milliseconds per call, after a warm-up."""
    for _ in range(WARM_UP_REQUESTS):
        call()
    measured = []
    for _ in range(requests):
        start = time.perf_counter()
        call()
        measured.append((time.perf_counter() - start) * 1e3)
    return measured
