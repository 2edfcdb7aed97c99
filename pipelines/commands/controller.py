"""`driftline controller`: what nobody should have to remember, done by one long-lived process."""

import click

from components.core.settings import load_settings


@click.command("controller")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Of /metrics and probes.")
@click.option("--lease-namespace", default="", help="Where the Lease of the leader is; default: the pod's own.")
@click.option("--schedules-namespace", default="", help="Where ConfigMaps declare schedules; default: the pod's own.")
@click.option("--serving-namespace", "serving_namespaces", multiple=True, help="Whose Rollouts are watched.")
@click.option("--seconds", default=60.0, show_default=True, type=click.FloatRange(1, 3600), help="Between two rounds.")
def command(
    port: int, lease_namespace: str, schedules_namespace: str, serving_namespaces: tuple[str, ...], seconds: float
) -> int:
    """Start what was requested, keep schedules as Git declares them, follow releases, and export metrics.

    It decides nothing. Of several replicas one acts, the others serve metrics. Runs until SIGTERM.
    """
    from pipelines.controller.run import Options, run_controller

    options = Options(
        port=port,
        lease_namespace=lease_namespace,
        schedules_namespace=schedules_namespace,
        serving_namespaces=serving_namespaces,
        seconds=seconds,
    )
    return run_controller(load_settings(), options)
