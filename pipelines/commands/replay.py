"""`driftline replay`: what would each policy have brought, and what would it have cost?"""

import json
import os
import time
from pathlib import Path

import click

from components.core.settings import load_settings
from pipelines.commands.options import json_option, use_case_option

DEFAULT_POLICIES = "never,scheduled,performance,drift"


@click.command("replay")
@use_case_option
@click.option("--from", "first", required=True, help="First month or day to judge; the first model is trained then.")
@click.option("--until", required=True, help="Last month or day, included.")
@click.option("--policies", default=DEFAULT_POLICIES, show_default=True, help="Policies of section monitor, by comma.")
@click.option("--jobs", default=min(2, os.cpu_count() or 1), show_default=True, type=click.IntRange(1, 16))
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Default: in the home.")
@json_option
def command(use_case: str, first: str, until: str, policies: str, jobs: int, output: Path | None, as_json: bool) -> int:
    """Replay history on a virtual clock: score, watch, decide, retrain, gate, promote - once per policy."""
    from components.core.storage import write_text
    from pipelines.catalog import override, read_case
    from pipelines.replay.clock import parse_span, plan_ticks
    from pipelines.replay.compare import as_text, facts
    from pipelines.replay.measure import measure_play
    from pipelines.replay.page import render
    from pipelines.replay.play import home_of
    from pipelines.replay.run import play_policies

    started = time.monotonic()
    settings = load_settings()
    case = read_case(settings.feature_repo, use_case)
    names = [name.strip() for name in policies.split(",")]
    for name in names:
        override(case, (f"monitor.policy={name}",), None, pipeline="monitoring")
    begin, end = parse_span(first, until)
    ticks = plan_ticks(case.use_case.monitor, begin, end)
    played = play_policies(settings, use_case, names, ticks, jobs=jobs, tell=lambda line: click.echo(line, err=True))
    lines = [measure_play(own, case.use_case, play) for own, play in played.values()]
    target = output or home_of(settings, use_case, names[0], ticks).parent / "replay.html"
    call = f"driftline replay --use-case {use_case} --from {first} --until {until} --policies {policies}"
    write_text(target, render(case.use_case.title, lines, command=call))
    if as_json:
        document = {line.play.policy: {**line.model_dump(mode="json"), "facts": facts(line)} for line in lines}
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(as_text(lines))
        click.echo(f"page: {target}\n{len(ticks)} windows, {len(names)} policies in {time.monotonic() - started:.0f} s")
    return 0
