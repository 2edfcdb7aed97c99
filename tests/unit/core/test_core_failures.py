"""Exceptions read from the output of steps, as the local runner and as a pod of KFP write it."""

import subprocess
import sys

import pytest

from components.core.failures import parse_failure

LAUNCHER = [
    "I1125 08:00:01.123456      17 launcher_v2.go:210] publish success.",
    "F1125 08:00:01.223456      17 main.go:60] failed to execute component: exit status 1",
]


def output_of(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stderr.splitlines()


@pytest.mark.parametrize("tail", [[], LAUNCHER])
def test_an_error_of_ours_is_found_with_its_place(tail: list[str]) -> None:
    lines = output_of("from components.core.settings import check_run_key as c\nc('a b')")
    failure = parse_failure([*LAUNCHER[:1], *lines, *tail])
    assert failure.type == "ConfigError"
    assert "1 to 128 letters" in failure.message
    assert failure.file.endswith("components/core/settings.py")
    assert failure.function == "check_run_key"
    assert failure.line > 0
    assert "launcher_v2.go" not in failure.traceback
    assert not failure.is_refusal


@pytest.mark.parametrize(
    ("name", "refused"),
    [("GateRefused", True), ("Superseded", True), ("Refused", True), ("DataError", False), ("ClusterError", False)],
)
def test_only_a_gate_or_a_policy_refuses(name: str, refused: bool) -> None:
    failure = parse_failure(output_of(f"from components.core.errors import {name} as E\nraise E('no', measured=3)"))
    assert (failure.type, failure.message) == (name, "no; measured: 3")
    assert failure.is_refusal is refused


def test_the_last_of_chained_exceptions_counts() -> None:
    code = "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise OSError('second') from e"
    assert parse_failure(output_of(code)).type == "OSError"


def test_a_step_that_was_killed_says_its_last_words() -> None:
    failure = parse_failure(["one", "", "two", *LAUNCHER])
    assert failure.type == "Killed"
    assert failure.message == "one / two"
