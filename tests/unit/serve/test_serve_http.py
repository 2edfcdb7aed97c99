"""The built Bento as a real server: answers, refusals, limits, metrics."""

import contextlib
import http.client
import json
import socket
import sqlite3
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.core.bundle import GOLDEN, load_predictor, read_encoding

READY = {
    "carrier": "AA",
    "distance": 500.0,
    "origin_late": 0.5,
    "origin_kind": "big",
    "pair_delay": 12.0,
    "badge_year": 1999.0,
}
KEYS = {"carrier": "AA", "origin": "EWR", "badge": 7, "distance": 500.0}


def golden_rows(served: Any) -> tuple[list[dict[str, Any]], Any]:
    table = pq.read_table(served.bundle / GOLDEN)
    return table.drop_columns(["prediction"]).to_pylist(), table.column("prediction").to_numpy()


def ask(server: Any, now: Any, **changes: Any) -> tuple[int, Any]:
    return server.post("/predict", KEYS | {"as_of": now.isoformat()} | changes)


def test_batch_and_single_rows_equal_the_native_model(server: Any, served: Any, spec: Any) -> None:
    rows, expected = golden_rows(served)
    status, answer = server.post("/predict_batch", {"rows": rows})
    assert status == 200
    assert np.abs(np.array(answer["predictions"]) - expected).max() < 1e-6
    singles = [server.post("/predict_ready", row)[1] for row in rows[:20]]
    assert [s["prediction"] for s in singles] == answer["predictions"][:20]
    assert {(s["model"], s["model_version"]) for s in singles} == {(spec.model, 3)}
    assert answer["model"] == spec.model


def test_a_lookup_by_key_answers_like_its_ready_features(server: Any, now: Any) -> None:
    status, answer = ask(server, now)
    assert status == 200
    assert answer["prediction"] == server.post("/predict_ready", READY)[1]["prediction"]
    # 24 h is the TTL of pair_stats: the edge still counts, as in the point-in-time join.
    assert answer["feature_ages_seconds"] == {"origin_stats": 3600, "pair_stats": 86400, "badges": 9000 * 3600}
    assert answer["stale"] == answer["missing"] == []


def test_a_stale_value_is_null_and_named(server: Any, now: Any) -> None:
    _, answer = ask(server, now, origin="JFK", badge=None)
    assert answer["stale"] == ["origin_late", "origin_kind"]
    assert answer["missing"] == ["pair_delay", "badge_year"]
    assert answer["feature_ages_seconds"] == {"origin_stats": 25200, "pair_stats": None, "badges": None}
    nulls = dict.fromkeys(["origin_late", "origin_kind", "pair_delay", "badge_year"])
    assert answer["prediction"] == server.post("/predict_ready", READY | nulls)[1]["prediction"]


def test_the_edge_of_a_ttl(server: Any, now: Any) -> None:
    at = now - timedelta(hours=1)  # the age of JFK is exactly 6 h then
    assert server.post("/predict", KEYS | {"origin": "JFK", "as_of": at.isoformat()})[1]["stale"] == []
    late = at + timedelta(milliseconds=1)
    answer = server.post("/predict", KEYS | {"origin": "JFK", "as_of": late.isoformat()})[1]
    assert answer["stale"] == ["origin_late", "origin_kind"]


def test_a_value_from_after_the_instant_is_missing(server: Any, now: Any) -> None:
    _, answer = ask(server, now, origin="LGA")
    assert answer["feature_ages_seconds"]["origin_stats"] is None
    assert answer["missing"][:2] == ["origin_late", "origin_kind"]
    _, later = ask(server, now, origin="LGA", as_of=(now + timedelta(hours=2)).isoformat())
    assert later["feature_ages_seconds"]["origin_stats"] == 3600


def test_an_unknown_entity_is_missing(server: Any, now: Any) -> None:
    status, answer = ask(server, now, origin="XXX", carrier="??", badge=-(2**63))
    assert status == 200
    assert answer["missing"] == ["origin_late", "origin_kind", "pair_delay", "badge_year"]


