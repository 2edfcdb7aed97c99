"""However the parent ends, nothing it started is left."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from components.package import guard

# A tree as BentoML makes one: the worker leads a session of its own, ignores SIGTERM and reports its process id.
WORKER = """
import os, signal, sys, time
os.setsid()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""
MASTER = (
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', sys.argv[1], sys.argv[2]]); time.sleep(600)"
)
PARENT = """
import json, subprocess, sys, time
process = subprocess.Popen([sys.executable, "-P", sys.argv[1]], stdin=subprocess.PIPE, start_new_session=True)
process.stdin.write(sys.argv[2].encode() + b"\\n")
process.stdin.flush()
print(process.pid, flush=True)
time.sleep(600)
"""


def order(folder: Path, pid_file: Path) -> str:
    commands = [[sys.executable, "-c", MASTER, WORKER, str(pid_file)]]
    return json.dumps({"folder": str(folder), "environment": {"PATH": os.defpath}, "commands": commands})


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def parent(tmp_path: Path) -> Callable[[], tuple[subprocess.Popen[bytes], int, psutil.Process, Path]]:
    """Return a function that starts parent, guard, master and worker and waits until the worker runs."""

    def start() -> tuple[subprocess.Popen[bytes], int, psutil.Process, Path]:
        folder = tmp_path / "folder"
        folder.mkdir()
        pid_file = tmp_path / "worker"
        process = subprocess.Popen(
            [sys.executable, "-c", PARENT, guard.__file__, order(folder, pid_file)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        guard_pid = int(process.stdout.readline())
        process.stdout.close()
        assert wait_for(pid_file.exists)
        return process, guard_pid, psutil.Process(int(pid_file.read_text())), folder

    return start


def test_sigkill_of_the_parent_ends_workers_in_other_sessions(
    parent: Callable[[], tuple[subprocess.Popen[bytes], int, psutil.Process, Path]],
) -> None:
    process, guard_pid, worker, folder = parent()
    assert worker.is_running()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert wait_for(lambda: not psutil.pid_exists(guard_pid) and not worker.is_running())
    assert not folder.exists()


def test_sigterm_and_ctrl_c_do_not_stop_the_guard_before_it_has_cleaned_up(
    parent: Callable[[], tuple[subprocess.Popen[bytes], int, psutil.Process, Path]],
) -> None:
    process, guard_pid, worker, folder = parent()
    os.kill(guard_pid, signal.SIGTERM)
    os.kill(guard_pid, signal.SIGINT)
    time.sleep(0.3)
    assert worker.is_running()
    process.send_signal(signal.SIGTERM)
    process.wait()
    assert wait_for(lambda: not worker.is_running() and not folder.exists())


def test_a_command_that_ends_leaves_its_code_until_the_parent_is_done(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    commands = [[sys.executable, "-c", f"print('step {n}'); raise SystemExit({n})"] for n in (0, 5, 6)]
    with subprocess.Popen([sys.executable, "-P", guard.__file__], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(
            json.dumps({"folder": str(folder), "environment": {}, "commands": commands}).encode() + b"\n"
        )
        process.stdin.flush()
        assert wait_for((folder / guard.EXIT_FILE).exists)
        assert (folder / guard.EXIT_FILE).read_text() == "5"
        assert (folder / guard.LOG_FILE).read_text().split() == ["step", "0", "step", "5"]
        process.stdin.close()
        assert process.wait(20) == 0
    assert not folder.exists()


def test_a_parent_that_dies_before_it_orders_anything(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-P", guard.__file__], input=b'{"folder', timeout=20, check=False)
    assert done.returncode == 0
