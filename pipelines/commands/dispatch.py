"""`driftline dispatch`: start what was requested, finish what was stranded."""

import click

from components.core.settings import load_settings


@click.command("dispatch")
@click.option("--use-case", default="", help="Only of this use case.")
def command(use_case: str) -> int:
    """Run every open retraining request on this machine; a run that died is tried again, at most three times."""
    from pipelines.commands.summary import exit_code, summarize
    from pipelines.dispatch import dispatch_open
    from pipelines.progress import show

    settings = load_settings()
    records = dispatch_open(
        settings, model=use_case, notify=show, announce=lambda key: click.echo(f"retraining, run {key}", err=True)
    )
    for record in records:
        click.echo(summarize(settings, record))
    if not records:
        click.echo("nothing to start")
    return exit_code(records[-1].state) if records else 0
