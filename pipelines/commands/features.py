"""`driftline features`: apply definitions to the registry, fill the online store."""

import click

from components.core.settings import load_settings
from pipelines.commands.options import use_case_option


@click.group("features")
def command() -> None:
    """Feature definitions and the online store."""


@command.command("apply")
@use_case_option
def apply(use_case: str) -> None:
    """Apply a use case's features.py to the registry and print the definitions' digest."""
    from pipelines.definitions import apply_and_remember

    click.echo(apply_and_remember(load_settings(), use_case))


@command.command("materialize")
@use_case_option
@click.option("--as-of", default="", help="Instant, ISO 8601; default: the newest snapshot's.")
@click.option("--rebuild", is_flag=True, help="Clear and write everything: for a store that lost its data.")
def materialize(use_case: str, as_of: str, rebuild: bool) -> None:
    """Fill the online store from the newest snapshot, resuming where a former call stopped."""
    from components.features.materialize import materialize_latest

    for line in materialize_latest(load_settings(), use_case, as_of, rebuild=rebuild):
        click.echo(line)


@command.command("serve")
@use_case_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=6566, show_default=True, type=click.IntRange(1, 65535))
@click.option("--metrics-port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Of /metrics.")
def serve(use_case: str, host: str, port: int, metrics_port: int) -> None:
    """Answer online lookups over HTTP: Feast's feature server without its endpoints that write."""
    from components.features.online_server import serve_online_features

    serve_online_features(load_settings(), use_case, host=host, port=port, metrics_port=metrics_port)
