"""`driftline run`: execute a pipeline on this machine."""

import json

import click

from components.core.settings import load_settings
from pipelines.commands.options import json_option, use_case_option
from pipelines.commands.summary import as_json_document, exit_code, summarize


@click.group("run")
def command() -> None:
    """Run a pipeline on this machine."""


@command.command("training")
@use_case_option
@click.option("--as-of", default=None, help="Virtual instant, ISO 8601; '' is now. Default: the use case's own.")
@click.option("--param", "params", multiple=True, help="Override one key: SECTION.KEY=VALUE.")
@json_option
def training(use_case: str, as_of: str | None, params: tuple[str, ...], as_json: bool) -> int:
    """Train a challenger, judge it, and promote it if the gate says so."""
    from pipelines.catalog import override, read_case
    from pipelines.execute import run_training
    from pipelines.progress import show

    settings = load_settings()
    overrides = override(read_case(settings.feature_repo, use_case), params, as_of)
    record = run_training(
        settings,
        use_case,
        overrides=overrides,
        notify=show,
        announce=lambda key: click.echo(f"{use_case} training, run {key}", err=True),
    )
    click.echo(json.dumps(as_json_document(settings, record), indent=2) if as_json else summarize(settings, record))
    return exit_code(record.state)


@command.command("scoring")
@use_case_option
@click.option("--from", "first", default="", help="First UTC day. Default: the day before --to.")
@click.option("--to", "last", default="", help="UTC day at which the period ends, itself excluded. Default: today.")
@click.option("--as-of", default=None, help="Virtual instant, ISO 8601; '' is now. Default: --to, or else now.")
@json_option
def scoring(use_case: str, first: str, last: str, as_of: str | None, as_json: bool) -> int:
    """Let the champion predict a period, every row as of its own instant; a day is predicted once."""
    from components.core.clock import parse_instant
    from components.features.period import whole_days
    from pipelines.commands.scoring_summary import as_json_document, summarize
    from pipelines.execute import run_pipeline
    from pipelines.progress import show

    settings = load_settings()
    instant = last if as_of is None else as_of
    whole_days(first, last, as_of=parse_instant(instant, what="--to" if as_of is None else "--as-of"))
    record = run_pipeline(
        settings,
        use_case,
        "scoring",
        overrides={"as_of": instant, "first": first, "last": last},
        notify=show,
        announce=lambda key: click.echo(f"{use_case} scoring, run {key}", err=True),
    )
    click.echo(json.dumps(as_json_document(settings, record), indent=2) if as_json else summarize(settings, record))
    return exit_code(record.state)


@command.command("monitoring")
@use_case_option
@click.option("--as-of", default="", help="Virtual instant, ISO 8601; default: now. It chooses the window.")
@click.option("--param", "params", multiple=True, help="Override one key: SECTION.KEY=VALUE.")
@click.option("--no-dispatch", is_flag=True, help="Leave a requested retraining to `driftline dispatch`.")
@json_option
def monitoring(use_case: str, as_of: str, params: tuple[str, ...], no_dispatch: bool, as_json: bool) -> int:
    """Judge the newest window whose labels are known; carry out the retraining that it justifies."""
    from pipelines.catalog import override, read_case
    from pipelines.commands.monitoring_summary import as_json_document, summarize
    from pipelines.dispatch import dispatch_open
    from pipelines.execute import run_pipeline
    from pipelines.progress import show

    settings = load_settings()
    overrides = override(read_case(settings.feature_repo, use_case), params, as_of, pipeline="monitoring")

    def announce(key: str) -> None:
        click.echo(f"{use_case}, run {key}", err=True)

    record = run_pipeline(settings, use_case, "monitoring", overrides=overrides, notify=show, announce=announce)
    retrained = [] if no_dispatch else dispatch_open(settings, model=use_case, notify=show, announce=announce)
    shown = as_json_document(settings, record, retrained)
    click.echo(json.dumps(shown, indent=2) if as_json else summarize(settings, record, retrained))
    return exit_code(record.state)
