"""`driftline runs`: list runs, show one, read its log, stop it, repeat what failed; here or on the cluster."""

import json

import click

from components.core.settings import Settings, load_settings
from pipelines.commands.options import json_option


@click.group("runs")
def command() -> None:
    """Runs of pipelines: on the cluster where DRIFTLINE_KFP_HOST is set, else on this machine."""


@command.command("list")
@click.option("--use-case", default="")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
@json_option
def list_all(use_case: str, limit: int, as_json: bool) -> None:
    """List the newest runs with their outcome, which is the ledger's."""
    settings = load_settings()
    if settings.kfp_host:
        from pipelines.commands.cluster_runs import show_list

        show_list(settings, use_case=use_case, limit=limit, as_json=as_json)
        return
    from components.core.ledger.engine import open_ledger
    from components.core.ledger.runs import list_runs

    found = list_runs(open_ledger(settings.ledger_url), limit=limit, use_case=use_case)
    if as_json:
        click.echo(json.dumps([run.model_dump(mode="json") for run in found], indent=2))
        return
    for run in found:
        click.echo(f"{run.started_at:%Y-%m-%d %H:%M:%S}  {run.state:<10}  {run.id}  {run.reason}"[:200])


@command.command("show")
@click.argument("run")
@json_option
def show(run: str, as_json: bool) -> None:
    """Show the steps of a run with state and seconds, and what came of it."""
    from pipelines.commands.summary import as_json_document, summarize
    from pipelines.local import read_record

    settings = load_settings()
    record = read_record(settings, run)
    if record is not None:
        click.echo(json.dumps(as_json_document(settings, record), indent=2) if as_json else summarize(settings, record))
        return
    from pipelines.commands.cluster_runs import show_run

    show_run(_on_cluster(settings, run), run, as_json=as_json)


@command.command("logs")
@click.argument("run")
@click.argument("step", default="")
def logs(run: str, step: str) -> None:
    """Print what a step wrote; without STEP, that of the failed one, or else of the last one."""
    from pipelines.local import LOG, read_record

    settings = load_settings()
    if read_record(settings, run) is not None:
        click.echo((settings.runs / run / LOG).read_text(encoding="utf-8"), nl=False)
        return
    from pipelines.commands.cluster_runs import show_log

    show_log(_on_cluster(settings, run), run, step)


@command.command("stop")
@click.argument("run")
@click.option("--timeout", "timeout_seconds", default=120.0, show_default=True, type=click.FloatRange(1))
def stop(run: str, timeout_seconds: float) -> int:
    """End a run on the cluster and wait until it has really ended."""
    from pipelines.commands.cluster_runs import stop_and_show

    return stop_and_show(_on_cluster(load_settings(), run), run, timeout_seconds=timeout_seconds)


@command.command("retry")
@click.argument("run")
@click.option("--wait", is_flag=True, help="Wait for the end; the exit code tells it.")
@click.option("--timeout", "timeout_seconds", default=0.0, type=click.FloatRange(0), help="Seconds; 0: no limit.")
def retry(run: str, wait: bool, timeout_seconds: float) -> int:
    """Repeat the failed steps of a run on the cluster, with the results of the others."""
    from pipelines.commands.cluster_runs import retry_and_show

    return retry_and_show(_on_cluster(load_settings(), run), run, wait=wait, timeout_seconds=timeout_seconds)


@command.command("rerun")
@click.argument("run")
@click.argument("step")
def rerun(run: str, step: str) -> int:
    """Execute one recorded step again with its recorded inputs; outputs go to a new folder."""
    from pipelines.rerun import rerun_step

    return rerun_step(load_settings(), run, step)


def _on_cluster(settings: Settings, run: str) -> Settings:
    from components.core.errors import ConfigError

    if settings.kfp_host:
        return settings
    raise ConfigError(
        "this machine has no such run, and no cluster is named",
        measured=run,
        allowed="a run of `driftline runs list`",
        next_step="set DRIFTLINE_KFP_HOST for a run on a cluster",
    )
