"""`driftline monitor`: look at what the monitor saw."""

import click

from components.core.errors import DataError
from components.core.settings import load_settings


@click.group("monitor")
def command() -> None:
    """Look at what the monitor saw."""


@command.command("ui")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
def ui(host: str, port: int) -> None:
    """Show Evidently's reports of all windows, one project per use case, until Ctrl-C."""
    import os
    import sys

    workspace = load_settings().home / "evidently"
    if not workspace.is_dir():
        raise DataError(
            "there are no Evidently reports yet",
            measured=f"{workspace} does not exist",
            next_step="driftline run monitoring --use-case USE_CASE",
        )
    click.echo(f"Evidently's reports on http://{host}:{port}", err=True)
    arguments = ["ui", "--workspace", str(workspace), "--host", host, "--port", str(port)]
    os.execv(sys.executable, [sys.executable, "-m", "evidently.cli", *arguments])  # noqa: S606 - our own interpreter
