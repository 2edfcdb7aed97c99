"""Reading the declared schedules: one YAML file each, below `<folder>/<use case>/schedules/`."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from components.core.errors import ConfigError
from components.core.usecase import explain
from pipelines.schedules.model import Schedule


def read_schedules(folder: Path) -> list[Schedule]:
    """Return all schedules below a folder by name.

    Raises ConfigError for a wrong file, a name that two files use, and a folder without a schedule: were that no error,
    a mistyped folder and `--prune` would delete everything.
    """
    declared: dict[str, tuple[Path, Schedule]] = {}
    for path in sorted(folder.glob("*/schedules/*.y*ml")):
        schedule = read_schedule(path)
        if schedule.name in declared:
            raise ConfigError(
                f"two files declare schedule {schedule.name!r}",
                measured=f"{declared[schedule.name][0]} and {path}",
                allowed="one file per name",
                next_step="rename one of them",
            )
        declared[schedule.name] = (path, schedule)
    if not declared:
        raise ConfigError(
            "no schedule is declared",
            measured=f"no file matches {folder}/*/schedules/*.yaml",
            next_step="let --dir name the folder that holds the use cases' folders",
        )
    return [schedule for _, (_, schedule) in sorted(declared.items())]


def read_schedule(path: Path) -> Schedule:
    """Read one file. Raises ConfigError that names the file and each wrong key."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML", measured=str(error)) from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must be a mapping", measured=type(raw).__name__, allowed="one schedule per file")
    try:
        schedule = Schedule.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path} is not a valid schedule: {explain(error, Schedule)}") from error
    except ConfigError as error:
        raise ConfigError(
            f"{path}: {error.what}", measured=error.measured, allowed=error.allowed, next_step=error.next_step
        ) from error
    folder = path.parent.parent.name
    if schedule.use_case != folder:
        raise ConfigError(
            f"{path}: use_case must equal its folder",
            measured=schedule.use_case,
            allowed=folder,
            next_step=f"move the file to {schedule.use_case}/schedules/, or correct use_case",
        )
    return schedule
