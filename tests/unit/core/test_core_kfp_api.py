"""The connection to the KFP API against real servers: what gateways, dead ports and login pages answer."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from components.core.errors import ClusterError, ClusterUnreachable, ConfigError, NotOnCluster, TakenOnCluster
from components.core.kfp_api import KfpApi, read_token
from components.core.kfp_runs import read_run
from components.core.settings import Settings


class Gateway(ThreadingHTTPServer):
    """A server that answers every call in one way, as the gateway before a KFP of several users does."""

    status, content_type, body = 200, "application/json", b"{}"
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.authorizations: list[str | None] = []


class Answer(BaseHTTPRequestHandler):
    server: Gateway

    def do_GET(self) -> None:
        self.server.authorizations.append(self.headers["authorization"])
        self.send_response(self.server.status)
        self.send_header("content-type", self.server.content_type)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = Gateway()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def api_of(settings: Settings, server: Gateway, **changes: object) -> KfpApi:
    host = f"http://127.0.0.1:{server.server_port}"
    return KfpApi(settings.model_copy(update={"kfp_host": host, **changes}))


def answer(server: Gateway, status: int, body: object, content_type: str = "application/json") -> None:
    server.status, server.content_type = status, content_type
    server.body = body if isinstance(body, bytes) else json.dumps(body).encode()


@pytest.mark.parametrize(
    ("status", "message", "kind", "says"),
    [
        (401, "Jwt is expired", ClusterError, "valid token"),
        (403, "User 'me' is not authorized", ClusterError, "in namespace team-a"),
        (404, "Run x not found", NotOnCluster, "no such thing"),
        (409, "Already exists", TakenOnCluster, "exists already"),
        (500, "InternalServerError: Error 1062: Duplicate entry 'x' for key 'PRIMARY'", TakenOnCluster, "already"),
        (500, "the database is away", ClusterError, "refuses it"),
        (400, "Namespace is required", ClusterError, "does not accept the namespace team-a"),
        (503, "no healthy upstream", ClusterUnreachable, "does not answer"),
        (429, "slow down", ClusterUnreachable, "does not answer"),
    ],
)
def test_each_refusal_is_an_error_with_a_next_step(
    settings: Settings, gateway: Gateway, status: int, message: str, kind: type[ClusterError], says: str
) -> None:
    api = api_of(settings, gateway, kfp_namespace="team-a")
    answer(gateway, status, {"error": message, "message": message, "code": 5 if status == 404 else 13})
    with pytest.raises(ClusterError) as raised:
        api.call("read run x", api.runs.run_service_get_run, "x")
    assert type(raised.value) is kind
    assert says in raised.value.what
    assert message in str(raised.value.measured)


def test_an_expired_token_names_its_file(settings: Settings, gateway: Gateway, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")
    api = api_of(settings, gateway, kfp_token=token)
    answer(gateway, 401, b"Jwt is expired", "text/plain")
    with pytest.raises(ClusterError, match="valid token") as raised:
        api.call("read run x", api.runs.run_service_get_run, "x")
    assert str(token) in raised.value.next_step
    assert "DRIFTLINE_KFP_TOKEN" in raised.value.next_step


def test_the_token_is_read_for_each_call(settings: Settings, gateway: Gateway, tmp_path: Path) -> None:
    token = tmp_path / "token"
    api = api_of(settings, gateway, kfp_token=token)
    for text in ("first", "second\n"):
        token.write_text(text)
        api.call("read run x", api.runs.run_service_get_run, "x")
    assert gateway.authorizations == ["Bearer first", "Bearer second"]


def test_without_a_token_none_is_sent(settings: Settings, gateway: Gateway) -> None:
    api = api_of(settings, gateway)
    api.call("read run x", api.runs.run_service_get_run, "x")
    assert gateway.authorizations == [None]


@pytest.mark.parametrize("text", ["", "  \n", "two words", "Bearer abc", "line\nbreak", "grün"])
def test_a_file_without_a_token_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(ConfigError, match="holds no token"):
        read_token(path)


def test_a_missing_token_file_is_refused_before_any_call(settings: Settings, gateway: Gateway, tmp_path: Path) -> None:
    api = api_of(settings, gateway, kfp_token=tmp_path / "absent")
    with pytest.raises(ConfigError, match="cannot read the token"):
        api.call("read run x", api.runs.run_service_get_run, "x")
    assert gateway.authorizations == []


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"<html><body>Sign in</body></html>", "text/html; charset=utf-8"),
        (404, b"<html><body>nginx</body></html>", "text/html; charset=utf-8"),
        (404, b"404 page not found", "text/plain"),
        (404, b'{"detail": "Not Found"}', "application/json"),
    ],
)
def test_another_program_is_no_api_and_says_nothing_about_a_run(
    settings: Settings, gateway: Gateway, status: int, body: bytes, kind: str
) -> None:
    api = api_of(settings, gateway)
    answer(gateway, status, body, kind)
    with pytest.raises(ClusterError, match="does not answer like the KFP API"):
        read_run(api, "x")


def test_a_dead_port_is_unreachable(settings: Settings) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{probe.getsockname()[1]}"
        api = KfpApi(settings.model_copy(update={"kfp_host": host}))
        with pytest.raises(ClusterUnreachable, match="DRIFTLINE_KFP_HOST") as raised:
            api.call("read run x", api.runs.run_service_get_run, "x")
    assert "refused" in str(raised.value.measured)


def test_a_connection_that_is_cut_is_unreachable(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def cut() -> None:
            connection, _ = server.accept()
            connection.recv(1000)
            connection.close()

        thread = threading.Thread(target=cut)
        thread.start()
        api = KfpApi(settings.model_copy(update={"kfp_host": f"http://127.0.0.1:{server.getsockname()[1]}"}))
        with pytest.raises(ClusterUnreachable):
            api.call("read run x", api.runs.run_service_get_run, "x")
        thread.join()


@pytest.mark.parametrize("host", ["", "ml-pipeline:8888", "ftp://host"])
def test_an_address_that_is_none_is_refused(settings: Settings, host: str) -> None:
    with pytest.raises(ConfigError, match="DRIFTLINE_KFP_HOST"):
        KfpApi(settings.model_copy(update={"kfp_host": host}))


def test_text_is_returned_as_it_is(settings: Settings, gateway: Gateway) -> None:
    api = api_of(settings, gateway)
    answer(gateway, 200, b"line 1\nTraceback (most recent call last):\n", "text/plain; charset=utf-8")
    assert api.get_text("read a log", "/log") == "line 1\nTraceback (most recent call last):\n"
