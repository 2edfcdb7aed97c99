"""Files shared through a real S3 server: what two homes see, and what a lost connection or process does to them."""

import contextlib
import functools
import hashlib
import multiprocessing
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from components.core.errors import ConfigError, StorageFailed
from components.core.inference_log import Origin, create_part
from components.core.object_store import (
    PATIENCE_SECONDS,
    address,
    are_kept,
    fetch,
    fetch_all,
    fetch_log,
    fetch_predictions,
    local_path,
    publish,
    publish_all,
    publish_once,
)
from components.core.settings import Settings
from components.features import point_in_time
from components.ingest import queries

ROOT = Path(__file__).parents[3]
Fault = Literal["", "no answer", "half an answer", "reset"]


def at_home(settings: Settings, home: Path, url: str) -> Settings:
    """Return the settings of another machine that shares the store."""
    return settings.model_copy(update={"home": home, "object_store_url": url})


@pytest.fixture
def here(settings: Settings, tmp_path: Path, object_store: str) -> Settings:
    return at_home(settings, tmp_path / "here", object_store)


def test_what_a_shadow_answered_lies_apart_from_what_was_answered(settings: Settings) -> None:
    shared = settings.model_copy(update={"object_store_url": "s3://bucket/prefix"})
    file = shared.shadow_predictions / "rides" / "2013-03-31" / "w-00000000.parquet"
    # The inference log of a shadow's own pod is that folder.
    for inference_log in (None, shared.home / "elsewhere", shared.shadow_predictions):
        pod = shared.model_copy(update={"inference_log": inference_log})
        assert address(pod, file) == "s3://bucket/prefix/shadow/rides/2013-03-31/w-00000000.parquet"
        assert local_path(pod, address(pod, file)) == file


@pytest.fixture
def there(settings: Settings, tmp_path: Path, object_store: str) -> Settings:
    return at_home(settings, tmp_path / "there", object_store)


def write(settings: Settings, name: str, content: bytes) -> Path:
    path = settings.home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def files(home: Path) -> dict[str, bytes]:
    """Return everything below a home, hidden files too."""
    return {str(p.relative_to(home)): p.read_bytes() for p in home.rglob("*") if p.is_file()}


