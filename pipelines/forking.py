"""Starting the fork server beside a local run, and the stand-in for Python that uses it."""

import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines import fork_client

GRACE_SECONDS = 5.0


@contextmanager
def forking_python(steps: list[str]) -> Iterator[str]:
    """Yield the command that runs Python in these steps: forked from a server where that works, else as it is.

    KFP pastes the command into a shell script.
    """
    if not steps or not can_fork():
        yield sys.executable
        return
    with tempfile.TemporaryDirectory(prefix="driftline-fork-") as folder:
        address, command = Path(folder) / "socket", Path(folder) / "python"
        words = [sys.executable, "-I", "-S", fork_client.__file__, str(address), ",".join(steps)]
        command.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
        command.chmod(0o700)
        server = start_server(address, steps)
        try:
            yield shlex.quote(str(command))
        finally:
            stop_server(server)


def can_fork() -> bool:
    """Return whether a forked child is safe here: elsewhere system libraries start threads by themselves."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


def start_server(address: Path, steps: list[str]) -> "subprocess.Popen[bytes]":
    """Start a server in this process group; clients may connect at once and wait until it answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(address))
        listener.listen()
        return subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "pipelines.fork_server", str(listener.fileno()), ",".join(steps)],
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
        )


def stop_server(server: "subprocess.Popen[bytes]") -> None:
    """Bid the server farewell and wait for its end."""
    try:
        server.communicate(b"\n", timeout=GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.communicate()
