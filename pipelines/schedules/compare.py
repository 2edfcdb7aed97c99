"""Declared schedules beside the server's recurring runs."""

from pathlib import Path

from components.core.errors import ConfigError
from components.core.kfp_api import KfpApi
from components.core.settings import Settings
from pipelines.schedules.model import Existing, Schedule
from pipelines.schedules.plan import Change, plan
from pipelines.schedules.read import read_schedules
from pipelines.schedules.resolve import Resolved, resolve
from pipelines.schedules.server import list_recurring_runs
from pipelines.wiring import pipeline_name


def compare(
    settings: Settings, api: KfpApi, folder: Path, *, images: Path, prune: bool, use_case: str = ""
) -> tuple[dict[str, Resolved], list[Change]]:
    """Return what is wanted, by name, and the changes that lead to it; nothing is changed.

    With `use_case`, all others are as if they were neither declared nor on the server. Raises ConfigError for a wrong
    file or parameter, NotOnCluster for an unknown version, and what `KfpApi.call` raises.
    """
    declared = read_schedules(folder)
    existing = list_recurring_runs(api)
    if use_case:
        declared, existing = only(use_case, declared, existing)
    resolved = {found.wanted.name: found for found in resolve(settings, api, declared, images)}
    return resolved, plan([found.wanted for found in resolved.values()], existing, prune=prune)


def only(use_case: str, declared: list[Schedule], existing: list[Existing]) -> tuple[list[Schedule], list[Existing]]:
    """Return the schedules and the recurring runs of one use case; whose a recurring run is, its version's name says.

    Raises ConfigError when nothing is declared, which `prune` would take as "delete all", and for a name that a
    recurring run of another use case has: to replace that one would take it away.
    """
    chosen = [schedule for schedule in declared if schedule.use_case == use_case]
    if not chosen:
        raise ConfigError(
            f"no schedule of use case {use_case!r} is declared",
            allowed=", ".join(sorted({schedule.use_case for schedule in declared})),
            next_step="correct --use-case, or let --dir name the folder that holds the use cases' folders",
        )
    own = [found for found in existing if _is_of(found, use_case)]
    names = {schedule.name for schedule in chosen}
    foreign = next((found for found in existing if found.name in names and found not in own), None)
    if foreign is not None:
        raise ConfigError(
            f"schedule {foreign.name!r} belongs to another use case",
            measured=f"it runs version {foreign.has.get('version', '')}",
            allowed=f"a name that no schedule of another use case than {use_case} has",
            next_step="rename one of the two",
        )
    return chosen, own


def _is_of(found: Existing, use_case: str) -> bool:
    # <use case>-<pipeline>-<digest>; neither of the last two has a hyphen.
    return str(found.has.get("version", "")).rsplit("-", 2)[0] == pipeline_name(use_case, "").rstrip("-")
