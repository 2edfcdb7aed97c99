"""Real servers and settings for every test.

`redis_url`, `postgres_url` and `object_store` give each test an empty database or bucket of a private server that this
test session starts on a free local port. A part that is not installed skips its tests, saying which package is missing,
unless the environment variable DRIFTLINE_REQUIRE (such as `redis,postgres,s3,torch`) names it: then they fail.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hypothesis
import pytest
import sqlalchemy as sa

from components.core.evidence import Evidence, Window
from components.core.ledger.engine import migrate, open_ledger
from components.core.ledger.proposals import Proposal, decide_once
from components.core.ledger.suppression import Limits
from components.core.settings import QUIET, Settings, embedded_settings

# Continuous integration repeats the same examples; everybody else draws new ones. No time limit gates.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")

REPOSITORY = Path(__file__).parent.parent
INSTALL = {
    "redis": "redis-server (Debian and Ubuntu: apt-get install redis-server)",
    "postgres": "PostgreSQL (Debian and Ubuntu: apt-get install postgresql)",
    "s3": "versitygw, an S3 server (go install github.com/versity/versitygw/cmd/versitygw@v1.7.0)",
    "torch": "torch (pip install 'driftline[torch]')",
}
START_SECONDS = 60

# Before any library is imported: no telemetry from tests.
for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)


def _postgres_binaries() -> Path | None:
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).parent
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    return packaged[-1].parent if packaged else None


def _s3_program() -> str | None:
    installed = (os.environ.get("GOBIN"), Path(os.environ.get("GOPATH") or Path.home() / "go") / "bin")
    return shutil.which("versitygw") or shutil.which("versitygw", path=os.pathsep.join(str(p) for p in installed if p))


def _is_installed(part: str) -> bool:
    if part == "s3":
        return _s3_program() is not None
    if part == "redis":
        return shutil.which("redis-server") is not None
    if part == "postgres":
        return _postgres_binaries() is not None
    return importlib.util.find_spec(part) is not None


def _require(part: str) -> None:
    """Skip the test when a part is not installed; fail it when DRIFTLINE_REQUIRE names the part."""
    if _is_installed(part):
        return
    message = f"needs {INSTALL[part]}"
    if part in os.environ.get("DRIFTLINE_REQUIRE", "").split(","):
        pytest.fail(f"{message}; DRIFTLINE_REQUIRE names {part}")
    pytest.skip(message)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for part in INSTALL:
        if item.get_closest_marker(part):
            _require(part)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _serve(
    command: Callable[[int], list[str]], log: Path, is_ready: Callable[[int, int], bool], **popen: Any
) -> Iterator[int]:
    """Run a server until the end of the block and yield its port.

    Another process may take a free port first, so `is_ready(port, pid)` must know our server; it is tried thrice.
    """
    # A test session that is killed takes its servers with it.
    prefix = ["setpriv", "--pdeathsig", "INT"] if shutil.which("setpriv") else []
    for _attempt in range(3):
        port = _free_port()
        with log.open("w") as output:
            server = subprocess.Popen([*prefix, *command(port)], stdout=output, stderr=output, **popen)
        try:
            deadline = time.monotonic() + START_SECONDS
            while server.poll() is None and time.monotonic() < deadline:
                if is_ready(port, server.pid):
                    yield port
                    return
                time.sleep(0.05)
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    pytest.fail(f"{command(0)[0]} did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def server_address() -> str:
    """Return where test servers listen: loopback, or with KFP_HOST where a cluster's pods reach this machine."""
    return urlsplit(os.environ.get("KFP_HOST", "")).hostname or "127.0.0.1"


@pytest.fixture(scope="session")
def redis_server(server_address: str) -> Iterator[str]:
    """Start a private Redis without persistence and yield its URL."""
    _require("redis")
    import redis

    password = uuid.uuid4().hex

    def is_ready(port: int, pid: int) -> bool:
        try:
            server = redis.Redis(server_address, port, password=password)
            return int(server.info("server")["process_id"]) == pid
        except redis.ConnectionError:
            return False

    with tempfile.TemporaryDirectory(prefix="driftline-redis-") as folder:

        def command(port: int) -> list[str]:
            options = {"port": str(port), "bind": server_address, "save": "", "appendonly": "no", "dir": folder}
            options |= {"requirepass": password}
            return ["redis-server", *(word for name, value in options.items() for word in (f"--{name}", value))]

        with _serve(command, Path(folder) / "server.log", is_ready) as port:
            yield f"redis://:{password}@{server_address}:{port}/0"


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """Return the URL of an empty Redis."""
    import redis

    redis.Redis.from_url(redis_server).flushall()
    return redis_server


