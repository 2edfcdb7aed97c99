"""A real Argo CD, Argo Rollouts and Prometheus: a repository that they follow, two trained models, and callers.

Read from the environment besides what tests/cluster/conftest.py reads: GITOPS_ROOT, a folder of bare repositories, and
GITOPS_URL, the address under which the cluster and this machine reach them; GITOPS_PROMETHEUS, the address by which
Argo Rollouts asks Prometheus, which scrapes annotated pods. Without GITOPS_ROOT every test here is skipped.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml

from components.core.champion import require_champion
from components.core.ledger.engine import migrate
from components.core.release import Release, parse_release, release_path
from components.core.settings import Settings, load_settings
from pipelines.catalog import read_case
from pipelines.example import example_request

log = logging.getLogger(__name__)
logging.getLogger("httpx").setLevel(logging.WARNING)
HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]
USE_CASE, NAMESPACE = "flights", "ml-flights"
GIT_IDENTITY = ("-c", "user.name=tests", "-c", "user.email=tests@localhost", "-c", "commit.gpgsign=false")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("GITOPS_ROOT"):
        return
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="needs Argo CD: set GITOPS_ROOT (docs/operator.md)"))


def kubectl(*arguments: str, text: str = "", check: bool = True) -> str:
    """Return what kubectl prints."""
    done = subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=False)
    if check and done.returncode:
        pytest.fail(f"kubectl {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def wait_until(seconds: float, what: str, holds: Callable[[], bool]) -> float:
    """Wait until something holds and return the seconds that it took."""
    begin = time.monotonic()
    while not holds():
        if time.monotonic() - begin > seconds:
            pytest.fail(f"not within {seconds} s: {what}")
        time.sleep(0.5)
    took = time.monotonic() - begin
    log.info("%6.1f s  %s", took, what)
    return took


class Clone:
    """A clone of the repository that the cluster follows."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *GIT_IDENTITY, *arguments], cwd=self.folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.fail(f"git {' '.join(arguments)}: {done.stderr}")
        return done.stdout.strip()

    def pull(self) -> str:
        self.git("pull", "-q", "--ff-only", "origin", "main")
        return self.head()

    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    def push(self, message: str) -> str:
        """Commit everything, push it, and return the commit."""
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        self.git("push", "-q", "origin", "HEAD:main")
        return self.head()


@pytest.fixture(scope="session", name="kubectl")
def _kubectl() -> Callable[..., str]:
    return kubectl


@pytest.fixture(scope="session", name="wait_until")
def _wait_until() -> Callable[[float, str, Callable[[], bool]], float]:
    return wait_until


