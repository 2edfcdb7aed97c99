"""`driftline lineage`: what a prediction rests on."""

import json
from typing import Any

import click

from components.core.settings import load_settings
from pipelines.commands.options import json_option

MARKS = {"verified": ("✔", "green"), "unverified": ("·", "yellow"), "broken": ("✘", "red")}
SHOWN = 12


@click.command("lineage")
@click.argument("prediction")
@click.option("--use-case", default="", help="Search only this use case's log.")
@json_option
def command(prediction: str, use_case: str, as_json: bool) -> int:
    """Trace a prediction, by its request's id, to model, Bento, promotion, run, features, data and code.

    Exits with 1 unless every link was verified.
    """
    from pipelines.lineage.trace import trace

    traces = trace(load_settings(), prediction, use_case)
    complete = all(found.verified for found in traces)
    if as_json:
        documents = [{**t.model_dump(mode="json"), "verified": t.verified} for t in traces]
        click.echo(json.dumps({"id": prediction, "verified": complete, "predictions": documents}, indent=2))
    else:
        for found in traces:
            click.echo("\n".join(render(found)))
    return 0 if complete else 1


def render(found: Any) -> list[str]:
    """Write one lineage for a terminal."""
    row = found.prediction
    fields = row.fields
    missing = f"; missing {', '.join(fields['missing'])}" if fields["missing"] else ""
    stale = f"; stale {', '.join(fields['stale'])}" if fields["stale"] else ""
    lines = [
        f"{fields['request_id']} of {row.use_case}, row {fields['row']}: {fields['prediction']:.6g} by version "
        f"{fields['model_version']}, as of {fields['as_of'].isoformat()}, route {fields['route']}",
        "  keys " + json.dumps(row.keys, ensure_ascii=False),
        "  inputs " + json.dumps(row.inputs, ensure_ascii=False) + missing + stale,
    ]
    for link in found.links:
        mark, color = MARKS[link.state]
        value = link.value if " " in link.value else link.value[:SHOWN] if len(link.value) in (40, 64) else link.value
        state = "" if link.state == "verified" else f"{link.state}: "
        lines.append(f"  {click.style(mark, fg=color)} {link.name:<13} {value}  {state}{link.note}".rstrip())
    return lines
