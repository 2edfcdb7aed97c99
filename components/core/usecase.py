"""The use case: one folder with `use_case.yaml`, `features.py`, `expectations.json` and `tables/*.sql`."""

import difflib
import json
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError

from components.core.errors import ConfigError
from components.core.sections import (
    Data,
    Evaluate,
    Expectations,
    Features,
    Monitor,
    Name,
    Package,
    Problem,
    Resources,
    Section,
    Train,
    Tune,
)


class UseCase(Section):
    """A validated use case; its sections travel as pipeline parameters."""

    name: Name
    title: str
    owner: str
    description: str = ""
    bootstrap_as_of: str = ""
    """Virtual instant of the first training; empty: now."""
    problem: Problem
    data: Data
    expectations: Expectations = Expectations()
    features: Features
    train: Train
    tune: Tune = Tune()
    evaluate: Evaluate = Evaluate()
    package: Package = Package()
    monitor: Monitor = Monitor()
    resources: dict[str, Resources] = Field(default={})
    """Step name to what it asks the cluster for."""

    @property
    def tables(self) -> list[str]:
        """Names of all SQL files: intermediate views, feature tables and the prediction table."""
        return sorted({*self.data.views, *self.data.tables, self.problem.table})


def load_use_case(folder: Path) -> UseCase:
    """Read and validate `use_case.yaml` of a folder.

    Raises ConfigError naming each wrong key's path and the nearest valid key.
    """
    path = folder / "use_case.yaml"
    if not path.is_file():
        raise ConfigError(
            "no such use case",
            measured=str(path),
            allowed=", ".join(list_use_cases(folder.parent)) or "a folder with use_case.yaml",
            next_step="check the name or run `driftline new NAME`",
        )
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML", measured=str(error)) from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must be a mapping", measured=type(raw).__name__, allowed="mapping")
    try:
        use_case = UseCase.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path} is not a valid use case: {explain(error, UseCase)}") from error
    if use_case.name != folder.name:
        raise ConfigError(f"{path}: name must equal its folder", measured=use_case.name, allowed=folder.name)
    return use_case


def list_use_cases(repo: Path) -> list[str]:
    """Return the names of all folders below `repo` that hold a use case."""
    return sorted(p.parent.name for p in repo.glob("*/use_case.yaml"))


def load_suite(folder: Path) -> dict[str, Any]:
    """Read the expectation suite of a use case."""
    path = folder / "expectations.json"
    try:
        suite = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing", next_step="add a Great Expectations suite per table") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not valid JSON", measured=str(error)) from error
    if not isinstance(suite, dict):
        raise ConfigError(f"{path} must map a table to a list of expectations", measured=type(suite).__name__)
    return suite


def load_sql(folder: Path, use_case: UseCase) -> dict[str, str]:
    """Read `tables/<name>.sql` for every table of a use case.

    Raises ConfigError for a missing file and for a file that no table declares.
    """
    present = {p.stem: p for p in (folder / "tables").glob("*.sql")}
    missing = [name for name in use_case.tables if name not in present]
    unknown = sorted(set(present) - set(use_case.tables))
    if missing or unknown:
        raise ConfigError(
            f"{folder / 'tables'} does not match data.views, data.tables and problem.table",
            measured=f"missing {missing}, undeclared {unknown}",
            allowed=", ".join(use_case.tables),
            next_step="add the SQL file or declare the table in use_case.yaml",
        )
    return {name: present[name].read_text(encoding="utf-8") for name in use_case.tables}


def explain(error: ValidationError, model: type[BaseModel], *, under: str = "") -> str:
    """Turn a pydantic error into one line per problem: path, reason, nearest valid key; `under` is where `model` is."""
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        location = [str(part) for part in problem["loc"]]
        message = problem["msg"]
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(location[-1], _keys(model, location[:-1]), n=1, cutoff=0.5)
            message = "unknown key" + (f", did you mean {near[0]!r}?" if near else "")
        lines.append(f"{'.'.join([under, *location] if under else location)}: {message}")
    return "; ".join(lines)


def _keys(model: type[BaseModel], location: list[str]) -> list[str]:
    """Return the valid keys of the model that a location leads to."""
    found: list[type[BaseModel]] = [model]
    for part in location:
        inner: list[type[BaseModel]] = []
        for candidate in found:
            field = candidate.model_fields.get(part)
            if field is not None:
                inner += _models(field.annotation)
        # A mapping's own key or a union's tag is no field: stay with the models at hand.
        found = inner or found
    return [key for candidate in found for key in candidate.model_fields]


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]
