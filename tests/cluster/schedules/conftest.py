"""Schedules on a real KFP: a use case of its own, two tiny pipeline versions, and a proxy that breaks one request."""

import http.client
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
import yaml

from components.core.errors import NotOnCluster
from components.core.kfp_api import KfpApi
from components.core.kfp_runs import find_experiment, find_pipeline
from components.core.settings import Settings, embedded_settings, load_settings
from pipelines.cluster.upload import publish_version
from pipelines.compile import canonical_ir
from pipelines.image_lock import read_image_lock
from pipelines.schedules.apply import apply_changes
from pipelines.schedules.compare import compare
from pipelines.schedules.model import Existing
from pipelines.schedules.server import delete_recurring_run, list_recurring_runs

REPOSITORY = Path(__file__).parents[3]
LOCK_SECONDS = 3.0

Fault = Literal["none", "refuse", "cut before", "cut after", "stop before", "stop after", "late"]
"""refuse: 503, not passed on. cut: the connection ends before or after the request took effect. stop: `stop` is called
before or after it took effect, the answer never comes. late: answered after the client has given up."""


class FaultProxy:
    """Passes requests on; the `at`-th that is counted (from 1) meets a fault, and with `lasting` all that follow."""

    def __init__(self, host: str, url: str) -> None:
        self.upstream = urlsplit(url)
        self.server = ThreadingHTTPServer((host, 0), self._handler())
        self.url = f"http://{host}:{self.server.server_address[1]}"
        self.after: Callable[[], None] = lambda: None
        self.stop: Callable[[], None] = lambda: None
        self.arm("none", 0)

    def arm(
        self, fault: Fault, at: int, *, lasting: bool = False, counted: tuple[str, ...] = ("POST", "DELETE")
    ) -> None:
        """Choose which request meets which fault, and count anew."""
        self.fault, self.at, self.lasting, self.counted = fault, at, lasting, counted
        self.seen: list[str] = []

    def _met(self, method: str, path: str) -> Fault:
        if method not in self.counted:
            return "none"
        self.seen.append(f"{method} {path.partition('?')[0].rpartition('/v2beta1/')[2]}")
        hit = len(self.seen) == self.at or (self.lasting and len(self.seen) > self.at > 0)
        return self.fault if hit else "none"

    def _pass_on(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection(self.upstream.hostname or "", self.upstream.port, timeout=60)
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                fault = proxy._met(self.command, self.path)
                if fault == "refuse":
                    return self._answer(503, [("content-type", "application/json")], b'{"message": "out of order"}')
                if fault == "stop before":
                    proxy.stop()
                if fault in ("cut before", "stop before"):
                    return self._cut()
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                status, answered, content = proxy._pass_on(self.command, self.path, headers, body)
                if self.command in proxy.counted:
                    proxy.after()
                if fault == "stop after":
                    proxy.stop()
                if fault in ("cut after", "stop after"):
                    return self._cut()
                if fault == "late":
                    time.sleep(22)
                return self._answer(status, answered, content)

            def _answer(self, status: int, headers: Any, content: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _cut(self) -> None:
                self.close_connection = True
                self.connection.close()

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (OSError, ValueError):
                    self.close_connection = True

        return Handler


def tiny_pipeline(name: str, image: str, text: str) -> str:
    """Compile a pipeline of one step that says something; its image is on the node already."""
    from kfp import dsl

    @dsl.container_component  # type: ignore[untyped-decorator]
    def say(words: str) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image=image, command=["python", "-c", f"print({text!r})"], args=[words])

    @dsl.pipeline(name=name)  # type: ignore[untyped-decorator]
    def pipeline(as_of: str = "") -> None:
        say(words=as_of).set_caching_options(False)

    return canonical_ir(pipeline)


class Workspace:
    """One schedule's world: its files, its versions on the server, and what the server has of it."""

    def __init__(self, settings: Settings, folder: Path, use_case: str, versions: list[str]) -> None:
        self.settings, self.folder, self.use_case, self.versions = settings, folder, use_case, versions
        self.api = KfpApi(settings)
        self.name = f"{use_case.replace('_', '-')}-scoring"

    def declare(self, name: str = "", **changes: Any) -> None:
        """Write a schedule that does not fire before New Year."""
        name = name or self.name
        least = {"name": name, "use_case": self.use_case, "pipeline": "scoring", "cron": "@yearly"}
        content = least | {"version": self.versions[0]} | changes
        path = self.folder / self.use_case / "schedules" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content))

    def elsewhere(self, folder: Path) -> "Workspace":
        """Return this workspace as another checkout has it: with files of its own."""
        return Workspace(self.settings, folder, self.use_case, self.versions)

    def undeclare(self, name: str) -> None:
        (self.folder / self.use_case / "schedules" / f"{name}.yaml").unlink()

    def apply(
        self, url: str = "", *, prune: bool = False, seconds: float = LOCK_SECONDS, images: Path = Path("none")
    ) -> list[str]:
        """Compare and carry out, through a proxy where one is named; return the actions."""
        api = KfpApi(self.settings.model_copy(update={"kfp_host": url})) if url else self.api
        # Other schedules of the server are none of this test's: only its own are pruned.
        resolved, changes = compare(api.settings, api, self.folder, images=images, prune=prune)
        own = [change for change in changes if change.name.startswith(self.name)]
        apply_changes(api, own, resolved, notify=lambda _: None, lock_seconds=seconds)
        return [change.action for change in own]

    def actions(self, *, prune: bool = False) -> list[str]:
        _, changes = compare(self.settings, self.api, self.folder, images=Path("none"), prune=prune)
        return [change.action for change in changes if change.name.startswith(self.name)]

    def existing(self) -> list[Existing]:
        return [found for found in list_recurring_runs(self.api) if found.name.startswith(self.name)]

    def enabled(self) -> int:
        return sum(found.enabled for found in self.existing())

    def scheduled_workflows(self) -> int:
        """Count the Kubernetes objects behind the recurring runs, which is what fires."""
        from kubernetes import client, config

        config.load_kube_config()
        objects = client.CustomObjectsApi().list_namespaced_custom_object(
            "kubeflow.org", "v1beta1", os.environ["KFP_NAMESPACE"], "scheduledworkflows"
        )
        ids = {found.id for found in self.existing()}
        return sum(item["metadata"]["uid"] in ids and item["spec"].get("enabled", False) for item in objects["items"])

    def clear(self) -> None:
        """Delete the recurring runs and the files."""
        for found in self.existing():
            delete_recurring_run(self.api, found.id)
        shutil.rmtree(self.folder / self.use_case, ignore_errors=True)


