"""Feast's feature server as we run it: the values of the SDK, and no way to write."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import FeatureError
from components.core.sections import Features
from components.core.settings import Settings
from components.features.apply import apply_definitions
from components.features.materialize import materialize
from components.features.online_server import serve_online_features
from components.features.store import open_store

START_SECONDS = 90


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def ask(url: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture
def server(
    shop: Settings, snapshot: Callable[..., Path], config: Features, noon: datetime, tmp_path: Path
) -> Iterator[tuple[str, str]]:
    """Yield the addresses of a real server and of its metrics; the store was filled before."""
    apply_definitions(shop, "shop")
    materialize(shop, "shop", manifest=snapshot(), config=config, as_of=noon)
    port, metrics = free_port(), free_port()
    code = "from pipelines.cli import main; main()"
    words = ["features", "serve", "--use-case", "shop", "--port", str(port), "--metrics-port", str(metrics)]
    log = tmp_path / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *words], env=os.environ | shop.environment(), stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                ask(f"http://127.0.0.1:{port}/health")
                break
            except OSError:
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics}"
    finally:
        process.terminate()
        assert process.wait(20) in (0, -15), log.read_text()


def test_it_answers_as_the_sdk_writes_nothing_and_counts(server: tuple[str, str], shop: Settings) -> None:
    url, metrics = server
    store = open_store(shop, "shop")
    entities = {"user_id": ["ann", "bob", "new"], "item": ["tea", "tea", "tea"]}
    asked = {"feature_service": "shop_v1", "entities": entities}
    status, body = ask(f"{url}/get-online-features", asked)
    assert status == 200, body
    answer = json.loads(body)
    named = zip(answer["metadata"]["feature_names"], answer["results"], strict=True)
    got = {name: result["values"] for name, result in named}
    rows = [{"user_id": user, "item": "tea"} for user in entities["user_id"]]
    expected = store.get_online_features(features=store.get_feature_service("shop_v1"), entity_rows=rows).to_dict()
    assert got == expected
    assert got["score"] == [None, 0.75, None]

    row = {"user_id": ["ann"], "spend": [1e6], "visits": [1.0], "event_timestamp": ["2030-01-01T00:00:00Z"]}
    writings: dict[str, dict[str, Any]] = {
        "/push": {"push_source_name": "users", "df": row, "to": "online"},
        "/write-to-online-store": {"feature_view_name": "users", "df": row},
        "/materialize": {"start_ts": "2024-01-01", "end_ts": "2030-01-01"},
        "/materialize-incremental": {"end_ts": "2030-01-01"},
        "/search": {},
        "/chat": {},
    }
    for path, writing in writings.items():
        assert ask(f"{url}{path}", writing)[0] == 404, path
    assert ask(f"{url}/openapi.json")[0] == 404
    assert json.loads(ask(f"{url}/get-online-features", asked)[1])["results"] == answer["results"]

    lines = ask(f"{metrics}/metrics")[1].decode().splitlines()
    assert any(line.startswith("feast_feature_server_request_total{") and line.endswith(" 2.0") for line in lines)
    assert any(line.startswith("feast_feature_freshness_seconds{") for line in lines)


def test_a_use_case_that_was_not_applied_is_named(shop: Settings) -> None:
    with pytest.raises(FeatureError, match="no feature view of shop"):
        serve_online_features(shop, "shop", host="127.0.0.1", port=free_port(), metrics_port=free_port())
