"""A real cluster: the stores that pods use, the ConfigMap and the Secret that name them, and nothing left behind.

Read from the environment: KFP_HOST (the Pipelines API; test servers listen on that host's address, so pods must reach
it), KFP_NAMESPACE, KFP_S3_ENDPOINT, KFP_S3_ACCESS_KEY, KFP_S3_SECRET_KEY, KUBECONFIG, and DRIFTLINE_IMAGES, the
`images.json` of `make images`. Without KFP_HOST every test here is skipped. Where the API server's MLflow plugin is on,
KFP_MLFLOW_URI is the address that it is set to: the tests' own MLflow server listens there.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from components.core.kfp_api import KfpApi
from components.core.ledger.engine import migrate, open_ledger
from components.core.ledger.runs import list_runs
from components.core.settings import Settings, load_settings

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
NAME = "driftline"
"""Of the ConfigMap and of the Secret; every step of every pipeline reads these two."""
START_SECONDS = 120


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("KFP_HOST"):
        return
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="needs a cluster: set KFP_HOST (docs/cluster.md)"))


@pytest.fixture(scope="session")
def namespace() -> str:
    return os.environ["KFP_NAMESPACE"]


@pytest.fixture(scope="session")
def kubernetes_api() -> Any:
    """Return the client for pods, ConfigMaps and Secrets."""
    from kubernetes import client, config

    config.load_kube_config()
    return client.CoreV1Api()


class Proxy:
    """A way to a server that can be closed: connections are cut and refused then."""

    def __init__(self, address: str, target: tuple[str, int]) -> None:
        self._target = target
        self._sockets: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.place = (address, 0)
        self.open()

    def open(self) -> None:
        self._listener = socket.create_server(self.place)
        self.place = self._listener.getsockname()
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def close(self) -> None:
        for each in [self._listener, *self._sockets]:
            if each is not None:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
        self._sockets.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                inner, _ = listener.accept()
                outer = socket.create_connection(self._target)
                self._sockets |= {inner, outer}
                for ends in ((inner, outer), (outer, inner)):
                    threading.Thread(target=self._copy, args=ends, daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="session")
def object_store_proxy(server_address: str) -> Iterator[Proxy]:
    """Yield the way by which our steps reach the object store; KFP itself goes directly."""
    store = urlsplit(os.environ["KFP_S3_ENDPOINT"])
    assert store.hostname
    proxy = Proxy(server_address, (store.hostname, store.port or 80))
    yield proxy
    proxy.close()


@pytest.fixture(scope="session")
def bucket(object_store_proxy: Proxy) -> Iterator[str]:
    """Yield an `s3://` URL of an own, empty bucket; it is emptied and removed at the end. Sets the AWS variables."""
    import boto3

    aws = {
        "AWS_ENDPOINT_URL": "http://{}:{}".format(*object_store_proxy.place),
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": os.environ["KFP_S3_ACCESS_KEY"],
        "AWS_SECRET_ACCESS_KEY": os.environ["KFP_S3_SECRET_KEY"],
    }
    name = f"driftline-{uuid.uuid4().hex[:8]}"
    with pytest.MonkeyPatch.context() as environment:
        for key, value in aws.items():
            environment.setenv(key, value)
        store = boto3.resource("s3").create_bucket(Bucket=name)
        yield f"s3://{name}"
        store.objects.all().delete()
        store.delete()


@pytest.fixture(scope="session")
def mlflow_url(
    server_address: str, postgres_server: str, bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Start an MLflow server on PostgreSQL and S3 and yield its address."""
    database = _create_database(postgres_server, "mlflow")
    log = tmp_path_factory.mktemp("mlflow") / "server.log"
    url = os.environ.get("KFP_MLFLOW_URI") or f"http://{server_address}:{_free_port(server_address)}"
    port = urlsplit(url).port
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database]
    command += ["--artifacts-destination", f"{bucket}/mlflow", "--host", server_address, "--port", str(port)]
    command += ["--workers", "1", "--allowed-hosts", "*"]
    with log.open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        _wait_for(lambda: _answers(f"{url}/health"), server, log)
        yield url
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="session")
def cluster(
    namespace: str,
    kubernetes_api: Any,
    bucket: str,
    mlflow_url: str,
    postgres_server: str,
    redis_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Settings]:
    """Yield the settings of a person at a terminal whose pipelines run on the cluster; pods get the same addresses."""
    addresses = {
        "MLFLOW_TRACKING_URI": mlflow_url,
        "DRIFTLINE_OBJECT_STORE_URL": f"{bucket}/driftline",
        "DRIFTLINE_KFP_HOST": os.environ["KFP_HOST"],
    }
    credentials = {
        "DRIFTLINE_LEDGER_URL": _create_database(postgres_server, "ledger"),
        "DRIFTLINE_FEATURE_REGISTRY_URL": _create_database(postgres_server, "feast"),
        "DRIFTLINE_ONLINE_STORE_URL": redis_server,
    }
    storage = {name: os.environ[name] for name in ("AWS_ENDPOINT_URL", "AWS_REGION")}
    keys = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    home = {
        "DRIFTLINE_HOME": str(tmp_path_factory.mktemp("home")),
        "DRIFTLINE_FEATURE_REPO": str(REPOSITORY / "feature_repo"),
    }
    with pytest.MonkeyPatch.context() as environment:
        for key, value in {**addresses, **credentials, **home}.items():
            environment.setenv(key, value)
        migrate(credentials["DRIFTLINE_LEDGER_URL"])
        metadata = {"name": NAME, "labels": {"driftline.dev/made-by": "tests"}}
        kubernetes_api.create_namespaced_config_map(namespace, {"metadata": metadata, "data": addresses | storage})
        try:
            kubernetes_api.create_namespaced_secret(namespace, {"metadata": metadata, "stringData": credentials | keys})
            settings = load_settings()
            with _nothing_left_behind(KfpApi(settings)):
                yield settings
                # What another person's experiment of this name holds stays.
                for run in list_runs(open_ledger(settings.ledger_url), limit=1000):
                    KfpApi(settings).runs.run_service_delete_run(run.id)
        finally:
            kubernetes_api.delete_namespaced_config_map(NAME, namespace)
            kubernetes_api.delete_namespaced_secret(NAME, namespace)


