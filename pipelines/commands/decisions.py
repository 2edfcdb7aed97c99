"""`driftline decisions`: what the monitors concluded, and what came of it."""

import json
from typing import Any

import click

from components.core.settings import load_settings
from pipelines.commands.options import json_option

COLOURS = {"retrain": "green", "hold": "yellow", "alert": "red", "report": None, "insufficient": None}


@click.command("decisions")
@click.option("--use-case", default="", help="Only of this use case.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
@json_option
def command(use_case: str, limit: int, as_json: bool) -> None:
    """List the newest decisions: window, decision, rung of the ladder, request, run and outcome."""
    from components.core.ledger.decisions import list_decisions
    from components.core.ledger.engine import open_ledger
    from components.core.ledger.holds import read_hold

    ledger = open_ledger(load_settings().ledger_url)
    found = list_decisions(ledger, use_case, limit)
    if as_json:
        click.echo(json.dumps([as_document(decision) for decision in found], indent=2))
        return
    for decision in found:
        what = click.style(f"{decision.decision:<12}", fg=COLOURS[decision.decision])
        followed = decision.outcome or decision.request_state or decision.suppressed_by
        click.echo(
            f"{decision.id[:10]}  {decision.model:<12} {decision.window.first:%Y-%m-%d} to "
            f"{decision.window.last:%Y-%m-%d}  {what} {decision.rung:<12} {followed}"[:220]
        )
    for model in sorted({decision.model for decision in found}):
        hold = read_hold(ledger, model)
        if hold:
            click.echo(f"{model} is on hold since {hold.held_at:%Y-%m-%d %H:%M} by {hold.held_by}: {hold.reason}")


def as_document(decision: Any) -> dict[str, Any]:
    """Return a decision for programs; its evidence is left to `driftline why`."""
    document: dict[str, Any] = decision.model_dump(mode="json", exclude={"evidence"})
    return document | {"window": f"{decision.window.first:%Y-%m-%d}/{decision.window.last:%Y-%m-%d}"}
