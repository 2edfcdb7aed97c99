"""A process of its own that runs commands and cleans up after them, however its parent ends.

The order comes as one line of JSON on standard input. The input then stays open as long as the parent wants the
commands to live: its end, be it by a close, a crash or SIGKILL of the parent, stops every descendant and removes the
folder. BentoML starts its workers in sessions of their own, so a signal to a process group would miss them; as a
subreaper (prctl(2), Linux) this process inherits whoever loses its parent.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

EXIT_FILE = "exit"
"""Written to the folder when the last command ended by itself; holds its exit code."""
LOG_FILE = "log"
STOP_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.1


def main() -> None:
    """Run the ordered commands one after another until one fails or standard input ends."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return
        line += byte
    order = json.loads(line)
    folder = Path(order["folder"])
    # Only the parent's end of the pipe decides, not a terminal's Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        _run(order, folder)
    finally:
        stop_descendants()
        shutil.rmtree(folder, ignore_errors=True)


def _run(order: dict[str, Any], folder: Path) -> None:
    code = 0
    with (folder / LOG_FILE).open("ab") as log:
        for command in order["commands"]:
            child = subprocess.Popen(  # noqa: S603 - the parent's own order
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=order["environment"],
                cwd=folder,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread
            )
            while child.poll() is None:
                if _parent_is_done(_POLL_SECONDS):
                    return
            code = child.returncode
            if code:
                break
    (folder / EXIT_FILE).write_text(str(code), encoding="utf-8")
    while not _parent_is_done(_POLL_SECONDS):
        pass


def _parent_is_done(timeout_seconds: float) -> bool:
    readable, _, _ = select.select([0], [], [], timeout_seconds)
    return bool(readable) and not os.read(0, 4096)


def stop_descendants() -> None:
    """Ask the direct children to end, then kill whatever is left of the tree."""
    for child in psutil.Process().children():
        _send(child, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while running := _running():
        if time.monotonic() > deadline:
            for child in running:
                _send(child, signal.SIGKILL)
        time.sleep(_POLL_SECONDS / 2)


def _running() -> list[psutil.Process]:
    """Return live descendants; dead ones that were left to this process are reaped."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return []
    children: list[psutil.Process] = psutil.Process().children(recursive=True)
    return children


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _die_with_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
