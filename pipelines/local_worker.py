"""Child process of a local run: executes one compiled pipeline with KFP's local runner.

    python -m pipelines.local_worker IR.yaml ARGUMENTS.json PIPELINE_ROOT

It leads a process group of its own and ends that group when its standard input closes, so that no step outlives the
command line, however that one ends.
"""

import json
import os
import signal
import sys
import threading
import types
from pathlib import Path

from pipelines.forking import forking_python
from pipelines.preload import preloaded_steps


def main() -> None:
    """Run the pipeline; the exit code is 0 only if every task succeeded."""
    ir, arguments, root = (Path(argument) for argument in sys.argv[1:4])
    threading.Thread(target=die_with_parent, daemon=True).start()

    text = ir.read_text(encoding="utf-8")
    with forking_python(preloaded_steps(text)) as python:
        leave_out_api_client()
        from kfp import components, local

        local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
        pipeline = components.load_component_from_text(failing_at_once(text))
        sys.executable = python  # what KFP starts for each task
        pipeline(**json.loads(arguments.read_text(encoding="utf-8")))


def leave_out_api_client() -> None:
    """Keep kfp from importing its API client: that one imports kubernetes, 1.15 of its 1.4 CPU-seconds."""
    client = types.ModuleType("kfp.client")
    client.Client = None  # type: ignore[attr-defined]
    sys.modules["kfp.client"] = client


def failing_at_once(ir: str) -> str:
    """Return an IR without the retries of its steps: no pod is evicted here, and somebody waits for the message."""
    import yaml

    documents = list(yaml.safe_load_all(ir))
    for part in (documents[0]["root"], *documents[0]["components"].values()):
        for task in part.get("dag", {}).get("tasks", {}).values():
            task.pop("retryPolicy", None)
    return yaml.safe_dump_all(documents)


def die_with_parent() -> None:
    """Wait for the end of standard input, then end the process group that this process leads."""
    sys.stdin.read()
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
