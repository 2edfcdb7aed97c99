"""`driftline doctor`: what is here, what will be used, and how to mend what is wrong."""

import json

import click

from components.core.settings import load_settings
from pipelines.commands.options import json_option

MARKS = {"ok": ("✔", "green"), "absent": ("·", "yellow"), "problem": ("✘", "red")}


@click.command("doctor")
@json_option
def command(as_json: bool) -> int:
    """Examine this machine; exits with 1 when something needs mending."""
    from pipelines.doctor import examine

    checks = examine(load_settings())
    if as_json:
        click.echo(json.dumps([check.model_dump() for check in checks], indent=2))
    else:
        for check in checks:
            mark, color = MARKS[check.state]
            click.echo(f"{click.style(mark, fg=color)} {check.name:<13} {check.found}  ({check.used_for})")
            if check.mend:
                click.echo(f"    {'mend' if check.state == 'problem' else 'to have it'}: {check.mend}")
    return 1 if any(check.state == "problem" for check in checks) else 0
