"""The writer of the inference log against real disks: full, read-only, slow; killed, overflowing, beside others."""

import fcntl
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.core.errors import StorageFailed
from components.core.inference_log import LOOKUP, METADATA, Origin, read_predictions
from components.core.inference_losses import Counters, read_losses, settle_dead
from components.core.object_store import fetch_log, publish
from components.core.serving import ServingSpec
from components.core.settings import Settings
from components.serve.inference_writer import InferenceWriter

ROOT = Path(__file__).parents[3]
FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
NEVER = 3600.0


def put(writer: InferenceWriter, first: int, count: int, **more: Any) -> None:
    for n in range(first, first + count):
        writer.append(LOOKUP, str(n), [{"carrier": "AA", "distance": float(n)}], [n / 2], as_of=1.0e9, **more)


def logged(root: Path) -> list[int]:
    return sorted(int(name) for name in read_predictions(root, "rides", FIRST, LAST).column("request_id").to_pylist())


def accounts(root: Path) -> list[str]:
    return [path.name for path in (root / "rides" / "writers").iterdir()]


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline, "not reached in time"
        time.sleep(0.01)


@pytest.fixture
def counted() -> "Counter[str]":
    return Counter()


@pytest.fixture
def count(counted: "Counter[str]") -> Callable[[str, int], None]:
    return lambda outcome, rows: counted.update({outcome: rows})


def test_closing_writes_everything(tmp_path: Path, spec: ServingSpec, count: Any, counted: Any) -> None:
    writer = InferenceWriter(tmp_path, spec, count)
    put(writer, 0, 600)
    writer.close()
    assert logged(tmp_path) == list(range(600))
    assert counted == {"written": 600}
    assert accounts(tmp_path) == []
    assert read_losses(tmp_path, "rides") == []


def test_a_file_is_written_in_time(tmp_path: Path, spec: ServingSpec, count: Any) -> None:
    writer = InferenceWriter(tmp_path, spec, count, flush_seconds=0.05)
    put(writer, 0, 3)
    wait_until(lambda: logged(tmp_path) == [0, 1, 2])
    writer.close()


def test_a_full_batch_is_written_at_once(tmp_path: Path, spec: ServingSpec, count: Any) -> None:
    writer = InferenceWriter(tmp_path, spec, count, flush_rows=100, flush_seconds=NEVER)
    put(writer, 0, 99)
    time.sleep(0.2)
    assert logged(tmp_path) == []
    put(writer, 99, 1)
    wait_until(lambda: len(logged(tmp_path)) == 100)
    writer.close()


def test_a_buffer_that_is_full_drops_the_newest_and_counts_them(
    tmp_path: Path, spec: ServingSpec, count: Any, counted: Any
) -> None:
    writer = InferenceWriter(tmp_path, spec, count, capacity_rows=250, flush_rows=10**6, flush_seconds=NEVER)
    put(writer, 0, 300)
    writer.close()
    assert logged(tmp_path) == list(range(250))
    assert counted == {"written": 250, "dropped": 50}
    (file,) = (tmp_path / "rides").glob("*/*.parquet")
    origin = Origin.model_validate_json(pq.read_metadata(file).metadata[METADATA])
    assert (origin.written, origin.dropped) == (250, 50)
    (losses,) = read_losses(tmp_path, "rides")
    assert (losses.writer, losses.appended, losses.dropped, losses.lost) == (writer.writer, 250, 50, 0)


def test_a_request_that_does_not_fit_is_dropped_whole(tmp_path: Path, spec: ServingSpec, count: Any) -> None:
    writer = InferenceWriter(tmp_path, spec, count, capacity_rows=250, flush_rows=10**6, flush_seconds=NEVER)
    put(writer, 0, 200)
    writer.append("predict_batch", "900", [{}] * 51, [0.5] * 51)
    put(writer, 200, 50)
    writer.close()
    assert logged(tmp_path) == list(range(250))


