"""`driftline release`: what Git says that serves, and how that changes."""

import json
from pathlib import Path
from typing import Any

import click

from components.core.settings import load_settings
from pipelines.commands.options import json_option, use_case_option

WRONG = 2


@click.group("release")
def command() -> None:
    """Show, propose, take back and commit releases: files of the repository that DRIFTLINE_GIT_URL names."""


@command.command("show")
@click.option("--use-case", "use_case", default="", help="Folder below feature_repo; all without it.")
@json_option
def show(use_case: str, as_json: bool) -> None:
    """Show which version Git names in each environment, and what the ledger knows of it."""
    from pipelines.releases.show import show_releases

    found = show_releases(load_settings(), use_case)
    if as_json:
        click.echo(json.dumps([each.model_dump(mode="json") for each in found], indent=2))
        return
    for each in found:
        version = "nothing" if each.version is None else f"version {each.version}"
        champion = "" if each.champion in (None, each.version) else f", champion is version {each.champion}"
        line = each.error or f"{version}, commit {each.commit[:12]}{champion}"
        click.secho(f"{each.use_case:<12} {each.environment:<8} {line}", fg="red" if each.error else None)


@command.command("propose")
@use_case_option
@click.option("--from", "source", required=True, help="Environment whose release is offered.")
@click.option("--to", "target", required=True, help="Environment that is to serve it.")
@json_option
def propose(use_case: str, source: str, target: str, as_json: bool) -> None:
    """Propose a release for another environment: a branch and, where DRIFTLINE_FORGE_URL is set, a pull request."""
    from pipelines.releases.propose import propose_release

    _tell(propose_release(load_settings(), use_case, source, target), as_json=as_json)


@command.command("revert")
@use_case_option
@click.option("--env", "environment", required=True, help="Environment whose release is taken back.")
@click.option("--to", type=click.IntRange(1), default=None, help="Version to go back to. Default: the one before.")
@click.option("--reason", default="", help="Goes into the commit.")
@click.option("--propose", "ask", is_flag=True, help="Push a branch and open a pull request instead.")
@json_option
def revert(use_case: str, environment: str, to: int | None, reason: str, ask: bool, as_json: bool) -> None:
    """Take a release back by one signed commit; `git revert` does the same."""
    from components.core.release_publishing import observe_if_reachable
    from pipelines.releases.revert import revert_release

    settings = load_settings()
    change = revert_release(settings, use_case, environment, to=to, reason=reason, propose=ask)
    if change.state == "committed" and environment == settings.git_environment:
        observe_if_reachable(settings, use_case)
    _tell(change, as_json=as_json)


@command.command("sync")
@use_case_option
@click.option("--rewritten", is_flag=True, help="Accept that the history of the branch was rewritten.")
@json_option
def sync(use_case: str, rewritten: bool, as_json: bool) -> None:
    """Finish what a failed push or a killed step left: follow Git, commit the champion, mend MLflow's alias."""
    from components.core.mirror import repair_mirror
    from components.core.release_publishing import observe_release, publish_champion

    settings = load_settings()
    observe_release(settings, use_case, rewritten=rewritten)
    published = publish_champion(settings, use_case)
    repair_mirror(settings)
    if as_json:
        click.echo(published.model_dump_json(indent=2))
    else:
        click.echo(f"{use_case}, {published.environment}: version {published.version}: {published.state}")


@command.command("check")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@json_option
def check(paths: tuple[Path, ...], as_json: bool) -> int:
    """Check release files, or all below folders, without any server; exit code 2 when one is wrong."""
    from pipelines.releases.check import check_releases

    found = check_releases(list(paths))
    if as_json:
        click.echo(json.dumps([each.model_dump(mode="json") for each in found], indent=2))
    else:
        for each in found:
            click.secho(each.error or f"{each.path}: version {each.version}", fg="red" if each.error else None)
    return WRONG if any(each.error for each in found) else 0


def _tell(change: Any, *, as_json: bool) -> None:
    if as_json:
        click.echo(change.model_dump_json(indent=2))
        return
    moved = f"{change.use_case}, {change.environment}: version {change.replaced or 'none'} → {change.version}"
    click.echo(f"{moved}: {change.state} {change.commit[:12]}".rstrip())
    for line in (change.branch, change.pull_request, "" if change.pull_request else change.body):
        if line:
            click.echo(line)
