"""`driftline dispatch`: start what was requested, finish what was stranded."""

from pathlib import Path

import click

from components.core.settings import load_settings


@click.command("dispatch")
@click.option("--use-case", default="", help="Only of this use case.")
@click.option(
    "--images", type=click.Path(path_type=Path, dir_okay=False), default=Path("images.json"), help="Of `make images`."
)
def command(use_case: str, images: Path) -> int:
    """Run every open retraining request; a run that died is tried again, at most three times.

    Where DRIFTLINE_KFP_HOST is set, the runs are started on that cluster, and nobody waits for them; else each one runs
    on this machine, in the foreground.
    """
    settings = load_settings()
    if settings.kfp_host:
        from pipelines.cluster.dispatch import dispatch_on_cluster

        started = dispatch_on_cluster(settings, use_case=use_case, images=images)
        for attempt in started:
            click.echo(f"{attempt.model}: attempt {attempt.attempt}, run {attempt.run_id}")
        if not started:
            click.echo("nothing to start")
        return 0
    from pipelines.commands.summary import exit_code, summarize
    from pipelines.dispatch import dispatch_open
    from pipelines.progress import show

    records = dispatch_open(
        settings, model=use_case, notify=show, announce=lambda key: click.echo(f"retraining, run {key}", err=True)
    )
    for record in records:
        click.echo(summarize(settings, record))
    if not records:
        click.echo("nothing to start")
    return exit_code(records[-1].state) if records else 0