def test_rows_that_cannot_be_encoded_hold_up_nobody(
    tmp_path: Path, spec: ServingSpec, count: Any, counted: Any
) -> None:
    writer = InferenceWriter(tmp_path, spec, count, flush_rows=10**6, flush_seconds=NEVER)
    put(writer, 0, 256)
    writer.append(LOOKUP, "256", [{"distance": object()}], [0.5])
    put(writer, 257, 1000)
    writer.close()
    kept = logged(tmp_path)
    assert set(range(256)) <= set(kept)
    assert set(range(512, 1257)) <= set(kept)
    assert counted["lost"] == 1257 - len(kept)
    assert read_losses(tmp_path, "rides")[0].lost == counted["lost"]


def test_readers_see_whole_files_while_others_write(tmp_path: Path, spec: ServingSpec, count: Any) -> None:
    writers = [InferenceWriter(tmp_path, spec, count, flush_rows=20, flush_seconds=0.01) for _ in range(3)]
    done = threading.Event()

    def read() -> list[int]:
        lengths = [0]
        while not done.is_set():
            lengths.append(len(logged(tmp_path)))
        return lengths

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        for start in range(0, 600, 10):
            for number, writer in enumerate(writers):
                put(writer, 1000 * number + start, 10)
            time.sleep(0.005)
        for writer in writers:
            writer.close()
        done.set()
        lengths = reading.result()
    assert lengths == sorted(lengths)
    assert logged(tmp_path) == [1000 * number + n for number in range(3) for n in range(600)]


def test_a_folder_that_cannot_be_made_is_tried_again(
    tmp_path: Path, spec: ServingSpec, count: Any, counted: Any, caplog: pytest.LogCaptureFixture
) -> None:
    blocker = tmp_path / "log"
    blocker.write_text("no folder")
    writer = InferenceWriter(blocker, spec, count, capacity_rows=250, flush_rows=10**6, flush_seconds=0.02)
    put(writer, 0, 260)
    time.sleep(0.3)
    assert counted == {"dropped": 10}
    assert [r.levelname for r in caplog.records if "cannot be written" in r.message] == ["ERROR"]
    blocker.unlink()
    wait_until(lambda: counted["written"] == 250)
    put(writer, 260, 5)
    writer.close()
    assert logged(blocker) == [*range(250), *range(260, 265)]
    assert [r.levelname for r in caplog.records if "is written again" in r.message] == ["WARNING"]
    assert read_losses(blocker, "rides")[0].dropped == 10


KILLED = """
import sys, time
from pathlib import Path
from components.core.serving import ServingSpec
from components.serve.inference_writer import InferenceWriter

root, spec, flush_rows, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
spec = ServingSpec.model_validate_json(spec)
writer = InferenceWriter(root, spec, lambda outcome, rows: None, flush_rows=flush_rows, flush_seconds=3600)
for n in range(last):
    writer.append("predict", str(n), [{"distance": float(n)}], [0.5], as_of=1.0e9)
    print(n, flush=True)
    while n == 99 and last == 150 and not list(root.glob("rides/*/*.parquet")):
        time.sleep(0.01)
time.sleep(3600)
"""


