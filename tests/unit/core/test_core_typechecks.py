"""Feast without typeguard's instrumentation: the same classes, and nothing compiled again."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
if "skip" in sys.argv:
    from components.core.typechecks import skip_typechecks
    skip_typechecks()
from typeguard import TypeCheckError
from feast import Entity
try:
    Entity(name="station", description=7)
except TypeCheckError:
    print("checked")
else:
    print("unchecked")
print(Entity(name="station").name)
"""


@pytest.mark.parametrize(("words", "seen"), [((), "checked"), (("skip",), "unchecked")])
def test_feast_is_instrumented_only_where_definitions_are_applied(words: tuple[str, ...], seen: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [seen, "station"]
