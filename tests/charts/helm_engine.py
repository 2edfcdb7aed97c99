"""Helm behind four functions: the wheel `helm-python-sdk` (Helm 4's SDK), or a `helm` program where it is missing.

The wheel is young and has one author, so nothing else of the tests knows it.
"""

import importlib.util
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any


class RenderError(Exception):
    """Helm refused: a value against the schema, or a template that fails."""


def is_installed() -> bool:
    return importlib.util.find_spec("helm_python") is not None or shutil.which("helm") is not None


def render(chart: Path, values: dict[str, Any], *, name: str, namespace: str) -> dict[str, str]:
    """Return rendered files by template path, empty ones left out. Raises RenderError."""
    if importlib.util.find_spec("helm_python") is None:
        return _by_source(_helm(["template", name, str(chart), "--namespace", namespace], values))
    import helm_python

    try:
        with helm_python.Chart.load(chart) as loaded:
            files = loaded.render(values, name=name, namespace=namespace)
    except helm_python.HelmError as error:
        raise RenderError(str(error)) from error
    return {path: text for path, text in files.items() if text.strip()}


def lint(chart: Path, values: dict[str, Any]) -> list[str]:
    """Return what `helm lint --strict` objects to, warnings included."""
    if importlib.util.find_spec("helm_python") is None:
        try:
            _helm(["lint", "--strict", str(chart)], values)
        except RenderError as error:
            return [str(error)]
        return []
    import helm_python

    report = helm_python.lint(chart, values, strict=True)
    warning = 2
    found = [f"{m['path']}: {m['error']}" for m in report["messages"] if m["severity"] >= warning]
    return found + [error for error in report["errors"] if error not in "".join(found)]


def _helm(arguments: list[str], values: dict[str, Any]) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values, file)
        file.flush()
        done = subprocess.run(["helm", *arguments, "--values", file.name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RenderError(done.stderr + done.stdout)
    return done.stdout


def _by_source(stream: str) -> dict[str, str]:
    files: dict[str, str] = {}
    for document in re.split(r"^---\n", stream, flags=re.MULTILINE):
        source = re.match(r"# Source: (\S+)\n", document)
        if source:
            files[source[1]] = f"{files[source[1]]}---\n{document}" if source[1] in files else document
    return files
