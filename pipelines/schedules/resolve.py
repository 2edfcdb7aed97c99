"""From a declared schedule to what is wanted of the server: the version by name, and the arguments that it takes."""

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from components.core.clock import parse_instant
from components.core.errors import ConfigError
from components.core.kfp_api import KfpApi
from components.core.kfp_runs import Version, require_version
from components.core.settings import Settings
from pipelines.catalog import PARAMETER_SECTIONS, change_sections, read_case
from pipelines.compile import compile_for_cluster, version_name
from pipelines.definitions import applied_definitions
from pipelines.image_lock import read_image_lock
from pipelines.schedules.model import Schedule, Spec, Wanted
from pipelines.wiring import pipeline_name

PERIOD = ("first", "last")


class Resolved(BaseModel):
    """A schedule with the version that it runs."""

    model_config = ConfigDict(frozen=True)

    wanted: Wanted
    title: str
    """What the experiment of the use case is described with, should it have to be made."""
    version: Version | None = None
    """As the server has it, where the schedule names it."""
    ir: str = ""
    """As this checkout compiles it, where the schedule names none."""


def resolve(settings: Settings, api: KfpApi, schedules: list[Schedule], images: Path) -> list[Resolved]:
    """Return all schedules with their versions; nothing is changed.

    Raises ConfigError for an unknown use case, a parameter that the pipeline has not or whose section refuses it;
    NotOnCluster for a version that the server has not.
    """
    compiled: dict[tuple[str, str], str] = {}
    resolved = []
    for schedule in schedules:
        if schedule.version:
            resolved.append(resolve_pinned(api, schedule))
            continue
        key = (schedule.use_case, schedule.pipeline)
        case = read_case(settings.feature_repo, schedule.use_case)
        if key not in compiled:
            registry = applied_definitions(settings, schedule.use_case)
            compiled[key] = compile_for_cluster(case, schedule.pipeline, registry, read_image_lock(images))
        ir = compiled[key]
        spec = next(iter(yaml.safe_load_all(ir)))
        wanted = _wanted(schedule, version_name(ir), arguments(schedule, spec))
        resolved.append(Resolved(wanted=wanted, title=case.use_case.title, ir=ir))
    return resolved


def resolve_pinned(api: KfpApi, schedule: Schedule) -> Resolved:
    """Return a schedule that names its version; no checkout is needed, since the version tells what it takes.

    Raises ConfigError for a parameter that it does not take, NotOnCluster for a version that the server has not, and
    what `KfpApi.call` raises.
    """
    version = require_version(api, pipeline_name(schedule.use_case, schedule.pipeline), schedule.version)
    spec = version.spec.get("pipeline_spec", version.spec)
    wanted = _wanted(schedule, schedule.version, arguments(schedule, spec))
    title = str(spec.get("pipelineInfo", {}).get("description", "")).partition(":")[0]
    return Resolved(wanted=wanted, title=title or schedule.use_case, version=version)


def _wanted(schedule: Schedule, version: str, arguments: dict[str, Any]) -> Wanted:
    return Wanted(
        name=schedule.name,
        enabled=schedule.enabled,
        spec=Spec(
            **schedule.model_dump(include={"use_case", "cron", "description", "parameters", "max_concurrency"}),
            pipeline=pipeline_name(schedule.use_case, schedule.pipeline),
            version=version,
            catchup=schedule.catchup,
            starts=schedule.starts.isoformat() if schedule.starts else "",
            ends=schedule.ends.isoformat() if schedule.ends else "",
        ),
        arguments=arguments,
    )


def arguments(schedule: Schedule, spec: dict[str, Any]) -> dict[str, Any]:
    """Return a schedule's parameters as the version's pipeline takes them: whole sections, with their overridden keys.

    The keys that are not overridden are the version's own, which may be older than any checkout. Raises ConfigError.
    """
    inputs = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    sections = [name for name in PARAMETER_SECTIONS[schedule.pipeline] if name in inputs]
    dotted = {key: value for key, value in schedule.parameters.items() if "." in key}
    plain = {key: value for key, value in schedule.parameters.items() if "." not in key}
    where = f"schedule {schedule.name}"
    for key, value in plain.items():
        if key in sections or inputs.get(key, {}).get("parameterType") != "STRING":
            texts = [name for name, known in inputs.items() if known.get("parameterType") == "STRING"]
            raise ConfigError(
                f"{where}: {key!r} is no parameter of {schedule.pipeline}",
                allowed=f"SECTION.KEY with SECTION of {', '.join(sections)}; {', '.join(sorted(texts))}",
                next_step="correct `parameters`",
            )
        if not isinstance(value, str):
            raise ConfigError(f"{where}: {key} must be text", measured=repr(value), next_step=f'write {key}: "{value}"')
    _check_instants(where, plain)
    pairs = tuple(f"{key}={json.dumps(value)}" for key, value in dotted.items())
    of_version = {name: inputs[name].get("defaultValue", {}) for name in sections}
    try:
        return change_sections(of_version, pairs) | plain
    except ConfigError as error:
        raise ConfigError(
            f"{where}: {error.what}", measured=error.measured, allowed=error.allowed, next_step=error.next_step
        ) from error


def _check_instants(where: str, plain: dict[str, Any]) -> None:
    as_of = parse_instant(plain.get("as_of", ""), what=f"{where}: as_of")
    if any(plain.get(key) for key in PERIOD):
        from components.features.period import whole_days

        whole_days(plain.get("first", ""), plain.get("last", ""), as_of=as_of)