@pytest.fixture(scope="session")
def postgres_server(server_address: str) -> Iterator[str]:
    """Start a private PostgreSQL cluster and yield the URL of its server, without a database name."""
    _require("postgres")
    import psycopg

    binaries = _postgres_binaries()
    assert binaries is not None
    # PostgreSQL refuses to run as root.
    account = _unprivileged_account() if os.geteuid() == 0 else None
    popen: dict[str, Any] = {"user": account, "group": _group_of(account), "extra_groups": []} if account else {}
    password = uuid.uuid4().hex

    def is_ready(port: int, pid: int) -> bool:
        try:
            # Only our server knows the password.
            psycopg.connect(
                host=server_address, port=port, user="driftline", password=password, dbname="postgres"
            ).close()
        except psycopg.OperationalError:
            return False
        return True

    # Not below pytest's own folder: other accounts cannot enter that one.
    with tempfile.TemporaryDirectory(prefix="driftline-pg-") as folder:
        (Path(folder) / "password").write_text(password)
        if account:
            for path in (folder, f"{folder}/password"):
                shutil.chown(path, account)
        data = f"{folder}/data"
        initdb = [str(binaries / "initdb"), "-D", data, "-U", "driftline", "-A", "scram-sha-256", "-E", "UTF8"]
        options = ["--pwfile", f"{folder}/password", "--no-sync", "--locale=C"]
        made = subprocess.run([*initdb, *options], capture_output=True, text=True, check=False, cwd=folder, **popen)
        if made.returncode:
            pytest.fail(f"initdb failed:\n{made.stderr[-2000:]}")
        with Path(data, "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet scram-sha-256\n")

        def command(port: int) -> list[str]:
            # Tests kill clients, never the machine: nothing here needs to survive a power cut.
            given = {
                "port": port,
                "listen_addresses": server_address,
                "unix_socket_directories": folder,
                "fsync": "off",
            }
            given |= {"max_connections": 200, "shared_buffers": "32MB"}
            return [str(binaries / "postgres"), "-D", data, *(f"--{key}={value}" for key, value in given.items())]

        with _serve(command, Path(folder) / "server.log", is_ready, cwd=folder, **popen) as port:
            yield f"postgresql+psycopg://driftline:{password}@{server_address}:{port}"


@dataclass(frozen=True)
class S3Server:
    """A private S3 server and how to reach it; `start` is the command of a further one on the same buckets."""

    endpoint: str
    access_key: str
    secret_key: str
    start: Callable[[int], list[str]]

    @property
    def server_environment(self) -> dict[str, str]:
        """Return the variables with which the server itself is started."""
        return {**os.environ, "ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key}

    def environment(self, endpoint: str = "") -> dict[str, str]:
        """Return the variables that every S3 client reads."""
        return {
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    def client(self, endpoint: str = "") -> Any:
        """Return a boto3 client that gives up at once."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=endpoint or self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(connect_timeout=5, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        )


@pytest.fixture(scope="session")
def s3_server(server_address: str) -> Iterator[S3Server]:
    """Start a private S3 server on a folder and yield it."""
    _require("s3")
    from botocore.exceptions import BotoCoreError, ClientError

    program = _s3_program()
    assert program is not None
    with tempfile.TemporaryDirectory(prefix="driftline-s3-") as folder:
        # Attributes of objects lie beside them: not every file system keeps extended ones.
        for name in ("buckets", "attributes"):
            Path(folder, name).mkdir()

        def command(port: int) -> list[str]:
            listen = ["--port", f"{server_address}:{port}", "--region", "us-east-1", "--quiet"]
            return [program, *listen, "posix", "--sidecar", f"{folder}/attributes", f"{folder}/buckets"]

        server = S3Server("", uuid.uuid4().hex, uuid.uuid4().hex, command)

        def is_ready(port: int, _pid: int) -> bool:
            try:
                # Only our server knows the keys.
                server.client(f"http://{server_address}:{port}").list_buckets()
            except (BotoCoreError, ClientError):
                return False
            return True

        with _serve(command, Path(folder) / "server.log", is_ready, env=server.server_environment) as port:
            yield replace(server, endpoint=f"http://{server_address}:{port}")


@pytest.fixture
def object_store(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of an empty bucket that S3 clients of this process and its children reach."""
    from s3fs import S3FileSystem

    bucket = f"test-{uuid.uuid4().hex[:12]}"
    s3_server.client().create_bucket(Bucket=bucket)
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()  # clients of earlier tests, which read another environment
    return f"s3://{bucket}/some/prefix"


def _unprivileged_account() -> str:
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _group_of(account: str) -> int:
    import pwd

    return pwd.getpwnam(account).pw_gid


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """Yield the SQLAlchemy URL of an empty database, dropped after the test."""
    import psycopg

    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = f"{postgres_server}/postgres".replace("+psycopg", "")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield f"{postgres_server}/{name}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a ledger that does not exist yet, once per backend."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger/ledger.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def ledger(ledger_url: str) -> sa.Engine:
    """Return an empty ledger of the current schema, once per backend."""
    migrate(ledger_url)
    return open_ledger(ledger_url)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return embedded settings with all state below the test's own folder; `feature_repo` is the repository's own."""
    return embedded_settings(tmp_path / "home", REPOSITORY / "feature_repo")


@pytest.fixture
def ask_for_retraining() -> Callable[..., str]:
    """Return what a monitor does about one drift: it decides, and returns the request, which is one however often."""

    def ask(ledger: sa.Engine, model: str, as_of: datetime = datetime(2013, 5, 15, tzinfo=UTC)) -> str:
        window = Window(first=as_of - timedelta(days=9), last=as_of - timedelta(days=2))
        evidence = Evidence(
            use_case=model, window=window, as_of=as_of, version=1, model="7", rows=900, labelled_rows=900, sanity=[]
        )
        proposal = Proposal(
            decision="retrain", rung="performance", reasons=["r"], policy="ladder", policy_digest="5", evidence=evidence
        )
        limits = Limits(cooldown=timedelta(hours=48), max_per_week=1, lease=timedelta(minutes=120))
        made = decide_once(ledger, proposal, limits, datetime.now(UTC)).request
        assert made is not None
        return made

    return ask
