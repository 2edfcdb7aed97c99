"""Failures: the exception that ended a step, read from its output."""

import re

from pydantic import BaseModel

from components.core.errors import Refused

FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
# Frames of the interpreter and of KFP's own launcher.
KFP_NOISE = ("/kfp/dsl/", "<string>", "<frozen", "ephemeral_component.py")
# Lines that KFP's launcher writes after the step's own: a letter and the date, by glog.
LAUNCHER = re.compile(r"^[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ ")


class Failure(BaseModel):
    """The exception of a step, as a person needs it."""

    type: str
    message: str
    file: str = ""
    line: int = 0
    function: str = ""
    traceback: str = ""

    @property
    def is_refusal(self) -> bool:
        """Return whether a gate or policy said no: nothing is broken then."""
        return self.type in _names(Refused)


def parse_failure(lines: list[str]) -> Failure:
    """Return the last exception of a step's output, located at the last frame that is our own code."""
    starts = [i for i, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    if not starts:
        tail = [line for line in lines if line.strip() and not LAUNCHER.match(line)][-5:]
        return Failure(type="Killed", message=" / ".join(tail) or "the step ended without a word")
    block = [line for line in lines[starts[-1] :] if not LAUNCHER.match(line)]
    frames = [FRAME.search(line) for line in block]
    own = [f for f in frames if f and not any(noise in f.group(1) for noise in KFP_NOISE)]
    ours = [f for f in own if "site-packages" not in f.group(1)] or own
    last = max((i for i, f in enumerate(frames) if f), default=0)
    message = next((line for line in block[last + 1 :] if line and not line.startswith((" ", "\t"))), "")
    kind, _, text = message.partition(": ")
    where = ours[-1] if ours else None
    return Failure(
        type=kind.rsplit(".", 1)[-1],
        message=text,
        file=where.group(1) if where else "",
        line=int(where.group(2)) if where else 0,
        function=where.group(3) if where else "",
        traceback="\n".join(block),
    )


def _names(error: type[Exception]) -> set[str]:
    return {error.__name__}.union(*(_names(kind) for kind in error.__subclasses__()))
