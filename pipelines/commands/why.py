"""`driftline why`: explain how a run ended, or why a decision was made."""

import json
import re
from typing import TYPE_CHECKING

import click

from components.core.errors import ConfigError
from components.core.settings import Settings, load_settings
from pipelines.commands.options import json_option

if TYPE_CHECKING:
    from pipelines.releases.trace import Traced

DECISION_ID = r"[0-9a-f]{4,64}"
RUN_ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@click.command("why")
@click.argument("identity", metavar="RUN|DECISION")
@click.option("--traceback", is_flag=True, help="Print the step's whole traceback.")
@json_option
def command(identity: str, traceback: bool, as_json: bool) -> int:
    """Tell why a run was promoted, refused or failed, or why a decision was made and what came of it.

    Of a run: step, exception, place, inputs, and how to reproduce it. Of a decision (the first digits do): the rung of
    the ladder, reasons, evidence, request, run and outcome. Of both: the release that came of it, and its commits.
    """
    from pipelines.explain import explain_run, render
    from pipelines.local import read_record
    from pipelines.releases.trace import render_trace

    settings = load_settings()
    record = read_record(settings, identity)
    if record is None and settings.kfp_host and re.fullmatch(RUN_ID, identity):
        return _why_on_cluster(settings, identity, traceback=traceback, as_json=as_json)
    if record is None:
        return _why_decision(settings, identity, as_json=as_json)
    explanation = explain_run(record)
    releases = _releases(settings, identity)
    if as_json:
        explanation["releases"] = [each.model_dump(mode="json") for each in releases]
        click.echo(json.dumps(explanation, indent=2))
    else:
        click.echo(render(explanation))
        for line in (*_cause(settings, identity), *map(render_trace, releases)):
            click.echo(line)
        failed = record.failed_step
        if traceback and failed and failed.failure:
            click.echo(failed.failure.traceback)
    return 0


def _why_on_cluster(settings: Settings, run_id: str, *, traceback: bool, as_json: bool) -> int:
    from components.core.kfp_api import KfpApi
    from components.core.kfp_steps import read_steps
    from pipelines.cluster.explain import explain_cluster_run
    from pipelines.cluster.runs import describe_run, open_ledger_if_any, require_run
    from pipelines.explain import render
    from pipelines.releases.trace import render_trace

    api = KfpApi(settings)
    ledger, unreadable = open_ledger_if_any(settings)
    if unreadable:
        click.secho(f"without the ledger's outcome: {unreadable}", fg="yellow", err=True)
    run = require_run(api, run_id)
    explanation = explain_cluster_run(api, describe_run(api, ledger, run, {}), read_steps(api, run))
    releases = _releases(settings, run_id) if ledger is not None else []
    if as_json:
        explanation["releases"] = [each.model_dump(mode="json") for each in releases]
        click.echo(json.dumps(explanation, indent=2))
        return 0
    click.echo(render(explanation))
    for line in (*(_cause(settings, run_id) if ledger is not None else []), *map(render_trace, releases)):
        click.echo(line)
    if traceback and explanation.get("traceback"):
        click.echo(explanation["traceback"])
    return 0


def _releases(settings: Settings, run_id: str) -> "list[Traced]":
    """Return what became of the release that a run made."""
    from pipelines.releases.trace import trace_run

    return trace_run(settings, run_id)


def _cause(settings: Settings, run_id: str) -> list[str]:
    """Tell which decision started a run; nothing for a run that a person started."""
    from components.core.ledger.engine import open_ledger
    from components.core.ledger.requests import read_attempt, read_request

    ledger = open_ledger(settings.ledger_url)
    attempt = read_attempt(ledger, run_id)
    request = read_request(ledger, attempt.request_id) if attempt else None
    if attempt is None or request is None:
        return []
    return [f"attempt {attempt.attempt} of a retraining; why it was started: driftline why {request.decision_id[:10]}"]


def _why_decision(settings: Settings, identity: str, *, as_json: bool) -> int:
    from components.core.ledger.decisions import read_decision
    from components.core.ledger.engine import open_ledger
    from pipelines.explain_decision import render
    from pipelines.releases.trace import render_trace

    decision = None
    if re.fullmatch(DECISION_ID, identity):
        decision = read_decision(open_ledger(settings.ledger_url), identity)
    if decision is None:
        known = sorted(p.name for p in settings.runs.glob("*") if p.is_dir())[-5:]
        raise ConfigError(
            "no such run or decision",
            measured=identity,
            allowed=", ".join(known) or "none yet",
            next_step="driftline runs list, or driftline decisions",
        )
    releases = _releases(settings, decision.run) if decision.run else []
    if as_json:
        traced = [each.model_dump(mode="json") for each in releases]
        click.echo(json.dumps(decision.model_dump(mode="json") | {"releases": traced}, indent=2))
    else:
        click.echo("\n".join([render(decision), *map(render_trace, releases)]))
    return 0