def test_a_store_out_of_reach_is_no_answer_and_no_end(server: Any, served: Any, now: Any) -> None:
    def rename(old: str, new: str) -> None:
        with contextlib.closing(sqlite3.connect(served.root / "online.db")) as database:
            database.execute(f"ALTER TABLE {old} RENAME TO {new}")

    rename("rides_badges", "gone")
    try:
        status, answer = ask(server, now)
        assert status == 503
        assert "online store cannot be read" in answer["error"]
        assert server.post("/predict_ready", READY)[0] == 200
        assert get(server, "/readyz")[0] == 200
    finally:
        rename("gone", "rides_badges")
    assert ask(server, now)[0] == 200


def test_without_an_instant_it_is_now(server: Any) -> None:
    status, answer = server.post("/predict", KEYS)
    assert status == 200
    assert answer["stale"] == ["origin_late", "origin_kind", "pair_delay"]


@pytest.mark.parametrize(
    ("route", "content", "named"),
    [
        ("/predict", {**KEYS, "orgin": "EWR"}, "orgin"),
        ("/predict", {k: v for k, v in KEYS.items() if k != "badge"}, "badge"),
        ("/predict", {**KEYS, "badge": "7"}, "badge"),
        ("/predict", {**KEYS, "badge": 7.5}, "badge"),
        ("/predict", {**KEYS, "badge": True}, "badge"),
        ("/predict", {**KEYS, "badge": 2**63}, "badge"),
        ("/predict", {**KEYS, "origin": 3}, "origin"),
        ("/predict", {**KEYS, "origin": "x" * 1025}, "origin"),
        ("/predict", {**KEYS, "distance": "500"}, "distance"),
        ("/predict", {**KEYS, "distance": [500]}, "distance"),
        ("/predict", {**KEYS, "distance": 1e39}, "distance"),
        ("/predict", {**KEYS, "distance": float("nan")}, "distance"),
        ("/predict", {**KEYS, "distance": float("inf")}, "distance"),
        ("/predict", {**KEYS, "as_of": "2013-03-31T12:00:00"}, "as_of"),
        ("/predict", {**KEYS, "as_of": 1364731200}, "as_of"),
        ("/predict", {**KEYS, "as_of": "yesterday"}, "as_of"),
        ("/predict", [], "OnlineRequest"),
        ("/predict", None, "OnlineRequest"),
        ("/predict_ready", {**READY, "origin": "EWR"}, "origin"),
        ("/predict_ready", {**READY, "carrier": None, "origin_kind": 1}, "origin_kind"),
        ("/predict_ready", {}, "carrier"),
        ("/predict_batch", {"rows": []}, "rows"),
        ("/predict_batch", {"rows": [READY] * 101}, "rows"),
        ("/predict_batch", {"rows": [READY, {**READY, "distance": "far"}]}, "distance"),
        ("/predict_batch", {"row": [READY]}, "row"),
        ("/predict_batch", {"rows": READY}, "rows"),
    ],
)
def test_a_bad_request_is_named(server: Any, route: str, content: Any, named: str) -> None:
    status, answer = server.post(route, content)
    assert status == 400
    assert named in json.dumps(answer)
    assert server.post("/predict_ready", READY)[0] == 200


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"carrier": "\\ud800"}', b"[" * 5000, b"1e999"])
def test_bytes_that_are_no_request(server: Any, body: bytes) -> None:
    assert send(server, body)[0] == 400


def test_no_pickle_is_read(server: Any) -> None:
    import pickle

    status, _ = send(server, pickle.dumps(READY), {"content-type": "application/vnd.bentoml+pickle"})
    assert status == 415


def test_many_bad_rows_get_a_short_answer(server: Any) -> None:
    bad: dict[str, Any] = {name: [] for name in READY}
    status, answer = server.post("/predict_batch", {"rows": [bad] * 100})
    assert status == 400
    assert len(json.dumps(answer)) < 5000


