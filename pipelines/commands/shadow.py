"""`driftline shadow`: what the shadow would have answered."""

import click

from components.core.settings import load_settings
from pipelines.commands.options import json_option, use_case_option


@click.command("shadow")
@use_case_option
@click.option("--first", type=click.DateTime(["%Y-%m-%d"]), help="First day (UTC) of prediction; default: yesterday.")
@click.option("--last", type=click.DateTime(["%Y-%m-%d"]), help="Last day (UTC); default: today.")
@click.option("--threshold", type=float, help="Decision threshold; default: 0.5 for a classification, else none.")
@json_option
def command(use_case: str, first: object, last: object, threshold: float | None, as_json: bool) -> None:
    """Compare what a shadow answered with what was answered."""
    from pipelines.catalog import read_case
    from pipelines.shadow import as_text, between, shadow_report

    settings = load_settings()
    case = read_case(settings.feature_repo, use_case)
    report = shadow_report(settings, case.use_case.problem, use_case, *between(first, last), threshold=threshold)
    click.echo(report.model_dump_json(indent=2) if as_json else as_text(use_case, report))
