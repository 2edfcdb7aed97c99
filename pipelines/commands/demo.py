"""`driftline demo`: the main job, from raw data to a model that was retrained because it had to be."""

import json
import time
from datetime import datetime, timedelta
from typing import Any

import click

from components.core.settings import load_settings

DEFAULT_USE_CASE = "flights"
# The first month in which a retraining is justified and helps; `driftline replay` shows those before.
DEFAULT_WATCHED = "2013-06-01"


@click.command("demo")
@click.option("--use-case", default=DEFAULT_USE_CASE, show_default=True)
@click.option("--watch", "watched", default="", help="First day of the window to watch. Default: a telling one.")
def command(use_case: str, watched: str) -> int:
    """Train a first model, let it predict, watch it, retrain it if that is justified, and ask the champion."""
    from components.core.clock import parse_instant
    from pipelines.answer import answer_once
    from pipelines.catalog import read_case
    from pipelines.commands.monitoring_summary import made
    from pipelines.commands.summary import exit_code, summarize
    from pipelines.dispatch import dispatch_open
    from pipelines.execute import run_pipeline
    from pipelines.explain_decision import render
    from pipelines.progress import show

    clock = _Clock()
    settings = load_settings()
    case = read_case(settings.feature_repo, use_case).use_case
    tick = _tick(case, watched or (DEFAULT_WATCHED if use_case == DEFAULT_USE_CASE else case.bootstrap_as_of))
    click.echo(f"{case.title}: {case.description}")

    def run(pipeline: str, **overrides: Any) -> Any:
        return run_pipeline(
            settings,
            use_case,
            pipeline,
            overrides=overrides,
            notify=show,
            announce=lambda key: click.echo(f"{clock} {pipeline}, run {key}"),
        )

    first = run("training")
    click.echo(summarize(settings, first))
    if first.state not in ("succeeded", "refused"):
        return exit_code(first.state)
    if first.state == "refused":
        click.echo("this home has a champion already and goes on with it; a fresh DRIFTLINE_HOME shows the whole story")
    # The whole time since the first training: a season looks like a fault to whoever saw nothing in between.
    served_from = min(tick.scored_from, parse_instant(case.bootstrap_as_of or tick.scored_from.isoformat()))
    as_of = tick.as_of.isoformat()
    click.echo(f"{clock} on the virtual clock it is {tick.as_of:%d %B %Y}: the model has predicted until today")
    scored = run("scoring", as_of=as_of, first=f"{served_from:%Y-%m-%d}", last=f"{tick.as_of:%Y-%m-%d}")
    watching = run("monitoring", as_of=as_of)
    for record in (scored, watching):
        if record.state != "succeeded":
            click.echo(summarize(settings, record))
            return exit_code(record.state)
    decision = made(settings, watching)
    if decision is None:
        return 1
    click.echo(f"{clock} {render(decision)}")
    for record in dispatch_open(
        settings, model=use_case, notify=show, announce=lambda key: click.echo(f"{clock} retraining, run {key}")
    ):
        click.echo(summarize(settings, record))
    row, request, answer = answer_once(settings, case)
    click.echo(f"{clock} asked the champion about {row}\n  POST /predict {json.dumps(request)}")
    click.echo(f"  prediction {answer['prediction']:.4f} by version {answer['model_version']}")
    ages = {view: None if age is None else round(age) for view, age in answer["feature_ages_seconds"].items()}
    click.echo(f"  feature ages in seconds {json.dumps(ages)}; stale {answer['stale']}; missing {answer['missing']}")
    click.echo(f"done in {clock.seconds:.0f} s; next: driftline why {decision.id[:10]}")
    return 0


class _Clock:
    """The time line of the demo."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def __str__(self) -> str:
        return f"[{self.seconds:5.1f} s]"


def _tick(case: Any, first: str) -> Any:
    """Return the one tick that the demo plays: a window and the instant at which it is judged."""
    from components.core.clock import parse_instant
    from pipelines.replay.clock import plan_ticks

    begin: datetime = parse_instant(first, what="--watch")
    longest = timedelta(days=31)
    return plan_ticks(case.monitor, begin, begin + longest)[0]
