"""`driftline infra`: pin and check the tree that the clusters follow."""

import json
import logging
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.commands.options import json_option

if TYPE_CHECKING:
    from pipelines.infra.check import Finding

WRONG = 2

root_option = click.option(
    "--dir",
    "root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path("infra"),
    show_default=True,
    help="The infrastructure tree.",
)


@click.group("infra")
def command() -> None:
    """Pin and check the infrastructure tree, which the clusters follow."""


@command.command("lock")
@root_option
@click.option(
    "--images",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Also lock our own images, as `make images` wrote them to this file.",
)
@click.option("--upgrade", is_flag=True, help="Ask again for what is locked: a tag may stand for something else now.")
def lock_command(root: Path, images: Path | None, upgrade: bool) -> int:
    """Ask registries for digests of third-party images and charts; write lock.yaml and what follows from it.

    What is known is kept, what could not be asked is reported (exit code 1). Repeating it is safe.
    """
    from pipelines.image_lock import read_image_lock
    from pipelines.infra.lock import update_lock

    logging.getLogger("urllib3").setLevel(logging.ERROR)  # who does not answer is reported once, below
    built = read_image_lock(images) if images else {}
    failed = update_lock(root, built=built, upgrade=upgrade, notify=click.echo)
    for error in failed:
        click.secho(str(error), fg="red", err=True)
    return 1 if failed else 0


@command.command("pin")
@root_option
def pin_command(root: Path) -> None:
    """Pin schedules to the compiled versions beside them and list each use case's files for kustomize."""
    from pipelines.infra.pin import pin

    for path in pin(root):
        click.echo(path)


@command.command("check")
@root_option
@click.option("--cluster", "clusters", multiple=True, help="local, staging or prod; may be repeated; all without it.")
@json_option
def check_command(root: Path, clusters: tuple[str, ...], as_json: bool) -> int:
    """Say what would not render, or would render something unpinned, without any network; exit code 2 if so."""
    from pipelines.infra.check import check_tree

    return tell(check_tree(root, list(clusters)), as_json=as_json)


@command.command("verify")
@root_option
@click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Public key of whoever signs our images, as cosign wrote it.",
)
@json_option
def verify_command(root: Path, key: Path, as_json: bool) -> int:
    """Ask registries whether every image of ours that the tree names is signed with a key; exit code 2 if not."""
    from pipelines.infra.signatures import unsigned_images

    return tell(unsigned_images(root, key), as_json=as_json)


def tell(findings: "list[Finding]", *, as_json: bool) -> int:
    """Print findings and return the exit code."""
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=2, ensure_ascii=False))
        return WRONG if findings else 0
    # Forty missing digests have one next step.
    for next_step, alike in groupby(findings, key=lambda finding: finding.next_step):
        for finding in alike:
            click.echo(f"{finding.where}: {finding.what}" if finding.where else finding.what)
        if next_step:
            click.echo(f"    next step: {next_step}")
    return WRONG if findings else 0
