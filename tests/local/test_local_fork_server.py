"""The fork server: a forked step is what a fresh process is, and dies with whoever waits for it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.forking import can_fork, forking_python
from pipelines.preload import PRELOAD, preloaded_steps

pytestmark = [pytest.mark.skipif(not can_fork(), reason="steps are forked on Linux only"), pytest.mark.timeout(240)]
STEP = "promote"  # the cheapest row of the table: mlflow


class Place:
    """A folder with a fork server, and programs run there both ways."""

    def __init__(self, folder: Path, command: str) -> None:
        self.folder, self.command, self.step = folder, command, STEP

    def words(self, python: str, program: str, *arguments: str) -> list[str]:
        name = f"probe_{abs(hash(program))}"
        path = self.folder / f"{name}.py"
        if not path.exists():
            path.write_text(textwrap.dedent(program))
        return [python, "-m", name, *arguments, "--function_to_execute", self.step]

    def start(self, program: str, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
        words = self.words(self.command, program, *arguments)
        return subprocess.Popen(words, cwd=self.folder, text=True, env=surroundings(), **options)

    def run(self, python: str, program: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        options = {"capture_output": True, "cwd": self.folder, "env": surroundings(), **options}
        return subprocess.run(self.words(python, program), text=True, check=False, timeout=60, **options)

    def forked(self, program: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        done = self.run(self.command, program, **options)
        assert "driftline:" not in done.stderr, done.stderr
        return done

    def fresh(self, program: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        return self.run(sys.executable, program, **options)

    @property
    def server(self) -> psutil.Process:
        return next(
            p for p in psutil.Process().children() if f"{self.folder}" == p.cwd() and "fork_server" in f"{p.cmdline()}"
        )


def surroundings(**more: str) -> dict[str, str]:
    """Return our environment without the variable that pytest changes between fixture and test."""
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"} | more


@contextlib.contextmanager
def forking_in(folder: Path, *steps: str) -> Iterator[Place]:
    current = os.environ.pop("PYTEST_CURRENT_TEST", None)
    with contextlib.chdir(folder), forking_python(list(steps)) as command:
        if current:
            os.environ["PYTEST_CURRENT_TEST"] = current
        yield Place(folder, command)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with forking_in(tmp_path_factory.mktemp("place"), STEP) as place:
        yield place


ENDINGS = {
    "returns": "print('done')",
    "code": "import sys; print('x', end=''); sys.exit(3)",
    "large code": "import sys; sys.exit(259)",
    "words": "import sys; sys.exit('no such thing')",
    "nothing": "import sys; sys.exit()",
    "at once": "import os; print('lost'); os._exit(5)",
    "raises": """
        def fail():
            try:
                {}["key"]
            except KeyError as problem:
                raise RuntimeError("two\\nlines") from problem
        fail()
        """,
    "does not parse": "def (:",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "ended": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "aborts": "import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()",
    "interrupted": "raise KeyboardInterrupt",
    "leaves a thread": """
        import threading, time
        def late():
            time.sleep(0.3)
            print("late")
        threading.Thread(target=late).start()
        print("main")
        """,
    "a thread fails": """
        import threading
        def fail():
            raise ValueError("in a thread")
        worker = threading.Thread(target=fail, name="worker")
        worker.start()
        worker.join()
        """,
    "exit handlers": """
        import atexit, logging, weakref
        class Thing: ...
        thing = Thing()
        atexit.register(print, "first registered")
        weakref.finalize(thing, print, "finalized")
        atexit.register(print, "last registered")
        """,
    "a failing exit handler": "import atexit; atexit.register(lambda: 1 / 0)",
    "a temporary folder": """
        import pathlib, tempfile
        kept = tempfile.TemporaryDirectory()
        pathlib.Path("folder.txt").write_text(kept.name)
        """,
    "open files": """
        loop = [open("open.txt", "w")]
        loop.append(loop)
        loop[0].write("kept")
        """,
    "logs": "import logging; logging.basicConfig(level=20); logging.info('said'); logging.warning('seen')",
    "warns": "import warnings; warnings.warn('careful', stacklevel=1)",
    "starts itself": """
        import subprocess, sys
        print(subprocess.run([sys.executable, "-c", "import sys; print(sys.argv)"], capture_output=True, text=True))
        """,
    "multiprocessing": """
        import multiprocessing
        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                print(pool.map(abs, [-1, -2]))
        """,
    "closed output": "import os; os.close(1); print('lost')",
}


def without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", text)


@pytest.mark.parametrize("program", ENDINGS.values(), ids=ENDINGS)
def test_a_forked_task_says_and_ends_as_a_fresh_process_does(place: Place, program: str) -> None:
    forked, fresh = place.forked(program), place.fresh(program)
    assert (forked.returncode, forked.stdout) == (fresh.returncode, fresh.stdout)
    assert without_addresses(forked.stderr) == without_addresses(fresh.stderr)
    for left in place.folder.glob("folder.txt"):
        assert not Path(left.read_text()).exists()
        left.unlink()
    for left in place.folder.glob("open.txt"):
        assert left.read_text() == "kept"
        left.unlink()


SURROUNDINGS = """
    import faulthandler, json, logging, os, signal, sys
    import numpy  # it has a thread in either process
    json.dump({
        "environment": dict(os.environ), "folder": os.getcwd(), "argv": sys.argv, "orig_argv": sys.orig_argv[1:],
        "path": sys.path, "executable": sys.executable, "prefix": sys.prefix, "name": __name__, "spec": __spec__.name,
        "variables": sorted(globals()), "mask": os.umask(0o22), "group": os.getpgrp(), "session": os.getsid(0),
        "signals": {int(s): str(signal.getsignal(s)).split(" at ")[0] for s in signal.valid_signals()},
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "threads": len(os.listdir("/proc/self/task")),
        "descriptors": sorted(int(f) for f in os.listdir("/proc/self/fd")),
        "encodings": [sys.stdout.encoding, sys.stdout.errors, sys.stdout.line_buffering, sys.stderr.line_buffering],
        "handlers": len(logging.root.handlers), "flags": str(sys.flags),
        "faults": faulthandler.is_enabled(),
        "stdin": sys.stdin.read(),
    }, sys.stdout)
