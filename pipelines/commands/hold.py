"""`driftline hold`: a person stops the retrainings of a use case, or lets them go on."""

import getpass

import click

from components.core.settings import load_settings
from pipelines.commands.options import use_case_option


@click.group("hold")
def command() -> None:
    """Stop new retrainings of a use case, or allow them again."""


@command.command("set")
@use_case_option
@click.option("--reason", required=True, help="Why; shown wherever a retraining is held back.")
@click.option("--by", "held_by", default=getpass.getuser, help="Who; by default your account.")
def set_hold(use_case: str, reason: str, held_by: str) -> None:
    """Stop new retrainings; one that runs already goes on."""
    from datetime import UTC, datetime

    from components.core.ledger.engine import open_ledger
    from components.core.ledger.holds import hold
    from pipelines.catalog import read_case

    settings = load_settings()
    read_case(settings.feature_repo, use_case)
    ledger = open_ledger(settings.ledger_url)
    found = hold(ledger, use_case, reason=reason, held_by=held_by, now=datetime.now(UTC))
    click.echo(f"{use_case} is on hold since {found.held_at:%Y-%m-%d %H:%M} UTC by {found.held_by}: {found.reason}")
    click.echo(f"allow it again: driftline hold release --use-case {use_case}")


@command.command("release")
@use_case_option
def release_hold(use_case: str) -> None:
    """Allow retrainings again; the next monitoring run decides."""
    from components.core.ledger.engine import open_ledger
    from components.core.ledger.holds import release

    held = release(open_ledger(load_settings().ledger_url), use_case)
    click.echo(f"{use_case} was {'released' if held else 'not on hold'}")
