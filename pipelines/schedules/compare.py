"""Declared schedules beside the server's recurring runs."""

from pathlib import Path

from components.core.kfp_api import KfpApi
from components.core.settings import Settings
from pipelines.schedules.plan import Change, plan
from pipelines.schedules.read import read_schedules
from pipelines.schedules.resolve import Resolved, resolve
from pipelines.schedules.server import list_recurring_runs


def compare(
    settings: Settings, api: KfpApi, folder: Path, *, images: Path, prune: bool
) -> tuple[dict[str, Resolved], list[Change]]:
    """Return what is wanted, by name, and the changes that lead to it; nothing is changed.

    Raises ConfigError for a wrong file or parameter, NotOnCluster for an unknown version, and what `KfpApi.call`
    raises.
    """
    declared = read_schedules(folder)
    existing = list_recurring_runs(api)
    resolved = {found.wanted.name: found for found in resolve(settings, api, declared, images)}
    return resolved, plan([found.wanted for found in resolved.values()], existing, prune=prune)
