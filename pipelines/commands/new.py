"""`driftline new`: scaffold a use case."""

import click

from components.core.settings import load_settings


@click.command("new")
@click.argument("name")
@click.option("--owner", default="unowned", show_default=True, help="Team that answers for the model.")
def command(name: str, owner: str) -> None:
    """Make a use case that runs as it is; then replace its sources, SQL and features by your own."""
    from pipelines.scaffold import create_use_case

    folder = create_use_case(load_settings().feature_repo, name, owner)
    click.echo(f"made {folder}\nnext step: driftline run training --use-case {name}")
