"""Answering `/metrics`, `/livez` and `/readyz` on one port."""

import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TEXT = "text/plain; charset=utf-8"
SOCKET_SECONDS = 10


class Quiet(ThreadingHTTPServer):
    """A server whose open connections do not hold up the end of the process."""

    daemon_threads = True


def serve(
    port: int,
    *,
    metrics: Callable[[str], tuple[bytes, str]],
    live: Callable[[], str],
    ready: Callable[[], str],
    address: str = "0.0.0.0",  # noqa: S104 - a pod's port is closed by its NetworkPolicy
) -> ThreadingHTTPServer:
    """Answer from now on, in threads, and return the server; port 0 takes a free one.

    `metrics` gets the Accept header and returns a body with its content type. `live` and `ready` return why not, or an
    empty text. Raises OSError when the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = SOCKET_SECONDS

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                body, content = metrics(self.headers.get("Accept", ""))
                self._answer(HTTPStatus.OK, body, content)
            elif path in ("/livez", "/readyz"):
                why_not = live() if path == "/livez" else ready()
                status = HTTPStatus.SERVICE_UNAVAILABLE if why_not else HTTPStatus.OK
                self._answer(status, f"{why_not or 'ok'}\n".encode(), TEXT)
            else:
                self._answer(HTTPStatus.NOT_FOUND, b"/metrics, /livez, /readyz\n", TEXT)

        def _answer(self, status: HTTPStatus, body: bytes, content: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing: a probe every few seconds is no news."""

    server = Quiet((address, port), Handler)
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return server
