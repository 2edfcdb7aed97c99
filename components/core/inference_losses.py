"""What a writer of the inference log lost, also when it was killed.

A living writer keeps `<root>/<use case>/writers/<writer>`, locked with flock(2): three uint64 in native order, the rows
it took (appended), refused (dropped) and put into files (written). They live in a mapped page: a kill -9 does not lose
it, and counting is a memory access, where a system call takes as long as all else that the log does in a request. The
block is allocated and synced before it is mapped, so a full disk cannot fail it (copy-on-write file systems excepted).
A lock that can be had belongs to a dead writer; whoever gets it moves the difference to
`<root>/<use case>/lost/<writer>.json`.
"""

import fcntl
import mmap
import os
import struct
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from components.core.inference_log import METADATA, Origin
from components.core.storage import write_text

_TOTALS = struct.Struct("=3Q")


class Losses(BaseModel):
    """The final count of a writer that did not write every row it was given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    writer: str
    appended: int
    written: int
    dropped: int
    """Rows that were refused because the buffer was full; they are not among `appended`."""
    lost: int
    """Appended and never written."""
    last: datetime
    """When the writer counted for the last time."""


class Counters:
    """The running totals of one writer, in memory until opened, then in its file."""

    def __init__(self, root: Path, use_case: str, writer: str) -> None:
        self.appended = self.dropped = self.written = 0
        self._root, self._use_case = root, use_case
        self._path = _folder(root, use_case) / writer
        self._file = -1
        self._page = memoryview(bytearray(_TOTALS.size)).cast("Q")

    @property
    def is_open(self) -> bool:
        return self._file >= 0

    def append(self, rows: int) -> None:
        self.appended += rows
        self._page[0] = self.appended

    def drop(self, rows: int) -> None:
        self.dropped += rows
        self._page[1] = self.dropped

    def write(self, rows: int) -> None:
        self.written += rows
        self._page[2] = self.written

    def open(self) -> None:
        """Make and lock the file. Raises OSError when the folder is full, read-only or without locks."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Locked before it has its name: nobody must take it for a dead writer's.
        hidden = self._path.with_name(f".{self._path.name}")
        file = os.open(hidden, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(file, _TOTALS.pack(self.appended, self.dropped, self.written), 0)
            os.fsync(file)
            page = memoryview(mmap.mmap(file, _TOTALS.size)).cast("Q")
            hidden.rename(self._path)
        except OSError:
            os.close(file)
            hidden.unlink(missing_ok=True)
            raise
        self._page, self._file = page, file

    def settle(self) -> None:
        """Record what was lost, if anything was, and forget the file. Raises StorageFailed; a later start then does."""
        file, self._file = self._file, -1
        try:
            _settle(file, self._path, self._root, self._use_case)
        finally:
            # The mapping holds the file, and with it the lock, until the process ends.
            fcntl.flock(file, fcntl.LOCK_UN)
            os.close(file)


def settle_dead(root: Path, use_case: str) -> list[Losses]:
    """Record the losses of writers that ended without a word; each is returned to one caller only.

    Raises StorageFailed when a record cannot be written; the account stays open then.
    """
    found = []
    for path in sorted(_folder(root, use_case).glob("[!.]*")):
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have settled it between open and lock.
            if os.fstat(file).st_nlink and (losses := _settle(file, path, root, use_case)):
                found.append(losses)
        except BlockingIOError:
            continue
        finally:
            os.close(file)
    return found


def living_writers(root: Path, use_case: str) -> set[str]:
    """Return the writers whose account is open: they live, or died and were not settled yet."""
    return {path.name for path in _folder(root, use_case).glob("[!.]*")}


def read_losses(root: Path, use_case: str) -> list[Losses]:
    """Return the recorded losses of all writers that have ended."""
    records = sorted((root / use_case / "lost").glob("[!.]*.json"))
    return [Losses.model_validate_json(path.read_text(encoding="utf-8")) for path in records]


def _settle(file: int, path: Path, root: Path, use_case: str) -> Losses | None:
    appended, dropped, written = _TOTALS.unpack(os.pread(file, _TOTALS.size, 0))
    # A kill between a file and its count: the file knows.
    files = sorted((root / use_case).glob(f"*/{path.name}-*.parquet"), key=lambda file: file.name)
    if files:
        metadata = pq.read_metadata(files[-1]).metadata
        written = max(written, Origin.model_validate_json(metadata[METADATA]).written)
    # A kill within a file leaves its temporary neighbour.
    for unfinished in (root / use_case).glob(f"*/.{path.name}-*"):
        unfinished.unlink(missing_ok=True)
    losses = None
    if appended > written or dropped:
        losses = Losses(
            writer=path.name,
            appended=appended,
            written=written,
            dropped=dropped,
            lost=max(0, appended - written),
            last=datetime.fromtimestamp(os.fstat(file).st_mtime, UTC),
        )
        write_text(root / use_case / "lost" / f"{path.name}.json", losses.model_dump_json())
    path.unlink()
    return losses


def _folder(root: Path, use_case: str) -> Path:
    return root / use_case / "writers"
