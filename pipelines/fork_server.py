"""Imports the heavy libraries once and forks a child per task.

    python -m pipelines.fork_server SOCKET_FD STEP,STEP,...       (started by pipelines.forking)

One thread, no pools: a child of `fork` has only the thread that forked, and a lock that another one held stays locked
for ever. While nothing is asked, the next module is imported, in the order in which steps need them. The server ends
with its standard input: a line there is a farewell; silence means that the worker died, and then the whole process
group that it led is ended.
"""

import ctypes
import gc
import importlib
import os
import selectors
import signal
import socket
import struct
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from components.core.settings import silence_libraries
from components.core.typechecks import skip_typechecks
from pipelines.fork_child import Task, run_task
from pipelines.fork_client import requested_step
from pipelines.preload import PRELOAD

# Libraries start threads when they are imported unless they are told not to; a child gets its BLAS threads back.
THREADLESS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
# The shell between KFP and the client sets these, and readline the last two, behind Python's back.
SHELL = {"PWD", "OLDPWD", "SHLVL", "_", "_KFP_RUNTIME", "COLUMNS", "LINES"}
PR_SET_PDEATHSIG = 1


class Server:
    """The state of one server: what it was given, what it has still to import, who waits for which child."""

    def __init__(self, listener: socket.socket, steps: list[str]) -> None:
        self.worker = os.getppid()
        self.inherited = dict(os.environ)
        self.folder = Path.cwd()
        self.pending = deque(dict.fromkeys(module for step in steps for module in PRELOAD[step]))
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ, self.accept)
        self.selector.register(sys.stdin, selectors.EVENT_READ, self.end)
        self.listener = listener
        self.ended = False

    def run(self) -> None:
        """Answer until standard input ends; import in between."""
        while not self.ended:
            ready = self.selector.select(0 if self.pending else None)
            for key, _ in ready:
                key.data()
            if not ready and self.pending:
                load(self.pending.popleft())

    def end(self) -> None:
        """Leave the loop; without a farewell the worker is dead, so nothing of its group may stay."""
        if not os.read(sys.stdin.fileno(), 1) and os.getpgrp() == self.worker:
            os.killpg(self.worker, signal.SIGKILL)
        self.ended = True

    def accept(self) -> None:
        """Take one task from a client, fork a child for it or say why not."""
        connection, _ = self.listener.accept()
        try:
            task = receive(connection)
        except (OSError, ValueError, EOFError):
            connection.close()  # the client died half-way
            return
        step = requested_step(task.words)
        for module in PRELOAD.get(step, ()):
            if module in self.pending:
                self.pending.remove(module)
                load(module)
        reason = self.objection(task)
        if reason:
            with suppress(OSError):
                connection.sendall(f"declined {reason}\n".encode())
            connection.close()
        else:
            self.fork(task, connection)
        for stream in task.streams:
            os.close(stream)

    def objection(self, task: Task) -> str:
        """Return why a child of this process would not be what a fresh process is, or ''."""
        threads = len(list(Path("/proc/self/task").iterdir()))
        if threads > 1:
            return f"the fork server has {threads} threads"
        if task.folder != self.folder:
            return "it works in another folder"
        names = {*task.environment, *self.inherited}
        differing = [n for n in names if task.environment.get(n) != self.inherited.get(n)]
        differing = [n for n in differing if n not in SHELL and not n.startswith("DRIFTLINE_")]
        return f"its environment differs in {', '.join(sorted(differing))}" if differing else ""

    def fork(self, task: Task, connection: socket.socket) -> None:
        """Start a child and watch both it and its client."""
        gc.freeze()  # what exists now is shared with the child: its collector shall not touch (and copy) those pages
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            for key in list(self.selector.get_map().values()):
                if key.fileobj is not sys.stdin:
                    os.close(key.fd)
            self.selector.close()
            connection.sendall(b"forked\n")
            inherited = {**self.inherited, **THREADLESS, "_KFP_RUNTIME": "true"}
            run_task(task, inherited=inherited, report=partial(report, connection))
        watch = os.pidfd_open(pid)
        self.selector.register(watch, selectors.EVENT_READ, lambda: self.reap(pid, watch, connection))
        self.selector.register(connection, selectors.EVENT_READ, lambda: self.abandon(watch, connection))

    def abandon(self, watch: int, connection: socket.socket) -> None:
        """Kill the child whose client is gone."""
        if connection.fileno() >= 0:
            self.selector.unregister(connection)
            connection.close()
            signal.pidfd_send_signal(watch, signal.SIGKILL)

    def reap(self, pid: int, watch: int, connection: socket.socket) -> None:
        """Tell a client how its child ended; only a child that was killed has not done so itself."""
        _, status = os.waitpid(pid, 0)
        self.selector.unregister(watch)
        os.close(watch)
        if connection.fileno() >= 0:
            self.selector.unregister(connection)
            report(connection, status)
            connection.close()


def report(connection: socket.socket, status: int) -> None:
    """Send a wait status to a client."""
    with suppress(OSError):
        connection.sendall(f"{status}\n".encode())


def receive(connection: socket.socket) -> Task:
    """Read one task; raises EOFError when the client ends before it has said everything."""
    head, streams, _, _ = socket.recv_fds(connection, 8, 3)
    (left,) = struct.unpack("Q", head) if len(head) == 8 else (0,)  # noqa: PLR2004
    parts = []
    while left:
        part = connection.recv(min(left, 1 << 20))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    if left or len(streams) != 3 or not parts:  # noqa: PLR2004
        for stream in streams:
            os.close(stream)
        raise EOFError
    folder, count, *fields = (os.fsdecode(field) for field in b"".join(parts).split(b"\0"))
    words, variables = fields[: int(count)], fields[int(count) :]
    environment = dict(variable.split("=", 1) for variable in variables)
    return Task(folder=Path(folder), words=words, environment=environment, streams=list(streams))


def load(module: str) -> None:
    """Import a module; one that fails here fails again, and says so, in the step that needs it."""
    with silent_streams(), suppress(Exception, SystemExit):
        importlib.import_module(module)


@contextmanager
def silent_streams() -> Iterator[None]:
    """Send what imports print nowhere: it belongs to no step."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def main() -> None:
    """Serve until the worker says farewell."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    server = Server(listener, sys.argv[2].split(","))
    os.environ.update(THREADLESS, _KFP_RUNTIME="true")
    silence_libraries()
    skip_typechecks()
    load("kfp.dsl.executor_main")
    load("threadpoolctl")
    server.run()


if __name__ == "__main__":
    main()
