"""A booted Bento with an inference log: what it answered is what is in the files, whatever ends it."""

import contextlib
import http.client
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from components.core.bundle import GOLDEN
from components.core.inference_log import read_predictions
from components.core.inference_losses import read_losses
from components.core.label_join import by_entity, join_labels
from components.core.training_set import ROWS
from components.package.bento import build_bento, write_context
from components.package.server import Server, booted

KEYS = {"carrier": "AA", "origin": "EWR", "badge": 7, "distance": 500.0}
READY = {
    "carrier": "AA",
    "distance": 500.0,
    "origin_late": 0.5,
    "origin_kind": "big",
    "pair_delay": 12.0,
    "badge_year": None,
}
FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "predictions"


@pytest.fixture
def boot(archive: Path, served: Any, spec: Any, server: Any, root: Path) -> Callable[[], Any]:
    """Return what boots the Bento with a log; `server`, without one, has filled the online store."""

    def start() -> Any:
        url = f"sqlite:///{served.root}/online.db"
        return booted(archive, spec.tag, online_store_url=url, inference_log=root)

    return start


def rows_of(root: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_predictions(root, "rides", FIRST, LAST).to_pylist()
    return rows


def metric(server: Server, outcome: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    wanted = f'driftline_inference_log_rows_total{{outcome="{outcome}"}}'
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(wanted))


def workers(server: Server) -> list[psutil.Process]:
    """Return the processes that answer: those that listen for HTTP by a file descriptor."""
    children = psutil.Process(server.guard).children(recursive=True)
    return [child for child in children if any("bentoml" in word and "service" in word for word in child.cmdline())]


def wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=2)
            with contextlib.closing(connection):
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_was_answered_is_logged_when_it_ends(boot: Any, root: Path, served: Any, spec: Any, now: Any) -> None:
    golden = pq.read_table(served.bundle / GOLDEN).drop_columns(["prediction"]).to_pylist()[:30]
    before = datetime.now(UTC)
    with boot() as server:
        fresh = server.post("/predict", KEYS | {"as_of": now.isoformat()})[1]
        stale = server.post("/predict", KEYS | {"origin": "JFK", "badge": None, "as_of": now.isoformat()})[1]
        undated = server.post("/predict", KEYS)[1]
        ready = server.post("/predict_ready", READY)[1]
        batch = server.post("/predict_batch", {"rows": golden})[1]
        assert server.post("/predict", KEYS | {"origin": 3})[0] == 400
        assert rows_of(root) == []
    after = datetime.now(UTC)
    by_id: dict[str, list[dict[str, Any]]] = {}
    for row in rows_of(root):
        by_id.setdefault(row["request_id"], []).append(row)
    assert by_id.keys() == {answer["request_id"] for answer in (fresh, stale, undated, ready, batch)}
    for answer in (fresh, stale, undated, ready):
        (row,) = by_id[answer["request_id"]]
        assert row["prediction"] == answer["prediction"]
        assert (row["model"], row["model_version"]) == (spec.model, 3)
        assert before <= row["served_at"] <= after
    (row,) = by_id[fresh["request_id"]]
    assert {name: row[f"key_{name}"] for name in spec.entities} == {"carrier": "AA", "origin": "EWR", "badge": 7}
    assert {name: row[f"input_{name}"] for name in READY} == READY | {"badge_year": 1999.0}
    assert (row["as_of"], row["route"], row["stale"], row["missing"]) == (now, "predict", [], [])
    (row,) = by_id[stale["request_id"]]
    # As served: the model saw nulls.
    nulls = dict.fromkeys(["origin_late", "origin_kind", "pair_delay", "badge_year"])
    assert {name: row[f"input_{name}"] for name in READY} == READY | nulls
    assert (row["key_origin"], row["key_badge"]) == ("JFK", None)
    assert (row["stale"], row["missing"]) == (stale["stale"], stale["missing"])
    (row,) = by_id[undated["request_id"]]
    assert before <= row["as_of"] <= after
    (row,) = by_id[ready["request_id"]]
    assert {name: row[f"input_{name}"] for name in READY} == READY
    assert (row["route"], row["key_origin"], row["as_of"]) == ("predict_ready", None, row["served_at"])
    many = sorted(by_id[batch["request_id"]], key=lambda row: row["row"])
    assert [row["prediction"] for row in many] == batch["predictions"]
    assert [{name: row[f"input_{name}"] for name in READY} for row in many] == golden
    assert read_losses(root, "rides") == []


