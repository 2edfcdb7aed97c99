"""Starting requested retrainings on this machine, in the foreground.

The ledger decides what is started (`components.core.ledger.dispatch`). A file lock tells whether the process that owns
a run still lives: the lock ends with its process, however that one ends.
"""

import fcntl
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from components.core.errors import Superseded
from components.core.ledger.attempts import Attempt
from components.core.ledger.dispatch import sweep
from components.core.ledger.engine import open_ledger
from components.core.ledger.runs import read_run
from components.core.settings import Settings
from pipelines.events import Step
from pipelines.execute import run_pipeline
from pipelines.local import RunRecord

log = logging.getLogger(__name__)


class LocalDispatcher:
    """Runs the training pipeline of an attempt and returns when it ended."""

    def __init__(self, settings: Settings, *, notify: Callable[[Step], None], announce: Callable[[str], None]) -> None:
        self._settings, self._notify, self._announce = settings, notify, announce
        self.records: list[RunRecord] = []
        """What this dispatcher ran."""

    def state(self, run_id: str) -> Literal["absent", "running", "ended"]:
        """Tell what became of a run: its owner lives, it ended, or neither."""
        with _owner(self._lock(run_id)) as free:
            if not free:
                return "running"
            run = read_run(open_ledger(self._settings.ledger_url), run_id)
            return "absent" if run is None or run.state == "running" else "ended"

    def start(self, attempt: Attempt) -> None:
        """Run an attempt unless another process does or did; failures are in the ledger, nothing is raised for them."""
        with _owner(self._lock(attempt.run_id)) as mine:
            if not mine or read_run(open_ledger(self._settings.ledger_url), attempt.run_id) is not None:
                return
            try:
                record = run_pipeline(
                    self._settings,
                    attempt.model,
                    "training",
                    run_key=attempt.run_id,
                    overrides={"as_of": attempt.as_of.isoformat()},
                    notify=self._notify,
                    announce=self._announce,
                )
            except Superseded as given_up:
                log.warning("%s", given_up)
                return
            self.records.append(record)

    def _lock(self, run_id: str) -> Path:
        return self._settings.home / "dispatch" / f"{run_id}.lock"


def dispatch_open(
    settings: Settings, *, model: str = "", notify: Callable[[Step], None], announce: Callable[[str], None]
) -> list[RunRecord]:
    """Start what is requested and finish what was stranded, until nothing is left to start; return the runs."""
    dispatcher = LocalDispatcher(settings, notify=notify, announce=announce)
    ledger = open_ledger(settings.ledger_url)
    while sweep(ledger, dispatcher, model=model, now=datetime.now(UTC)):
        pass
    return dispatcher.records


@contextmanager
def _owner(path: Path) -> Iterator[bool]:
    """Yield whether this process owns the lock until the end of the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
