"""Copies of answered requests for a second server, the shadow, whose answers nobody gets.

A request that was answered is put into a bounded queue, which takes microseconds; threads send it on. The shadow
answers under the same request id and as of the same instant and writes its own inference log, so that both can be
compared row by row (`components.serve.shadow_report`). A shadow that is slow, dead or refuses delays nobody: what does
not fit into the queue is dropped and counted.
"""

import contextlib
import http.client
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from components.core.errors import ConfigError

log = logging.getLogger("driftline.serve")

CAPACITY_ROWS = 2_000
TIMEOUT_SECONDS = 2.0
PAUSE_SECONDS = 1.0
"""After a copy that nobody took; the queue fills meanwhile, and what does not fit is dropped."""
STOP_SECONDS = 2.0
THREADS = 2
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Count = Callable[[str], None]
"""Told the outcome of one request, from several threads: answered (200), refused (another status, from a model with
other inputs, say), failed (no answer in time), dropped (not sent)."""


class Shadow:
    """One process's copies; `copy` from one thread (the event loop), sending from threads of its own."""

    def __init__(
        self, url: str, count: Count, *, capacity_rows: int = CAPACITY_ROWS, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        """Start sending to `url`, such as `http://model-shadow:3000`. Raises ConfigError for another form.

        `timeout_seconds` holds for connecting and for each part of an answer.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
            raise ConfigError(
                "the shadow has no usable address",
                measured=url,
                allowed="http://HOST:PORT",
                next_step="set DRIFTLINE_SHADOW_URL to it, or to nothing for no shadow",
            )
        self._host, self._port = parts.hostname, parts.port or 80
        self._count, self._capacity, self._timeout = count, capacity_rows, timeout_seconds
        self._waiting: deque[tuple[str, str, Any, int]] = deque()
        self._rows = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._failing = False
        self._threads = [threading.Thread(target=self._run, name="shadow", daemon=True) for _ in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def copy(
        self, route: str, request_id: str, content: Mapping[str, Any], *, rows: int = 1, as_of: float | None = None
    ) -> None:
        """Take one answered request: microseconds, no waiting, nothing raised.

        `content` is its body, as Python values that nobody changes any more; `as_of` (Unix seconds) goes into it.
        """
        if as_of is not None:
            content = {**content, "as_of": instant(as_of)}
        with self._changed:
            fits = self._rows + rows <= self._capacity and not self._stopping.is_set()
            if fits:
                self._waiting.append((route, request_id, content, rows))
                self._rows += rows
                self._changed.notify()
        if not fits:
            self._count("dropped")

    def close(self) -> None:
        """Send what is waiting, for at most two seconds; the rest is dropped and counted."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            left = len(self._waiting)
            self._waiting.clear()
        for _ in range(left):
            self._count("dropped")

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        with contextlib.closing(connection):
            while (taken := self._take()) is not None:
                outcome = self._send(connection, *taken)
                self._count(outcome)
                if outcome == "failed":
                    # No hurry: it will not be there in a moment, and each attempt takes time from real answers.
                    self._stopping.wait(PAUSE_SECONDS)

    def _take(self) -> tuple[str, str, Any] | None:
        """Return the next request, or None when there will be none."""
        with self._changed:
            while not self._waiting:
                if self._stopping.is_set():
                    return None
                self._changed.wait()
            route, request_id, content, rows = self._waiting.popleft()
            self._rows -= rows
            return route, request_id, content

    def _send(self, connection: http.client.HTTPConnection, route: str, request_id: str, content: Any) -> str:
        headers = {"content-type": "application/json", "x-request-id": request_id}
        try:
            body = json.dumps(content)
            try:
                status = _post(connection, route, body, headers)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                # A kept connection that the shadow closed meanwhile; the same request id makes a repetition harmless.
                connection.close()
                status = _post(connection, route, body, headers)
        except Exception as error:  # whatever it is, a real answer must not depend on it
            connection.close()
            if not self._failing:
                log.warning("the shadow at %s:%d does not answer: %s", self._host, self._port, error)
            self._failing = True
            return "failed"
        if self._failing:
            log.warning("the shadow answers again")
        self._failing = False
        return "answered" if status == http.HTTPStatus.OK else "refused"


def instant(seconds: float) -> str:
    """Return Unix seconds as text, rounded to microseconds as the inference log does it: both logs name one instant."""
    return (_EPOCH + timedelta(microseconds=round(seconds * 1e6))).isoformat()


def _post(connection: http.client.HTTPConnection, route: str, body: str, headers: Mapping[str, str]) -> int:
    connection.request("POST", f"/{route}", body, dict(headers))
    with connection.getresponse() as response:
        response.read()
        return response.status
