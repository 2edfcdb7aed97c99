"""`driftline demo`: the main job from raw data to an answered request."""

import json
import time

import click

from components.core.settings import load_settings

DEFAULT_USE_CASE = "flights"


@click.command("demo")
@click.option("--use-case", default=DEFAULT_USE_CASE, show_default=True)
def command(use_case: str) -> int:
    """Train, gate, package and promote a model, then ask the champion one question."""
    from components.core.ledger.champions import read_champion
    from components.core.ledger.engine import open_ledger
    from pipelines.answer import answer_once
    from pipelines.catalog import read_case
    from pipelines.commands.summary import exit_code, summarize
    from pipelines.execute import run_training
    from pipelines.progress import show

    started = time.monotonic()
    settings = load_settings()
    case = read_case(settings.feature_repo, use_case)
    click.echo(f"{case.use_case.title}: {case.use_case.description}")
    record = run_training(settings, use_case, overrides={}, notify=show, announce=lambda key: click.echo(f"run {key}"))
    click.echo(summarize(settings, record))
    if record.state == "refused" and read_champion(open_ledger(settings.ledger_url), use_case):
        click.echo("nothing better than the champion: it stays")
    elif record.state != "succeeded":
        return exit_code(record.state)
    row, request, answer = answer_once(settings, case.use_case)
    click.echo(f"asked the champion about {row}\n  POST /predict {json.dumps(request)}")
    click.echo(f"  prediction {answer['prediction']:.4f} by version {answer['model_version']}")
    ages = {view: None if age is None else round(age) for view, age in answer["feature_ages_seconds"].items()}
    click.echo(f"  feature ages in seconds {json.dumps(ages)}; stale {answer['stale']}; missing {answer['missing']}")
    click.echo(f"done in {time.monotonic() - started:.0f} s; next: driftline why {record.id}")
    return 0
