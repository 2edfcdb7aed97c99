"""One local run of a pipeline, from a use case's name to its outcome in the ledger."""

from collections.abc import Callable
from typing import Any

from components.core.errors import Superseded
from components.core.ledger.champions import list_unmirrored
from components.core.ledger.engine import migrate, open_ledger
from components.core.ledger.runs import claim_run, finish_run, read_run
from components.core.settings import Settings
from components.core.storage import require_writable
from pipelines.catalog import read_case
from pipelines.compile import compile_pipeline
from pipelines.definitions import applied_definitions
from pipelines.events import Step
from pipelines.image_lock import serving_image
from pipelines.local import RunRecord, new_run_key, run_locally, write_record
from pipelines.reports import publish_reports


def run_training(
    settings: Settings,
    name: str,
    *,
    overrides: dict[str, Any],
    notify: Callable[[Step], None],
    announce: Callable[[str], None],
) -> RunRecord:
    """Compile and run the training pipeline of a use case; the outcome is in the ledger and in the record."""
    return run_pipeline(settings, name, "training", overrides=overrides, notify=notify, announce=announce)


def run_pipeline(
    settings: Settings,
    name: str,
    pipeline: str,
    *,
    overrides: dict[str, Any],
    notify: Callable[[Step], None],
    announce: Callable[[str], None],
    run_key: str = "",
) -> RunRecord:
    """Compile a pipeline of the use case `name`, claim a run, execute it here and record its outcome.

    `overrides` are pipeline arguments; `announce` is told the run's key, `notify` every step. A retraining brings the
    `run_key` of its attempt. The outcome is in the ledger and in the record. Raises Superseded when the request that
    the run was started for no longer waits for it.
    """
    case = read_case(settings.feature_repo, name)
    require_writable(settings.home)
    migrate(settings.ledger_url)
    ledger = open_ledger(settings.ledger_url)
    if list_unmirrored(ledger):
        from components.core.mirror import repair_mirror

        repair_mirror(settings)
    # Before anything runs: a training whose promotion could not be committed is not worth its time.
    image = serving_image(settings) if pipeline == "training" else ""
    ir = compile_pipeline(case, pipeline, applied_definitions(settings, name), serving_image=image)
    run_key = run_key or new_run_key(name)
    announce(run_key)
    if not claim_run(ledger, run_key, run_key, pipeline, name):
        raise Superseded(
            f"run {run_key} is not to be executed", measured="its request no longer waits for this attempt"
        )
    record = run_locally(
        settings, run_key=run_key, pipeline=pipeline, use_case=name, ir=ir, arguments=overrides, notify=notify
    )
    failed = record.failed_step
    reason = f"{failed.failure.type}: {failed.failure.message}" if failed and failed.failure else ""
    if record.state != "running":
        finish_run(ledger, run_key, record.state, reason=reason, failed_step=failed.name if failed else "")
    # The step `promote` may have ended the run already: what it wrote counts, unless it could not finish what follows a
    # promotion, such as its commit.
    ended = read_run(ledger, run_key)
    if ended is not None and not (record.state == "failed" and ended.state == "succeeded"):
        record.state = ended.state
        write_record(settings.runs / run_key, record)
    publish_reports(settings, record)
    return record
