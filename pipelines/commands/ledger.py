"""`driftline ledger`: the schema of the ledger."""

import click

from components.core.settings import load_settings


@click.group("ledger")
def command() -> None:
    """The ledger of what must happen once."""


@command.command("migrate")
def migrate_ledger() -> None:
    """Create or upgrade the ledger's schema."""
    from components.core.ledger.engine import migrate

    migrate(load_settings().ledger_url)
    click.echo("the ledger is at this version's schema")
