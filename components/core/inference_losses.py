"""What a writer of the inference log lost, also when it was killed.

A living writer keeps `<root>/<use case>/writers/<writer>`, locked with flock(2): three little-endian uint64, the rows
it took (appended), refused (dropped) and put into files (written). They go through the page cache with pwrite(2): a
kill -9 does not lose them, and a full disk is an error, where a mapped page would be a SIGBUS. A lock that can be had
belongs to a dead writer; whoever gets it moves the difference to `<root>/<use case>/lost/<writer>.json`.
"""

import contextlib
import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from components.core.inference_log import METADATA, Origin
from components.core.storage import write_text

_WIDTH = 8


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
    """The running totals of one writer, in memory and, once opened, in its file."""

    def __init__(self, root: Path, use_case: str, writer: str) -> None:
        self.appended = self.dropped = self.written = 0
        self._root, self._use_case = root, use_case
        self._path = _folder(root, use_case) / writer
        self._file = -1

    @property
    def is_open(self) -> bool:
        return self._file >= 0

    def open(self) -> None:
        """Make and lock the file. Raises OSError when the folder is full, read-only or without locks."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Locked before it has its name: nobody must take it for a dead writer's.
        hidden = self._path.with_name(f".{self._path.name}")
        file = os.open(hidden, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            totals = (self.appended, self.dropped, self.written)
            os.pwrite(file, b"".join(total.to_bytes(_WIDTH, "little") for total in totals), 0)
            os.fsync(file)
            hidden.rename(self._path)
        except OSError:
            os.close(file)
            hidden.unlink(missing_ok=True)
            raise
        self._file = file

    def append(self, rows: int) -> None:
        self.appended += rows
        self._put(0, self.appended)

    def drop(self, rows: int) -> None:
        self.dropped += rows
        self._put(_WIDTH, self.dropped)

    def write(self, rows: int) -> None:
        self.written += rows
        self._put(2 * _WIDTH, self.written)

    def _put(self, offset: int, total: int) -> None:
        if self._file < 0:
            return
        # A total that could not be stored is stored with the next one.
        with contextlib.suppress(OSError):
            os.pwrite(self._file, total.to_bytes(_WIDTH, "little"), offset)

    def settle(self) -> None:
        """Record what was lost, if anything was, and forget the file. Raises StorageFailed; a later start then does."""
        file, self._file = self._file, -1
        try:
            _settle(file, self._path, self._root, self._use_case)
        finally:
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


def read_losses(root: Path, use_case: str) -> list[Losses]:
    """Return the recorded losses of all writers that have ended."""
    records = sorted((root / use_case / "lost").glob("[!.]*.json"))
    return [Losses.model_validate_json(path.read_text(encoding="utf-8")) for path in records]


def _settle(file: int, path: Path, root: Path, use_case: str) -> Losses | None:
    content = os.pread(file, 3 * _WIDTH, 0)
    appended, dropped, written = (
        int.from_bytes(content[start : start + _WIDTH], "little") for start in range(0, 3 * _WIDTH, _WIDTH)
    )
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
