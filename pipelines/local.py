"""Running a compiled pipeline on this machine, with nothing but Python."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from components.core.ledger.runs import FinalState, RunState
from components.core.settings import Settings
from components.core.storage import cannot_write, write_text
from pipelines.events import Reader, Step

IR = "pipeline.yaml"
ARGUMENTS = "arguments.json"
RECORD = "run.json"
LOG = "log.txt"
GRACE_SECONDS = 5.0


class RunRecord(BaseModel):
    """A local run on disk: what `driftline why` reads."""

    id: str
    pipeline: str
    use_case: str
    state: RunState = "running"
    started_at: datetime
    finished_at: datetime | None = None
    steps: list[Step] = []

    @property
    def failed_step(self) -> Step | None:
        return next((step for step in self.steps if step.state in ("failed", "cancelled")), None)


def new_run_key(use_case: str) -> str:
    """Return a fresh identity for a local run, readable and sortable."""
    return f"{use_case.replace('_', '-')}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"


def run_locally(
    settings: Settings,
    *,
    run_key: str,
    pipeline: str,
    use_case: str,
    ir: str,
    arguments: Mapping[str, Any],
    notify: Callable[[Step], None],
) -> RunRecord:
    """Execute a compiled pipeline and return its record.

    Every step is a subprocess of its own. On Ctrl-C all steps are ended and the record says `cancelled`. Raises
    StorageFailed when the log cannot be written.
    """
    folder = settings.runs / run_key
    write_text(folder / IR, ir)
    write_text(folder / ARGUMENTS, json.dumps(dict(arguments), indent=2))
    record = RunRecord(id=run_key, pipeline=pipeline, use_case=use_case, started_at=datetime.now(UTC))

    def changed(step: Step) -> None:
        record.steps = reader.steps
        write_record(folder, record)
        notify(step)

    reader = Reader(changed)
    write_record(folder, record)
    # KFP leaves a folder per step, Feast and Great Expectations theirs: one place for all, gone with the run.
    scratch = tempfile.TemporaryDirectory(prefix="driftline-run-", ignore_cleanup_errors=True)
    worker = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "pipelines.local_worker", folder / IR, folder / ARGUMENTS, folder / "artifacts"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**task_environment(settings, run_key), "TMPDIR": scratch.name},
        start_new_session=True,
    )
    cancelled = False
    try:
        with (folder / LOG).open("w", encoding="utf-8") as log:
            for line in worker.stdout or ():
                log.write(line)
                reader.feed(line)
    except KeyboardInterrupt:
        cancelled = True
    except OSError as error:
        raise cannot_write(folder / LOG, error) from error
    finally:
        code = end_group(worker)
        for pipe in (worker.stdin, worker.stdout):
            if pipe:
                pipe.close()
        scratch.cleanup()
    reader.close(cancelled=cancelled)
    record.steps = reader.steps
    record.finished_at = datetime.now(UTC)
    record.state = outcome(record, code=code, cancelled=cancelled)
    write_record(folder, record)
    return record


def outcome(record: RunRecord, *, code: int, cancelled: bool) -> FinalState:
    """Tell a refusal from a failure by the exception of the failed step."""
    if cancelled:
        return "cancelled"
    if code == 0:
        return "succeeded"
    failed = record.failed_step
    return "refused" if failed and failed.failure and failed.failure.is_refusal else "failed"


def end_group(worker: "subprocess.Popen[str]") -> int:
    """Wait for a worker; end its whole process group if it does not go by itself."""
    if worker.poll() is None:
        try:
            return worker.wait(timeout=0.5)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            os.killpg(worker.pid, signal.SIGTERM)
    try:
        return worker.wait(timeout=GRACE_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        os.killpg(worker.pid, signal.SIGKILL)
        return worker.wait()


def task_environment(settings: Settings, run_key: str) -> dict[str, str]:
    """Return the environment of the steps: ours, with every address made absolute."""
    return {
        **os.environ,
        **settings.environment(),
        "DRIFTLINE_RUN_KEY": run_key,
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }


def write_record(folder: Path, record: RunRecord) -> None:
    """Write the record of a run."""
    write_text(folder / RECORD, record.model_dump_json(indent=2))


def read_record(settings: Settings, run_key: str) -> RunRecord | None:
    """Read the record of a run, or None when this machine has none."""
    path = settings.runs / run_key / RECORD
    return RunRecord.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None