@pytest.mark.slow
def test_labels_find_their_predictions(boot: Any, root: Path, served: Any, spec: Any, now: Any) -> None:
    table = pq.read_table(served.training_set / ROWS).slice(0, 40)
    labels = table.append_column("label_timestamp", table.column("event_timestamp"))
    answers = []
    with boot() as server:
        for row in table.to_pylist():
            request = {name: row[name] for name in KEYS} | {"as_of": row["event_timestamp"].isoformat()}
            answers.append(server.post("/predict", request)[1])
    joined = join_labels(
        read_predictions(root, "rides", FIRST, LAST),
        labels,
        on=by_entity(spec.entities),
        label="is_late",
        as_of=now,
    )
    found = {row["request_id"]: (row["prediction"], row["label"]) for row in joined.to_pylist()}
    expected = zip(answers, table.column("is_late").to_pylist(), strict=True)
    assert found == {answer["request_id"]: (answer["prediction"], label) for answer, label in expected}


@pytest.mark.slow
def test_a_killed_worker_loses_what_it_had_not_written_and_the_next_counts_it(boot: Any, root: Path) -> None:
    with boot() as server:
        for _ in range(42):
            assert server.post("/predict_batch", {"rows": [READY] * 100})[0] == 200
        deadline = time.monotonic() + 20
        while not (written := len(rows_of(root))):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert metric(server, "written") == written >= 4096
        for _ in range(17):
            assert server.post("/predict_ready", READY)[0] == 200
        expected = 4217 - written
        (worker,) = workers(server)
        worker.kill()
        worker.wait(10)
        server.close()
        # BentoML's supervisor starts another.
        wait_until_ready(server)
        while metric(server, "lost") != expected:
            assert time.monotonic() < deadline + 60
            time.sleep(0.1)
        assert server.post("/predict_ready", READY)[0] == 200
    assert len(rows_of(root)) == written + 1
    (losses,) = read_losses(root, "rides")
    assert (losses.appended, losses.written, losses.lost) == (4217, written, expected)


def counts(root: Path) -> list[int]:
    """Return the rows that each living writer has taken."""
    files = (root / "rides" / "writers").glob("[!.]*")
    return [int.from_bytes(path.read_bytes()[:8], sys.byteorder) for path in files]


@pytest.fixture(scope="module")
def two_workers(served: Any, spec: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    (folder / "context").mkdir()
    two = spec.model_copy(update={"workers": 2})
    write_context(folder / "context", spec=two, bundle=served.bundle, training_set=served.training_set)
    build_bento(folder / "context", two, folder / "bento.tar")
    return folder / "bento.tar"


@pytest.mark.slow
def test_two_workers_write_side_by_side(two_workers: Path, served: Any, spec: Any, server: Any, root: Path) -> None:
    answers = {}
    url = f"sqlite:///{served.root}/online.db"
    with booted(two_workers, spec.tag, online_store_url=url, inference_log=root) as running:
        assert len(workers(running)) == 2
        deadline = time.monotonic() + 120
        # Until the kernel has given both a connection.
        while not all(appended := counts(root)) or len(appended) < 2:
            assert time.monotonic() < deadline, appended
            running.close()
            answer = running.post("/predict_ready", READY)[1]
            answers[answer["request_id"]] = answer["prediction"]
    rows = rows_of(root)
    assert len(rows) == len(answers)
    assert {row["request_id"]: row["prediction"] for row in rows} == answers
    assert len({path.name.split("-")[0] for path in (root / "rides").glob("2*/*.parquet")}) == 2
    assert read_losses(root, "rides") == []


def test_a_bento_without_a_folder_logs_nothing(server: Any, served: Any, tmp_path: Path) -> None:
    # The server has closed the connection if it was idle for some seconds.
    server.close()
    assert server.post("/predict_ready", READY)[0] == 200
    environment = workers(server)[0].environ()
    assert environment["DRIFTLINE_INFERENCE_LOG"] == ""
    assert not list(Path(environment["DRIFTLINE_HOME"]).rglob("*.parquet"))
    assert metric(server, "written") == 0


@pytest.mark.slow
def test_the_body_of_a_request_may_be_anything_the_service_takes(boot: Any, root: Path) -> None:
    odd = [{**READY, "carrier": "\U0001f680" * 1024, "distance": -0.0}, {**READY, "distance": 2**53 + 1}]
    with boot() as server:
        answers = [server.post("/predict_ready", json.loads(json.dumps(row)))[1] for row in odd]
    rows = {row["request_id"]: row for row in rows_of(root)}
    assert rows[answers[0]["request_id"]]["input_carrier"] == odd[0]["carrier"]
    assert rows[answers[1]["request_id"]]["input_distance"] == float(2**53 + 1)
