"""Finding use cases and turning one into a pipeline."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from components.core.digests import canonical_json
from components.core.errors import ConfigError
from components.core.usecase import UseCase, load_sql, load_suite, load_use_case

MAX_PARAMETER_BYTES = 8_000


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


def overridable(case: Case) -> dict[str, dict[str, Any]]:
    """Return the pipeline parameters that are sections, with their defaults."""
    use_case = case.use_case
    sections = {
        "data": use_case.data,
        "expectations": use_case.expectations,
        "features": use_case.features,
        "train": use_case.train,
        "evaluate": use_case.evaluate,
        "package": use_case.package,
    }
    return {name: model.model_dump(mode="json", exclude_none=True) for name, model in sections.items()}
