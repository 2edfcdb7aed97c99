"""A real Bento and a real controller, scraped by a real Prometheus with our rules: are the series there?"""

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.metric_registry import registry

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "charts/observability/rules").glob("*.yaml"))
DASHBOARDS = sorted((ROOT / "charts/observability/dashboards").glob("*.json"))
SCRAPED = {"__name__", "job", "instance"}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(30)


class Prometheus:
    """Prometheus' HTTP API."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}/api/v1"

    def ask(self, path: str, **parameters: str) -> Any:
        address = f"{self._base}/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310 - our own server
            return json.load(answer)["data"]

    def value(self, query: str) -> float | None:
        result = self.ask("query", query=query)["result"]
        return float(result[0]["value"][1]) if result else None

    def series(self, job: str) -> dict[str, set[str]]:
        """Return the labels of each series of a job, those of scraping left out."""
        found: dict[str, set[str]] = {}
        for labels in self.ask("series", **{"match[]": f'{{job="{job}"}}'}):
            found.setdefault(labels["__name__"], set()).update(set(labels) - SCRAPED)
        return found


def until(met: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if result := met():
                return result
        time.sleep(0.3)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Boot the small model of the serving tests: EWR is fresh online, JFK stale, nothing else is there."""
    from components.core.bundle import read_card
    from components.core.training_set import read_manifest
    from components.package.bento import build_bento, write_context
    from components.package.description import describe
    from components.package.server import booted

    path = ROOT / "tests/unit/serve/served_model.py"
    found = importlib.util.spec_from_file_location("driftline_observed_model", path)
    assert found is not None
    assert found.loader is not None
    model = importlib.util.module_from_spec(found)
    sys.modules[found.name] = model
    found.loader.exec_module(model)
    folder = tmp_path_factory.mktemp("observed")
    served = model.make_served(folder)
    rows = read_manifest(served.training_set)
    spec = describe(model.PROBLEM, served.config, read_card(served.bundle), rows, served.bundle)
    context = folder / "context"
    context.mkdir()
    write_context(context, spec=spec, bundle=served.bundle, training_set=served.training_set)
    build_bento(context, spec, folder / "bento.tar")
    store = model.open_store(served.root)
    import pandas as pd

    for origin, hours in (("EWR", 1), ("JFK", 7)):
        values = {"origin": origin, "origin_late": 0.5, "origin_kind": "big"}
        row = values | {"event_timestamp": model.NOW - timedelta(hours=hours)}
        store.write_to_online_store("origin_stats", df=pd.DataFrame({name: [value] for name, value in row.items()}))
    url = f"sqlite:///{served.root}/online.db"
    with booted(folder / "bento.tar", spec.tag, online_store_url=url, inference_log=folder / "log") as server:
        server.spec, server.now = spec, model.NOW
        yield server


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run `driftline controller` on a ledger in which one run succeeded, one was refused and one failed."""
    from components.core.ledger.engine import migrate, open_ledger
    from components.core.ledger.runs import claim_run, finish_run

    home = tmp_path_factory.mktemp("home")
    url = f"sqlite:///{home}/ledger.db"
    migrate(url)
    ledger = open_ledger(url)
    for run, state, step in (("a", "succeeded", ""), ("b", "refused", "package"), ("c", "failed", "train")):
        claim_run(ledger, run, run, "training", "rides")
        finish_run(ledger, run, state, failed_step=step, reason="as told")
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DRIFTLINE_", "KUBE"))}
    environment |= {"DRIFTLINE_HOME": str(home), "DRIFTLINE_LEDGER_URL": url, "HOME": str(home)}
    command = [str(Path(sys.executable).with_name("driftline")), "controller", "--port", str(port), "--seconds", "1"]
    with running(command, environment, home / "controller.log"):
        yield port


@pytest.fixture(scope="module")
def prometheus(bento: Any, controller: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    program = shutil.which("prometheus")
    if program is None:
        if "promtool" in os.environ.get("DRIFTLINE_REQUIRE", "").split(","):
            pytest.fail("needs prometheus; DRIFTLINE_REQUIRE names promtool, which comes with it")
        pytest.skip("needs prometheus (Debian's package prometheus)")
    folder = tmp_path_factory.mktemp("prometheus")
    jobs = {"serving": bento.port, "controller": controller}
    (folder / "prometheus.yml").write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(path) for path in RULES],
                "scrape_configs": [
                    {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
                    for job, port in jobs.items()
                ],
            }
        )
    )
    port = free_port()
    command = [
        program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    with running(command, dict(os.environ), folder / "prometheus.log"):
        server = Prometheus(port)
        until(lambda: server.value('sum(up{job=~"serving|controller"})') == 2, "both are scraped")
        ready = {"carrier": "AA", "origin": "EWR", "badge": 7, "distance": 700.0}
        deadline = time.monotonic() + 12
        while time.monotonic() < deadline:
            for origin in ("EWR", "JFK", "LGA"):
                asked = ready | {"origin": origin, "as_of": bento.now.isoformat()}
                status, answer = bento.post("/predict", asked)
                assert status == 200, answer
            assert bento.post("/predict", {"origin": "EWR"})[0] == 400
            time.sleep(0.2)
        yield server


def test_every_metric_of_serving_is_there_with_its_labels(prometheus: Prometheus) -> None:
    found = prometheus.series("serving")
    for metric in registry().exported_by("serving"):
        for name in metric.series:
            assert name in found, f"{name} is not exported"
            # Of an upstream metric the registry names those labels that may be used.
            assert found[name] >= set(metric.labels), name
            assert not metric.is_own or found[name] - {"le"} == set(metric.labels), name
    known = registry().by_series()
    assert [name for name in found if name.startswith(("driftline_", "bentoml_")) and name not in known] == []


def test_the_controller_exports_what_is_registered_and_nothing_else(prometheus: Prometheus) -> None:
    found = {n: labels for n, labels in prometheus.series("controller").items() if n.startswith("driftline_")}
    known = registry().by_series()
    for name, labels in found.items():
        assert name in known, name
        assert labels - {"le"} == set(known[name].labels), name
    missing = [m.name for m in registry().exported_by("controller") if not m.absent and not set(m.series) & set(found)]
    assert missing == []
    assert prometheus.value("driftline_controller_leader") == 1
    for outcome, count in (("succeeded", 1), ("refused", 1), ("failed", 1), ("superseded", 0)):
        query = f'driftline_pipeline_runs_total{{use_case="rides",pipeline="training",outcome="{outcome}"}}'
        assert prometheus.value(query) == count


def test_every_rule_is_evaluated_without_an_error(prometheus: Prometheus) -> None:
    groups = prometheus.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 50
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []


def test_recorded_series_tell_versions_apart(prometheus: Prometheus, bento: Any) -> None:
    version = bento.spec.tag.partition(":")[2]
    name = "service_version:bentoml_service_request:rate5m"
    [result] = prometheus.ask("query", query=name)["result"]
    assert result["metric"] == {
        "__name__": name,
        "service_name": bento.spec.tag.partition(":")[0],
        "service_version": version,
    }
    assert float(result["value"][1]) > 0
    assert prometheus.value("service:bentoml_service_request_errors:ratio_rate5m") == 0
    own = f'{{use_case="{bento.spec.use_case}",version="{bento.spec.version}"}}'
    assert prometheus.value(f"use_case_version:driftline_prediction:rate5m{own}") > 0
    assert 0 < prometheus.value("use_case:driftline_online_read_duration_seconds:p99_rate15m") < 1


def test_one_lookup_in_three_is_stale_and_one_missing(prometheus: Prometheus) -> None:
    stale = prometheus.value('use_case_feature:driftline_feature_stale:ratio_rate15m{feature="origin_late"}')
    missing = prometheus.value('use_case_feature:driftline_feature_missing:ratio_rate15m{feature="origin_late"}')
    assert stale == pytest.approx(1 / 3, abs=0.1)
    assert missing == pytest.approx(1 / 3, abs=0.1)


def test_alerts_wait_for_what_is_wrong_here_and_for_nothing_else(prometheus: Prometheus) -> None:
    waiting = {alert["labels"]["alertname"] for alert in prometheus.ask("alerts")["alerts"]}
    assert waiting == {"PipelineFailing", "FeatureStale", "FeatureMissing", "ModelUnsigned"}


@pytest.mark.parametrize(
    ("board", "answered"), [("serving", 14), ("features", 5), ("drift", 3), ("pipelines", 4), ("overview", 6)]
)
def test_dashboards_can_be_drawn(prometheus: Prometheus, board: str, answered: int) -> None:
    """Each query is one that Prometheus answers, and those about what runs here have something to show."""
    [path] = [path for path in DASHBOARDS if path.stem == board]
    content = json.loads(path.read_text())
    notes = [note["expr"] for note in content["annotations"]["list"]]
    drawn = {}
    for panel in content["panels"]:
        for target in panel["targets"]:
            query = target["expr"].replace("$use_case", ".*").replace("$__rate_interval", "10s")
            drawn.setdefault(panel["title"], []).extend(prometheus.ask("query", query=query)["result"])
    for query in notes:
        prometheus.ask("query", query=query.replace("$use_case", ".*"))
    shown = [title for title, result in drawn.items() if result]
    assert len(shown) >= answered, f"{shown} of {list(drawn)}"
