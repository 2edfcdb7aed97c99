"""Copies for a shadow: sent whole, bounded, counted, never in the way; real servers that answer, hang or are gone."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import ConfigError
from components.serve.shadow import PAUSE_SECONDS, STOP_SECONDS, THREADS, Shadow, instant


class Outcomes:
    """What was counted; waits for a number of outcomes."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self._changed = threading.Condition()

    def __call__(self, outcome: str) -> None:
        with self._changed:
            self.counted[outcome] += 1
            self._changed.notify_all()

    def wait_for(self, number: int, seconds: float = 20) -> Counter[str]:
        with self._changed:
            assert self._changed.wait_for(lambda: self.counted.total() >= number, seconds), self.counted
            return self.counted


class Answering(ThreadingHTTPServer):
    """A server that keeps what it was sent and answers with a status; it may close connections after each answer."""

    daemon_threads = True

    def __init__(self, status: int, *, closes: bool = False) -> None:
        self.received: list[tuple[str, str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.received.append((self.path, self.headers["x-request-id"], body))
                self.send_response(status)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")
                self.close_connection = closes

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def hanging() -> Iterator[str]:
    """Yield the address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def dead() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def test_a_copy_is_the_request_with_its_identity_and_instant() -> None:
    outcomes = Outcomes()
    with Answering(200) as server:
        shadow = Shadow(server.url, outcomes)
        shadow.copy("predict", "r-1", {"origin": "EWR", "badge": None}, as_of=1364731200.25)
        shadow.copy("predict_batch", "r-2", {"rows": [{"x": 1.5}, {"x": None}]}, rows=2)
        outcomes.wait_for(2)
        shadow.close()
        server.shutdown()
    assert sorted(server.received) == [
        ("/predict", "r-1", {"origin": "EWR", "badge": None, "as_of": "2013-03-31T12:00:00.250000+00:00"}),
        ("/predict_batch", "r-2", {"rows": [{"x": 1.5}, {"x": None}]}),
    ]
    assert outcomes.counted == {"answered": 2}


@given(st.floats(0, 4e9, allow_nan=False))
def test_the_instant_of_a_copy_is_the_one_that_is_logged(as_of: float) -> None:
    """Through text and back, to the microsecond that `core.inference_log` writes for the original."""
    import numpy as np

    copied = datetime.fromisoformat(instant(as_of)).timestamp()
    assert int(np.rint(np.array([copied]) * 1e6)[0]) == int(np.rint(np.array([as_of]) * 1e6)[0])


def test_many_copies_arrive_once_each() -> None:
    outcomes = Outcomes()
    with Answering(200) as server:
        shadow = Shadow(server.url, outcomes)
        for number in range(500):
            shadow.copy("predict", str(number), {"n": number})
        assert outcomes.wait_for(500) == {"answered": 500}
        shadow.close()
        server.shutdown()
    assert sorted(int(name) for _, name, _ in server.received) == list(range(500))


def test_a_connection_that_the_shadow_closed_costs_no_copy() -> None:
    outcomes = Outcomes()
    with Answering(200, closes=True) as server:
        shadow = Shadow(server.url, outcomes)
        for number in range(20):
            shadow.copy("predict", str(number), {})
        assert outcomes.wait_for(20) == {"answered": 20}
        shadow.close()
        server.shutdown()


def test_a_refusal_is_counted_as_one() -> None:
    outcomes = Outcomes()
    with Answering(400) as server:
        shadow = Shadow(server.url, outcomes)
        shadow.copy("predict", "r", {})
        assert outcomes.wait_for(1) == {"refused": 1}
        shadow.close()
        server.shutdown()


def test_a_dead_shadow_costs_microseconds_and_few_attempts(dead: str) -> None:
    outcomes = Outcomes()
    shadow = Shadow(dead, outcomes, capacity_rows=50)
    started = time.perf_counter()
    for number in range(1000):
        shadow.copy("predict", str(number), {"n": number})
    seconds = time.perf_counter() - started
    shadow.close()
    assert outcomes.counted.total() == 1000
    assert outcomes.counted.keys() <= {"failed", "dropped"}
    assert outcomes.counted["dropped"] >= 1000 - 50 - 2 * THREADS
    # A thousand refused connections would take longer than this on any machine.
    assert seconds < 0.5


def test_a_shadow_that_hangs_holds_no_one_up(hanging: str) -> None:
    outcomes = Outcomes()
    shadow = Shadow(hanging, outcomes, capacity_rows=10, timeout_seconds=0.2)
    longest = 0.0
    for number in range(200):
        started = time.perf_counter()
        shadow.copy("predict", str(number), {"n": number})
        longest = max(longest, time.perf_counter() - started)
    assert longest < 0.1
    outcomes.wait_for(200 - 10 + 1)
    started = time.monotonic()
    shadow.close()
    assert time.monotonic() - started < STOP_SECONDS + PAUSE_SECONDS
    assert outcomes.counted["dropped"] >= 200 - 10 - THREADS
    assert outcomes.counted["answered"] == 0


def test_what_waits_is_bounded_in_rows(hanging: str) -> None:
    outcomes = Outcomes()
    shadow = Shadow(hanging, outcomes, capacity_rows=100, timeout_seconds=5)
    for _ in range(THREADS):
        shadow.copy("predict", "taken", {})
    time.sleep(0.3)  # each thread has taken one and hangs
    for number in range(10):
        shadow.copy("predict_batch", str(number), {"rows": []}, rows=30)
    assert outcomes.counted == {"dropped": 7}
    shadow.copy("predict", "small", {})
    assert outcomes.counted == {"dropped": 7}


def test_it_answers_again_when_it_is_back(dead: str) -> None:
    outcomes = Outcomes()
    shadow = Shadow(dead, outcomes)
    shadow.copy("predict", "lost", {})
    assert outcomes.wait_for(1) == {"failed": 1}
    port = int(dead.rpartition(":")[2])
    Answering.allow_reuse_address = True

    class Back(Answering):
        def server_bind(self) -> None:
            self.server_address = ("127.0.0.1", port)
            super().server_bind()

    with Back(200) as server:
        shadow.copy("predict", "again", {})
        assert outcomes.wait_for(2) == {"failed": 1, "answered": 1}
        shadow.close()
        server.shutdown()


def test_content_that_is_no_json_fails_alone() -> None:
    outcomes = Outcomes()
    with Answering(200) as server:
        shadow = Shadow(server.url, outcomes)
        shadow.copy("predict", "odd", {"value": object()})
        shadow.copy("predict", "good", {})
        assert outcomes.wait_for(2) == {"failed": 1, "answered": 1}
        shadow.close()
        server.shutdown()


def test_after_the_end_everything_is_dropped(dead: str) -> None:
    outcomes = Outcomes()
    shadow = Shadow(dead, outcomes)
    shadow.close()
    shadow.copy("predict", "late", {})
    assert outcomes.counted == {"dropped": 1}


@pytest.mark.parametrize("url", ["shadow:3000", "https://shadow:3000", "http://", "http://shadow:3000/path", "ftp://x"])
def test_an_address_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="DRIFTLINE_SHADOW_URL"):
        Shadow(url, Outcomes())
