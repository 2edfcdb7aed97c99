"""`driftline clean`: delete what nothing needs any more."""

import json

import click

from components.core.settings import load_settings
from pipelines.commands.options import json_option


@click.command("clean")
@click.option("--keep", default=5, show_default=True, type=click.IntRange(0), help="Newest runs to keep per use case.")
@click.option("--yes", is_flag=True, help="Delete; without it only the plan is printed.")
@json_option
def command(keep: int, yes: bool, as_json: bool) -> int:
    """Delete old runs and shadow logs, stray checkpoints, unused snapshots; champions, and what made them, stay."""
    from pipelines.retention import delete, plan

    found = plan(load_settings(), keep=keep)
    if as_json:
        click.echo(
            json.dumps({"delete": [str(p) for p in found.paths], "bytes": found.bytes, "deleted": yes}, indent=2)
        )
    else:
        for path in found.paths:
            click.echo(f"{'deleted' if yes else 'would delete'} {path}")
        click.echo(f"{found.bytes / 1e6:.1f} MB in {len(found.paths)} places")
    if yes:
        delete(found)
        return 0
    # Like every plan command: 4 says that there is something to do.
    return 4 if found.paths else 0
