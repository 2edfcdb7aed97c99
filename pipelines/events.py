"""Reading the local runner's output: which step runs, what it was given, and why it failed."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel

from components.core.failures import Failure, parse_failure

ANSI = re.compile(r"\x1b\[[0-9;]*m")
STARTED = re.compile(r"Executing task '([^']+)'")
FINISHED = re.compile(r"Task '([^']+)' finished with status (\w+)")
INPUT = "Got executor_input:"


class Step(BaseModel):
    """One executed task."""

    name: str
    state: Literal["running", "succeeded", "failed", "cancelled"] = "running"
    started_at: datetime
    finished_at: datetime | None = None
    inputs: dict[str, Any] = {}
    failure: Failure | None = None

    @property
    def seconds(self) -> float:
        return ((self.finished_at or datetime.now(UTC)) - self.started_at).total_seconds()


class Reader:
    """Turn output lines into steps; calls `notify` when a step starts and when it ends."""

    def __init__(self, notify: Callable[[Step], None]) -> None:
        self.steps: list[Step] = []
        self._notify = notify
        self._lines: list[str] = []

    def feed(self, raw: str) -> None:
        """Take one line of output."""
        line = ANSI.sub("", raw.rstrip("\n"))
        if not line.startswith("    "):
            started, finished = STARTED.search(line), FINISHED.search(line)
            if started:
                self._lines = []
                self.steps.append(Step(name=started.group(1), started_at=datetime.now(UTC)))
                self._notify(self.steps[-1])
                return
            if finished and self.steps and self.steps[-1].state == "running":
                self._finish("succeeded" if finished.group(2) == "SUCCESS" else "failed")
                return
        self._lines.append(line.removeprefix("    "))

    def close(self, *, cancelled: bool) -> None:
        """End the step that was still running when the output ended."""
        if self.steps and self.steps[-1].state == "running":
            self._finish("cancelled" if cancelled else "failed")

    def _finish(self, state: Literal["succeeded", "failed", "cancelled"]) -> None:
        step = self.steps[-1]
        step.state = state
        step.finished_at = datetime.now(UTC)
        step.inputs = parse_inputs(self._lines)
        if state == "failed":
            step.failure = parse_failure(self._lines)
        self._notify(step)


def parse_inputs(lines: list[str]) -> dict[str, Any]:
    """Return the executor input that KFP printed, or an empty mapping."""
    for position, line in enumerate(lines):
        if INPUT in line:
            try:
                value, _ = json.JSONDecoder().raw_decode("\n".join(lines[position + 1 :]).lstrip())
            except json.JSONDecodeError:
                return {}
            return value if isinstance(value, dict) else {}
    return {}
