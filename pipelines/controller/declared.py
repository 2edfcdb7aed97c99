"""Schedules as ConfigMaps declare them: each file by itself, so that a wrong one holds up no other."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from components.core.errors import ConfigError
from components.core.usecase import explain
from pipelines.schedules.model import Schedule

LABEL = "driftline.dev/schedules=true"
PAGE = 100
TIMEOUT_SECONDS = 20


class File(NamedTuple):
    """One key of a ConfigMap."""

    origin: str
    text: str


class Refused(NamedTuple):
    """A schedule that cannot be applied."""

    name: str
    """Empty when even that cannot be read."""
    use_case: str
    reason: str


class Declared(NamedTuple):
    """What Git declares."""

    schedules: list[Schedule]
    refused: list[Refused]


def read_config_maps(client: Any, namespace: str) -> list[File] | None:
    """Return the files of all ConfigMaps with our label; None when there is no such ConfigMap.

    None is not "no schedules": a mistyped namespace must not delete what is on the server. Raises ApiException.
    """
    from kubernetes.client import CoreV1Api

    api, token, found = CoreV1Api(client), "", []
    while True:
        page = api.list_namespaced_config_map(
            namespace, label_selector=LABEL, limit=PAGE, _continue=token, _request_timeout=TIMEOUT_SECONDS
        )
        found += page.items
        token = page.metadata._continue or ""
        if not token:
            break
    if not found:
        return None
    return [
        File(f"{namespace}/{one.metadata.name}/{key}", text)
        for one in sorted(found, key=lambda one: str(one.metadata.name))
        for key, text in sorted((one.data or {}).items())
    ]


def read_files(files: Iterable[File]) -> Declared:
    """Return the schedules of all files, and for each wrong file why it is refused.

    Of two files that declare different schedules of one name both are refused; equal ones are one. A version must be
    named: there is no checkout here to compile one, and the newest on the server would not go back with Git.
    """
    good: dict[str, Schedule] = {}
    refused: list[Refused] = []
    twice: set[str] = set()
    for file in files:
        try:
            raw = yaml.safe_load(file.text)
        except yaml.YAMLError as error:
            refused.append(Refused("", "", f"{file.origin} is not valid YAML: {' '.join(str(error).split())}"))
            continue
        if not isinstance(raw, dict):
            refused.append(Refused("", "", f"{file.origin} must be a mapping, one schedule per file"))
            continue
        if reasons := list(_problems(raw)):
            refused.append(Refused(*_names(raw), f"{file.origin}: {'; '.join(reasons)}"))
            continue
        schedule = Schedule.model_validate(raw)
        if good.setdefault(schedule.name, schedule) != schedule:
            twice.add(schedule.name)
    refused += [Refused(name, good.pop(name).use_case, f"two files declare schedule {name}") for name in sorted(twice)]
    return Declared([good[name] for name in sorted(good)], refused)


def _problems(raw: dict[Any, Any]) -> Iterator[str]:
    try:
        schedule = Schedule.model_validate(raw)
    except ValidationError as error:
        yield explain(error, Schedule)
    except ConfigError as error:
        yield str(error)
    else:
        if not schedule.version:
            yield (
                "`version` is missing: name the pipeline version to run, as `driftline compile --target kubernetes`"
                " prints it"
            )


def _names(raw: dict[Any, Any]) -> tuple[str, str]:
    """Return name and use case of a wrong file, as far as they can be read."""
    return (str(raw.get("name") or ""), str(raw.get("use_case") or ""))
