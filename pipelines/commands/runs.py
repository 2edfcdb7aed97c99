"""`driftline runs`: list runs, show one, execute one of its steps again."""

import json

import click

from components.core.settings import load_settings
from pipelines.commands.options import json_option


@click.group("runs")
def command() -> None:
    """Runs of pipelines."""


@command.command("list")
@click.option("--use-case", default="")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
@json_option
def list_all(use_case: str, limit: int, as_json: bool) -> None:
    """List the newest runs with their outcome, from the ledger."""
    from components.core.ledger.engine import open_ledger
    from components.core.ledger.runs import list_runs

    found = list_runs(open_ledger(load_settings().ledger_url), limit=limit, use_case=use_case)
    if as_json:
        click.echo(json.dumps([run.model_dump(mode="json") for run in found], indent=2))
        return
    for run in found:
        click.echo(f"{run.started_at:%Y-%m-%d %H:%M:%S}  {run.state:<10}  {run.id}  {run.reason}"[:200])


@command.command("rerun")
@click.argument("run")
@click.argument("step")
def rerun(run: str, step: str) -> int:
    """Execute one recorded step again with its recorded inputs; outputs go to a new folder."""
    from pipelines.rerun import rerun_step

    return rerun_step(load_settings(), run, step)
