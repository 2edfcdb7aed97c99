"""Showing a run as it happens: one line per step."""

import sys

import click

from pipelines.events import Step
from pipelines.titles import TITLES

MARKS = {"running": "▸", "succeeded": "✔", "failed": "✘", "cancelled": "■"}
COLORS = {"succeeded": "green", "failed": "red", "cancelled": "yellow"}


def show(step: Step) -> None:
    """Print a step that started or ended; a terminal overwrites the line, a pipe gets ends only."""
    terminal = sys.stderr.isatty()
    title = TITLES.get(step.name, step.name)
    if step.state == "running":
        if terminal:
            click.echo(f"  {MARKS['running']} {title} …", nl=False, err=True)
        return
    mark = click.style(MARKS[step.state], fg=COLORS[step.state])
    start = "\r\x1b[K" if terminal else ""
    click.echo(f"{start}  {mark} {title:<34} {step.seconds:6.1f} s", err=True)
