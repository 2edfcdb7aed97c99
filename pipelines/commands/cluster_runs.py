"""What `submit` and `runs` show of a run on the cluster."""

import json

import click

from components.core.settings import Settings


def wait_and_show(settings: Settings, run_id: str, *, timeout_seconds: float, as_json: bool) -> int:
    """Wait for a run with a line for each step, print what came of it, and return the exit code."""
    from components.core.kfp_api import KfpApi
    from components.core.kfp_steps import read_steps
    from pipelines.cluster.report import as_json_document, exit_code, step_line, summarize
    from pipelines.cluster.runs import describe_run, open_ledger_if_any
    from pipelines.cluster.wait import wait_for_end

    api = KfpApi(settings)
    run = wait_for_end(
        api,
        run_id,
        timeout_seconds=timeout_seconds,
        notify=lambda step: click.echo(step_line(step), err=True),
        warn=lambda line: click.secho(line, fg="yellow", err=True),
    )
    ledger, unreadable = open_ledger_if_any(settings)
    if unreadable:
        click.secho(f"shown without the ledger's outcome: {unreadable}", fg="yellow", err=True)
    shown, steps = describe_run(api, ledger, run, {}), read_steps(api, run)
    click.echo(json.dumps(as_json_document(shown, steps), indent=2) if as_json else summarize(shown, steps))
    return exit_code(shown)
