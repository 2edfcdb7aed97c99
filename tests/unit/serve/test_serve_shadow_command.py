"""`driftline shadow`, end to end: two servers share a bucket, and the command tells from it how they differ."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.core.bundle import ONNX, model_digest, read_card, write_card
from components.core.settings import Settings
from components.core.training_set import ROWS, read_manifest
from components.package.bento import build_bento, write_context
from components.package.description import describe
from components.train.profiling import write_reference

ROOT = Path(__file__).parents[3]
SERVE = (
    "import sys; from pathlib import Path; from components.core.settings import load_settings; "
    "from components.serve.run import serve_bento; "
    "serve_bento(load_settings(), Path(sys.argv[1]), port=int(sys.argv[2]))"
)


@pytest.fixture(scope="module")
def challenger(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the archive of version 4 of the use case, whose weights are half of those of version 3."""
    served = model.make_served(tmp_path_factory.mktemp("challenger"))
    rows = read_manifest(served.training_set)
    model.write_graph(served.bundle / ONNX, (model.WEIGHTS * 0.5).astype(np.float32))
    changes = {"version": 4, "model": model_digest(served.bundle)}
    write_card(served.bundle, served.card.model_copy(update=changes))
    table = pq.read_table(served.training_set / ROWS)
    newest = np.arange(table.num_rows - 100, table.num_rows)
    write_reference(served.bundle, table, rows.inputs, use_case="rides", unseen=newest, importance=[])
    spec = describe(model.PROBLEM, served.config, read_card(served.bundle), rows, served.bundle)
    folder = tmp_path_factory.mktemp("challenger-archive")
    (folder / "context").mkdir()
    write_context(folder / "context", spec=spec, bundle=served.bundle, training_set=served.training_set)
    build_bento(folder / "context", spec, folder / "bento.tar")
    return folder / "bento.tar"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(settings: Settings, archive: Path) -> Iterator[int]:
    """Serve an archive as a pod does, in a process of its own; end it as Kubernetes does, and wait for its log."""
    port = free_port()
    environment = {**os.environ, **settings.environment()}
    process = subprocess.Popen([sys.executable, "-c", SERVE, archive, str(port)], cwd=ROOT, env=environment)
    try:
        deadline = time.monotonic() + 120
        while ask(port, "GET", "/readyz") != 200:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def ask(port: int, method: str, path: str, content: Any = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        try:
            body = None if content is None else json.dumps(content)
            connection.request(method, path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
        except OSError:
            return 0
        return answer.status


def copied(port: int) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    name = 'driftline_shadow_requests_total{outcome="answered"}'
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.fixture
def use_cases(tmp_path: Path) -> Path:
    """Return a repository whose use case `rides` is `wind` under another name."""
    repository = tmp_path / "feature_repo"
    shutil.copytree(ROOT / "feature_repo" / "wind", repository / "rides")
    file = repository / "rides" / "use_case.yaml"
    file.write_text(file.read_text().replace("name: wind", "name: rides", 1))
    return repository


def shadow(settings: Settings, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "from pipelines.cli import main; main()", "shadow", "--use-case", "rides", *words]
    environment = {**os.environ, **settings.environment()}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.s3
def test_the_command_tells_from_the_bucket_how_two_servers_differ(
    archive: Path, challenger: Path, served: Any, server: Any, settings: Settings, use_cases: Path, object_store: str,
    tmp_path: Path, now: datetime,
) -> None:  # fmt: skip
    online = f"sqlite:///{served.root}/online.db"
    shared = settings.model_copy(
        update={"object_store_url": object_store, "online_store_url": online, "feature_repo": use_cases}
    )
    other = shared.model_copy(update={"home": tmp_path / "shadow-pod"})
    other = other.model_copy(update={"inference_log": other.shadow_predictions})
    question = {"carrier": "AA", "origin": "EWR", "badge": 7, "distance": 500.0, "as_of": now.isoformat()}
    with contextlib.ExitStack() as stack:
        behind = stack.enter_context(serving(other, challenger))
        own = shared.model_copy(update={"home": tmp_path / "pod", "shadow_url": f"http://127.0.0.1:{behind}"})
        port = stack.enter_context(serving(own, archive))
        for _ in range(20):
            assert ask(port, "POST", "/predict", question) == 200
        deadline = time.monotonic() + 20
        while copied(port) < 20 and time.monotonic() < deadline:
            time.sleep(0.1)
    # A laptop with nothing but the bucket's address.
    laptop = shared.model_copy(update={"home": tmp_path / "laptop"})
    days = ("--first", f"{now:%Y-%m-%d}", "--last", f"{now:%Y-%m-%d}", "--threshold", "0.5")
    told = shadow(laptop, *days, "--json")
    assert told.returncode == 0, told.stderr
    report = json.loads(told.stdout)
    assert (report["served_versions"], report["shadow_versions"]) == ([3], [4])
    assert (report["served_rows"], report["shadow_rows"], report["matched_rows"]) == (20, 20, 20)
    assert report["mean_absolute_difference"] > 0
    assert {path.parts[0] for path in files(laptop.home)} == {"predictions", "shadow"}
    text = shadow(laptop, *days)
    assert text.returncode == 0
    assert "version 3 answered, version 4 in its shadow" in text.stdout
    assert "rows matched        20 of 20 (100.0%)" in text.stdout
    nothing = shadow(laptop, "--first", "1999-01-01", "--last", "1999-01-02")
    assert nothing.returncode != 0
    assert "no request was answered by both" in nothing.stderr
    assert shadow(laptop, "--first", "2013-02-02", "--last", "2013-02-01").returncode == 2


def files(root: Path) -> list[Path]:
    return [path.relative_to(root) for path in root.rglob("*.parquet")]