@pytest.fixture(scope="session")
def callers() -> "type[Callers]":
    """Return what asks a service without pause."""
    return Callers


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """Yield a clone of a bare repository with our charts and infrastructure, as an operator would fork them."""
    name = f"driftline-test-{uuid.uuid4().hex[:8]}.git"
    bare = Path(os.environ["GITOPS_ROOT"]) / name
    url = f"{os.environ['GITOPS_URL']}/{name}"
    folder = tmp_path_factory.mktemp("infrastructure")
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)], check=True)
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    clone = Clone(url, folder)
    try:
        for tree in ("charts", "infra"):
            shutil.copytree(
                REPOSITORY / tree, folder / tree, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        cluster = folder / "infra" / "clusters" / "local" / "cluster.yaml"
        document = yaml.safe_load(cluster.read_text())
        document["spec"] |= {"repository": url, "revision": "main", "pollSeconds": 5}
        cluster.write_text(yaml.safe_dump(document))
        clone.git("remote", "add", "origin", url)
        clone.push("The platform")
        yield clone
    finally:
        shutil.rmtree(bare, ignore_errors=True)


@pytest.fixture(scope="session")
def namespace() -> Iterator[str]:
    """Yield the namespace of the served model, made as the platform makes it."""
    kubectl("apply", "--server-side", "--force-conflicts", "-k", str(REPOSITORY / "infra/policies/use-cases/flights"))
    yield NAMESPACE
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=true", "--timeout=120s")


@pytest.fixture(scope="session")
def signing_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a GPG private key for promotions."""
    key = tmp_path_factory.mktemp("key") / "signing-key"
    # Short: a socket's path has at most 108 bytes.
    with tempfile.TemporaryDirectory(prefix="gpg") as home:
        gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--passphrase", ""]
        owner = "Promotions <promotions@example.com>"
        subprocess.run([*gpg, "--quick-generate-key", owner, "ed25519", "sign", "never"], check=True)
        subprocess.run([*gpg, "--armor", "--output", str(key), "--export-secret-keys"], check=True)
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
    return key


@pytest.fixture(scope="session")
def stores(
    namespace: str,
    bucket: str,
    postgres_server: str,
    redis_server: str,
    kubernetes_api: Any,
    repository: Clone,
    signing_key: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Settings]:
    """Yield settings of a person whose models are served by the cluster; pods are given the same stores."""
    addresses = {"DRIFTLINE_OBJECT_STORE_URL": f"{bucket}/driftline"}
    addresses |= {name: os.environ[name] for name in ("AWS_ENDPOINT_URL", "AWS_REGION")}
    credentials = {"DRIFTLINE_ONLINE_STORE_URL": redis_server}
    keys = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    home = tmp_path_factory.mktemp("home")
    mine = {
        "DRIFTLINE_HOME": str(home),
        "DRIFTLINE_FEATURE_REPO": str(REPOSITORY / "feature_repo"),
        "DRIFTLINE_LEDGER_URL": f"sqlite:///{home}/ledger.db",
        "DRIFTLINE_GIT_URL": repository.url,
        "DRIFTLINE_GIT_ENVIRONMENT": "local",
        "DRIFTLINE_GIT_SIGNING_KEY": str(signing_key),
    }
    with pytest.MonkeyPatch.context() as environment:
        for key, value in {**addresses, **credentials, **mine}.items():
            environment.setenv(key, value)
        migrate(mine["DRIFTLINE_LEDGER_URL"])
        metadata = {"name": "driftline", "labels": {"driftline.dev/made-by": "tests"}}
        kubernetes_api.create_namespaced_config_map(namespace, {"metadata": metadata, "data": addresses})
        kubernetes_api.create_namespaced_secret(namespace, {"metadata": metadata, "stringData": credentials | keys})
        yield load_settings()


@pytest.fixture(scope="session")
def driftline(stores: Settings, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Return the command line, run as a process of its own from another folder; it gives what was printed."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copy(images, elsewhere / "images.json")
    program = shutil.which("driftline", path=str(Path(sys.executable).parent))
    assert program

    def call(*arguments: str) -> str:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, cwd=elsewhere)
        if done.returncode:
            pytest.fail(f"driftline {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    return call


@pytest.fixture(scope="session")
def first_release(stores: Settings, driftline: Callable[..., str], repository: Clone) -> Release:
    """Train and promote a first model and return the release that its promotion committed."""
    driftline("run", "training", "--use-case", USE_CASE)
    repository.pull()
    path = release_path(USE_CASE, "local")
    release = parse_release((repository.folder / path).read_text(), str(path), use_case=USE_CASE)
    assert release.model_version == 1
    assert release.bento.digest == require_champion(stores, USE_CASE).bento_digest
    return release


@pytest.fixture(scope="session")
def question(stores: Settings, first_release: Release) -> dict[str, Any]:
    """Return what callers ask: a flight whose outcome was not known in the newest snapshot."""
    assert first_release
    _, request = example_request(stores, USE_CASE, read_case(stores.feature_repo, USE_CASE).use_case.problem)
    return request


class Traffic(NamedTuple):
    """What callers were answered: how often which status, and which model version."""

    statuses: Counter[str]
    versions: Counter[int]


class Callers:
    """Callers that ask the service the same question again and again, each time over a new connection."""

    def __init__(self, url: str, question: dict[str, Any], *, threads: int = 2, pause_seconds: float = 0.02) -> None:
        self._url, self._question, self._pause = url, question, pause_seconds
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._traffic = Traffic(Counter(), Counter())
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(threads)]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def take(self) -> Traffic:
        """Return what was answered since the last time."""
        with self._lock:
            taken, self._traffic = self._traffic, Traffic(Counter(), Counter())
        return taken

    def _ask(self) -> None:
        body, headers = json.dumps(self._question), {"content-type": "application/json", "connection": "close"}
        while not self._stop.wait(self._pause):
            version = 0
            try:
                answer = httpx.post(f"{self._url}/predict", content=body, headers=headers, timeout=10)
                status = str(answer.status_code)
                if answer.status_code == httpx.codes.OK:
                    version = answer.json()["model_version"]
            except httpx.HTTPError as error:
                status = type(error).__name__
            with self._lock:
                self._traffic.statuses[status] += 1
                if version:
                    self._traffic.versions[version] += 1
