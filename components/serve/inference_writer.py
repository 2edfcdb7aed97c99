"""Appending predictions to the inference log, off the request path.

A request appends one string of bytes and counts it; a thread turns these into Parquet files. What is in memory is
bounded in rows. Rows leave memory only when their file is complete, so a full disk delays them until the buffer is full
too; then the newest are dropped and counted, and serving goes on.
"""

import contextlib
import logging
import pickle
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from components.core.inference_log import Entry, Origin, encode, row_names, row_values, split_days, write_part
from components.core.inference_losses import Counters, living_writers, settle_dead
from components.core.serving import ServingSpec

log = logging.getLogger("driftline.serve")

CAPACITY_ROWS = 20_000
FLUSH_ROWS = 4096
FLUSH_SECONDS = 60.0
STOP_SECONDS = 8.0
_SLICE_ENTRIES = 256
_PAUSE_SECONDS = 0.001

Count = Callable[[str, int], None]
"""Told an outcome (written, dropped, lost) and a number of rows."""


class InferenceWriter:
    """One process's writer; `append` from one thread (the event loop), files from a thread of its own."""

    def __init__(
        self,
        root: Path,
        spec: ServingSpec,
        count: Count,
        *,
        capacity_rows: int = CAPACITY_ROWS,
        flush_rows: int = FLUSH_ROWS,
        flush_seconds: float = FLUSH_SECONDS,
        share: Callable[[Path], None] | None = None,
    ) -> None:
        """Start writing below `root`. Raises nothing: a folder that cannot be written is tried again later.

        `share` hands a finished file to where others read it; it is deleted here then.
        """
        self.writer = uuid.uuid4().hex
        self._root, self._spec, self._count = root, spec, count
        # A whole batch must fit beside one that is being written.
        self._capacity = max(capacity_rows, 2 * spec.max_batch_rows)
        self._flush_rows, self._flush_seconds, self._share = flush_rows, flush_seconds, share
        self._names = row_names(spec)
        # Pickled, so that the collector has no waiting objects to look at and a request's memory is used again at once.
        self._entries: list[bytes] = []
        self._pending: deque[tuple[str, pa.Table]] = deque()
        # `append` alone changes the totals appended and dropped, the writing thread all others.
        self._counters = Counters(root, spec.use_case, self.writer)
        self._taken = self._gone = 0
        self._sequence = 0
        self._failing = False
        self._dead_settled = False
        self._wake, self._stopping = threading.Event(), threading.Event()
        with contextlib.suppress(OSError):
            self._counters.open()
        self._thread = threading.Thread(target=self._run, name="inference-log", daemon=True)
        self._thread.start()

    def append(
        self,
        route: str,
        request_id: str,
        rows: Sequence[Mapping[str, Any]],
        predictions: Sequence[float],
        *,
        as_of: float | None = None,
        stale: Sequence[str] = (),
        missing: Sequence[str] = (),
    ) -> None:
        """Take one answered request: microseconds, no waiting."""
        count = len(rows)
        buffered = self._counters.appended + count - self._gone
        if buffered > self._capacity:
            self._counters.drop(count)
            self._count("dropped", count)
            return
        now = time.time()
        instant = now if as_of is None else as_of
        values = [row_values(self._names, row) for row in rows]
        entry = (request_id, now, instant, route, values, stale, missing, predictions)
        self._entries.append(pickle.dumps(entry, pickle.HIGHEST_PROTOCOL))
        self._counters.append(count)
        if self._counters.appended - self._taken >= self._flush_rows and not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Write what is left and settle the account; waits at most eight seconds for the disk."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        self._attempt(self._settle_dead)
        while not self._stopping.is_set():
            self._wake.wait(self._flush_seconds)
            self._wake.clear()
            if not self._attempt(self._flush):
                # No hurry, however full the buffer is: the disk will not be better in a moment.
                self._stopping.wait(self._flush_seconds)
        self._attempt(self._flush)
        if self._counters.is_open:
            self._attempt(self._counters.settle)

    def _attempt(self, work: Callable[[], None]) -> bool:
        """Do some work; say once that it fails, and once that it does not any more."""
        try:
            work()
        except Exception as error:  # the thread must outlive whatever a disk does
            if not self._failing:
                log.error("the inference log cannot be written; predictions are answered all the same: %s", error)
            self._failing = True
            return False
        if self._failing:
            log.warning("the inference log is written again; %d rows were dropped", self._counters.dropped)
        self._failing = False
        return True

    def _settle_dead(self) -> None:
        for losses in settle_dead(self._root, self._spec.use_case):
            if losses.lost:
                log.warning("a writer of the inference log was killed; %d predictions are lost", losses.lost)
                self._count("lost", losses.lost)
        self._dead_settled = True

    def _flush(self) -> None:
        if not self._counters.is_open:
            self._counters.open()
        if not self._dead_settled:
            self._settle_dead()
        self._take()
        while self._pending:
            day, table = self._pending[0]
            rows = table.num_rows
            counters = self._counters
            origin = Origin(
                writer=self.writer, sequence=self._sequence, written=counters.written + rows, dropped=counters.dropped
            )
            write_part(self._root, self._spec.use_case, day, table, origin)
            self._pending.popleft()
            self._sequence += 1
            counters.write(rows)
            self._gone += rows
            self._count("written", rows)
        if self._share:
            self._hand_over(self._share)

    def _hand_over(self, share: Callable[[Path], None]) -> None:
        """Share the finished files of this writer and of those that are dead; a living one shares its own."""
        others = living_writers(self._root, self._spec.use_case) - {self.writer}
        for path in sorted((self._root / self._spec.use_case).glob("*/*.parquet")):
            if not path.name.startswith(".") and path.name.rpartition("-")[0] not in others:
                share(path)
                # Of two that find a dead one's file the slower one finds it gone.
                path.unlink(missing_ok=True)

    def _take(self) -> None:
        """Move what was appended so far into tables, one per day, that wait to be written."""
        self._taken = self._counters.appended
        taken = len(self._entries)
        tables = []
        for start in range(0, taken, _SLICE_ENTRIES):
            packed = self._entries[start : min(start + _SLICE_ENTRIES, taken)]
            entries: list[Entry] = [pickle.loads(entry) for entry in packed]  # noqa: S301 - never left this process
            try:
                tables.append(encode(self._spec, entries))
            except Exception:
                # Rows that cannot be encoded must not hold up those behind them for ever.
                rows = sum(len(entry[4]) for entry in entries)
                log.exception("%d rows cannot be written to the inference log", rows)
                self._gone += rows
                self._count("lost", rows)
            # Encoding holds the interpreter's lock: without a pause a request waits five milliseconds per turn.
            time.sleep(_PAUSE_SECONDS)
        # One list operation, so that an `append` beside it is safe.
        del self._entries[:taken]
        if tables:
            self._pending.extend(split_days(pa.concat_tables(tables)))
