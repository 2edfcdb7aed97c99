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
from typing import Any

from pipelines.forking import forking_python
from pipelines.preload import preloaded_steps


def main() -> None:
    """Run the pipeline; the exit code is 0 only if every task succeeded."""
    ir, arguments, root = (Path(argument) for argument in sys.argv[1:4])
    threading.Thread(target=die_with_parent, daemon=True).start()

    with forking_python(preloaded_steps(ir.read_text(encoding="utf-8"))) as python:
        leave_out_api_client()
        from kfp import components, local

        local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
        pipeline = components.load_component_from_file(str(ir))
        fail_at_once(pipeline.pipeline_spec)
        sys.executable = python  # what KFP starts for each task
        pipeline(**json.loads(arguments.read_text(encoding="utf-8")))


def leave_out_api_client() -> None:
    """Keep kfp from importing its API client: that one imports kubernetes, 1.15 of its 1.4 CPU-seconds."""
    client = types.ModuleType("kfp.client")
    client.Client = None  # type: ignore[attr-defined]
    sys.modules["kfp.client"] = client


def fail_at_once(spec: Any) -> None:
    """Drop the retries of a pipeline spec (protobuf): no pod is evicted here, and somebody waits for the message."""
    for part in (spec.root, *spec.components.values()):
        for task in part.dag.tasks.values():
            task.ClearField("retry_policy")


def die_with_parent() -> None:
    """Wait for the end of standard input, then end the process group that this process leads."""
    sys.stdin.read()
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
