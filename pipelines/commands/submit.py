"""`driftline submit`: start a pipeline on the cluster."""

from pathlib import Path

import click

from components.core.settings import load_settings
from pipelines.commands.options import json_option, use_case_option


@click.command("submit")
@click.argument("pipeline", type=click.Choice(["training", "scoring", "monitoring"]))
@use_case_option
@click.option("--as-of", default=None, help="Virtual instant, ISO 8601; '' is now. Default: the pipeline's own.")
@click.option("--from", "first", default=None, help="First UTC day, of `scoring`.")
@click.option("--to", "last", default=None, help="UTC day at which the period ends, itself excluded, of `scoring`.")
@click.option("--param", "params", multiple=True, help="Override one key: SECTION.KEY=VALUE.")
@click.option("--experiment", default="", help="An existing experiment. Default: the use case's own.")
@click.option(
    "--images", type=click.Path(path_type=Path, dir_okay=False), default=Path("images.json"), show_default=True
)
@click.option("--run-id", default="", help="UUID of the run: repeating the command with it starts nothing twice.")
@click.option("--wait", is_flag=True, help="Wait for the end; the exit code tells it.")
@click.option(
    "--timeout", "timeout_seconds", default=0.0, type=click.FloatRange(0), help="Seconds to wait; 0: no limit."
)
@json_option
def command(
    pipeline: str,
    use_case: str,
    as_of: str | None,
    first: str | None,
    last: str | None,
    params: tuple[str, ...],
    experiment: str,
    images: Path,
    run_id: str,
    wait: bool,
    timeout_seconds: float,
    as_json: bool,
) -> int:
    """Start a run of the pipeline version that this checkout compiles to; a server that lacks it gets it."""
    from pipelines.cluster.arguments import run_arguments
    from pipelines.cluster.submit import submit

    settings = load_settings()
    parameters = run_arguments(settings, use_case, pipeline, params=params, as_of=as_of, first=first, last=last)
    started = submit(
        settings, use_case, pipeline, parameters=parameters, images=images, experiment=experiment, run_id=run_id
    )
    how = "started" if started.created else "was started already"
    click.echo(f"run {started.run_id} {how}: {started.version}, experiment {started.experiment}", err=as_json or wait)
    if wait:
        from pipelines.commands.cluster_runs import wait_and_show

        return wait_and_show(settings, started.run_id, timeout_seconds=timeout_seconds, as_json=as_json)
    if as_json:
        click.echo(started.model_dump_json(indent=2))
    return 0
