"""Two booted Bentos, one in the other's shadow: same ids, same instants, own logs; killed, nobody notices."""

import contextlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from components.core.bundle import GOLDEN, ONNX, read_card
from components.core.inference_log import read_predictions
from components.core.training_set import ROWS, read_manifest
from components.package.server import booted
from components.serve.shadow_report import compare

KEYS = {"carrier": "AA", "origin": "EWR", "badge": 7, "distance": 500.0}
FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


@pytest.fixture(scope="module")
def challenger(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return archive and description of a Bento of the same use case with other weights."""
    from components.core.bundle import model_digest, write_card
    from components.package.bento import build_bento, write_context
    from components.package.description import describe
    from components.train.profiling import write_reference

    served = model.make_served(tmp_path_factory.mktemp("challenger"))
    rows, card = read_manifest(served.training_set), read_card(served.bundle)
    model.write_graph(served.bundle / ONNX, (model.WEIGHTS * 0.5).astype(np.float32))
    card = card.model_copy(update={"version": 4, "model": model_digest(served.bundle)})
    write_card(served.bundle, card)
    table = pq.read_table(served.training_set / ROWS)
    newest = np.arange(table.num_rows - 100, table.num_rows)
    write_reference(served.bundle, table, rows.inputs, use_case="rides", unseen=newest, importance=[])
    spec = describe(model.PROBLEM, served.config, card, rows, served.bundle)
    folder = tmp_path_factory.mktemp("challenger-archive")
    (folder / "context").mkdir()
    write_context(folder / "context", spec=spec, bundle=served.bundle, training_set=served.training_set)
    build_bento(folder / "context", spec, folder / "bento.tar")
    return folder / "bento.tar", spec


def counted(server: Any) -> dict[str, float]:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    name = "driftline_shadow_requests_total{"
    return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)}


@pytest.mark.slow
def test_a_shadow_answers_the_same_requests_and_its_death_is_nobodys_concern(
    archive: Path, served: Any, spec: Any, server: Any, challenger: Any, tmp_path: Path, now: datetime
) -> None:
    golden = pq.read_table(served.bundle / GOLDEN).drop_columns(["prediction"]).to_pylist()[:30]
    other, other_spec = challenger
    assert other_spec.tag.partition(":")[2] != spec.tag.partition(":")[2], "service_version must tell them apart"
    store = f"sqlite:///{served.root}/online.db"
    logs = {name: tmp_path / name for name in ("predictions", "shadow")}
    with contextlib.ExitStack() as stack:
        shadow = stack.enter_context(
            booted(other, other_spec.tag, online_store_url=store, inference_log=logs["shadow"])
        )
        main = stack.enter_context(
            booted(
                archive,
                spec.tag,
                online_store_url=store,
                inference_log=logs["predictions"],
                shadow_url=f"http://127.0.0.1:{shadow.port}",
            )
        )
        answers = [main.post("/predict", KEYS | {"as_of": now.isoformat()}) for _ in range(20)]
        answers += [main.post("/predict", KEYS) for _ in range(20)]
        answers += [main.post("/predict_ready", row) for row in golden]
        answers += [main.post("/predict_batch", {"rows": golden})]
        assert main.post("/predict", {"carrier": 3})[0] == 400
        assert {status for status, _ in answers} == {200}
        # What is returned is the served model's, never the shadow's.
        assert {answer["model"] for _, answer in answers} == {spec.model}
        deadline = time.monotonic() + 20
        while counted(main)["answered"] < len(answers) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert counted(main) == {"answered": len(answers), "refused": 0, "failed": 0, "dropped": 0}
        for process in psutil.Process(shadow.guard).children(recursive=True):
            process.suspend()
        waits = []
        for _ in range(50):
            started = time.perf_counter()
            assert main.post("/predict_ready", golden[0])[0] == 200
            waits.append(time.perf_counter() - started)
        for process in psutil.Process(shadow.guard).children(recursive=True):
            process.resume()
        # A shadow that hangs takes two seconds per copy; no answer waited for one.
        assert max(waits) < 1.0
    one, copied = (read_predictions(root, "rides", FIRST, LAST) for root in logs.values())
    first = {(row["request_id"], row["row"]): row for row in one.to_pylist()}
    for row in copied.to_pylist():
        original = first[row["request_id"], row["row"]]
        assert (row["model_version"], original["model_version"]) == (4, 3)
        assert (row["as_of"] == original["as_of"]) or row["route"] != "predict"
        assert {k: v for k, v in row.items() if k.startswith(("key_", "input_"))} == {
            k: v for k, v in original.items() if k.startswith(("key_", "input_"))
        }
    report = compare(one, copied, threshold=0.5)
    assert report.matched_rows >= 70 + len(golden)
    assert report.max_absolute_difference > 0
    assert (report.served_versions, report.shadow_versions) == ([3], [4])