@pytest.fixture(scope="session")
def images() -> Path:
    """Return the file that names the images by digest."""
    path = Path(os.environ.get("DRIFTLINE_IMAGES") or REPOSITORY / "images.json")
    if not path.is_file():
        pytest.fail(f"{path} is missing: run `make images REGISTRY=…`, or set DRIFTLINE_IMAGES")
    return path


@pytest.fixture(scope="session")
def driftline(
    cluster: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Return the command line, run as a process of its own from another folder."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    program = shutil.which("driftline", path=str(Path(sys.executable).parent))
    assert program

    def call(*arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, cwd=elsewhere)
        if check and done.returncode:
            pytest.fail(f"driftline {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    return call


@contextlib.contextmanager
def _nothing_left_behind(api: KfpApi) -> Iterator[None]:
    """Delete the experiments, with their runs, and the pipelines that were made meanwhile."""
    experiments, pipelines = set(_ids(api, "experiments")), set(_ids(api, "pipelines"))
    try:
        yield
    finally:
        for experiment in set(_ids(api, "experiments")) - experiments:
            runs = api.runs.run_service_list_runs(experiment_id=experiment, page_size=200).runs or []
            for run in runs:
                api.runs.run_service_delete_run(run.run_id)
            api.experiments.experiment_service_delete_experiment(experiment)
        for pipeline in set(_ids(api, "pipelines")) - pipelines:
            versions = api.pipelines.pipeline_service_list_pipeline_versions(pipeline, page_size=200)
            for version in versions.pipeline_versions or []:
                api.pipelines.pipeline_service_delete_pipeline_version(pipeline, version.pipeline_version_id)
            api.pipelines.pipeline_service_delete_pipeline(pipeline)


def _ids(api: KfpApi, kind: str) -> list[str]:
    if kind == "experiments":
        found = api.experiments.experiment_service_list_experiments(page_size=200).experiments or []
        return [experiment.experiment_id for experiment in found]
    found = api.pipelines.pipeline_service_list_pipelines(page_size=200).pipelines or []
    return [pipeline.pipeline_id for pipeline in found]


def _create_database(server: str, name: str) -> str:
    import psycopg

    with psycopg.connect(f"{server}/postgres".replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"{server}/{name}"


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _wait_for(is_ready: Callable[[], bool], server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        if server.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"a server did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)