def start(root: Path, spec: ServingSpec, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", KILLED, str(root), spec.model_dump_json(), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def kill(process: "subprocess.Popen[str]") -> int:
    """End a process without warning and return how many rows it said it had appended."""
    process.send_signal(signal.SIGKILL)
    said = process.communicate()[0].split()
    return int(said[-1]) + 1 if said else 0


def test_kill_9_loses_the_unwritten_and_counts_it(tmp_path: Path, spec: ServingSpec, count: Any, counted: Any) -> None:
    process = start(tmp_path, spec, "100", "150")
    assert process.stdout is not None
    for _ in range(150):
        process.stdout.readline()
    kill(process)
    assert logged(tmp_path) == list(range(100))
    assert read_losses(tmp_path, "rides") == []
    InferenceWriter(tmp_path, spec, count).close()
    (losses,) = read_losses(tmp_path, "rides")
    assert (losses.appended, losses.written, losses.dropped, losses.lost) == (150, 100, 0, 50)
    assert counted == {"lost": 50}
    assert accounts(tmp_path) == []


@pytest.mark.parametrize("seed", range(6))
def test_whenever_it_is_killed_the_account_is_right(tmp_path: Path, spec: ServingSpec, seed: int) -> None:
    process = start(tmp_path, spec, "40", "1000000")
    assert process.stdout is not None
    for _ in range(30 + 67 * seed):
        process.stdout.readline()
    time.sleep(0.003 * seed)
    # What it said before the last lines were read counts too.
    said = max(kill(process), 30 + 67 * seed)
    first, second = settle_dead(tmp_path, "rides"), settle_dead(tmp_path, "rides")
    kept = logged(tmp_path)
    assert kept == list(range(len(kept)))
    assert second == []
    lost = first[0].lost if first else 0
    # It may have been killed between counting a row and saying so.
    assert said <= len(kept) + lost <= said + 1
    assert not list((tmp_path / "rides").glob("*/.*"))


def test_a_kill_between_a_file_and_its_count_counts_the_file(tmp_path: Path, spec: ServingSpec, count: Any) -> None:
    writer = InferenceWriter(tmp_path, spec, count, flush_rows=10**6, flush_seconds=NEVER)
    put(writer, 0, 10)
    account = tmp_path / "rides" / "writers" / writer.writer
    before = account.read_bytes()
    writer.close()
    # What a dead writer's account says that was killed after the rename and before the count.
    account.write_bytes(before)
    assert int.from_bytes(before[:8], sys.byteorder) == 10
    assert settle_dead(tmp_path, "rides") == []
    assert accounts(tmp_path) == []


def test_a_living_writer_is_left_alone(tmp_path: Path, spec: ServingSpec, count: Any) -> None:
    writer = InferenceWriter(tmp_path, spec, count, flush_rows=10**6, flush_seconds=NEVER)
    put(writer, 0, 10)
    assert settle_dead(tmp_path, "rides") == []
    assert accounts(tmp_path) == [writer.writer]
    writer.close()
    assert logged(tmp_path) == list(range(10))


def test_many_at_once_settle_a_dead_writer_once(tmp_path: Path) -> None:
    for n in range(20):
        counters = Counters(tmp_path, "rides", f"{n:032x}")
        counters.open()
        counters.append(n + 1)
        # As the kernel does when a process ends.
        fcntl.flock(counters._file, fcntl.LOCK_UN)
    with ThreadPoolExecutor(4) as pool:
        found = [losses for group in pool.map(lambda _: settle_dead(tmp_path, "rides"), range(4)) for losses in group]
    assert sorted(losses.lost for losses in found) == list(range(1, 21))
    assert len(read_losses(tmp_path, "rides")) == 20


FULL = """
import contextlib, os, sys, time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from components.core.inference_log import read_predictions
from components.core.inference_losses import read_losses
from components.core.serving import ServingSpec
from components.serve.inference_writer import InferenceWriter

root, spec = Path(sys.argv[1]), ServingSpec.model_validate_json(sys.argv[2])
ballast = root / "ballast"
if sys.argv[3] == "full":
    file = os.open(ballast, os.O_CREAT | os.O_WRONLY)
    with contextlib.suppress(OSError):
        while os.write(file, bytes(4096)):
            pass
    os.close(file)
counted = Counter()
count = lambda outcome, rows: counted.update({outcome: rows})
writer = InferenceWriter(root, spec, count, capacity_rows=250, flush_rows=50, flush_seconds=0.05)

def put(first, rows):
    for n in range(first, first + rows):
        writer.append("predict", str(n), [{"distance": n / 7}], [0.5], as_of=1.0e9 + n)

put(0, 300)
time.sleep(0.3)
print("outage", dict(counted))
if ballast.exists():
    ballast.unlink()
    while counted["written"] < 250:
        time.sleep(0.01)
    put(300, 5)
writer.close()
rows = read_predictions(root, spec.use_case, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)).num_rows
print("rows", rows, "losses", [losses.dropped for losses in read_losses(root, spec.use_case)])
print("hidden", [path.name for path in root.rglob(".*")])
"""


FULL_TO_THE_END = """
import contextlib, os, sys
from pathlib import Path
from components.core.inference_losses import settle_dead
from components.core.serving import ServingSpec
from components.serve.inference_writer import InferenceWriter

root, spec = Path(sys.argv[1]), ServingSpec.model_validate_json(sys.argv[2])
writer = InferenceWriter(root, spec, lambda outcome, rows: None)
file = os.open(root / "ballast", os.O_CREAT | os.O_WRONLY)
with contextlib.suppress(OSError):
    while os.write(file, bytes(4096)):
        pass
for n in range(70):
    writer.append("predict", str(n), [{"distance": n / 7}], [0.5])
writer.close()
with contextlib.suppress(Exception):
    settle_dead(root, spec.use_case)
    print("the record was written to a full disk")
os.unlink(root / "ballast")
os.close(file)
print([(losses.appended, losses.lost) for losses in settle_dead(root, spec.use_case)], settle_dead(root, spec.use_case))
"""


def on_small_disk(
    code: str, folder: Path, spec: ServingSpec, mount: str, kind: str
) -> "subprocess.CompletedProcess[str]":
    folder.mkdir()
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    script = f'mount -t tmpfs -o {mount} none "$1" && exec "$0" -c "$CODE" "$@"'
    return subprocess.run(
        [*unshare, "sh", "-c", script, sys.executable, str(folder), spec.model_dump_json(), kind],
        env={**os.environ, "CODE": code},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_full_disk_delays_rows_and_drops_the_newest(tmp_path: Path, spec: ServingSpec) -> None:
    done = on_small_disk(FULL, tmp_path / "disk", spec, "size=1m", "full")
    assert done.stdout.splitlines() == ["outage {'dropped': 50}", "rows 255 losses [50]", "hidden []"], done.stderr
    assert done.stderr.count("cannot be written") == 1
    assert "No space left" in done.stderr


def test_a_read_only_disk_is_said_once_and_stops_nothing(tmp_path: Path, spec: ServingSpec) -> None:
    done = on_small_disk(FULL, tmp_path / "disk", spec, "ro", "read-only")
    assert done.stdout.splitlines() == ["outage {'dropped': 50}", "rows 0 losses []", "hidden []"], done.stderr
    assert done.stderr.count("cannot be written") == 1
    assert "Read-only file system" in done.stderr


def test_a_disk_that_is_full_to_the_end_loses_rows_that_the_next_start_counts(
    tmp_path: Path, spec: ServingSpec
) -> None:
    done = on_small_disk(FULL_TO_THE_END, tmp_path / "disk", spec, "size=1m", "")
    assert done.stdout.splitlines() == ["[(70, 70)] []"], done.stderr
    assert done.stderr.count("cannot be written") == 1


@pytest.mark.s3
def test_finished_files_are_handed_to_the_object_store(
    tmp_path: Path, spec: ServingSpec, count: Any, object_store: str, settings: Settings
) -> None:
    """Also those of a writer that was killed before it could; those of a living one are its own business."""
    server = settings.model_copy(update={"object_store_url": object_store, "home": tmp_path / "server"})
    root = server.predictions
    killed = InferenceWriter(root, spec, count)
    put(killed, 0, 5)
    killed.close()
    living = InferenceWriter(root, spec, count, flush_rows=3, flush_seconds=NEVER)
    put(living, 5, 3)
    wait_until(lambda: len(logged(root)) == 8)
    writer = InferenceWriter(root, spec, count, share=functools.partial(publish, server))
    put(writer, 8, 4)
    writer.close()
    assert logged(root) == [5, 6, 7]
    reader = server.model_copy(update={"home": tmp_path / "reader"})
    fetch_log(reader, "rides")
    assert sorted(logged(reader.predictions)) == [0, 1, 2, 3, 4, 8, 9, 10, 11]
    living.close()


def test_files_that_cannot_be_handed_over_stay(tmp_path: Path, spec: ServingSpec, count: Any, counted: Any) -> None:
    away, handed = [True], []

    def share(path: Path) -> None:
        if away[0]:
            raise StorageFailed("the object store is away")
        handed.append(path.name)

    writer = InferenceWriter(tmp_path, spec, count, flush_seconds=0.02, share=share)
    put(writer, 0, 3)
    wait_until(lambda: logged(tmp_path) == [0, 1, 2])
    assert counted["written"] == 3
    away[0] = False
    # Not read: what is handed over goes while it is being read.
    wait_until(lambda: not list(tmp_path.rglob("*.parquet")))
    assert len(handed) == 1
    writer.close()
