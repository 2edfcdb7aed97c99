"""Stands in for Python in a local run: hands its task to the fork server and ends as the task ends.

    python -I -S fork_client.py SOCKET STEPS -m kfp.dsl.executor_main ... --function_to_execute STEP ...

Imports the standard library only, since each task starts it. Whatever the server does not take (another step, another
command, no server) is executed by the real interpreter in this very process.
"""

import os
import resource
import signal
import socket
import struct
import sys


def main() -> None:
    """Have the server run the task, or become the real interpreter."""
    address, steps, *words = sys.argv[1:]
    if words[:1] == ["-m"] and requested_step(words) in steps.split(","):
        reason = run_by_server(address, words)
        sys.stderr.write(f"driftline: this step imports its libraries itself: {reason}\n")
        sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *words])  # noqa: S606 - the words KFP gave us


def requested_step(words: list[str]) -> str:
    """Return the function that KFP's executor is asked for, or ''."""
    option = "--function_to_execute"
    return words[words.index(option) + 1] if option in words[:-1] else ""


def run_by_server(address: str, words: list[str]) -> str:
    """Run the task on the server and end with its status; return the reason when the server did not start it."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(address)
            send_task(connection, words)
            answers = connection.makefile("rb")
            verdict, _, reason = answers.readline().decode().rstrip("\n").partition(" ")
            if verdict != "forked":
                return reason or "the fork server ended"
            status = answers.readline()
    except OSError as problem:
        return f"no fork server: {problem}"
    end_like(int(status) if status.endswith(b"\n") else signal.SIGKILL)
    return ""


def send_task(connection: socket.socket, words: list[str]) -> None:
    """Send standard streams, working directory, words and environment."""
    here = os.getcwdb()  # noqa: PTH109 - pathlib costs more than this whole program
    fields = [here, str(len(words)).encode(), *map(os.fsencode, words)]
    fields += [name + b"=" + value for name, value in os.environb.items()]
    body = b"\0".join(fields)
    streams = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("3i", 0, 1, 2))]
    connection.sendmsg([struct.pack("Q", len(body))], streams)
    connection.sendall(body)


def end_like(status: int) -> None:
    """End this process with the wait status of another one."""
    if os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    number = os.WTERMSIG(status)
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    main()