@contextlib.contextmanager
def reached_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process reach the store by another address until the end of the block."""
    from s3fs import S3FileSystem

    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        S3FileSystem.clear_instance_cache()
        yield
    S3FileSystem.clear_instance_cache()


# --- what two homes see -------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a.json", "folder/a.json", "folder/ä b+c=1.parquet"])
STEPS = st.tuples(
    st.sampled_from(["publish", "publish_once", "publish_all", "fetch", "fetch again", "fetch_all", "lose home"]),
    st.integers(0, 1),
    NAMES,
    st.binary(max_size=40),
)


@pytest.mark.s3
@given(st.lists(STEPS, max_size=12))
@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_two_homes_and_their_store_are_what_a_dictionary_says(
    settings: Settings, object_store: str, steps: list[tuple[str, int, str, bytes]]
) -> None:
    with TemporaryDirectory() as folder:
        url = f"{object_store}/{uuid.uuid4().hex}"
        homes = [at_home(settings, Path(folder, name), url) for name in ("0", "1")]
        store: dict[str, bytes] = {}
        local: list[dict[str, bytes]] = [{}, {}]
        for verb, number, name, content in steps:
            home, mine = homes[number], local[number]
            path = home.home / name
            if verb.startswith("publish"):
                write(home, name, content)
                mine[name] = content
            if verb == "publish":
                publish(home, path)
                store[name] = content
            elif verb == "publish_once":
                assert publish_once(home, path) == (name not in store)
                store.setdefault(name, content)
            elif verb == "publish_all":
                publish_all(home, [path])
                store.setdefault(name, content)
            elif verb == "fetch again":
                assert fetch(home, path, again=True) == (name in store)
                mine |= {name: store[name]} if name in store else {}
            elif verb == "fetch":
                assert fetch(home, path) == (name in mine or name in store)
                mine |= {name: store[name]} if name in store and name not in mine else {}
            elif verb == "fetch_all":
                fetch_all(home, [home.home / each for each in ("a.json", "folder/a.json")])
                mine |= {n: store[n] for n in ("a.json", "folder/a.json") if n in store and n not in mine}
            else:
                for lost in mine:
                    (home.home / lost).unlink()
                mine.clear()
            assert [files(each.home) for each in homes] == local


@pytest.mark.s3
def test_a_file_of_many_parts_arrives_whole_and_once(here: Settings, there: Settings) -> None:
    content = os.urandom(1 << 20) * 120  # above the 100 MiB at which s3fs starts to send parts
    assert publish_once(here, write(here, "big", content))
    assert not publish_once(there, write(there, "big", b"other"))
    assert fetch(there, there.home / "big", again=True)
    assert hashlib.sha256((there.home / "big").read_bytes()).digest() == hashlib.sha256(content).digest()


@pytest.mark.s3
def test_what_is_kept_is_listed_and_not_fetched(here: Settings, there: Settings) -> None:
    names = ["a/1.parquet", "a/2.parquet", "b/1.parquet"]
    publish_all(here, [write(here, name, b"x") for name in names])
    wanted = [there.home / name for name in names]
    assert are_kept(there, wanted)
    assert files(there.home) == {}
    assert not are_kept(there, [*wanted, there.home / "a/3.parquet"])
    assert not are_kept(there, [there.home / "c/1.parquet"])
    assert are_kept(there, [write(there, "c/1.parquet", b"only here"), *wanted])
    assert are_kept(there, [])


@pytest.mark.s3
def test_days_of_the_inference_log_are_fetched_by_period(here: Settings, there: Settings) -> None:
    days = ["2013-01-31", "2013-02-01", "2013-02-02", "2013-02-03"]
    for use_case in ("flights", "flights-again"):
        for day in days:
            publish(here, write(here, f"predictions/{use_case}/{day}/batch-0.parquet", day.encode()))
            publish(here, write(here, f"predictions/{use_case}/{day}/serve-1.parquet", day.encode()))
    noon = functools.partial(datetime, 2013, 2, hour=12, tzinfo=UTC)
    fetch_predictions(there, "flights", noon(day=1), noon(day=2))
    assert sorted(files(there.home)) == [
        f"predictions/flights/{day}/{name}" for day in days[1:3] for name in ("batch-0.parquet", "serve-1.parquet")
    ]
    fetch_log(there, "flights")
    assert len(files(there.home)) == 8
    fetch_log(there)
    assert files(there.home) == files(here.home)
    fetch_log(there, "unheard-of")
    assert files(there.home) == files(here.home)


@pytest.mark.s3
def test_an_inference_log_outside_of_home_has_the_same_keys(here: Settings, there: Settings, tmp_path: Path) -> None:
    served = here.model_copy(update={"inference_log": tmp_path / "volume"})
    path = served.predictions / "flights" / "2013-02-01" / "serve-1.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"rows")
    publish(served, path)
    fetch_log(there, "flights")
    assert files(there.home) == {"predictions/flights/2013-02-01/serve-1.parquet": b"rows"}


@pytest.mark.s3
def test_what_one_home_names_lies_below_the_other(here: Settings, there: Settings, tmp_path: Path) -> None:
    named = address(here, here.home / "bentos" / "a.tar")
    assert named == f"{here.object_store_url}/bentos/a.tar"
    assert local_path(there, named) == there.home / "bentos" / "a.tar"
    assert local_path(there, "/elsewhere/a.tar") == Path("/elsewhere/a.tar")
    with pytest.raises(ConfigError, match="outside of DRIFTLINE_HOME"):
        publish(here, tmp_path / "elsewhere" / "file")


@pytest.mark.s3
def test_a_day_scored_twice_holds_the_rows_of_the_first(here: Settings, there: Settings) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def score(settings: Settings, prediction: float) -> bool:
        origin = Origin(writer="batch", sequence=0, written=1, dropped=0)
        return create_part(settings, "rides", "2013-02-01", pa.table({"prediction": [prediction]}), origin)

    assert score(here, 0.25)
    assert not score(there, 0.75)
    assert not score(here, 0.75)
    for settings in (here, there):
        (path,) = (settings.home / name for name in files(settings.home))
        assert pq.read_table(path).column("prediction").to_pylist() == [0.25]


@pytest.mark.s3
def test_a_day_that_was_made_and_never_published_is_published_later(here: Settings, there: Settings) -> None:
    import pyarrow as pa

    origin = Origin(writer="batch", sequence=0, written=1, dropped=0)
    rows = pa.table({"prediction": [0.25]})
    assert create_part(here.model_copy(update={"object_store_url": ""}), "rides", "2013-02-01", rows, origin)
    assert create_part(here, "rides", "2013-02-01", rows, origin)
    fetch_log(there)
    assert files(there.home) == files(here.home)


def _race(settings: Settings, content: bytes, start: Any, results: Any) -> None:
    path = write(settings, "day.parquet", content)
    publish_once(settings, write(settings, "warm-up", content))  # imports and opens the client
    start.wait()
    made = publish_once(settings, path)
    fetch(settings, path, again=True)
    results.put((made, content, path.read_bytes()))


@pytest.mark.s3
def test_after_a_race_everybody_has_one_content(settings: Settings, object_store: str, tmp_path: Path) -> None:
    # How many get True is the bucket's matter: this server's check and write are two steps (docs/adr/0014).
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    contents = [name * 50_000 for name in (b"a", b"b")]
    racers = [
        context.Process(
            target=_race, args=(at_home(settings, tmp_path / str(n), object_store), content, start, results)
        )
        for n, content in enumerate(contents)
    ]
    for racer in racers:
        racer.start()
    outcomes = [results.get(timeout=120) for _ in racers]
    for racer in racers:
        racer.join()
    late = at_home(settings, tmp_path / "late", object_store)
    assert fetch(late, late.home / "day.parquet")
    final = (late.home / "day.parquet").read_bytes()
    assert final in contents
    assert final in [content for made, content, _ in outcomes if made]
    assert all(seen == final for made, _, seen in outcomes if not made)


# --- what is lost -------------------------------------------------------------------------------------------------


class Proxy:
    """Passes connections on to the store, and cuts those that `faults` names, after the store has answered."""

    def __init__(self, endpoint: str) -> None:
        upstream = urlsplit(endpoint)
        self.upstream = (upstream.hostname or "", upstream.port or 80)
        self.faults: list[Fault] = []
        self.answered = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                fault = self.faults.pop(0) if self.faults else ""
                threading.Thread(target=self._pass_on, args=(client, fault), daemon=True).start()

    def _pass_on(self, client: socket.socket, fault: Fault) -> None:
        with client, socket.create_connection(self.upstream) as server:
            threading.Thread(target=_pump, args=(client, server), daemon=True).start()
            answer = b""
            while part := server.recv(1 << 16):  # the server closes the connection after each answer
                if part.startswith(b"HTTP/1.1 100"):
                    client.sendall(part)
                else:
                    answer += part
            self.answered += 1
            if fault != "no answer":
                client.sendall(answer[: len(answer) // 2] if fault else answer)
            if fault == "reset":
                time.sleep(0.2)  # the first half is to arrive
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.shutdown(socket.SHUT_RD)
                return
            client.shutdown(socket.SHUT_RDWR)  # a close alone waits for the thread that reads


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while part := source.recv(1 << 16):
            target.sendall(part)


@pytest.fixture
def proxy(here: Settings, s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    made = Proxy(s3_server.endpoint)
    with reached_at(made.endpoint, monkeypatch):
        yield made
    made.close()


@pytest.mark.s3
@pytest.mark.parametrize("fault", ["no answer", "half an answer"])
def test_who_lost_the_answer_still_knows_that_the_file_is_theirs(
    here: Settings, there: Settings, proxy: Proxy, fault: Fault
) -> None:
    path = write(here, "day.parquet", b"mine" * 1000)
    proxy.faults = [fault]
    assert publish_once(here, path), "the file that is there is this writer's own"
    assert proxy.answered >= 3, "written, refused as there already, asked whose it is"
    assert not publish_once(there, write(there, "day.parquet", b"mine" * 1000)), "equal content is not yet one's own"


@pytest.mark.s3
def test_who_lost_the_answer_to_a_refusal_is_still_refused(here: Settings, there: Settings, proxy: Proxy) -> None:
    assert publish_once(there, write(there, "day.parquet", b"theirs"))
    proxy.faults = ["no answer"]
    assert not publish_once(here, write(here, "day.parquet", b"mine"))


@pytest.mark.s3
@pytest.mark.parametrize("fault", ["no answer", "half an answer", "reset"])
def test_a_download_that_breaks_off_is_repeated(here: Settings, there: Settings, proxy: Proxy, fault: Fault) -> None:
    content = os.urandom(300_000)
    publish(here, write(here, "file", content))
    proxy.faults = [fault, fault]
    assert fetch(there, there.home / "file")
    assert files(there.home) == {"file": content}


FETCHING = """
import sys
from pathlib import Path
from components.core.object_store import fetch
from components.core.settings import load_settings
settings = load_settings()
fetch(settings, settings.home / "small")
print("ready", flush=True)
fetch(settings, settings.home / "big")
"""


@pytest.mark.s3
def test_a_kill_in_the_middle_leaves_the_whole_file_or_none(here: Settings, there: Settings) -> None:
    content = os.urandom(1 << 20) * 32
    publish(here, write(here, "big", content))
    publish(here, write(here, "small", b"small"))
    caught = 0
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", FETCHING],
            cwd=ROOT,
            env={**os.environ, **there.environment()},
            stdout=subprocess.PIPE,
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            while child.poll() is None and not any(p.stat().st_size for p in there.home.glob(".big.*")):
                time.sleep(0.001)
            child.send_signal(signal.SIGKILL)
        big = there.home / "big"
        caught += not big.exists()
        assert not big.exists() or big.read_bytes() == content
        for left in (*there.home.glob(".big.*"), *there.home.glob("big")):
            left.unlink()
    assert caught, "no kill came in the middle"
    assert fetch(there, there.home / "big")
    assert (there.home / "big").read_bytes() == content


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str], port: int) -> Iterator[None]:
    """Run an S3 server until the end of the block."""
    host = command[2].rsplit(":", 1)[0]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
                    break
                time.sleep(0.05)
            yield
        finally:
            server.kill()


@pytest.mark.s3
def test_a_store_that_is_away_for_a_moment_delays_only(
    here: Settings, there: Settings, s3_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    command, environment = s3_server.start(port), s3_server.server_environment
    endpoint = f"http://{command[2]}"
    with reached_at(endpoint, monkeypatch), ThreadPoolExecutor(1) as pool:
        with running(command, environment, port):
            publish(here, write(here, "before", b"before"))
        waiting = pool.submit(publish_once, here, write(here, "during", b"during"))
        time.sleep(2.5)
        assert not waiting.done()
        with running(command, environment, port):
            assert waiting.result(timeout=60)
            fetch_all(there, [there.home / "before", there.home / "during"])
    assert files(there.home) == {"before": b"before", "during": b"during"}


REGION = """
from components.core.settings import load_settings
load_settings()
import botocore.session
print(botocore.session.get_session().get_config_variable("region"))
"""


@pytest.mark.parametrize(("names", "region"), [(["AWS_REGION"], "1"), (["AWS_REGION", "AWS_DEFAULT_REGION"], "2")])
def test_the_region_that_pods_are_given_is_the_client_s(names: list[str], region: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {name: f"eu-west-{number}" for number, name in enumerate(names, start=1)}
    command = [sys.executable, "-c", REGION]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == f"eu-west-{region}", done.stderr


@pytest.mark.s3
@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "signature"),
        ("AWS_ACCESS_KEY_ID", "nobody", "[Aa]ccess"),
        ("DRIFTLINE_OBJECT_STORE_URL", "s3://no-such-bucket/prefix", "bucket"),
    ],
)
def test_what_waiting_does_not_mend_is_said_at_once(
    here: Settings, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    path = write(here, "file", b"content")
    monkeypatch.setenv(variable, value)
    if variable == "DRIFTLINE_OBJECT_STORE_URL":
        here = here.model_copy(update={"object_store_url": value})
    started = time.monotonic()
    with reached_at(os.environ["AWS_ENDPOINT_URL"], monkeypatch):
        for attempt in (
            lambda: publish(here, path),
            lambda: publish_once(here, path),
            lambda: publish_all(here, [path] * 20),
            lambda: fetch(here, here.home / "other"),
            lambda: fetch_all(here, [here.home / f"other-{n}" for n in range(20)]),
            lambda: fetch_log(here),
        ):
            with pytest.raises(StorageFailed, match=reason) as raised:
                attempt()
            assert here.object_store_url in str(raised.value)
            assert "AWS_* variables" in raised.value.next_step
            assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(raised.value).replace(here.object_store_url, "")
    assert time.monotonic() - started < 10
    assert files(here.home) == {"file": b"content"}


@pytest.mark.slow
@pytest.mark.s3
def test_a_store_that_stays_away_is_given_up_in_the_end(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(here, "file", b"content")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        endpoint = "http://{}:{}".format(*probe.getsockname())
    started = time.monotonic()
    with (
        reached_at(endpoint, monkeypatch),
        pytest.raises(StorageFailed, match=r"tried for \d+ s"),
    ):
        publish(here, path)
    assert PATIENCE_SECONDS * 0.9 < time.monotonic() - started < PATIENCE_SECONDS + 20


# --- without a store ----------------------------------------------------------------------------------------------

EMBEDDED = """
import sys
from datetime import UTC, datetime
from components.core import object_store
from components.core.settings import load_settings
settings = load_settings()
path = settings.home / "file"
object_store.publish(settings, path)
object_store.publish_all(settings, [path])
assert object_store.fetch(settings, path) and object_store.fetch(settings, path, again=True)
assert not object_store.fetch(settings, settings.home / "other")
object_store.fetch_all(settings, [path])
object_store.fetch_log(settings)
object_store.fetch_predictions(settings, "flights", datetime.now(UTC), datetime.now(UTC))
assert object_store.local_path(settings, object_store.address(settings, path)) == path
import components.ingest.snapshot, components.core.inference_log, components.core.champion, components.train.fit
print([name for name in ("s3fs", "fsspec", "botocore", "aiobotocore", "aiohttp") if name in sys.modules])
"""


def test_without_a_store_no_client_is_even_imported(settings: Settings) -> None:
    write(settings, "file", b"content")
    done = subprocess.run(
        [sys.executable, "-c", EMBEDDED],
        cwd=ROOT,
        env={**os.environ, **settings.environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert files(settings.home) == {"file": b"content"}


# --- DuckDB speaks no S3 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "connect", [lambda: contextlib.closing(queries.connect()), point_in_time._connect], ids=["ingest", "features"]
)
def test_duckdb_neither_downloads_nor_loads_what_reads_s3(connect: Any) -> None:
    import duckdb

    with connect() as connection:
        with pytest.raises(duckdb.Error, match="requires the extension httpfs"):
            connection.execute("SELECT * FROM read_parquet('s3://bucket/file.parquet')")
        loaded = "SELECT loaded FROM duckdb_extensions() WHERE extension_name = 'httpfs'"
        assert connection.execute(loaded).fetchall() == [(False,)]
        for name in ("autoinstall_known_extensions", "autoload_known_extensions"):
            assert connection.execute(f"SELECT current_setting('{name}')").fetchall() == [(False,)]
