"""Makes a forked child what a freshly started Python would be, and runs its task there."""

import atexit
import gc
import io
import logging
import os
import random
import runpy
import signal
import sys
import threading
import types
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

OUTPUT_LOST = 120  # what Python itself exits with when its standard output cannot be flushed


@dataclass(frozen=True)
class Task:
    """One call of the interpreter: `python -m MODULE ARGUMENT...` with its surroundings."""

    folder: Path
    words: list[str]
    environment: dict[str, str]
    streams: list[int]


def run_task(task: Task, *, inherited: dict[str, str], report: Callable[[int], None]) -> NoReturn:
    """Run a task in this forked process and end it as the interpreter would; never returns.

    `inherited` is the environment that the server itself was given: what its imports added to it stays. `report` tells
    the client the wait status at once: the server may be busy importing.
    """
    code = 1
    try:
        take_over(task, inherited)
        code = run_module(task.words[1:])
        threading._shutdown()  # type: ignore[attr-defined]  # joins what a step left running, as at any exit
        atexit._run_exitfuncs()
        flush_files()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        code = flush(code)
        report(code << 8)
        os._exit(code)


def take_over(task: Task, inherited: dict[str, str]) -> None:
    """Take the streams, environment and exit handlers of a task, and forget the server's."""
    for target, stream in enumerate(task.streams):
        os.dup2(stream, target)
        os.close(stream)
    # What imports set is handed on, as a fresh process would find it after its own imports.
    added = {name: value for name, value in dict(os.environ).items() if name not in inherited}
    os.environ.clear()
    os.environ.update(added | task.environment)
    forget_exit_handlers()
    restore_blas_threads(task.environment)
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    gc.enable()


def forget_exit_handlers() -> None:
    """Drop the server's exit handlers, as multiprocessing does: they would remove what the next child needs."""
    atexit._clear()
    atexit.register(logging.shutdown)
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    if util := sys.modules.get("multiprocessing.util"):
        util._finalizer_registry.clear()
        util._run_after_forkers()
        atexit.register(util._exit_function)


def restore_blas_threads(environment: dict[str, str]) -> None:
    """Give BLAS the threads that it takes by itself in a fresh process; the server keeps it at one."""
    if "numpy" not in sys.modules:
        return
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    chosen = next((environment[n] for n in BLAS_THREADS if environment.get(n, "").isdigit()), "0")
    threads = int(chosen) or len(os.sched_getaffinity(0))
    for library in ThreadpoolController().lib_controllers:
        if library.internal_api == "openblas":
            library.set_num_threads(threads)


BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")


def run_module(words: list[str]) -> int:
    """Run `python -m WORDS` in this process and return its exit code; a traceback starts where Python's would."""
    sys.argv = ["-m", *words[1:]]
    sys.orig_argv = [sys.executable, "-m", *words]
    main = types.ModuleType("__main__")
    main.__annotations__ = {}
    sys.modules["__main__"] = main
    try:
        runpy._run_module_as_main(words[0])  # type: ignore[attr-defined]
    except SystemExit as leaving:
        return exit_code(leaving.code)
    except BaseException as problem:
        traceback = problem.__traceback__
        problem.__traceback__ = traceback and traceback.tb_next  # without this very frame
        sys.excepthook(type(problem), problem, problem.__traceback__)
        if isinstance(problem, KeyboardInterrupt):
            flush(0)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        return 1
    return 0


def exit_code(value: object) -> int:
    """Return the exit status for the argument of `sys.exit`."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value & 0xFF
    print(value, file=sys.stderr)  # noqa: T201 - what the interpreter does
    return 1


def flush_files() -> None:
    """Flush the files that the task left open, as the interpreter does when it takes itself down."""
    for thing in gc.get_objects():
        if type(thing) in (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom):
            with suppress(OSError, ValueError):
                thing.flush()


def flush(code: int) -> int:
    """Flush the standard streams; return the exit code, or Python's own for output that was lost."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            code = OUTPUT_LOST
            if stream is sys.stdout:
                print(f"Exception ignored in: {stream!r}\n{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
    return code
