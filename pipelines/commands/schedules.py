"""`driftline schedules`: let declared schedules be the recurring runs of the cluster."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from components.core.settings import load_settings
from pipelines.commands.options import json_option

DIFFERENT = 4

folder_option = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("infra/usecases"),
    show_default=True,
    help="Schedules are DIR/<use case>/schedules/*.yaml.",
)
prune_option = click.option("--prune", is_flag=True, help="Delete schedules that no file declares.")
images_option = click.option(
    "--images",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("images.json"),
    show_default=True,
    help="Images by digest; read where a schedule names no version.",
)
only_option = click.option(
    "--use-case", default="", help="Of this use case alone: no other is changed, not by --prune either."
)


@click.group("schedules")
def command() -> None:
    """Compare declared schedules with the cluster's recurring runs, and make these equal to those.

    Recurring runs that people made in the KFP UI are never touched.
    """


@command.command("plan")
@folder_option
@prune_option
@only_option
@images_option
@json_option
def plan_command(folder: Path, prune: bool, use_case: str, images: Path, as_json: bool) -> int:
    """Show what apply would do; exit code 4 when there is something."""
    from pipelines.schedules.show import differs

    _, _, changes = _compare(folder, images, prune=prune, use_case=use_case)
    _show(changes, as_json=as_json)
    return DIFFERENT if differs(changes) else 0


@command.command("apply")
@folder_option
@prune_option
@only_option
@images_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def apply_command(folder: Path, prune: bool, use_case: str, images: Path, yes: bool, as_json: bool) -> int:
    """Create, replace, enable, disable and delete recurring runs; repeating it is safe, also after an interruption."""
    from pipelines.schedules.apply import apply_changes
    from pipelines.schedules.show import differs

    if not yes and not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here: give --yes")
    api, resolved, changes = _compare(folder, images, prune=prune, use_case=use_case)
    _show(changes, as_json=as_json)
    if differs(changes):
        if not yes:
            click.confirm("Do this?", abort=True, err=True)
        apply_changes(api, changes, resolved, notify=lambda line: click.echo(line, err=True))
    return 0


def _compare(folder: Path, images: Path, *, prune: bool, use_case: str) -> tuple[Any, dict[str, Any], list[Any]]:
    from components.core.kfp_api import KfpApi
    from pipelines.schedules.compare import compare

    settings = load_settings()
    api = KfpApi(settings)
    resolved, changes = compare(settings, api, folder, images=images, prune=prune, use_case=use_case)
    return api, resolved, changes


def _show(changes: list[Any], *, as_json: bool) -> None:
    from pipelines.schedules.show import as_json_document, summarize

    now = datetime.now(UTC)
    if as_json:
        click.echo(json.dumps(as_json_document(changes, now), indent=2, ensure_ascii=False))
        return
    for line, colour in summarize(changes, now):
        click.secho(line, fg=colour)
