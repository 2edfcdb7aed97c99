"""What `submit` and `runs` show of a run on the cluster."""

import json
from typing import TYPE_CHECKING, Any

import click

from components.core.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from pipelines.cluster.runs import ClusterRun


def wait_and_show(settings: Settings, run_id: str, *, timeout_seconds: float, as_json: bool) -> int:
    """Wait for a run with a line for each step, print what came of it, and return the exit code."""
    from components.core.kfp_api import KfpApi
    from components.retrain.settle import settle
    from pipelines.cluster.report import exit_code, step_line
    from pipelines.cluster.runs import is_running
    from pipelines.cluster.wait import wait_for_end

    api, ledger = KfpApi(settings), _ledger(settings)
    run = wait_for_end(
        api,
        run_id,
        timeout_seconds=timeout_seconds,
        notify=lambda step: click.echo(step_line(step), err=True),
        warn=lambda line: click.secho(line, fg="yellow", err=True),
        goes_on=lambda run: ledger is not None and is_running(settle(api, ledger, run)),
    )
    return exit_code(_show(settings, run, as_json=as_json))


def show_list(settings: Settings, *, use_case: str, limit: int, as_json: bool) -> None:
    """Print the newest runs, of one use case or of all pipelines."""
    from components.core.kfp_api import KfpApi
    from pipelines.cluster.report import run_line
    from pipelines.cluster.runs import list_cluster_runs
    from pipelines.compile import PIPELINES
    from pipelines.wiring import pipeline_name

    wanted = {pipeline_name(use_case, pipeline) for pipeline in PIPELINES} if use_case else None
    found = list_cluster_runs(KfpApi(settings), _ledger(settings), limit=limit, wanted=wanted)
    if as_json:
        click.echo(json.dumps([run.model_dump(mode="json") | {"result": run.result} for run in found], indent=2))
        return
    for run in found:
        click.echo(run_line(run)[:200])


def show_run(settings: Settings, run_id: str, *, as_json: bool) -> None:
    """Print the steps of a run, what came of it, and why a step cannot start."""
    from components.core.kfp_api import KfpApi
    from pipelines.cluster.pods import waiting_pods
    from pipelines.cluster.runs import require_run

    api = KfpApi(settings)
    run = require_run(api, run_id)
    ended = _show(settings, run, as_json=as_json).ended
    for line in [] if ended else waiting_pods(settings, run_id):
        click.secho(line, fg="yellow", err=True)


def show_log(settings: Settings, run_id: str, name: str) -> None:
    """Print what a step wrote."""
    from components.core.kfp_api import KfpApi
    from components.core.kfp_steps import read_log, read_steps
    from pipelines.cluster.runs import require_run, select_step

    api = KfpApi(settings)
    step = select_step(read_steps(api, require_run(api, run_id)), name)
    click.echo(read_log(api, run_id, step), nl=False)


def stop_and_show(settings: Settings, run_id: str, *, timeout_seconds: float) -> int:
    """End a run, print what became of it, and return 0 once it has ended."""
    from components.core.kfp_api import KfpApi
    from pipelines.cluster.control import stop_run

    _show(settings, stop_run(KfpApi(settings), _ledger(settings), run_id, timeout_seconds=timeout_seconds))
    return 0


def retry_and_show(settings: Settings, run_id: str, *, wait: bool, timeout_seconds: float) -> int:
    """Repeat the failed steps of a run, and wait for its end if asked to."""
    from components.core.kfp_api import KfpApi
    from pipelines.cluster.control import retry_run

    retry_run(KfpApi(settings), _ledger(settings), run_id)
    if not wait:
        click.echo(f"run {run_id} goes on; driftline runs show {run_id}")
        return 0
    return wait_and_show(settings, run_id, timeout_seconds=timeout_seconds, as_json=False)


def _show(settings: Settings, run: Any, *, as_json: bool = False) -> "ClusterRun":
    from components.core.kfp_api import KfpApi
    from components.core.kfp_steps import read_steps
    from pipelines.cluster.report import as_json_document, summarize
    from pipelines.cluster.runs import describe_run

    api = KfpApi(settings)
    shown, steps = describe_run(api, _ledger(settings), run, {}), read_steps(api, run)
    click.echo(json.dumps(as_json_document(shown, steps), indent=2) if as_json else summarize(shown, steps))
    return shown


def _ledger(settings: Settings) -> "Engine | None":
    from pipelines.cluster.runs import open_ledger_if_any

    ledger, unreadable = open_ledger_if_any(settings)
    if unreadable:
        click.secho(f"without the ledger's outcome: {unreadable}", fg="yellow", err=True)
    return ledger
