"""The command line: `driftline`. Exit codes: 0 done, 1 failed, 2 usage, 3 refused, 4 differences found."""

import importlib
import logging
import sys
from typing import Any

import click

from components.core.errors import DriftlineError

# Command to the module that holds it; imported only when asked for, since libraries cost seconds.
COMMANDS = {
    "clean": "pipelines.commands.clean",
    "compile": "pipelines.commands.compile",
    "controller": "pipelines.commands.controller",
    "decisions": "pipelines.commands.decisions",
    "demo": "pipelines.commands.demo",
    "dispatch": "pipelines.commands.dispatch",
    "doctor": "pipelines.commands.doctor",
    "features": "pipelines.commands.features",
    "hold": "pipelines.commands.hold",
    "images": "pipelines.commands.images",
    "infra": "pipelines.commands.infra",
    "ledger": "pipelines.commands.ledger",
    "lineage": "pipelines.commands.lineage",
    "monitor": "pipelines.commands.monitor",
    "new": "pipelines.commands.new",
    "release": "pipelines.commands.release",
    "replay": "pipelines.commands.replay",
    "run": "pipelines.commands.run",
    "runs": "pipelines.commands.runs",
    "schedules": "pipelines.commands.schedules",
    "serve": "pipelines.commands.serve",
    "shadow": "pipelines.commands.shadow",
    "submit": "pipelines.commands.submit",
    "why": "pipelines.commands.why",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name]).command
        return command


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="driftline")
def group() -> None:
    """Keep a model right: validate, train, gate, package, promote, and retrain only when it is justified."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with the designed code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    sys.exit(invoke(group, arguments))


def invoke(command: Any, arguments: list[str] | None) -> int:
    """Run a command; errors that we raise on purpose become one message and their own exit code."""
    try:
        result = command.main(args=arguments, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 2
    except DriftlineError as error:
        lines = [("measured: ", error.measured), ("allowed: ", error.allowed), ("next step: ", error.next_step)]
        click.secho(f"{type(error).__name__}: {error.what}", fg="red", err=True)
        for label, value in lines:
            if value not in (None, ""):
                click.echo(f"  {label}{value}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("cancelled", err=True)
        return 1
    return result if isinstance(result, int) else 0
