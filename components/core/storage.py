"""Writing files so that a reader sees the whole file or none of it."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from components.core.errors import StorageFailed


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary neighbour of `path`, then rename it into place.

    Raises StorageFailed when the disk is full, read-only or out of reach; nothing is left behind then.
    """
    _place(path, write, lambda temporary: temporary.replace(path))


def create_once(path: Path, write: Callable[[Path], object]) -> bool:
    """Write a file like `write_atomically` unless there is one; return whether this call made it.

    Of several writers exactly one gets True, also on a network file system: a hard link never replaces a file.
    Raises StorageFailed.
    """
    created = True

    def publish(temporary: Path) -> None:
        nonlocal created
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            created = False

    _place(path, write, publish)
    return created


def _place(path: Path, write: Callable[[Path], object], publish: Callable[[Path], object]) -> None:
    """Fill a temporary neighbour, make it durable and publish it."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        publish(temporary)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> StorageFailed:
    """Return what to raise for a file that the system would not write."""
    return StorageFailed(
        f"cannot write {path}",
        measured=error.strerror or str(error),
        allowed="a writable folder with free space",
        next_step="free space or point DRIFTLINE_HOME at a writable folder, then run the command again",
    )


def require_writable(folder: Path) -> None:
    """Raise StorageFailed unless files can be made in a folder; the folder is created if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"probe")
            probe.flush()
    except OSError as error:
        raise StorageFailed(
            f"cannot write into {folder}",
            measured=error.strerror or str(error),
            allowed="a writable folder with free space",
            next_step="make it writable, free space, or set DRIFTLINE_HOME to another folder",
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