def test_a_declared_body_above_the_limit(server: Any, spec: Any) -> None:
    exact = json.dumps(READY).encode()
    assert send(server, exact + b" " * (spec.max_request_bytes - len(exact)))[0] == 200
    status, answer = send(server, exact + b" " * (spec.max_request_bytes - len(exact) + 1))
    assert status == 413
    assert str(spec.max_request_bytes) in answer["error"]


def test_a_chunked_body_above_the_limit(server: Any, spec: Any) -> None:
    good = json.dumps(READY).encode()
    assert send(server, iter([good[:10], good[10:]]))[0] == 200
    # The server answers before all chunks are sent, so the sender may see a closed connection.
    chunk = b" " * 4096
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(b"POST /predict_ready HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(spec.max_request_bytes // 4096 + 1):
            client.sendall(b"1000\r\n" + chunk + b"\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 413")


def send(server: Any, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        given = {"content-type": "application/json"} | (headers or {})
        connection.request("POST", "/predict_ready", body, given, encode_chunked=not isinstance(body, bytes))
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"null")
    finally:
        connection.close()


def test_a_request_keeps_its_name(server: Any) -> None:
    body = json.dumps(READY).encode()
    assert send(server, body, {"X-Request-Id": "order-7"})[1]["request_id"] == "order-7"
    made = send(server, body, {"X-Request-Id": "x" * 65})[1]["request_id"]
    assert len(made) == 32
    assert made != server.post("/predict_ready", READY)[1]["request_id"]


def test_32_requests_at_once_get_their_own_answers(server: Any, served: Any, spec: Any, now: Any) -> None:
    rows, _ = golden_rows(served)
    encoding = read_encoding(served.bundle)
    columns = {name: [row[name] for row in rows] for name in encoding.names}
    expected = load_predictor(served.bundle).predict(encoding.encode(columns, len(rows)))
    start = threading.Barrier(32)
    wrong: list[str] = []

    def work(n: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        start.wait()
        for k in range(n, len(rows), 32):
            for route, content, wanted in (
                ("/predict_ready", rows[k], float(expected[k])),
                ("/predict", KEYS | {"as_of": now.isoformat()}, online),
            ):
                connection.request("POST", route, json.dumps(content), {"content-type": "application/json"})
                response = connection.getresponse()
                answer = json.loads(response.read())
                if response.status != 200 or answer["prediction"] != wanted:
                    wrong.append(f"{route} {k}: {answer}")
        connection.close()

    online = ask(server, now)[1]["prediction"]
    threads = [threading.Thread(target=work, args=(n,)) for n in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def get(server: Any, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_metrics_name_the_model_and_count_features(server: Any, spec: Any, now: Any) -> None:
    def value(name: str) -> float:
        lines = [line for line in get(server, "/metrics")[1].splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    before = value("driftline_prediction_count"), value('driftline_feature_stale_total{feature="origin_late"}')
    ask(server, now, origin="JFK")
    assert value("driftline_prediction_count") == before[0] + 1
    assert value('driftline_feature_stale_total{feature="origin_late"}') == before[1] + 1
    text = get(server, "/metrics")[1]
    assert spec.model in next(line for line in text.splitlines() if line.startswith("driftline_model_info{"))
    assert 'endpoint="/predict"' in text


def test_the_schema_has_the_real_fields(server: Any) -> None:
    status, text = get(server, "/docs.json")
    assert status == 200
    schemas = json.loads(text)["components"]["schemas"]
    assert set(schemas["OnlineRequestIODescriptor"]["properties"]) == {*KEYS, "as_of"}
    assert set(schemas["ReadyRowIODescriptor"]["properties"]) == set(READY)
    assert get(server, "/readyz")[0] == get(server, "/livez")[0] == 200


def test_only_the_local_address_listens(server: Any) -> None:
    hexadecimal = f"{server.port:04X}"
    listening = [
        line.split()[1]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{hexadecimal}")
    ]
    assert listening == [f"0100007F:{hexadecimal}"]
