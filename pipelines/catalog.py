"""Finding use cases and turning one into a pipeline."""

import copy
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.clock import parse_instant
from components.core.digests import canonical_json
from components.core.errors import ConfigError
from components.core.sections import Section
from components.core.usecase import UseCase, explain, load_sql, load_suite, load_use_case

MAX_PARAMETER_BYTES = 8_000
PARAMETER_SECTIONS = {
    "training": ("data", "expectations", "features", "train", "evaluate", "package"),
    "scoring": ("data", "features"),
    "monitoring": ("data", "monitor", "evaluate"),
}
"""Sections that are parameters of a pipeline: a run may override their keys."""


class Case(BaseModel):
    """A use case with everything that a pipeline carries of its folder."""

    model_config = ConfigDict(frozen=True)

    use_case: UseCase
    sql: dict[str, str]
    suite: dict[str, Any]


def read_case(repo: Path, name: str) -> Case:
    """Read one folder of the feature repository.

    Raises ConfigError for a wrong file and for anything too large to travel as a pipeline parameter.
    """
    folder = repo / name
    use_case = load_use_case(folder)
    case = Case(use_case=use_case, sql=load_sql(folder, use_case), suite=load_suite(folder))
    parts = {"tables/*.sql": case.sql, "expectations.json": case.suite}
    parts |= {
        f"section {key}": value for key, value in use_case.model_dump(mode="json").items() if isinstance(value, dict)
    }
    for what, value in parts.items():
        size = len(canonical_json(value).encode())
        if size > MAX_PARAMETER_BYTES:
            raise ConfigError(
                f"{folder}: {what} is too large to travel as a pipeline parameter",
                measured=f"{size} bytes",
                allowed=f"{MAX_PARAMETER_BYTES} bytes",
                next_step="move shared SQL into a view, or shorten it",
            )
    return case


def override(case: Case, pairs: tuple[str, ...], as_of: str | None, *, pipeline: str = "training") -> dict[str, Any]:
    """Turn `section.key=value` pairs, with YAML values, into whole parameters of a pipeline.

    Raises ConfigError for what is no pair, an unknown section or key, and a value that the section refuses.
    """
    sections = {
        name: getattr(case.use_case, name).model_dump(mode="json", exclude_none=True)
        for name in PARAMETER_SECTIONS[pipeline]
    }
    arguments = change_sections(sections, pairs)
    if as_of is not None:
        parse_instant(as_of, what="--as-of")
        arguments["as_of"] = as_of
    return arguments


def change_sections(sections: dict[str, dict[str, Any]], pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return those of some sections that `section.key=value` pairs, with YAML values, change; whole and checked.

    Raises ConfigError for what is no pair, an unknown section or key, and a value that the section refuses.
    """
    changed: dict[str, Any] = {}
    for pair in pairs:
        path, separator, text = pair.partition("=")
        section, *keys = path.split(".")
        if not separator or section not in sections or not keys:
            raise ConfigError(
                "not a parameter",
                measured=pair,
                allowed="SECTION.KEY=VALUE with SECTION of " + ", ".join(sections),
            )
        target = changed.setdefault(section, copy.deepcopy(sections[section]))
        for key in keys[:-1]:
            target = target.setdefault(key, {})
        target[keys[-1]] = yaml.safe_load(text)
    return {name: _checked(name, value) for name, value in changed.items()}


def _checked(name: str, section: dict[str, Any]) -> dict[str, Any]:
    model = cast("type[Section]", UseCase.model_fields[name].annotation)
    try:
        return model.model_validate(section).model_dump(mode="json", exclude_none=True)
    except ValidationError as error:
        raise ConfigError(f"--param: {explain(error, model, under=name)}") from error
