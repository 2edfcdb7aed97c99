"""`driftline why`: explain how a run ended."""

import json

import click

from components.core.errors import ConfigError
from components.core.settings import load_settings
from pipelines.commands.options import json_option


@click.command("why")
@click.argument("run")
@click.option("--traceback", is_flag=True, help="Print the step's whole traceback.")
@json_option
def command(run: str, traceback: bool, as_json: bool) -> int:
    """Tell why a run was promoted, refused or failed: step, exception, place, inputs, and how to reproduce it."""
    from pipelines.explain import explain_run, render
    from pipelines.local import read_record

    settings = load_settings()
    record = read_record(settings, run)
    if record is None:
        known = sorted(p.name for p in settings.runs.glob("*") if p.is_dir())[-5:]
        raise ConfigError(
            "no such run", measured=run, allowed=", ".join(known) or "none yet", next_step="driftline runs list"
        )
    explanation = explain_run(record)
    if as_json:
        click.echo(json.dumps(explanation, indent=2))
    else:
        click.echo(render(explanation))
        failed = record.failed_step
        if traceback and failed and failed.failure:
            click.echo(failed.failure.traceback)
    return 0