def _own_stores(home: Path, repo: Path) -> dict[str, Any]:
    """Return the stores of a home of its own: compiling applies the feature definitions there."""
    return embedded_settings(home, repo).model_dump(include={"home", "feature_registry_url", "online_store_url"})


@pytest.fixture(scope="module")
def server_side(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Publish the two versions once; delete them, and what the tests started, at the end."""
    use_case = f"e_{uuid.uuid4().hex[:6]}"
    repo = tmp_path_factory.mktemp("repo")
    shutil.copy(REPOSITORY / "feature_repo/feature_store.yaml", repo)
    shutil.copytree(REPOSITORY / "feature_repo/wind", repo / use_case)
    file = repo / use_case / "use_case.yaml"
    file.write_text(file.read_text().replace("name: wind", f"name: {use_case}", 1))
    settings = load_settings().model_copy(
        update={"kfp_host": os.environ["KFP_HOST"], "kfp_namespace": "", "kfp_token": None, "feature_repo": repo}
    )
    settings = settings.model_copy(update=_own_stores(tmp_path_factory.mktemp("home"), repo))
    api = KfpApi(settings)
    pipeline = f"{use_case.replace('_', '-')}-scoring"
    image = read_image_lock(images)["cpu"]
    published = [publish_version(api, tiny_pipeline(pipeline, image, text)) for text in ("one", "two")]
    workspace = Workspace(settings, tmp_path_factory.mktemp("declared"), use_case, [v.name for v in published])
    yield workspace
    workspace.clear()
    if found := find_pipeline(api, pipeline):
        listed = api.call("list versions", api.pipelines.pipeline_service_list_pipeline_versions, found)
        for version in listed.pipeline_versions or []:
            delete = api.pipelines.pipeline_service_delete_pipeline_version
            api.call("delete version", delete, found, version.pipeline_version_id)
        api.call("delete pipeline", api.pipelines.pipeline_service_delete_pipeline, found)
    if experiment := find_experiment(api, use_case):
        runs = api.call("list runs", api.runs.run_service_list_runs, experiment_id=experiment).runs or []
        for run in runs:
            api.call("delete run", api.runs.run_service_delete_run, run.run_id)
        with suppress(NotOnCluster):
            api.call("delete experiment", api.experiments.experiment_service_delete_experiment, experiment)


@pytest.fixture
def workspace(server_side: Workspace) -> Iterator[Workspace]:
    """Yield the workspace without schedules and leave it so."""
    yield server_side
    server_side.clear()


@pytest.fixture
def proxy(server_side: Workspace) -> Iterator[FaultProxy]:
    """Yield a proxy on a free port of this machine."""
    found = FaultProxy("127.0.0.1", server_side.settings.kfp_host)
    threading.Thread(target=found.server.serve_forever, daemon=True).start()
    yield found
    found.server.shutdown()
    found.server.server_close()
