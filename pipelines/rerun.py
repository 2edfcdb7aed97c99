"""Executing one step of a recorded run again, as the runner did, for debugging."""

import json
import subprocess
import sys
import tempfile
from typing import Any

import yaml

from components.core.errors import ConfigError
from components.core.settings import Settings
from pipelines.local import IR, read_record, task_environment


def rerun_step(settings: Settings, run_key: str, name: str) -> int:
    """Run a recorded step with its recorded inputs and return its exit code; its outputs go to a temporary folder.

    Raises ConfigError when the run or the step is unknown here.
    """
    record = read_record(settings, run_key)
    step = next((s for s in record.steps if s.name == name), None) if record else None
    if record is None or step is None or not step.inputs:
        raise ConfigError(
            "no such recorded step",
            measured=f"{run_key} {name}",
            allowed=", ".join(s.name for s in record.steps) if record else "a run of `driftline runs list`",
        )
    ir = next(yaml.safe_load_all((settings.runs / run_key / IR).read_text(encoding="utf-8")))
    container = ir["deploymentSpec"]["executors"][f"exec-{name.replace('_', '-')}"]["container"]
    executor_input = json.dumps(redirect_outputs(step.inputs, tempfile.mkdtemp(prefix=f"driftline-rerun-{name}-")))
    words = [word.replace("{{$}}", executor_input) for word in [*container["command"], *container["args"]]]
    words = [
        word.replace("python3 ", f"{sys.executable} ") if word.lstrip().startswith("program_path") else word
        for word in words
    ]
    return subprocess.call(words, env=task_environment(settings, run_key))  # noqa: S603 - recorded by ourselves


def redirect_outputs(executor_input: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return an executor input whose outputs lie in another folder."""
    outputs = json.loads(json.dumps(executor_input["outputs"]))
    for name, parameter in outputs.get("parameters", {}).items():
        parameter["outputFile"] = f"{folder}/{name}"
    for name, listed in outputs.get("artifacts", {}).items():
        for item in listed["artifacts"]:
            item["uri"] = f"{folder}/{name}"
    outputs["outputFile"] = f"{folder}/executor_output.json"
    return {**executor_input, "outputs": outputs}