"""


def test_a_forked_task_finds_the_surroundings_of_a_fresh_process(place: Place) -> None:
    environment = surroundings(DRIFTLINE_RUN_KEY="täst\udcff", DRIFTLINE_EMPTY="")
    forked = json.loads(place.forked(SURROUNDINGS, input="words", env=environment).stdout)
    fresh = json.loads(place.fresh(SURROUNDINGS, input="words", env=environment).stdout)
    # What libraries set when they are imported stays set; one descriptor is the line to the client.
    added = {*forked["environment"]} - {*fresh["environment"], "PWD"}
    assert added <= {"KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"}
    assert len(forked.pop("descriptors")) == len(fresh.pop("descriptors")) + 1
    for seen in (forked, fresh):
        seen["environment"] = {n: v for n, v in seen["environment"].items() if n not in {*added, "PWD"}}
    assert forked == fresh
    assert forked["environment"]["DRIFTLINE_RUN_KEY"] == "täst\udcff"
    assert forked["stdin"] == "words"


def test_what_one_task_changes_the_next_one_does_not_see(place: Place) -> None:
    place.forked("import os, sys, json; os.environ['DRIFTLINE_X'] = '1'; json.dumps = None; sys.path.append('/x')")
    seen = place.forked("import os, sys, json; print(os.environ.get('DRIFTLINE_X'), json.dumps([]), '/x' in sys.path)")
    assert seen.stdout == "None [] False\n"


def test_each_task_draws_its_own_random_numbers(place: Place) -> None:
    program = "import random, uuid, numpy; print(random.random(), numpy.random.rand(), uuid.uuid4(), sep='\\n')"
    drawn = [number for _ in range(3) for number in place.forked(program).stdout.split()]
    assert len(set(drawn)) == 9


def test_the_libraries_are_there_already(place: Place) -> None:
    loaded = json.loads(place.forked("import sys, json; print(json.dumps(sorted(sys.modules)))").stdout)
    assert {*PRELOAD[STEP]} <= {*loaded}


def test_blas_has_its_threads_again(place: Place) -> None:
    program = """
        import numpy, scipy.linalg
        from threadpoolctl import threadpool_info
        print([(p["internal_api"], p["num_threads"]) for p in threadpool_info() if p["user_api"] == "blas"])
        a = numpy.random.default_rng(1).random((300, 300))
        print((a @ a).sum(), scipy.linalg.lu(a)[2].sum())
        """
    assert place.forked(program).stdout == place.fresh(program).stdout


def test_many_tasks_at_once_end_each_with_its_own_code(place: Place) -> None:
    program = "import sys; print(sys.argv[1]); sys.exit(int(sys.argv[1]) % 7)"

    def task(number: int) -> tuple[int, str]:
        process = place.start(program, f"{number}", stdout=subprocess.PIPE)
        said, _ = process.communicate()
        return process.returncode, said

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(task, range(60))) == [(n % 7, f"{n}\n") for n in range(60)]
    wait_until(lambda: place.server.children() == [])
    assert place.server.num_threads() == 1


SLEEP = "import os, sys, time; open(sys.argv[1], 'w').write(f'{os.getpid()}\\n'); time.sleep(600)"


def sleeping(place: Place, marker: Path) -> "tuple[subprocess.Popen[str], int]":
    client = place.start(SLEEP, f"{marker}", stderr=subprocess.DEVNULL)
    wait_until(lambda: marker.exists() and marker.read_text().endswith("\n"))
    return client, int(marker.read_text())


def wait_until(true: Any) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_task_dies_with_its_client(place: Place, tmp_path: Path, number: int) -> None:
    client, task = sleeping(place, tmp_path / "pid")
    client.send_signal(number)
    assert client.wait() == -number
    wait_until(lambda: gone(task))
    assert place.forked("print(1)").stdout == "1\n"


def test_a_killed_task_is_reported_as_killed(place: Place, tmp_path: Path) -> None:
    client, task = sleeping(place, tmp_path / "pid")
    os.kill(task, signal.SIGKILL)
    assert client.wait(timeout=30) == -signal.SIGKILL


def test_without_its_server_a_task_dies_and_the_next_one_is_a_fresh_process(tmp_path: Path) -> None:
    with forking_in(tmp_path, STEP) as place:
        client, task = sleeping(place, tmp_path / "pid")
        place.server.kill()
        assert client.wait(timeout=30) == -signal.SIGKILL
        wait_until(lambda: gone(task))
        after = place.run(place.command, "print('still works')")
        assert (after.returncode, after.stdout) == (0, "still works\n")
        assert "driftline: this step imports its libraries itself: no fork server" in after.stderr


def test_everything_dies_with_the_worker(tmp_path: Path) -> None:
    program = f"""
        import subprocess, sys
        from pipelines.forking import forking_python
        with forking_python(["{STEP}"]) as python:
            subprocess.run([python, "-m", "sleeper", sys.argv[1], "--function_to_execute", "{STEP}"])
        """
    (tmp_path / "worker.py").write_text(textwrap.dedent(program))
    (tmp_path / "sleeper.py").write_text(f"{SLEEP}")
    marker = tmp_path / "pid"
    worker = subprocess.Popen([sys.executable, "-m", "worker", marker], cwd=tmp_path, start_new_session=True)
    wait_until(lambda: marker.exists() and marker.read_text().endswith("\n"))
    family = [worker.pid, *(p.pid for p in psutil.Process(worker.pid).children(recursive=True))]
    assert int(marker.read_text()) in family
    assert len(family) >= 4
    worker.kill()
    worker.wait()
    for pid in family:
        wait_until(lambda pid=pid: gone(pid))


@pytest.mark.parametrize(
    ("library", "reason"),
    [
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
            "has 2 threads",
        ),
        ("raise ImportError('half installed')", ""),
        ("raise SystemExit(9)", ""),
    ],
    ids=["starts a thread", "fails", "exits"],
)
def test_a_library_that_misbehaves_costs_speed_only(tmp_path: Path, library: str, reason: str) -> None:
    (tmp_path / "mlflow.py").write_text(library)
    with forking_in(tmp_path, STEP) as place:
        done = place.run(place.command, "print('works')")
        assert (done.returncode, done.stdout) == (0, "works\n")
        assert reason in done.stderr
        assert ("driftline:" in done.stderr) == bool(reason)


def test_a_task_with_other_surroundings_is_a_fresh_process(place: Place, tmp_path: Path) -> None:
    program = "import os; print(os.environ.get('OMP_NUM_THREADS'), os.getcwd())"
    done = place.run(place.command, program, env=surroundings(OMP_NUM_THREADS="1"))
    assert done.stdout == f"1 {place.folder}\n"
    assert "its environment differs in OMP_NUM_THREADS" in done.stderr
    words = [place.command, "-m", "json.tool", "--help", "--function_to_execute", STEP]
    done = subprocess.run(words, cwd=tmp_path, env=surroundings(), capture_output=True, text=True, check=False)
    assert "it works in another folder" in done.stderr
    assert "usage" in done.stdout


def test_other_commands_and_light_steps_are_python_itself(place: Place) -> None:
    program = [place.command, "-c", "import os; print(os.getppid())"]
    assert subprocess.run(program, capture_output=True, text=True, check=True).stdout == f"{os.getpid()}\n"
    (place.folder / "parent.py").write_text("import os; print(os.getppid())")
    light = [place.command, "-m", "parent", "--function_to_execute", "claim"]
    done = subprocess.run(light, cwd=place.folder, capture_output=True, text=True, check=True)
    assert done.stdout == f"{os.getpid()}\n"


def test_only_heavy_steps_of_the_pipeline_are_served() -> None:
    assert preloaded_steps("    exec-claim:\n    exec-train:\n    exec-scoring-set:\n") == ["scoring_set", "train"]
    with forking_python(preloaded_steps("    exec-claim:\n")) as command:
        assert command == sys.executable


@pytest.mark.slow
def test_all_libraries_of_all_steps_leave_one_thread_and_compute_in_children(tmp_path: Path) -> None:
    """After a fork, libgomp, pyarrow, DuckDB, torch and onnxruntime start their pools anew, in several children."""
    program = """
        import numpy, xgboost, torch, onnxruntime, duckdb, pyarrow.compute as pc, pyarrow as pa
        from sklearn.ensemble import HistGradientBoostingRegressor
        rows = numpy.random.default_rng(1).random((20000, 8))
        xgboost.train({"nthread": 2, "max_depth": 6}, xgboost.DMatrix(rows, rows[:, 0]), 20)
        HistGradientBoostingRegressor(max_iter=20).fit(rows, rows[:, 0])
        torch.nn.Linear(8, 64)(torch.tensor(rows, dtype=torch.float32)).sum().backward()
        onnxruntime.SessionOptions()
        print(duckdb.sql("select sum(range) from range(5000000)").fetchall(), pc.sum(pa.array(range(100000))))
        """
    with forking_in(tmp_path, *PRELOAD) as place:
        place.step = "package"  # at once, while nothing of it is there
        first, second = place.forked(program), place.forked(program)
        assert first.returncode == second.returncode == 0, first.stderr
        assert first.stdout == second.stdout == "[(12499997500000,)] 4999950000\n"
        wait_until(lambda: place.server.cpu_percent(0.5) == 0)
        assert place.server.num_threads() == 1
        third = place.forked("import os; print(len(os.listdir('/proc/self/task')))")
        assert third.returncode == 0
