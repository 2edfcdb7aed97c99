"""A built Bento as a real server on this machine, for as long as a block of code needs it."""

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from components.core.errors import PackagingFailed
from components.package import guard
from components.package.bento import child_environment

HOST = "127.0.0.1"
BOOT_SECONDS = 120.0
# BentoML starts a worker that cannot construct its service again and again; its log says so the first time.
FAILED = "Initializing service error"
REQUEST_SECONDS = 30.0


@dataclass
class Server:
    """A booted Bento; one keep-alive connection."""

    port: int
    guard: int
    """Process id of the guard; the server's processes are its descendants."""
    boot_seconds: float
    _connection: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        self._connection = http.client.HTTPConnection(HOST, self.port, timeout=REQUEST_SECONDS)

    def post(self, route: str, content: Any) -> tuple[int, Any]:
        """Send JSON and return status and decoded answer. Raises PackagingFailed when there is no answer."""
        body = json.dumps(content)
        try:
            self._connection.request("POST", route, body, {"content-type": "application/json"})
            response = self._connection.getresponse()
            return response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            raise PackagingFailed(f"the Bento does not answer {route}", measured=f"{error!r}") from error

    def rss_mb(self) -> float:
        """Return the resident memory of all processes of the server, in MB of 10^6 bytes."""
        total = 0
        for process in psutil.Process(self.guard).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total / 1e6

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def booted(
    archive: Path,
    tag: str,
    *,
    online_store_url: str,
    inference_log: Path | None = None,
    shadow_url: str = "",
    boot_seconds: float = BOOT_SECONDS,
) -> Iterator[Server]:
    """Import a tar into an empty store, serve it on a free local port and yield it once it is ready.

    It logs its predictions only where `inference_log` says and copies requests only to `shadow_url`. Afterwards no
    process and no file but those is left, also when this process is killed. Raises PackagingFailed with the end of the
    server's log when the server ends or is not ready in time.
    """
    folder = Path(tempfile.mkdtemp(prefix="driftline-probe-"))
    port = _free_port()
    bentoml = [sys.executable, "-m", "bentoml"]
    order = {
        "folder": str(folder),
        "environment": child_environment(folder)
        | {
            "DRIFTLINE_HOME": str(folder / "home"),
            "DRIFTLINE_ONLINE_STORE_URL": online_store_url,
            "DRIFTLINE_INFERENCE_LOG": str(inference_log or ""),
            "DRIFTLINE_SHADOW_URL": shadow_url,
        },
        "commands": [
            [*bentoml, "import", str(archive.absolute())],
            [*bentoml, "serve", tag, "--host", HOST, "--port", str(port)],
        ],
    }
    # A session of its own: a Ctrl-C at the terminal reaches this process only, which then closes the pipe.
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and file
        [sys.executable, "-P", guard.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None  # noqa: S101 - PIPE was asked for
    started = time.monotonic()
    try:
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
        _wait_until_ready(port, folder, started + boot_seconds)
        server = Server(port=port, guard=process.pid, boot_seconds=time.monotonic() - started)
        try:
            yield server
        finally:
            server.close()
    finally:
        process.stdin.close()
        process.wait()


def _wait_until_ready(port: int, folder: Path, deadline: float) -> None:
    while True:
        if (folder / guard.EXIT_FILE).exists() or FAILED in _log(folder):
            raise PackagingFailed(
                "the Bento does not start", measured=_tail(folder), next_step="read the log above and build again"
            )
        if time.monotonic() > deadline:
            raise PackagingFailed("the Bento is not ready in time", measured=_tail(folder))
        connection = http.client.HTTPConnection(HOST, port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.1)


def _tail(folder: Path) -> str:
    return _log(folder)[-2000:].strip() or "no log"


def _log(folder: Path) -> str:
    path = folder / guard.LOG_FILE
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port
