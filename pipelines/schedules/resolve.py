"""From a declared schedule to what is wanted of the server: the version by name, and the arguments that it takes."""

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.clock import parse_instant
from components.core.errors import ConfigError
from components.core.kfp_api import KfpApi
from components.core.kfp_runs import Version, require_version
from components.core.settings import Settings
from components.core.usecase import UseCase, explain
from pipelines.catalog import PARAMETER_SECTIONS, Case, override, read_case
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
    """Of the use case."""
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
        case = read_case(settings.feature_repo, schedule.use_case)
        name = pipeline_name(schedule.use_case, schedule.pipeline)
        if schedule.version:
            version = require_version(api, name, schedule.version)
            spec, ir = version.spec.get("pipeline_spec", version.spec), ""
        else:
            key = (schedule.use_case, schedule.pipeline)
            if key not in compiled:
                registry = applied_definitions(settings, schedule.use_case)
                compiled[key] = compile_for_cluster(case, schedule.pipeline, registry, read_image_lock(images))
            version, ir = None, compiled[key]
            spec = next(iter(yaml.safe_load_all(ir)))
        wanted = Wanted(
            name=schedule.name,
            enabled=schedule.enabled,
            spec=Spec(
                **schedule.model_dump(include={"use_case", "cron", "description", "parameters", "max_concurrency"}),
                pipeline=name,
                version=schedule.version or version_name(ir),
                catchup=schedule.catchup,
                starts=schedule.starts.isoformat() if schedule.starts else "",
                ends=schedule.ends.isoformat() if schedule.ends else "",
            ),
            arguments=arguments(schedule, case, spec),
        )
        resolved.append(Resolved(wanted=wanted, title=case.use_case.title, version=version, ir=ir))
    return resolved


def arguments(schedule: Schedule, case: Case, spec: dict[str, Any]) -> dict[str, Any]:
    """Return a schedule's parameters as the version's pipeline takes them: whole sections, with their overridden keys.

    The keys that are not overridden are the version's own, which may be older than this checkout. Raises ConfigError.
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
    try:
        of_version = _as_in_version(case, sections, inputs)
        return override(of_version, pairs, None, pipeline=schedule.pipeline) | plain
    except ConfigError as error:
        raise ConfigError(
            f"{where}: {error.what}", measured=error.measured, allowed=error.allowed, next_step=error.next_step
        ) from error


def _as_in_version(case: Case, sections: list[str], inputs: dict[str, Any]) -> Case:
    """Return the use case with the sections that are the version's defaults."""
    defaults = {name: inputs[name]["defaultValue"] for name in sections if "defaultValue" in inputs[name]}
    known = case.use_case.model_dump(mode="json", exclude_none=True)
    try:
        return case.model_copy(update={"use_case": UseCase.model_validate(known | defaults)})
    except ValidationError as error:
        raise ConfigError(
            f"the version's own parameters are not those of this checkout: {explain(error, UseCase)}",
            next_step="name a newer version, or run this command from the checkout that the version was compiled from",
        ) from error


def _check_instants(where: str, plain: dict[str, Any]) -> None:
    as_of = parse_instant(plain.get("as_of", ""), what=f"{where}: as_of")
    if any(plain.get(key) for key in PERIOD):
        from components.features.period import whole_days

        whole_days(plain.get("first", ""), plain.get("last", ""), as_of=as_of)
