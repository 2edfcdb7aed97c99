"""`driftline serve`: answer requests with the champion."""

import json

import click

from components.core.settings import load_settings
from pipelines.commands.options import use_case_option


@click.command("serve")
@use_case_option
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535))
def command(use_case: str, host: str, port: int) -> None:
    """Serve the champion's Bento until Ctrl-C; prints a request to try."""

    from components.core.champion import require_champion
    from components.core.object_store import local_path
    from components.serve.run import serve_bento
    from pipelines.catalog import read_case
    from pipelines.example import example_request

    settings = load_settings()
    case = read_case(settings.feature_repo, use_case)
    champion = require_champion(settings, use_case)
    archive = local_path(settings, champion.bento_uri)
    _, request = example_request(settings, use_case, case.use_case.problem)
    click.echo(
        f"{use_case} version {champion.version} on http://{host}:{port}, page / describes the routes; try", err=True
    )
    click.echo(
        f"  curl -s http://{host}:{port}/predict -H 'content-type: application/json' -d '{json.dumps(request)}'",
        err=True,
    )
    serve_bento(settings, archive, host=host, port=port)
