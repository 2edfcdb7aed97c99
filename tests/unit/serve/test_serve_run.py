"""`serve_bento` in a process of its own: the archive is unpacked once and served in the foreground."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from components.core.errors import ConfigError, DataError
from components.core.inference_log import read_predictions
from components.core.settings import Settings
from components.core.training_set import read_manifest
from components.package.bento import build_bento, write_context
from components.package.description import describe
from components.serve.run import serve_bento, unpack

CODE = """
import sys
from pathlib import Path
from components.core.settings import Settings
from components.serve.run import serve_bento
serve_bento(Settings.model_validate_json(sys.argv[1]), Path(sys.argv[2]), port=int(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def plain(model: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the archive of a model without online features, named as an artifact: without a suffix."""
    root = tmp_path_factory.mktemp("plain")
    served = model.make_served(root / "served", with_views=False)
    rows = read_manifest(served.training_set)
    spec = describe(model.PROBLEM, served.config, served.card, rows, served.bundle)
    context = root / "context"
    context.mkdir()
    write_context(context, spec=spec, bundle=served.bundle, training_set=served.training_set)
    build_bento(context, spec, root / "bento")
    return root / "bento"


def test_it_serves_until_it_is_told_to_stop(plain: Path, settings: Settings) -> None:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", CODE, settings.model_dump_json(), str(plain), str(port)])
    try:
        status, answer = wait_and_ask(process, port)
        assert status == 200
        assert answer["model_version"] == 3
        assert [p.name for p in (settings.home / "serving").iterdir()] == [unpack(settings, plain).name]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)
    today = datetime.now(UTC)
    window = today - timedelta(days=1), today + timedelta(days=1)
    (row,) = read_predictions(settings.home / "predictions", "rides", *window).to_pylist()
    assert (row["request_id"], row["prediction"]) == (answer["request_id"], answer["prediction"])
    assert (row["key_origin"], row["input_distance"]) == ("EWR", 10.0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_an_unpacked_bento_is_served_where_it_lies(plain: Path, settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    with tarfile.open(plain) as tar:
        tar.extractall(folder, filter="data")
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(folder.rglob("*"))
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", CODE, settings.model_dump_json(), str(folder), str(port)])
    try:
        status, answer = wait_and_ask(process, port)
        assert (status, answer["model_version"]) == (200, 3)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert sorted(folder.rglob("*")) == before


def test_a_container_without_a_bento_says_what_to_set(settings: Settings) -> None:
    for bento, message in (("", "set DRIFTLINE_BENTO"), (str(settings.home / "absent.tar"), "there is no such Bento")):
        environment = {**os.environ, **settings.environment(), "DRIFTLINE_BENTO": bento}
        command = [sys.executable, "-m", "components.serve.container"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_and_ask(process: subprocess.Popen[bytes], port: int) -> tuple[int, Any]:
    body = json.dumps({"carrier": "AA", "origin": "EWR", "badge": None, "distance": 10})
    deadline = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("POST", "/predict", body, {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except OSError:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not answer in time"
            time.sleep(0.2)
        finally:
            connection.close()


def test_unpacking_at_once_leaves_one_home(plain: Path, settings: Settings) -> None:
    with ThreadPoolExecutor(3) as pool:
        homes = list(pool.map(lambda _: unpack(settings, plain), range(3)))
    assert len(set(homes)) == 1
    assert [p.name for p in (settings.home / "serving").iterdir()] == [homes[0].name]


def test_what_is_no_bento_is_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such Bento"):
        serve_bento(settings, tmp_path / "absent.tar")
    (tmp_path / "text.tar").write_text("no tar")
    with pytest.raises(DataError, match="cannot be read"):
        serve_bento(settings, tmp_path / "text.tar")
    shutil.make_archive(str(tmp_path / "other"), "tar", tmp_path, "text.tar")
    with pytest.raises(DataError, match="not a Bento of this platform"):
        serve_bento(settings, tmp_path / "other.tar")
    assert not (settings.home / "serving").exists()
